"""In a terminal: progress while a run asks, then a table a person can read, and a last line with the verdict."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gatebook.errors import one_line
from gatebook.record.run import Run
from gatebook.report.spending import spending_lines
from gatebook.report.standing import by_todo, excuses, why
from gatebook.verdict.causes import refusals
from gatebook.verdict.findings import judge_notebook
from gatebook.verdict.verdict import Verdict, Word

STYLE: dict[Word, str] = {
    "PASS": "bold green",
    "FAIL": "bold red",
    "ERROR": "bold yellow",
    "INCONCLUSIVE": "bold magenta",
}
EVERY_S = 1.0


class Watcher:
    """Reads the growing record in the background and shows cases done, failing and the time left; one line a notebook
    where there is no terminal."""

    def __init__(self, run: Run, watch: bool) -> None:
        self._run, self._watch = run, watch
        self._console = Console(stderr=True)
        self._notebook, self._since, self._done_before = "", time.monotonic(), 0
        self._stop = threading.Event()
        self._live = Live(console=self._console, transient=True, auto_refresh=False)
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> Watcher:
        if self._watch and self._console.is_terminal:
            self._live.start()
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
            self._live.stop()

    def now(self, notebook: str) -> None:
        """Another notebook begins."""
        self._notebook, self._since = notebook, time.monotonic()
        if self._watch and not self._console.is_terminal:
            count = len(self._run.expected(notebook))
            print(f"{notebook}{f': {count} cases' if count else ''}", file=sys.stderr, flush=True)

    def _loop(self) -> None:
        while not self._stop.wait(EVERY_S):
            self._live.update(self._line(), refresh=True)

    def _line(self) -> Text:
        cases = self._run.expected(self._notebook)
        if not cases:
            return Text(f"  {self._notebook}: judging")
        try:
            findings = judge_notebook(self._run, self._notebook)
        except Exception:  # a line is being written; what else is wrong stands in the verdict
            return Text(f"  {self._notebook}")
        lost = {f.case for f in findings if f.check == "recorded"}
        done = [case for case in cases if case.id not in lost]
        failing = len({f.case for f in findings if f.outcome in ("fail", "error")} - lost - {f"{self._notebook}.ready"})
        spent = time.monotonic() - self._since
        left = f", about {spent / len(done) * (len(cases) - len(done)):.0f} s left" if done else ""
        return Text(f"  {self._notebook}: {len(done)} of {len(cases)} cases, {failing} failing{left}")


def show(verdict: Verdict, run: Run) -> None:
    """The table of groups, why it is not green, what it cost, what to do next, and the last line."""
    path = run.path
    path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    console = Console(soft_wrap=True, highlight=False)
    served = verdict.served

    def say(text: str, style: str = "") -> None:
        console.print(Text(one_line(text), style))

    head = Text(one_line(f"{served.base_url}  ")).append(one_line(served.model), "bold")
    told = f"  revision {served.revision or 'none named'}  ({served.engine} {served.version or ''})"
    console.print(head.append(one_line(told), "not bold"))
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("group", "policy", "pass", "decision", "because"):
        table.add_column(name, overflow="fold", no_wrap=name not in ("because",))
    for g in verdict.groups:
        table.add_row(
            Text(one_line(g.group)),
            g.policy,
            f"{g.passed}/{g.cases}",
            Text("watched" if g.policy == "watch" else "not compared", "dim")
            if g.policy == "watch" or g.blind
            else Text(g.word, STYLE[g.word]),
            Text(one_line(g.reason if len(g.reason) < 240 else g.reason[:237] + "...")),
        )
    Console(highlight=False, width=None if console.is_terminal else 160).print(table)
    for excuse in excuses(verdict):
        say(f"excused: {excuse}")
    for waiver in verdict.waivers:
        say(f"waiver {waiver.state}: {waiver}", "bold magenta" if waiver.blocks else "")
    for note in verdict.notes:
        say(f"note: {note}")
    for told in why(verdict):
        say(told)
    for told in spending_lines(run):
        say(told)
    wrong = refusals(verdict)
    if not wrong and verdict.needs_baseline:
        say(f'next: gatebook accept {path} --reason "first run of this deployment"')
    elif wrong and verdict.verdict != "PASS":
        console.print("gatebook accept refuses this run; what to do:")
        for todo, about in by_todo(wrong).items():
            say(f"  {todo}: {', '.join(about)}")
    partial = " PARTIAL" if verdict.partial else ""
    line = Text(f"{verdict.verdict}{partial}", STYLE[verdict.verdict])
    console.print(line.append(one_line(f"  {verdict.reason}  {path / 'index.html'}"), "default not bold"))
