"""Two runs beside each other: in a terminal, and as a page with both answers of every case that changed."""

from __future__ import annotations

from dataclasses import dataclass

from gatebook.checks.stats import ALPHA
from gatebook.config.cases import Case
from gatebook.report.conversation import Request, conversation
from gatebook.report.pages import fitting
from gatebook.report.standing import standings
from gatebook.report.terminal import STYLE, Cell, print_table, say
from gatebook.report.text import render
from gatebook.verdict.comparing import Difference, GroupDifference, Judged, LatencyDifference, Word

WORDS: dict[Word, str] = {"worse": "FAIL", "error": "ERROR", "cannot tell": "INCONCLUSIVE", "better": "PASS", "same": "PASS", "watched": ""}  # fmt: skip
"""A word -> the verdict word with whose sign and colour it is shown."""
TERMINAL_CASES, TERMINAL_CHARS = 12, 240
SIDES = ("first ", "second")


@dataclass(frozen=True)
class Changed:
    """One case that passed in one run and failed in the other, with what both answered."""

    case: Case
    group: str
    what: str
    sides: list[tuple[list[Request], str]]
    """Of each run: what was said, and why it failed."""


def comparison_page(difference: Difference, first: Judged, second: Judged) -> str:
    """One page, no script, under 500 KB: excerpts get shorter until it fits."""
    return fitting(
        lambda detail: render(
            "compare.html.j2", d=difference, a=first, b=second, detail=detail, words=WORDS, alpha=ALPHA, rate=rate, latency=latency,
            changed=changes(difference, first, second, detail.text_chars)[: detail.cases],
        )
    )  # fmt: skip


def changes(difference: Difference, first: Judged, second: Judged, chars: int) -> list[Changed]:
    """Every changed case with both conversations, newly failing ones first."""
    runs = [{c.id: c for c in standings(j.run, j.verdict)} for j in (first, second)]

    def side(run: int, case: str, group: str) -> tuple[list[Request], str]:
        stands = runs[run][case]
        reasons = dict.fromkeys(f.reason for f in stands.red if f.group == group)
        return conversation(stands, chars), "; ".join(reasons) or "passed"

    return [
        Changed(second.run.cases[case], group, what, [side(0, case, group), side(1, case, group)])
        for case, group, what in difference.changed
    ]


def rate(group: GroupDifference) -> tuple[str, str]:
    """The change of the pass rate, and its interval, in percentage points."""
    if group.interval is None:
        return "", ""
    change = (group.passed[1] - group.passed[0]) / group.comparison.paired
    return f"{change * 100:+.1f}", f"{group.interval[0] * 100:+.1f} to {group.interval[1] * 100:+.1f}"


def latency(row: LatencyDifference) -> tuple[str, str]:
    """Both medians, and the shift with its interval; or why they are not compared."""
    if row.medians is None or row.shift is None:
        return "not compared", row.not_compared
    a, b = row.medians
    shift, low, high = row.shift
    return f"{a:.1f} ms, {b:.1f} ms", f"{shift:+.1f} ms ({low:+.1f} to {high:+.1f})"


def show(difference: Difference, first: Judged, second: Judged) -> None:
    """The groups, what changed with both answers, what could not be paired, latencies, and a last line that decides."""
    for name, verdict in zip(SIDES, (first.verdict, second.verdict), strict=True):
        served = verdict.served
        say(f"{name}  {verdict.run}  {served.model}  revision {served.revision or 'none named'}  {served.base_url}  {verdict.called}")  # fmt: skip
    columns = ("group", "policy", "first", "second", "change, points", "95 %", "p", "", "because")
    rows: list[tuple[Cell, ...]] = []
    for g in difference.groups:
        passed, word = [f"{n}/{g.comparison.paired}" for n in g.passed], (g.word, STYLE[WORDS[g.word]])
        rows.append((g.group, g.policy, *passed, *rate(g), f"{g.comparison.p_value:.3g}", word, g.reason))
    print_table(columns, rows)
    for changed in changes(difference, first, second, TERMINAL_CHARS)[:TERMINAL_CASES]:
        _show_changed(changed)
    if len(difference.changed) > TERMINAL_CASES:
        print(f"\nand {len(difference.changed) - TERMINAL_CASES} more cases changed; --html FILE shows all")
    if difference.unpaired:
        print(f"\nnot paired ({len(difference.unpaired)}):")
        for one in difference.unpaired[:TERMINAL_CASES]:
            say(f"  {one.case} ({one.group}): {one.why}")
    print("\nlatency (asked at different times: shown, never decides)")
    for row in difference.latencies:
        say(f"  {row.name}: {'; '.join(latency(row))}")
    say(difference.word.upper(), STYLE[WORDS[difference.word]], (f"  {difference.reason}", ""))


def _show_changed(changed: Changed) -> None:
    """Why and what both answered: the first requests with another answer, else the first request."""
    print()
    say(f"{changed.what}: {changed.case.id}  ({changed.group})", "bold")
    before, after = ({r.name: _said(r) for r in requests} for requests, _ in changed.sides)
    other = [name for name in after if after[name] != before.get(name)][:3]
    for name, (requests, reason) in zip(SIDES, changed.sides, strict=True):
        say(f"  {name}  {reason}", "dim")
        for request in [r for r in requests if r.name in other] or requests[:1]:
            said = f"{request.name}: {_said(request)}" if request.name else _said(request)
            say(f"          {said[:TERMINAL_CHARS]}")


def _said(request: Request) -> str:
    """What was answered, in one line."""
    return " ".join(" / ".join(turn.text for turn in request.turns if turn.kind != "prompt").split()) or "(nothing)"
