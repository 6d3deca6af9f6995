"""Code and log lines in an answer: names, string literals, syntax tree, stamps and codes are kept. No code is ever run."""

from __future__ import annotations

import ast
import builtins
import io
import keyword
import re
import tokenize
import warnings
from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator, Field

from gatebook.checks.finding import Result, Stage
from gatebook.checks.registry import Text, Words, check
from gatebook.config.cases import Case
from gatebook.config.files import Strict

FENCED = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n]*\n(.*?)(?:^[ \t]*\1|\Z)", re.DOTALL | re.MULTILINE)
COMMON = {*keyword.kwlist, *keyword.softkwlist, *dir(builtins), "self", "cls"}
LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "WARNING", "ERROR", "FATAL", "CRITICAL")
FIXED = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?"  # a stamp
    r"|\[[A-Za-z][\w.-]*\]"  # [PaymentService]
    r"|[A-Za-z0-9](?:[\w.:/=-]*[A-Za-z0-9])?",  # any word; kept when it has a digit: E1042, order_id=88213, 10.0.0.7
    re.ASCII,
)
Documented = ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


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


def _tokens(code: str, kind: int) -> Iterator[str]:
    """As many as can be read: a signature alone ends in an error and still has names."""
    try:
        yield from (t.string for t in tokenize.generate_tokens(io.StringIO(code).readline) if t.type == kind)
    except (tokenize.TokenError, SyntaxError, ValueError):
        return


def identifiers(code: str) -> list[str]:
    """Names that the code gives or uses, in order; no keywords, no builtins, no `self`."""
    return [name for name in dict.fromkeys(_tokens(code, tokenize.NAME)) if name not in COMMON]


def comments(code: str) -> list[str]:
    """The comments, without `#`."""
    return [comment.lstrip("#").strip() for comment in _tokens(code, tokenize.COMMENT)]


def string_literals(code: str) -> list[str]:
    """The string literals in order, an f-string by its fixed parts; no docstrings; none of what does not parse."""
    tree = parse(code)
    nodes = [] if isinstance(tree, str) else ast.walk(_bare(tree))
    found = (n for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str))
    return [str(n.value) for n in sorted(found, key=lambda n: (n.lineno, n.col_offset))]


def _bare(tree: ast.Module) -> ast.Module:
    """The tree without docstrings; the tree itself is changed."""
    for node in ast.walk(tree):
        if isinstance(node, Documented) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def _difference(wanted: ast.Module, got: ast.Module) -> str:
    """The first line where two trees part, in canonical code."""
    try:
        before, after = ([*ast.unparse(ast.fix_missing_locations(t)).splitlines(), "(the end)"] for t in (wanted, got))
    except (RecursionError, ValueError):
        return "its syntax tree is another one"
    pairs = zip(before, after, strict=False)
    old, new = next(((a, b) for a, b in pairs if a != b), ("(the end)", "(the end)"))
    return f"{old.strip()!r} became {new.strip()!r}"


def _is_python(code: str) -> str:
    if isinstance(said := parse(code), str):
        raise ValueError(f"is no Python ({said})")
    return code


Module = Annotated[Text, AfterValidator(_is_python)]


class Source(Strict):
    code: Annotated[Text, Field(description="As it was given; a signature alone will do.")]


class Parsed(Strict):
    code: Annotated[Module, Field(description="As it was given; it must parse.")]


def _wanted(given: Source | Parsed | list[str]) -> list[str]:
    """The identifiers, or the string literals, that an answer must keep."""
    if isinstance(given, Source):
        return identifiers(given.code)
    return list(dict.fromkeys(string_literals(given.code))) if isinstance(given, Parsed) else given


def _lacks(what: str, given: Source | Parsed | list[str]) -> str | None:
    return None if _wanted(given) else f"the code has no {what}, so nothing would be judged"


@check(Stage.BEHAVIOUR, lambda case, names: _lacks("identifier of its own", names))
def identifiers_kept(text: str, names: Source | Words) -> Result:
    """Every identifier stands in the answer as a whole word in the same case (K1 of research/science.md §4)."""
    wanted, written = _wanted(names), {_plain(word): word for word in re.findall(r"[A-Za-z_]\w*", text, re.ASCII)}
    missing = [name for name in wanted if not _whole(name).search(text)]
    lost = [f"{m} (written {written[_plain(m)]})" if _plain(m) in written else m for m in missing]
    return Result.of_parts(lost, len(wanted), "identifiers", "identifiers there", "identifiers missing")


def _whole(part: str) -> re.Pattern[str]:
    """Not inside a longer word or number: 8821 is not in 88213. Chinese letters may touch it, so \\b will not do."""
    return re.compile(rf"(?<![A-Za-z0-9_]){re.escape(part)}(?![A-Za-z0-9_])")


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


@check(Stage.BEHAVIOUR, lambda case, literals: _lacks("string literal", literals))
def literals_kept(text: str, literals: Parsed | Words) -> Result:
    """Every string literal stands in the answer's code, character by character; other quotes around it do no harm (K2)."""
    wanted, found = _wanted(literals), {literal for block in blocks(text) for literal in string_literals(block)}
    found |= {inner for _, inner in re.findall(r"([\"'])((?:(?!\1)[^\\\n])*)\1", text)}
    lost = [repr(literal) for literal in wanted if literal not in found]
    there, missing = "string literals there", "string literals missing or changed"
    return Result.of_parts(lost, len(wanted), "literals", there, missing)


Docstrings = Annotated[bool, Field(description="Added, changed or removed docstrings are tolerated.")]


@check(Stage.BEHAVIOUR)
def same_syntax_tree(text: str, *, code: Module, docstrings: Docstrings = False) -> Result:
    """A code block of the answer parses to the syntax tree of the given code; comments and layout are free (K3)."""
    wanted, *found = [parse(source) for source in (code, *blocks(text))]
    trees = [tree for tree in found if isinstance(tree, ast.Module)]
    if not trees or not isinstance(wanted, ast.Module):
        return Result("fail", f"the code does not parse: {found[0]}", "no Python", "Python")
    if docstrings:
        wanted, *trees = map(_bare, (wanted, *trees))
    if any(ast.dump(tree) == ast.dump(wanted) for tree in trees):
        return Result("pass", "the syntax tree is the same", "same", "same")
    longest = max(trees, key=lambda tree: len(tree.body))
    return Result("fail", f"the code changed: {_difference(wanted, longest)}", "changed", "same")


def _has_parts(case: Case, log: str) -> str | None:
    empty = next((line for line in log.splitlines() if line.strip() and not fixed(line)), None)
    return f"line {empty!r} has no stamp, level or code to keep" if empty else None


@check(Stage.BEHAVIOUR, _has_parts)
def lines_kept(text: str, *, log: Annotated[Text, Field(description="The lines as they were given.")]) -> Result:
    """For each log line, one line of the answer has its stamp, level, source and codes, unchanged and in order (K6)."""
    given, answered = [line for line in log.splitlines() if line.strip()], text.splitlines()
    lost = [f"line {n}: {said}" for n, line in enumerate(given, 1) if (said := _lost(fixed(line), answered))]
    total, reason = len(given), f"{len(lost)} of {len(given)} log lines changed: {'; '.join(lost[:3])}"
    reason = reason if lost else f"all {total} log lines keep stamps and codes"
    return Result.of(not lost, reason, total - len(lost), total, "lines")


def fixed(line: str) -> list[str]:
    """Time stamps, levels, bracketed sources, and words with a digit in them, in order."""
    return [part for part in FIXED.findall(line) if re.search(r"\d", part) or part[0] == "[" or part in LEVELS]


def _lost(parts: list[str], lines: list[str]) -> str | None:
    """What the best line of the answer lacks of one log line; None when a line has it all in order."""
    if any(_in_order(parts, line) for line in lines):
        return None
    missing = min(([p for p in parts if not _whole(p).search(line)] for line in lines or [""]), key=len)
    return f"{', '.join(missing)} missing" if missing else "stamp and codes stand in another order"


def _in_order(parts: list[str], line: str) -> bool:
    at = 0
    for part in parts:
        if not (found := _whole(part).search(line, at)):
            return False
        at = found.end()
    return True
