"""From the record to findings: whose fault, the contract, then what each case expects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from gatebook.judge.checks import CHECKS, parameters
from gatebook.judge.checks.context import length_kept
from gatebook.judge.checks.contract import drawn_by_chance, hides_in_reasoning, violations
from gatebook.judge.checks.text import noise
from gatebook.judge.evidence import Evidence, Reply, Seen
from gatebook.judge.finding import Finding, Outcome, Result, Stage, worst
from gatebook.judge.gauges import Watched
from gatebook.judge.load import restarts_of
from gatebook.judge.similarity import cosines_of
from gatebook.judge.timed import timed_cases
from gatebook.plan.cases import Ask, Case
from gatebook.plan.load import level_of
from gatebook.record.answer import read_answer
from gatebook.record.exchange import OVER_BUDGET, REFUSED_KEY, Exchange
from gatebook.record.identity import Identity, identify
from gatebook.record.run import Run

OWN = {"contract": Stage.ENVELOPE, "length": Stage.REFUSED}
"""Stages of what is found here and by no check of a case; whatever else is found here is behaviour."""


def contract_group(group: str) -> str:
    """The group in which the contract of a notebook's answers is judged: `health.contract` for `health.greeting`."""
    return f"{group.split('.')[0]}.contract"


def judge_run(run: Run) -> list[Finding]:
    """All findings of all notebooks, a pure function of the run folder. Raises BrokenRecord."""
    return [finding for notebook in run.notebooks for finding in judge_notebook(run, notebook)]


def judge_notebook(run: Run, notebook: str) -> list[Finding]:
    """One notebook's findings. What earlier notebooks recorded decides whose fault a silent server is."""
    earlier = [e for name in run.notebooks[: run.notebooks.index(notebook)] for e in run.exchanges(name)]
    return list(_Judge(run, notebook, earlier, run.exchanges(notebook)).findings())


def run_identity(run: Run) -> Identity:
    """Who answered, by the probes of the first notebook that has any."""
    for notebook in run.notebooks:
        exchanges = run.exchanges(notebook)
        if any(e.kind == "probe" for e in exchanges):
            return identify(exchanges, run.manifest.profile.target.model)
    return Identity()


class _Judge:
    def __init__(self, run: Run, notebook: str, earlier: list[Exchange], exchanges: list[Exchange]) -> None:
        self._profile, self._notebook = run.manifest.profile, notebook
        self._cosines = cache(lambda: cosines_of(run, notebook))
        self._watched = cache(lambda: Watched(run.gauges(notebook), exchanges))
        self._cases, self._exchanges = run.expected(notebook), exchanges
        self._by_key = {e.key: e for e in exchanges}
        self._order = {e.key: number for number, e in enumerate(exchanges)}
        self._good_before = any(_good(e) for e in earlier)
        self._first_good = next((n for n, e in enumerate(exchanges) if _good(e)), None)
        self._stops = [e.detail for e in exchanges if e.kind == "stop"]
        self._identity = identify(exchanges, self._profile.target.model)
        self._timed = timed_cases(run, notebook, exchanges)
        self._restarts = restarts_of(exchanges)
        self._seen_ids: dict[str, str] = {}
        for exchange in earlier:
            for name in read_answer(exchange).ids if exchange.kind not in ("probe", "against") else ():
                self._seen_ids.setdefault(name, f"{exchange.key} (in an earlier notebook)")

    def findings(self) -> Iterator[Finding]:
        yield self._ready()
        seen: dict[str, list[Seen]] = {}
        for case in (c for c in self._cases if c.over is None):
            found = list(self._case(case))
            yield from found
            outcome = worst([f.outcome for f in found if f.group == case.group])
            replies = [self._reply(case, a) for a in case.requests() if f"{case.id}/{a.name}" in self._by_key]
            seen.setdefault(case.group, []).append(Seen(case, outcome, replies))
        for case in (c for c in self._cases if c.over is not None):
            others = seen.get(case.over or "", [])
            yield from self._expected(
                Evidence(
                    case,
                    [],
                    self._identity,
                    self._profile,
                    over=others,
                    watching=self._watched,
                    restarts=self._restarts,
                )
            )

    def _ready(self) -> Finding:
        """The one-token chat that opens every notebook."""
        readies = [e for e in self._exchanges if e.kind == "ready"]
        group = contract_group(self._cases[0].group) if self._cases else "contract"
        if not readies:
            result = Result("error", "nothing was recorded: the notebook did not reach the server")
        elif readies[-1].fault is None:
            took = sum(a.elapsed_ms for e in readies for a in e.attempts)
            result = Result(
                "pass",
                "a one-token chat was answered",
                round(took, 1),
                self._profile.limits.ready_deadline_s * 1000,
                "ms",
            )
        else:
            result = self._blamed(readies[-1])
        return self._finding(self._notebook, f"{self._notebook}.ready", group, "ready", result)

    def _case(self, case: Case) -> Iterator[Finding]:
        contract = contract_group(case.group)
        missing = [ask.name for ask in case.requests() if f"{case.id}/{ask.name}" not in self._by_key]
        asked = [self._reply(case, ask) for ask in case.requests() if ask.name not in missing]
        if missing and self._stops and (broke := [r for r in asked if self._broke(case, r)]):
            for group, check in (
                (contract, "contract"),
                (case.group, "answered"),
            ):  # the rest was not asked because of it
                yield self._finding(case.id, case.id, group, check, self._blamed(broke[0].exchange))
            return
        if missing:
            why = Result("not_measured", self._stops[-1]) if self._stops else Result(
                "error", f"no record of {', '.join(missing)}: expected, but never asked or lost"
            )  # fmt: skip
            yield self._finding(case.id, case.id, case.group, "recorded", why)
            return
        replies = [self._reply(case, ask) for ask in case.requests()]
        skipped = [r.exchange.detail for r in replies if r.exchange.kind == "skip"]
        replies = [r for r in replies if r.exchange.kind != "skip"]
        broken = [r for r in replies if self._broke(case, r)]
        chats = [r for r in replies if r.ask.path is None]
        if chats:
            yield self._finding(case.id, case.id, contract, "contract", self._contract(case, chats, broken))
        if case.document is not None and not broken and not skipped:
            yield self._finding(
                case.id, case.id, contract, "length", length_kept(replies[0], case.document, self._by_key)
            )
        if broken:
            yield self._finding(case.id, case.id, case.group, "answered", self._blamed(broken[0].exchange))
            return
        if skipped:
            check = "recorded" if skipped[0].startswith(OVER_BUDGET) else "asked"  # no policy looks away from a budget
            yield self._finding(case.id, case.id, case.group, check, Result("not_measured", skipped[0]))
            return
        if noisy := next((heard for r in chats if (heard := noise(r.answer.text))), None):
            yield self._finding(
                case.id, case.id, case.group, "noise", Result("fail", f"noise instead of an answer: {noisy}")
            )
        if chats and (said := _unfinished(chats)):
            yield self._finding(case.id, case.id, case.group, "finished", said)
        canary = self._by_key.get(f"{case.id}/canary")
        timed = self._timed.get(case.id)
        evidence = Evidence(case, replies, self._identity, self._profile, self._cosines, canary=canary, timed=timed,
            together=self._together(case), restarts=self._restarts,
        )  # fmt: skip
        yield from self._expected(evidence)

    def _together(self, case: Case) -> list[Exchange]:
        """What the group of a load case asked at the case's levels."""
        levels = set(case.load.at_once) if case.load else set()
        asked = [(c, a) for c in self._cases if levels and c.load and c.group == case.group for a in c.requests()]
        keys = [f"{c.id}/{a.name}" for c, a in asked if level_of(a.name) in levels]
        return [self._by_key[key] for key in keys if key in self._by_key and self._by_key[key].kind == "ask"]

    @staticmethod
    def _broke(case: Case, reply: Reply) -> bool:
        return bool(reply.exchange.fault) and not (case.negative and reply.refused)

    def _reply(self, case: Case, ask: Ask) -> Reply:
        return Reply(ask, self._by_key[f"{case.id}/{ask.name}"], self._identity.engine)

    def _expected(self, evidence: Evidence) -> Iterator[Finding]:
        case = evidence.case
        for check, number, result in expectations(evidence):
            yield self._finding(case.id, case.id, case.group, check if number == 1 else f"{check}-{number}", result)

    def _contract(self, case: Case, chats: list[Reply], broken: list[Reply]) -> Result:
        if broken:
            return self._blamed(broken[0].exchange)
        said: list[str] = []
        chance = drawn_by_chance(chats)
        for reply in chats:
            if not reply.refused:
                label = f"{reply.ask.name}: " if len(chats) > 1 else ""
                said += [label + text for text in self._violations(reply) if (reply, text) != chance]
        canary = self._by_key.get(f"{case.id}/canary")
        if case.canary and canary is None and not self._stops:
            return Result("error", "no record of the plain request that must follow")
        if canary is not None:
            said += [f"the plain request after it {text}" for text in self._canary(canary)]
        if said:
            return Result(
                "fail",
                "; ".join(said[:3]) + (f"; and {len(said) - 3} more" if len(said) > 3 else ""),
                len(said),
                0,
                "violations",
                Stage.REASONING if any(hides_in_reasoning(r.answer) for r in chats) else None,
            )
        return Result(
            "pass",
            f"{len(chats)} {'reply keeps' if len(chats) == 1 else 'replies keep'} the contract"
            + (
                f"; one sampled answer alone may draw half a character, and {chance[0].ask.name} did: {chance[1]}"
                if chance
                else ""
            ),
            0,
            0,
            "violations",
        )

    def _violations(self, reply: Reply) -> Iterator[str]:
        return violations(reply, self._profile.target.model, self._seen_ids, self._identity.context_tokens)

    def _canary(self, canary: Exchange) -> Iterator[str]:
        """What is wrong with the plain answer after a hard request: none, noise, another's (sglang#2414), a broken contract."""
        reply = Reply(Ask(name="canary"), canary, self._identity.engine)
        if canary.fault or not reply.answer.text.strip():
            yield f"was not answered: {canary.detail or 'empty content'}"
        elif said := noise(reply.answer.text):
            yield f"was answered with noise: {said}"
        elif reply.answer.text.lstrip().startswith("{"):
            yield f"was answered with JSON: an answer or a grammar reached the wrong request: {reply.answer.text[:60]!r}"
        else:
            yield from (f"broke the contract: {text}" for text in self._violations(reply))

    def _blame(self, exchange: Exchange) -> tuple[Outcome, str]:
        """Whose fault a request without a usable reply is (DESIGN §6)."""
        target = self._profile.target
        if exchange.status == 404 and self._identity.models and target.model not in self._identity.models:
            return "fail", f"model {target.model!r} is not served; served: {', '.join(self._identity.models)}"
        if exchange.status == 404 and not self._identity.models and "model" in exchange.detail.lower():
            return "fail", f"model {target.model!r} is not served: {exchange.detail}"
        if exchange.status in REFUSED_KEY:
            where = target.api_key_env or "OPENAI_API_KEY"
            return (
                "fail" if self._good_first(exchange) else "error"
            ), f"the key was refused ({exchange.detail}); check the variable {where}"
        detail = exchange.detail
        if exchange.fault == "deadline" and self._identity.health == 200:
            detail += ", though /health says 200"
        if self._good_first(exchange):
            return (
                "fail",
                f"{detail}; the server had answered before, so this is the deployment's fault{self._companions(exchange)}",
            )
        return "error", f"{detail}; the server has not given one good answer in this run"

    def _blamed(self, exchange: Exchange) -> Result:
        return Result(*self._blame(exchange), stage=self._stage(exchange))

    def _stage(self, exchange: Exchange) -> Stage:
        """What a request without a usable reply explains: it was refused, broke off alone, or everything after it broke too."""
        models, wanted = self._identity.models, self._profile.target.model
        unnamed = not models and "model" in exchange.detail.lower()
        if exchange.status == 404 and (unnamed or (models and wanted not in models)):
            return Stage.NOT_SERVED
        if exchange.status in REFUSED_KEY:
            return Stage.UNREACHABLE
        refused = exchange.status is not None and exchange.status >= 400
        lives = any(_good(e) for e in self._exchanges[self._order[exchange.key] + 1 :])
        if lives or (refused and (exchange.status or 0) < 500) or (refused and not self._stops):
            return Stage.REFUSED if refused else Stage.ENVELOPE
        return Stage.GONE if self._good_first(exchange) else Stage.UNREACHABLE

    def _good_first(self, exchange: Exchange) -> bool:
        return self._good_before or (self._first_good is not None and self._first_good < self._order[exchange.key])

    def _companions(self, exchange: Exchange) -> str:
        """The other requests that broke in the same way right after: they were in flight together."""
        here = self._order[exchange.key]
        others = [
            e.case
            for e in self._exchanges[here + 1 : here + 64]
            if e.case and e.case != exchange.case and e.fault in ("no_byte", "broken")
        ]
        return (
            f" (in flight with it: {', '.join(dict.fromkeys(others[:5]))})"
            if others and exchange.fault in ("no_byte", "broken")
            else ""
        )

    def _finding(self, stem: str, case: str, group: str, check: str, result: Result) -> Finding:
        return Finding(
            id=f"{stem}.{check}", notebook=self._notebook, case=case, group=group, check=check, outcome=result.outcome,
            measured=result.measured, limit=result.limit, unit=result.unit, reason=result.reason,
            stage=result.stage if result.stage is not None else OWN.get(check, Stage.BEHAVIOUR),
        )  # fmt: skip


def expectations(evidence: Evidence) -> Iterator[tuple[str, int, Result]]:
    """Run the case's own checks: (name, how many times it has occurred, result).

    A rung of the ladder that was missed hides those above it: of an answer that is no JSON, only that is said.
    """
    count: dict[str, int] = {}
    fallen = False
    for name, raw in (item for expectation in evidence.case.expect for item in expectation.items()):
        if fallen and name.startswith("json_"):
            continue
        count[name] = count.get(name, 0) + 1
        result = CHECKS[name].run(evidence, parameters(evidence.case, name, raw))
        fallen = fallen or (name.startswith("json_") and result.outcome != "pass")
        yield name, count[name], result if result.stage is not None else replace(result, stage=CHECKS[name].stage)


def _good(exchange: Exchange) -> bool:
    """A complete chat reply with text: the server can do it."""
    return (
        exchange.kind in ("ask", "canary", "ready")
        and exchange.method == "POST"
        and not exchange.fault
        and bool(read_answer(exchange).text)
    )


def _unfinished(replies: list[Reply]) -> Result | None:
    """The finish_reason that each ask expects; None when no ask expects one."""
    judged = [r for r in replies if _wants(r.ask) and not r.refused]
    for reply in judged:
        if reply.answer.finish_reason != reply.ask.finish:
            said = f"{reply.ask.name}: finish_reason is {reply.answer.finish_reason!r}, expected {reply.ask.finish!r}"
            return Result("fail", said, reply.answer.finish_reason, reply.ask.finish)
    return (
        Result("pass", f"finish_reason is {judged[0].ask.finish!r}", judged[0].ask.finish, judged[0].ask.finish)
        if judged
        else None
    )


def _wants(ask: Ask) -> bool:
    return ask.finish != "any" and ask.path is None
