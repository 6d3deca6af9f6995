"""For people only: read what was said in a run, ask it again with edits, compare, and keep what is worth a case."""

from __future__ import annotations

import atexit
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from gatebook.checks.evidence import Evidence, Reply
from gatebook.checks.finding import Finding, worst
from gatebook.commands.casefiles import add_case, draft_case
from gatebook.config import project
from gatebook.config.cases import Case, load_cases
from gatebook.errors import BadInput
from gatebook.record.exchange import Exchange
from gatebook.record.journal import Journal, read_journal
from gatebook.record.run import Run
from gatebook.record.shelf import find_run, run_folders, run_row, verdict_word
from gatebook.report.conversation import Answered, Compared, Shown
from gatebook.report.text import excerpt, visible
from gatebook.verdict.findings import expectations, judge_notebook, run_identity

OURS = ("model", "user", "stream", "stream_options", "messages")
"""Fields of a request that are not options of a case."""


class Explorer:
    """Opens the newest run, or the one that is named; never writes into a run folder. Raises BadInput when there is none."""

    def __init__(self, run: str = "") -> None:
        pd.set_option("display.max_colwidth", 80, "display.max_rows", 200, "display.html.use_mathjax", False)
        self._outputs = project.outputs()
        self._kept = ExitStack()
        self._base_url: str | None = None
        self._last: Answered | None = None
        self.open(run)

    def runs(self) -> pd.DataFrame:
        """Every run in outputs/, newest first."""
        columns = ["run", "verdict", "suite", "model", "created", "reason"]
        rows = [run_row(path) for path in reversed(run_folders(self._outputs))]
        return pd.DataFrame(rows, columns=columns).set_index("run")

    def open(self, name: str = "") -> None:
        """Open a run by its folder, its name or a part of it that only one has; the newest without a name."""
        self.run = find_run(self._outputs, name)
        self.close()
        for known in ("_findings", "_exchanges"):
            self.__dict__.pop(known, None)
        manifest = self.run.manifest
        print(
            f"opened {self.run.path.name}: {manifest.profile.target.model}, {len(self.run.cases)} cases, {verdict_word(self.run.path)}"
        )

    def cases(self, search: str = "") -> pd.DataFrame:
        """The run's cases in which the words occur: id, group, why, outcome, prompt or answer."""
        rows = []
        for case in self.run.cases.values():
            said = [replace(one, most=10**9).request.turns for one in self._answered(self.run, case)]
            prompt = " ".join(turn.text for turns in said for turn in turns if turn.kind == "prompt")
            answer = " ".join(turn.text for turns in said for turn in turns if turn.kind != "prompt")
            outcome = worst([f.outcome for f in self._findings.get(case.id, [])])
            place = "\n".join((case.id, case.notebook, case.group, case.why, outcome, prompt, answer))
            if search.casefold() in place.casefold():
                rows.append((case.id, case.group, outcome, _line(prompt[-200:], 60), _line(answer, 60), case.why))
        if not rows:
            print(
                f"no case of {self.run.path.name} matches {search!r}; explore.cases() shows all {len(self.run.cases)}"
            )
        return pd.DataFrame(rows, columns=["case", "group", "outcome", "prompt", "answer", "why"]).set_index("case")

    def show(self, case: str) -> Shown:
        """What was said in every request of a case, with outcome, reasons, times and tokens."""
        first, *more = self._answered(self.run, self._case(self.run, case))
        return Shown([first, *(replace(one, findings=[], why="") for one in more)])

    def answer(self, case: str, request: str | None = None, run: str | None = None) -> Answered:
        """One recorded answer: the case's first request unless one is named, of this run or another."""
        where = find_run(self._outputs, run) if run else self.run
        return _named(self._answered(where, self._case(where, case)), request, case)

    def ask(
        self,
        case: str | None = None,
        *,
        user: str | None = None,
        system: str | None = None,
        messages: list[dict[str, Any]] | None = None,
        request: str | None = None,
        stream: bool = True,
        **options: Any,
    ) -> Answered:
        """Ask the run's target again, with edits: the last user message, the system message, all messages, or options.

        An option of None is taken out. The exchange is recorded in outputs/explore/, never in the run.
        """
        before = self.answer(case, request) if case else None
        body: dict[str, Any] = dict(before.exchange.body or {}) if before else {"temperature": 0, "max_tokens": 256}
        if before and not body.get("messages"):
            raise BadInput(f"case {case!r}: {before.exchange.ask!r} is no recorded chat; name another with request=")
        said = messages if messages is not None else _edited(body.get("messages") or [], user, system)
        if not said:
            raise BadInput("nothing to ask: name a case, or say user=")
        kept = {k: v for k, v in {**body, **options}.items() if (k not in OURS or k in options) and v is not None}
        sent = {
            "messages": said,
            **kept,
            **({"stream": True, "stream_options": {"include_usage": True}} if stream else {}),
        }
        exchange = self._send(sent, case or "explore", f"{before.exchange.ask if before else 'ask'}")
        known = self.run.cases.get(case or "")
        findings = self._judged(known, before.exchange.ask, exchange) if known and before else []
        self._last = Answered(
            case or "explore", self.run.path.name, exchange, findings, known.why if known else "", "asked again"
        )
        return self._last

    def compare(self, a: str | Answered, b: str | Answered) -> Compared:
        """Two answers side by side: recorded ones by their case id, and what `ask` and `answer` gave."""
        return Compared(*(self.answer(one) if isinstance(one, str) else one for one in (a, b)))

    def draft(self, name: str, why: str, answered: Answered | None = None, **fields: Any) -> str:
        """The case that `save` would write, as YAML; nothing is written."""
        return draft_case(self._entry(name, why, answered, fields))

    def save(
        self, name: str, why: str, into: str | None = None, answered: Answered | None = None, **fields: Any
    ) -> str:
        """Append the conversation last asked as a new case; without `into`, to the file of the case that it came from.

        `fields` are those of a case: expect, group, suites, finish, good, bad ... What is left out comes from that case.
        """
        entry = self._entry(name, why, answered, fields)
        path = add_case(entry, Path(into) if into else self._home(answered or self._last))
        return f"added {name} to {path.relative_to(project.root())}; try it: gatebook cases check {path.relative_to(project.root())}"

    def close(self) -> None:
        """Stop the embedded server, if one was started."""
        self._kept.close()
        self._base_url = None

    def _entry(self, name: str, why: str, answered: Answered | None, fields: dict[str, Any]) -> dict[str, Any]:
        answered = answered or self._last
        if answered is None:
            raise BadInput("nothing was asked yet: explore.ask(...) first, or say answered=explore.answer(...)")
        known = self.run.cases.get(answered.case)
        first = {
            "id": name,
            **{key: getattr(known, key) for key in ("notebook", "group", "suites") if known},
            "why": why,
        }
        body = answered.exchange.body or {}
        asked = {"messages": answered.messages, "options": {k: v for k, v in body.items() if k not in OURS}}
        rest: dict[str, Any] = {} if body.get("stream") else {"stream": False}
        if known and not known.asks:
            rest |= (
                {"finish": known.finish, "expect": known.expect} if known.finish != "stop" else {"expect": known.expect}
            )
        for needed in ("notebook", "group"):
            if needed not in first | fields:
                raise BadInput(f"new case {name!r}: say {needed}=, because it comes from no case of the run")
        return first | asked | rest | fields

    def _home(self, answered: Answered | None) -> Path:
        for case in load_cases(project.cases_dir()):
            if answered and case.id == answered.case:
                return Path(case.source)
        raise BadInput("say into='params/cases/<file>.yaml': the conversation comes from no case of today's files")

    @staticmethod
    def _case(run: Run, name: str) -> Case:
        if name not in run.cases:
            raise BadInput(
                f"case {name!r} is not in {run.path.name}; explore.cases('{name.split('-')[0]}') finds by any word"
            )
        return run.cases[name]

    @cached_property
    def _findings(self) -> dict[str, list[Finding]]:
        return _findings(self.run)

    @cached_property
    def _exchanges(self) -> dict[str, list[Exchange]]:
        return _exchanges(self.run)

    def _answered(self, run: Run, case: Case) -> list[Answered]:
        """The recorded requests of a case; one that says so when there is none."""
        mine = run is self.run
        findings = (self._findings if mine else _findings(run)).get(case.id, [])
        exchanges = (self._exchanges if mine else _exchanges(run)).get(case.id, [])
        if not exchanges:
            lost = Exchange(
                kind="skip",
                key=f"{case.id}/ask",
                at=run.manifest.created,
                body={"messages": case.messages},
                detail="(not recorded)",
            )
            exchanges = [lost]
        return [Answered(case.id, run.path.name, one, findings, case.why) for one in exchanges]

    def _judged(self, case: Case, ask: str, exchange: Exchange) -> list[Finding]:
        """What the case's own checks say when this answer stands in the place of the recorded one."""
        recorded = {one.ask: one for one in self._exchanges.get(case.id, [])}
        replies = [
            Reply(one, exchange if one.name == ask else recorded[one.name])
            for one in case.requests()
            if one.name in recorded
        ]
        if exchange.fault or len(replies) < len(case.requests()):
            return []
        seen = Evidence(case, replies, run_identity(self.run), self.run.manifest.profile)
        return [
            Finding(id=f"{case.id}.{check}", notebook=case.notebook, case=case.id, group=case.group, check=check,
                    outcome=said.outcome, reason=said.reason, measured=said.measured, limit=said.limit, unit=said.unit)
            for check, _, said in expectations(seen)
        ]  # fmt: skip

    def _send(self, body: dict[str, Any], case: str, ask: str) -> Exchange:
        from gatebook.collect.client import ask_once
        from gatebook.collect.server import endpoint

        folder = self._outputs / "explore"
        folder.mkdir(parents=True, exist_ok=True)
        manifest = self.run.manifest
        if self._base_url is None:
            _, start = endpoint(manifest.profile.target, None if _embedded(self.run) else manifest.base_url)
            if start:  # kept for as long as the kernel lives, so that a person can go on asking
                atexit.register(self._kept.close)
            self._base_url = self._kept.enter_context(start(folder / "server.log")) if start else manifest.base_url
        record = folder / f"{manifest.run}.exchanges.jsonl"
        number = len(read_journal(record, manifest.run)) + 1
        exchange = ask_once(manifest.profile, self._base_url, body, case, ask)
        with Journal(record, manifest.run) as journal:
            journal.append(exchange.model_copy(update={"key": f"{exchange.key}/{number}"}))
        return exchange


def _embedded(run: Run) -> bool:
    target = run.manifest.profile.target
    return target.server == "embedded" and target.base_url is None


def _edited(messages: list[dict[str, Any]], user: str | None, system: str | None) -> list[dict[str, Any]]:
    """The messages with the last user message and the system message replaced, or added where there is none."""
    said = [dict(message) for message in messages]
    if user is not None:
        last = next((n for n in reversed(range(len(said))) if said[n].get("role") == "user"), None)
        if last is None:
            said.append({"role": "user", "content": user})
        else:
            said[last]["content"] = user
    if system is not None:
        said = [{"role": "system", "content": system}, *(m for m in said if m.get("role") != "system")]
    return said


def _named(answers: list[Answered], request: str | None, case: str) -> Answered:
    chats = [one for one in answers if one.messages] or answers
    if request is None:
        return chats[0]
    for one in answers:
        if one.exchange.ask == request:
            return one
    raise BadInput(f"case {case!r} has no request {request!r}; it has {', '.join(one.exchange.ask for one in answers)}")


def _findings(run: Run) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in (f for notebook in run.notebooks for f in judge_notebook(run, notebook)):
        found.setdefault(finding.case, []).append(finding)
    return found


def _exchanges(run: Run) -> dict[str, list[Exchange]]:
    found: dict[str, list[Exchange]] = {}
    for exchange in (e for notebook in run.notebooks for e in run.exchanges(notebook)):
        if exchange.case and exchange.kind in ("ask", "skip"):
            found.setdefault(exchange.case, []).append(exchange)
    return found


def _line(text: str, most: int) -> str:
    head, more = excerpt(" ".join(visible(text).split()), most)
    return head + ("…" if more else "")
