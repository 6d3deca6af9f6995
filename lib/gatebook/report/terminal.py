"""In a terminal: progress while a run asks; runs, comparisons and verifications as tables, and a last line that decides."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from shlex import quote

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gatebook.errors import one_line, visible
from gatebook.record.run import Run
from gatebook.report.conversation import Request
from gatebook.report.pages import WORDS, Changed, changes, facts, latency, rate
from gatebook.report.standing import by_todo, causes, excuses, spending_lines, unexplained
from gatebook.verdict.causes import refusals
from gatebook.verdict.comparing import Difference, Judged
from gatebook.verdict.findings import judge_notebook
from gatebook.verdict.verdict import Verdict, Verification

STYLE = {"PASS": "bold green", "FAIL": "bold red", "ERROR": "bold yellow", "INCONCLUSIVE": "bold magenta", "": "dim"}
CAUSES, REASON_CHARS = 6, 240
TERMINAL_CASES, TERMINAL_CHARS = 12, 240
SIDES = ("first ", "second")
Cell = str | tuple[str, str]
"""A text, or a text and its style."""


class Watcher(ExitStack):
    """Reads the growing record each second and shows cases done, failing and the time left; one line a notebook where
    there is no terminal."""

    def __init__(self, run: Run, watch: bool) -> None:
        super().__init__()
        self._run, self._notebook, self._since, console = run, "", time.monotonic(), Console(stderr=True)
        self._one_line_each = watch and not console.is_terminal
        if watch and console.is_terminal:
            live = Live(console=console, transient=True, refresh_per_second=1, get_renderable=self._line)
            self.enter_context(live)

    def now(self, notebook: str) -> None:
        """Begin another notebook."""
        self._notebook, self._since = notebook, time.monotonic()
        if self._one_line_each:
            count = len(self._run.expected(notebook))
            print(f"{notebook}{f': {count} cases' if count else ''}", file=sys.stderr, flush=True)

    def _line(self) -> Text:
        cases = self._run.expected(self._notebook)
        if not cases:
            return Text(f"  {self._notebook}: judging")
        try:
            findings = judge_notebook(self._run, self._notebook)
        except Exception:  # a line is being written; what else is wrong stands in the verdict
            return Text(f"  {self._notebook}")
        lost = {f.case for f in findings if f.check == "recorded"}
        done = sum(case.id not in lost for case in cases)
        failing = len({f.case for f in findings if f.outcome in ("fail", "error")} - lost - {f"{self._notebook}.ready"})
        spent = time.monotonic() - self._since
        left = f", about {spent / done * (len(cases) - done):.0f} s left" if done else ""
        return Text(f"  {self._notebook}: {done} of {len(cases)} cases, {failing} failing{left}")


def show(verdict: Verdict, run: Run) -> None:
    """The table of groups, why it is not green, what it cost, what to do next, and the last line."""
    path = run.path.relative_to(Path.cwd()) if run.path.is_relative_to(Path.cwd()) else run.path
    served, wrong = verdict.served, refusals(verdict)
    facts = f"  revision {served.revision or 'none named'}  ({served.engine} {served.version or ''})"
    say(f"{served.base_url}  ", "", (served.model, "bold"), (facts, ""))
    rows: list[tuple[Cell, ...]] = []
    for g in verdict.groups:
        watched = g.policy == "watch"
        word = ("watched" if watched else "not compared", "dim") if watched or g.blind else (g.word, STYLE[g.word])
        because = g.reason if len(g.reason) < REASON_CHARS else f"{g.reason[: REASON_CHARS - 3]}..."
        rows.append((g.group, g.policy, f"{g.passed}/{g.cases}", word, because))
    print_table(("group", "policy", "pass", "decision", "because"), rows)
    for excuse in excuses(verdict):
        say(f"excused: {excuse}")
    for waiver in verdict.waivers:
        say(f"waiver {waiver.state}: {waiver}", "bold magenta" if waiver.blocks else "")
    for line in [*(f"note: {note}" for note in verdict.notes), *_why(verdict), *spending_lines(run)]:
        say(line)
    if not wrong and verdict.needs_baseline:
        say(f'next: gatebook accept {quote(str(path))} --reason "first run of this deployment"')
    elif wrong and verdict.verdict != "PASS":
        say("gatebook accept refuses this run; what to do:")
        for todo, about in by_todo(wrong).items():
            say(f"  {todo}: {', '.join(about)}")
    say(verdict.called, STYLE[verdict.verdict], (f"  {verdict.reason}  {path / 'index.html'}", ""))


def _why(verdict: Verdict) -> list[str]:
    """Return the causes after the first, which the last line says, and what stands under each."""
    lines: list[str] = []
    for number, (cause, under) in enumerate(causes(verdict)[:CAUSES]):
        if number or under:
            lines += [f"{'also' if number else 'because'}: {cause.text}", *(f"  {line}" for line in under)]
    if len(verdict.causes) > CAUSES:
        lines.append(f"and {len(verdict.causes) - CAUSES} more reasons in verdict.json")
    return lines + unexplained(verdict)


def say(text: object, style: str = "", *more: tuple[object, str]) -> None:
    """Print texts, each with its style, as one line."""
    parts = [(one_line(part), its) for part, its in ((text, style), *more)]
    Console(soft_wrap=True, highlight=False).print(Text.assemble(*parts))


def print_table(columns: tuple[str, ...], rows: Iterable[tuple[Cell, ...]]) -> None:
    """Print a table in which only the column `because` wraps."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=name != "because")
    for row in rows:
        cells = (cell if isinstance(cell, tuple) else (cell, "") for cell in row)
        table.add_row(*(Text(one_line(text), style) for text, style in cells))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160
    console.print(table)


def show_comparison(difference: Difference, first: Judged, second: Judged) -> None:
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


def show_verification(found: Verification) -> None:
    """Facts, steps, and a last line that says what it comes to."""
    for name, value in {**facts(found.manifest), "seal": f"{found.seal or 'none'} (SHA-256 of SHA256SUMS)"}.items():
        print(f"      {name:<10} {one_line(value)}")
    for step in found.steps:
        wrong = f": {one_line(step.wrong)}" if step.wrong else ""
        print(f"{'ok   ' if step.wrong is None else 'WRONG'} {step.what} ({one_line(step.done)}){wrong}")
        for line in step.more.splitlines():
            print(f"        | {visible(line)}")
    for waiver in found.verdict.waivers if found.verdict else []:
        print(f"      waiver {waiver.state}: {one_line(waiver)}")
    print(one_line(found.line))
