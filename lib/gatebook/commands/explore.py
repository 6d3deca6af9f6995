"""For people only: ask again with edits, and keep what is worth a case. The views are the cells of 00_explore."""

from __future__ import annotations

import atexit
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from gatebook.checks.evidence import Evidence, Reply
from gatebook.checks.finding import Finding
from gatebook.commands.casefiles import add_case, draft_case
from gatebook.config import project
from gatebook.config.cases import load_cases
from gatebook.config.sending import CAPS, is_answer, under
from gatebook.errors import BadInput
from gatebook.record.exchange import Exchange
from gatebook.record.journal import Journal, read_journal
from gatebook.record.run import Run
from gatebook.record.shelf import find_run, verdict_word
from gatebook.report.conversation import NOT_OPTIONS, Answered, Shown
from gatebook.verdict.findings import expectations, judge_run, run_identity


class Explorer:
    """Opens the newest run, or the one that is named; never writes into a run folder. Raises BadInput when there is none."""

    def __init__(self, run: str = "") -> None:
        pd.set_option("display.max_colwidth", 80, "display.max_rows", 200, "display.html.use_mathjax", False)
        self._kept = ExitStack()
        self._base_url: str | None = None
        self._last: Answered | None = None
        self.open(run)

    def open(self, name: str = "") -> None:
        """Open a run by its folder, its name or a part of it that only one has; the newest without a name."""
        self.run = find_run(project.outputs(), name)
        self.close()
        path, model = self.run.path, self.run.manifest.profile.target.model
        print(f"opened {path.name}: {model}, {len(self.run.cases)} cases, {verdict_word(path)}")

    def answers(self, case: str) -> Shown:
        """Return every request of a case with its answer, the first with outcome and reasons."""
        first, *more = self._recorded(self.run, case)
        return Shown([first, *(replace(one, findings=[], why="") for one in more)])

    def answer(self, case: str, request: str | None = None, run: str | None = None) -> Answered:
        """Return one recorded answer: the case's first chat unless a request is named, of this run or another."""
        found = self._recorded(find_run(project.outputs(), run) if run else self.run, case)
        if request is None:
            return next((one for one in found if one.messages), found[0])
        for one in found:
            if one.exchange.ask == request:
                return one
        raise BadInput(f"case {case!r} has no request {request!r}; it has {', '.join(e.exchange.ask for e in found)}")

    def ask(
        self, case: str | None = None, *, user: str | None = None, system: str | None = None,
        messages: list[dict[str, Any]] | None = None, request: str | None = None, stream: bool = True, **options: Any,
    ) -> Answered:  # fmt: skip
        """Ask the run's target again, with edits: the last user message, the system message, all messages, or options.

        An option of None is taken out. The exchange is recorded in outputs/explore/, never in the run.
        """
        before = self.answer(case, request) if case else None
        target = self.run.manifest.profile.target
        first: dict[str, Any] = {"temperature": 0, "max_tokens": 256 + target.room}
        body: dict[str, Any] = dict(before.exchange.body or {}) if before else under(target.request_options, first)
        if before and not body.get("messages"):
            raise BadInput(f"case {case!r}: {before.exchange.ask!r} is no recorded chat; name another with request=")
        said = messages if messages is not None else _edited(body.get("messages") or [], user, system)
        if not said:
            raise BadInput("nothing to ask: name a case, or say user=")
        kept = {k: v for k, v in body.items() if k not in NOT_OPTIONS} | options
        sent = {"messages": said, **{k: v for k, v in kept.items() if v is not None}}
        sent |= {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        exchange = self._send(sent, case or "explore", before.exchange.ask if before else "ask")
        findings, why = self._judged(case, exchange) if case else [], before.why if before else ""
        self._last = Answered(case or "explore", self.run.path.name, exchange, findings, why, "asked again")
        return self._last

    def draft(self, name: str, why: str, answered: Answered | None = None, **fields: Any) -> str:
        """Return the case that `save` would write, as YAML."""
        return draft_case(self._entry(name, why, answered or self._last, fields))

    def save(
        self, name: str, why: str, into: str | None = None, answered: Answered | None = None, **fields: Any
    ) -> str:
        """Append the conversation last asked as a new case; without `into`, to the file in params/cases that has the name of
        the case's own file.

        `fields` are those of a case: expect, group, suites, finish, good, bad ... What is left out comes from that case.
        """
        answered = answered or self._last
        entry = self._entry(name, why, answered, fields)
        known = {case.id: project.cases_dir() / Path(case.source).name for case in load_cases(*project.case_folders())}
        home = into or known.get(answered.case if answered else "")
        if home is None:
            raise BadInput("say into='params/cases/<file>.yaml': the conversation comes from no case of today's files")
        path = add_case(entry, Path(home)).relative_to(project.root())
        return f"added {name} to {path}; try it: gatebook cases check {path}"

    def close(self) -> None:
        """Stop the embedded server, if one was started."""
        self._kept.close()
        self._base_url = None

    @staticmethod
    def _recorded(run: Run, case: str) -> list[Answered]:
        if case not in run.cases:
            raise BadInput(f"case {case!r} is not in {run.path.name}; the table of its cases finds one by any word")
        return _answers(run)[case]

    def _entry(self, name: str, why: str, answered: Answered | None, fields: dict[str, Any]) -> dict[str, Any]:
        if answered is None:
            raise BadInput("nothing was asked yet: explore.ask(...) first, or say answered=explore.answer(...)")
        known, body = self.run.cases.get(answered.case), answered.exchange.body or {}
        entry: dict[str, Any] = {"id": name}
        if known:
            entry |= {"notebook": known.notebook, "group": known.group, "suites": known.suites}
        entry |= {"why": why, "messages": answered.messages, "options": self._own(body)}
        if not body.get("stream"):
            entry["stream"] = False
        if known and not known.asks:
            entry |= {"finish": known.finish} if known.finish != "stop" else {}
            entry["expect"] = known.expect
        for needed in ("notebook", "group"):
            if needed not in entry | fields:
                raise BadInput(f"new case {name!r}: say {needed}=, because it comes from no case of the run")
        return entry | fields

    def _own(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the case's own options in a request: without what the profile adds."""
        target = self.run.manifest.profile.target
        common, room = target.request_options, target.room
        own = {k: v for k, v in body.items() if k not in NOT_OPTIONS and (k not in common or common[k] != v)}
        return {k: v - room if k in CAPS and type(v) is int and v > room else v for k, v in own.items()}

    def _judged(self, name: str, exchange: Exchange) -> list[Finding]:
        """Judge this answer by the case's own checks, in the place of the recorded one."""
        case, recorded = self.run.cases[name], {one.exchange.ask: one.exchange for one in self.answers(name)}
        recorded[exchange.ask] = exchange
        if exchange.fault or any(ask.name not in recorded for ask in case.requests()):
            return []
        thinks = self.run.manifest.profile.target.thinks
        replies = [Reply(ask, recorded[ask.name], thinks, not is_answer(case, ask)) for ask in case.requests()]
        seen = Evidence(case, replies, run_identity(self.run), self.run.manifest.profile)
        of_case = {"notebook": case.notebook, "case": name, "group": case.group}
        return [Finding(id=f"{name}.{c}", check=c, **of_case, **vars(now)) for c, _, now in expectations(seen)]

    def _send(self, body: dict[str, Any], case: str, ask: str) -> Exchange:
        from gatebook.collect.client import ask_once
        from gatebook.collect.server import endpoint

        folder, manifest = project.outputs() / "explore", self.run.manifest
        folder.mkdir(parents=True, exist_ok=True)
        if self._base_url is None:
            target, self._base_url = manifest.profile.target, manifest.base_url
            embedded = target.server == "embedded" and target.base_url is None
            _, start = endpoint(target, None if embedded else manifest.base_url)
            if start:  # kept for as long as the kernel lives, so that a person can go on asking
                atexit.register(self._kept.close)
                self._base_url = self._kept.enter_context(start(folder / "server.log"))
        record = folder / f"{manifest.run}.exchanges.jsonl"
        number = len(read_journal(record, manifest.run)) + 1
        exchange = ask_once(manifest.profile, self._base_url, body, case, ask)
        with Journal(record, manifest.run) as journal:
            journal.append(exchange.model_copy(update={"key": f"{exchange.key}/{number}"}))
        return exchange


@lru_cache(maxsize=4)
def _answers(run: Run) -> dict[str, list[Answered]]:
    """Return case -> its recorded requests with their findings; a placeholder where there is none. Raises BrokenRecord."""
    findings, exchanges = defaultdict(list), defaultdict(list)
    for finding in judge_run(run):
        findings[finding.case].append(finding)
    for exchange in (e for notebook in run.notebooks for e in run.exchanges(notebook)):
        if exchange.case and exchange.kind in ("ask", "skip"):
            exchanges[exchange.case].append(exchange)
    for name, case in run.cases.items():
        body = {"messages": case.messages}
        lost = Exchange(kind="skip", key=f"{name}/ask", at=run.manifest.created, body=body, detail="(not recorded)")
        exchanges[name] = exchanges[name] or [lost]
    return {
        name: [Answered(name, run.path.name, one, findings[name], case.why) for one in exchanges[name]]
        for name, case in run.cases.items()
    }


def _edited(messages: list[dict[str, Any]], user: str | None, system: str | None) -> list[dict[str, Any]]:
    """Return the messages with the last user message and the system message replaced or added."""
    said = [dict(message) for message in messages]
    if user is not None:
        if not any(message.get("role") == "user" for message in said):
            said.append({"role": "user"})
        next(message for message in reversed(said) if message.get("role") == "user")["content"] = user
    if system is not None:
        said = [{"role": "system", "content": system}, *(m for m in said if m.get("role") != "system")]
    return said
