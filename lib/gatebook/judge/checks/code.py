"""Code in an answer: its names, its string literals and its syntax tree are kept."""

from __future__ import annotations

import ast
import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from gatebook.judge import code as python
from gatebook.judge.checks.registry import Params, Words, check, each_text
from gatebook.judge.evidence import Evidence
from gatebook.judge.finding import Result, Stage


def _parses(code: str) -> str:
    tree = python.parse(code)
    if isinstance(tree, str):
        raise ValueError(f"is no Python ({tree})")
    return code


Code = Annotated[str, Field(min_length=1)]
Module = Annotated[Code, AfterValidator(_parses)]


class Source(Params):
    """The code that was given; a signature alone will do."""

    code: Code


class Parsed(Params):
    """The code that was given; it must parse."""

    code: Module


class Tree(Parsed):
    docstrings: bool = False
    """Added, changed or removed docstrings are tolerated."""


def _has_names(_: Any, params: Source | list[str]) -> str | None:
    empty = isinstance(params, Source) and not python.identifiers(params.code)
    return "the code has no identifier of its own, so nothing would be judged" if empty else None


@check("identifiers_kept", Source | Words, _has_names, stage=Stage.BEHAVIOUR)
def identifiers_kept(evidence: Evidence, params: Source | list[str]) -> Result:
    """Every identifier stands in the answer as a whole word in the same case (K1 of research/science.md §4)."""
    names = python.identifiers(params.code) if isinstance(params, Source) else params

    def judge(text: str) -> Result:
        missing = [name for name in names if not _whole(name).search(text)]
        if not missing:
            return Result("pass", f"all {len(names)} identifiers there", len(names), len(names), "identifiers")
        written = {_plain(word): word for word in re.findall(r"[A-Za-z_]\w*", text, re.ASCII)}
        told = ", ".join(f"{m} (written {written[_plain(m)]})" if _plain(m) in written else m for m in missing)
        reason = f"{len(missing)} of {len(names)} identifiers missing: {told}"
        return Result("fail", reason, len(names) - len(missing), len(names), "identifiers")

    return each_text(evidence, judge)


def _whole(name: str) -> re.Pattern[str]:
    """Not inside a longer name. Chinese letters may touch it, so \\b will not do."""
    return re.compile(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])")


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _literals(code: str) -> list[str]:
    tree = python.parse(code)
    return [] if isinstance(tree, str) else list(dict.fromkeys(python.literals(tree)))


def _has_literals(_: Any, params: Parsed | list[str]) -> str | None:
    empty = isinstance(params, Parsed) and not _literals(params.code)
    return "the code has no string literal, so nothing would be judged" if empty else None


@check("literals_kept", Parsed | Words, _has_literals, stage=Stage.BEHAVIOUR)
def literals_kept(evidence: Evidence, params: Parsed | list[str]) -> Result:
    """Every string literal stands in the answer's code, character by character; other quotes around it do no harm (K2)."""
    wanted = _literals(params.code) if isinstance(params, Parsed) else params

    def judge(text: str) -> Result:
        trees = [python.parse(block) for block in python.blocks(text)]
        found = {literal for tree in trees if not isinstance(tree, str) for literal in python.literals(tree)}
        quoted = {inner for _, inner in re.findall(r"([\"'])((?:(?!\1)[^\\\n])*)\1", text)}
        missing = [repr(literal) for literal in wanted if literal not in found | quoted]
        kept = len(wanted) - len(missing)
        if missing:
            reason = f"{len(missing)} of {len(wanted)} string literals missing or changed: {', '.join(missing)}"
            return Result("fail", reason, kept, len(wanted), "literals")
        return Result("pass", f"all {len(wanted)} string literals there", kept, len(wanted), "literals")

    return each_text(evidence, judge)


@check("same_syntax_tree", Tree, stage=Stage.BEHAVIOUR)
def same_syntax_tree(evidence: Evidence, params: Tree) -> Result:
    """A code block of the answer parses to the syntax tree of the given code; comments and layout are free (K3)."""

    def tree_of(code: str) -> ast.Module | str:
        tree = python.parse(code)
        return python.bare(tree) if params.docstrings and isinstance(tree, ast.Module) else tree

    def judge(text: str) -> Result:
        wanted, found = tree_of(params.code), [tree_of(block) for block in python.blocks(text)]
        trees = [tree for tree in found if isinstance(tree, ast.Module)]
        if not trees or not isinstance(wanted, ast.Module):
            return Result("fail", f"the code does not parse: {found[0]}", "no Python", "Python")
        if any(ast.dump(tree) == ast.dump(wanted) for tree in trees):
            return Result("pass", "the syntax tree is the same", "same", "same")
        longest = max(trees, key=lambda tree: len(tree.body))
        return Result("fail", f"the code changed: {python.difference(wanted, longest)}", "changed", "same")

    return each_text(evidence, judge)
