"""Log lines that were translated, explained or copied: what a machine reads in them is intact."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field

from gatebook.judge.checks.registry import Params, check, each_text
from gatebook.judge.evidence import Evidence
from gatebook.judge.finding import Result, Stage

LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "WARNING", "ERROR", "FATAL", "CRITICAL")
FIXED = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?"  # a stamp
    r"|\[[A-Za-z][\w.-]*\]"  # [PaymentService]
    r"|[A-Za-z0-9](?:[\w.:/=-]*[A-Za-z0-9])?",  # any word; kept when it has a digit: E1042, order_id=88213, 10.0.0.7
    re.ASCII,
)


class Log(Params):
    log: Annotated[str, Field(min_length=1)]
    """The lines as they were given, one log line a line."""


def fixed(line: str) -> list[str]:
    """Time stamps, levels, bracketed sources, and words with a digit in them, in order."""
    return [part for part in FIXED.findall(line) if re.search(r"\d", part) or part[0] == "[" or part in LEVELS]


def _has_parts(_: Any, params: Log) -> str | None:
    empty = next((line for line in params.log.splitlines() if line.strip() and not fixed(line)), None)
    return f"line {empty!r} has no stamp, level or code to keep" if empty else None


@check("lines_kept", Log, _has_parts, stage=Stage.BEHAVIOUR)
def lines_kept(evidence: Evidence, params: Log) -> Result:
    """For each log line, one line of the answer has its stamp, level, source and codes, unchanged and in order (K6)."""
    given = [line for line in params.log.splitlines() if line.strip()]

    def judge(text: str) -> Result:
        answered = text.splitlines()
        lost = [(number, said) for number, line in enumerate(given, 1) if (said := _lost(fixed(line), answered))]
        kept = len(given) - len(lost)
        if lost:
            told = "; ".join(f"line {number}: {said}" for number, said in lost[:3])
            return Result("fail", f"{len(lost)} of {len(given)} log lines changed: {told}", kept, len(given), "lines")
        return Result("pass", f"all {len(given)} log lines keep stamps and codes", kept, len(given), "lines")

    return each_text(evidence, judge)


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


def _whole(part: str) -> re.Pattern[str]:
    """Not inside a longer word or number: 8821 is not in 88213."""
    return re.compile(rf"(?<![A-Za-z0-9_]){re.escape(part)}(?![A-Za-z0-9_])")
