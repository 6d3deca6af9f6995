"""Two runs beside each other: in a terminal, and as a page with both answers of every case that changed."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gatebook.checks.stats import ALPHA
from gatebook.errors import one_line
from gatebook.report.conversation import Request, conversation
from gatebook.report.pages import Detail, fitting, render
from gatebook.report.standing import CaseStanding, standings
from gatebook.report.text import excerpt, visible
from gatebook.verdict.comparing import Difference, GroupDifference, Judged, LatencyDifference, Word

STYLE: dict[Word, str] = {"worse": "FAIL", "error": "ERROR", "cannot tell": "INCONCLUSIVE", "better": "PASS", "same": "PASS", "watched": ""}  # fmt: skip
"""A word -> the verdict word with whose sign and colour it is shown."""
TERMINAL = {"FAIL": "bold red", "ERROR": "bold yellow", "INCONCLUSIVE": "bold magenta", "PASS": "bold green", "": "dim"}
MEANS: dict[Word, str] = {
    "worse": "The second run is shown worse than the first: more cases newly fail than chance explains, or one that must pass.",
    "error": "One of the runs could not be measured, so nothing can be said. Trying again may help.",
    "cannot tell": "Nothing is shown worse, but something could not be compared or there are too few cases to show a drop.",
    "better": "Nothing is shown worse, and something is shown better.",
    "same": "Nothing is shown worse, and a drop would have been seen.",
}
TERMINAL_CASES = 12
TERMINAL_CHARS = 240


@dataclass(frozen=True)
class Changed:
    """One case that passed in one run and failed in the other, with what both answered."""

    id: str
    group: str
    what: str
    why: str
    sides: tuple[list[Request], list[Request]]
    reasons: tuple[str, str]


def comparison_page(difference: Difference, first: Judged, second: Judged) -> str:
    """One page, no script, under 500 KB: excerpts get shorter until it fits."""

    def page(detail: Detail) -> str:
        return render(
            "compare.html.j2", d=difference, a=first, b=second, detail=detail, style=STYLE, means=MEANS[difference.word], alpha=ALPHA,
            rate=rate, latency=latency, changed=changes(difference, first, second, detail.text_chars)[: detail.cases],
        )  # fmt: skip

    return fitting(page)


def changes(difference: Difference, first: Judged, second: Judged, chars: int) -> list[Changed]:
    """Every changed case with both conversations, newly failing ones first."""
    before, after = _standings(first), _standings(second)
    return [
        Changed(
            case, group, what, second.run.cases[case].why,
            (conversation(before[case], chars), conversation(after[case], chars)), (_reason(before[case], group), _reason(after[case], group)),
        )
        for case, group, what in difference.changed
    ]  # fmt: skip


def _standings(judged: Judged) -> dict[str, CaseStanding]:
    return {c.id: c for notebook in judged.run.notebooks for c in standings(judged.run, judged.verdict, notebook)}


def _reason(case: CaseStanding, group: str) -> str:
    return "; ".join(dict.fromkeys(f.reason for f in case.red if f.group == group)) or "passed"


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
    console = Console(soft_wrap=True, highlight=False)
    for name, side in (("first ", first), ("second", second)):
        served, verdict = side.verdict.served, side.verdict
        console.print(Text(one_line(f"{name}  {verdict.run}  {served.model}  revision {served.revision or 'none named'}  {served.base_url}  {verdict.verdict}{' PARTIAL' if verdict.partial else ''}")))  # fmt: skip
    Console(highlight=False, width=None if console.is_terminal else 160).print(_groups(difference))
    for changed in changes(difference, first, second, TERMINAL_CHARS)[:TERMINAL_CASES]:
        console.print(Text("\n" + one_line(f"{changed.what}: {changed.id}  ({changed.group})"), "bold"))
        answers = [{request.name: _said(request) for request in side} for side in changed.sides]
        other = [name for name in answers[1] if answers[1][name] != answers[0].get(name)][:3]
        for name, requests, reason in zip(("first ", "second"), changed.sides, changed.reasons, strict=True):
            console.print(Text(f"  {name}  {one_line(reason)}", "dim"))
            for request in [r for r in requests if r.name in other] or requests[:1]:
                told = f"{request.name}: {_said(request)}" if request.name else _said(request)
                console.print(Text(f"          {visible(excerpt(told, TERMINAL_CHARS)[0])}"))
    if len(difference.changed) > TERMINAL_CASES:
        console.print(f"\nand {len(difference.changed) - TERMINAL_CASES} more cases changed; --html FILE shows all")
    if difference.unpaired:
        console.print(f"\nnot paired ({len(difference.unpaired)}):")
        for one in difference.unpaired[:TERMINAL_CASES]:
            console.print(Text(one_line(f"  {one.case} ({one.group}): {one.why}")))
    console.print("\nlatency (asked at different times: shown, never decides)")
    for row in difference.latencies:
        medians, shift = latency(row)
        console.print(Text(one_line(f"  {row.name}: {medians}; {shift}")))
    word = Text(difference.word.upper(), TERMINAL[STYLE[difference.word]])
    console.print(word.append(f"  {one_line(difference.reason)}", "default not bold"))


def _said(request: Request) -> str:
    """What was answered, in one line."""
    return " ".join(" / ".join(turn.text for turn in request.turns if turn.kind != "prompt").split()) or "(nothing)"


def _groups(difference: Difference) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("group", "policy", "first", "second", "change, points", "95 %", "p", "", "because"):
        table.add_column(name, overflow="fold", no_wrap=name != "because")
    for g in difference.groups:
        change, interval = rate(g)
        of = f"/{g.comparison.paired}"
        table.add_row(
            Text(one_line(g.group)), g.policy, f"{g.passed[0]}{of}", f"{g.passed[1]}{of}", change, interval, f"{g.comparison.p_value:.3g}",
            Text(g.word, TERMINAL[STYLE[g.word]]), Text(one_line(g.reason)),
        )  # fmt: skip
    return table
