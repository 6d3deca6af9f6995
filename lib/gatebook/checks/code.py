"""Code and log lines in an answer: names, string literals, syntax tree, stamps and codes are kept."""

from __future__ import annotations

import ast
import re
from typing import Annotated

from pydantic import AfterValidator, Field

from gatebook.checks import python
from gatebook.checks.finding import Result, Stage
from gatebook.checks.registry import Text, Words, check
from gatebook.config.cases import Case
from gatebook.config.files import Strict

LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "WARNING", "ERROR", "FATAL", "CRITICAL")
FIXED = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?"  # a stamp
    r"|\[[A-Za-z][\w.-]*\]"  # [PaymentService]
    r"|[A-Za-z0-9](?:[\w.:/=-]*[A-Za-z0-9])?",  # any word; kept when it has a digit: E1042, order_id=88213, 10.0.0.7
    re.ASCII,
)


def _parses(code: str) -> str:
    tree = python.parse(code)
    if isinstance(tree, str):
        raise ValueError(f"is no Python ({tree})")
    return code


Module = Annotated[Text, AfterValidator(_parses)]


class Source(Strict):
    code: Annotated[Text, Field(description="As it was given; a signature alone will do.")]


class Parsed(Strict):
    code: Annotated[Module, Field(description="As it was given; it must parse.")]


def _has_names(case: Case, names: Source | list[str]) -> str | None:
    return None if _identifiers(names) else "the code has no identifier of its own, so nothing would be judged"


def _identifiers(names: Source | list[str]) -> list[str]:
    return python.identifiers(names.code) if isinstance(names, Source) else names


@check(Stage.BEHAVIOUR, _has_names)
def identifiers_kept(text: str, names: Source | Words) -> Result:
    """Every identifier stands in the answer as a whole word in the same case (K1 of research/science.md §4)."""
    wanted = _identifiers(names)
    missing, total = [name for name in wanted if not _whole(name).search(text)], len(wanted)
    if not missing:
        return Result("pass", f"all {total} identifiers there", total, total, "identifiers")
    written = {_plain(word): word for word in re.findall(r"[A-Za-z_]\w*", text, re.ASCII)}
    told = ", ".join(f"{m} (written {written[_plain(m)]})" if _plain(m) in written else m for m in missing)
    reason = f"{len(missing)} of {total} identifiers missing: {told}"
    return Result("fail", reason, total - len(missing), total, "identifiers")


def _whole(part: str) -> re.Pattern[str]:
    """Not inside a longer word or number: 8821 is not in 88213. Chinese letters may touch it, so \\b will not do."""
    return re.compile(rf"(?<![A-Za-z0-9_]){re.escape(part)}(?![A-Za-z0-9_])")


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _has_literals(case: Case, literals: Parsed | list[str]) -> str | None:
    return None if _literals(literals) else "the code has no string literal, so nothing would be judged"


def _literals(literals: Parsed | list[str]) -> list[str]:
    if not isinstance(literals, Parsed):
        return literals
    tree = python.parse(literals.code)
    return [] if isinstance(tree, str) else list(dict.fromkeys(python.literals(tree)))


@check(Stage.BEHAVIOUR, _has_literals)
def literals_kept(text: str, literals: Parsed | Words) -> Result:
    """Every string literal stands in the answer's code, character by character; other quotes around it do no harm (K2)."""
    wanted, trees = _literals(literals), [python.parse(block) for block in python.blocks(text)]
    found = {literal for tree in trees if isinstance(tree, ast.Module) for literal in python.literals(tree)}
    found |= {inner for _, inner in re.findall(r"([\"'])((?:(?!\1)[^\\\n])*)\1", text)}
    missing, total = [repr(literal) for literal in wanted if literal not in found], len(wanted)
    if missing:
        reason = f"{len(missing)} of {total} string literals missing or changed: {', '.join(missing)}"
        return Result("fail", reason, total - len(missing), total, "literals")
    return Result("pass", f"all {total} string literals there", total, total, "literals")


Docstrings = Annotated[bool, Field(description="Added, changed or removed docstrings are tolerated.")]


@check(Stage.BEHAVIOUR)
def same_syntax_tree(text: str, *, code: Module, docstrings: Docstrings = False) -> Result:
    """A code block of the answer parses to the syntax tree of the given code; comments and layout are free (K3)."""
    wanted, *found = [python.parse(source) for source in (code, *python.blocks(text))]
    trees = [tree for tree in found if isinstance(tree, ast.Module)]
    if not trees or not isinstance(wanted, ast.Module):
        return Result("fail", f"the code does not parse: {found[0]}", "no Python", "Python")
    if docstrings:
        wanted, trees = python.bare(wanted), [python.bare(tree) for tree in trees]
    if any(ast.dump(tree) == ast.dump(wanted) for tree in trees):
        return Result("pass", "the syntax tree is the same", "same", "same")
    longest = max(trees, key=lambda tree: len(tree.body))
    return Result("fail", f"the code changed: {python.difference(wanted, longest)}", "changed", "same")


def _has_parts(case: Case, log: str) -> str | None:
    empty = next((line for line in log.splitlines() if line.strip() and not fixed(line)), None)
    return f"line {empty!r} has no stamp, level or code to keep" if empty else None


@check(Stage.BEHAVIOUR, _has_parts)
def lines_kept(text: str, *, log: Annotated[Text, Field(description="The lines as they were given.")]) -> Result:
    """For each log line, one line of the answer has its stamp, level, source and codes, unchanged and in order (K6)."""
    given, answered = [line for line in log.splitlines() if line.strip()], text.splitlines()
    lost = [(number, said) for number, line in enumerate(given, 1) if (said := _lost(fixed(line), answered))]
    total = len(given)
    if lost:
        told = "; ".join(f"line {number}: {said}" for number, said in lost[:3])
        return Result("fail", f"{len(lost)} of {total} log lines changed: {told}", total - len(lost), total, "lines")
    return Result("pass", f"all {total} log lines keep stamps and codes", total, total, "lines")


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
