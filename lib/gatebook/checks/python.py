"""What can be read off a piece of Python without running it: its blocks, names, string literals, comments and tree."""

from __future__ import annotations

import ast
import builtins
import io
import keyword
import re
import tokenize
import warnings
from collections.abc import Iterator

FENCED = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n]*\n(.*?)(?:^[ \t]*\1|\Z)", re.DOTALL | re.MULTILINE)
COMMON = {*keyword.kwlist, *keyword.softkwlist, *dir(builtins), "self", "cls"}
HOLDERS = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
"""What can have a docstring."""


def blocks(text: str) -> list[str]:
    """The code blocks of an answer, an unclosed one to its end; the whole answer when it has none."""
    return [block for _, block in FENCED.findall(text)] or [text]


def parse(code: str) -> ast.Module | str:
    """The syntax tree, or why there is none. Model output never raises here, however deep or odd it is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape is the author's business
            tree = ast.parse(code)
        ast.dump(tree)  # a chain of thousands of operators parses and cannot be walked
        return tree
    except SyntaxError as error:
        return f"{error.msg} in line {error.lineno}"
    except (ValueError, RecursionError, MemoryError) as error:
        return str(error) or type(error).__name__


def _tokens(code: str) -> Iterator[tokenize.TokenInfo]:
    """As many as can be read: a signature alone ends in an error and still has names."""
    try:
        yield from tokenize.generate_tokens(io.StringIO(code).readline)
    except (tokenize.TokenError, SyntaxError, ValueError):
        return


def identifiers(code: str) -> list[str]:
    """Names that the code gives or uses, in order; no keywords, no builtins, no `self`."""
    names = (token.string for token in _tokens(code) if token.type == tokenize.NAME)
    return [name for name in dict.fromkeys(names) if name not in COMMON]


def comments(code: str) -> list[str]:
    """The comments, without `#`."""
    return [token.string.lstrip("#").strip() for token in _tokens(code) if token.type == tokenize.COMMENT]


def literals(tree: ast.Module) -> list[str]:
    """The string literals in order, an f-string by its fixed parts; no docstrings."""
    without = {id(node) for node in _docstrings(tree)}
    found = (n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str))
    return [str(n.value) for n in sorted(found, key=lambda n: (n.lineno, n.col_offset)) if id(n) not in without]


def bare(tree: ast.Module) -> ast.Module:
    """The tree without docstrings; the tree itself is changed."""
    for node in ast.walk(tree):
        if isinstance(node, HOLDERS) and _docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def difference(wanted: ast.Module, got: ast.Module) -> str:
    """The first line where two trees part, in canonical code."""
    try:
        before, after = ([*ast.unparse(ast.fix_missing_locations(t)).splitlines(), "(the end)"] for t in (wanted, got))
    except (RecursionError, ValueError):
        return "its syntax tree is another one"
    pairs = zip(before, after, strict=False)
    old, new = next(((a, b) for a, b in pairs if a != b), ("(the end)", "(the end)"))
    return f"{old.strip()!r} became {new.strip()!r}"


def _docstring(node: ast.AST) -> ast.Constant | None:
    body = getattr(node, "body", None)
    first = body[0] if isinstance(body, list) and body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return first.value
    return None


def _docstrings(tree: ast.Module) -> list[ast.Constant]:
    return [found for node in ast.walk(tree) if isinstance(node, HOLDERS) and (found := _docstring(node))]
