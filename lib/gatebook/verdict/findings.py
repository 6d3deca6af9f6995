"""From the record to findings: whose fault, the contract, then what each case expects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from functools import cache

from gatebook.checks import CHECKS, parameters
from gatebook.checks.context import length_kept
from gatebook.checks.contract import (
    clock_behind_s,
    drawn_by_chance,
    hides_in_reasoning,
    notes,
    packing_flaw,
    text_flaws,
    violations,
)
from gatebook.checks.evidence import Evidence, Reply, Seen
from gatebook.checks.finding import Finding, Result, Stage, worst
from gatebook.checks.load import restarts_of
from gatebook.checks.similarity import cosines_of
from gatebook.checks.text import noise
from gatebook.checks.timed import timed_cases
from gatebook.checks.watched import Watched
from gatebook.config.cases import Ask, Case
from gatebook.config.policies import level_of
from gatebook.engines import credentials_refused
from gatebook.record.exchange import GONE, HANGING, OVER_BUDGET, Exchange
from gatebook.record.identity import Identity, identify
from gatebook.record.replies import is_good, read_answer
from gatebook.record.run import Run

MOMENT_S = 1.0
"""Requests that break within it broke together: the API server of a vLLM whose engine is dead exits within a second."""
GONE_S = 10.0
"""How soon after a break a refused connection tells that the server went with it: past the pauses between the tries."""


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
        self._earlier = earlier
        self._good_before = any(is_good(e) for e in earlier)
        self._first_good = next((n for n, e in enumerate(exchanges) if is_good(e)), None)
        self._rulers_told: set[str] = set()
        self._stops = [e.detail for e in exchanges if e.kind == "stop"]
        self._identity = identify(exchanges, self._profile.target.model)
        self._timed = timed_cases(run, notebook, exchanges)
        self._restarts = restarts_of(exchanges)
        self._behind_s = max(clock_behind_s(exchanges), 0.0)
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
            canary = self._by_key.get(f"{case.id}/canary")
            seen.setdefault(case.group, []).append(Seen(case, outcome, replies, canary))
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
        if not readies and self._stops:
            result = self._unasked()
        elif not readies:
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
            result = self._blame(readies[-1])
        return self._finding(self._notebook, f"{self._notebook}.ready", group, "ready", result)

    def _case(self, case: Case) -> Iterator[Finding]:
        if lacking := self._profile.not_offered(*case.needs):
            yield self._finding(
                case.id, case.id, case.group, "offered", Result("not_measured", f"not offered: {lacking}")
            )
            return
        contract = contract_group(case.group)
        missing = [ask.name for ask in case.requests() if f"{case.id}/{ask.name}" not in self._by_key]
        asked = [self._reply(case, ask) for ask in case.requests() if ask.name not in missing]
        if missing and self._stops and (broke := [r for r in asked if self._broke(case, r)]):
            for group, check in (
                (contract, "contract"),
                (case.group, "answered"),
            ):  # the rest was not asked because of it
                yield self._finding(case.id, case.id, group, check, self._blame(broke[0].exchange))
            return
        if missing:
            why = self._unasked() if self._stops else Result(
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
            yield self._finding(case.id, case.id, case.group, "answered", self._blame(broken[0].exchange))
            return
        if skipped:
            if ruler := self._broken_ruler(skipped[0]):
                for group, check in ((contract, "contract"), (case.group, "answered")):
                    yield self._finding(case.id, case.id, group, check, self._blame(ruler))
                return
            check = (
                "recorded" if skipped[0].startswith((OVER_BUDGET, HANGING)) else "asked"
            )  # no policy looks away from these
            yield self._finding(case.id, case.id, case.group, check, Result("not_measured", skipped[0]))
            return
        if case.canary and self._stops and f"{case.id}/canary" not in self._by_key:
            yield self._finding(case.id, case.id, case.group, "recorded", self._unasked())
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

    def _broken_ruler(self, skipped: str) -> Exchange | None:
        """The sample that was asked to meet a document's length and that broke: told once, at the first case that stands on it."""
        ruler = next(
            (e for e in self._exchanges if e.key.startswith("ruler/") and e.fault and f"({e.key})" in skipped), None
        )
        if ruler is None or ruler.key in self._rulers_told:
            return None
        self._rulers_told.add(ruler.key)
        return ruler

    @staticmethod
    def _broke(case: Case, reply: Reply) -> bool:
        return bool(reply.exchange.fault) and not (case.negative and reply.refused)

    def _reply(self, case: Case, ask: Ask) -> Reply:
        return Reply(ask, self._by_key[f"{case.id}/{ask.name}"])

    def _expected(self, evidence: Evidence) -> Iterator[Finding]:
        case = evidence.case
        for check, number, result in expectations(evidence):
            yield self._finding(case.id, case.id, case.group, check if number == 1 else f"{check}-{number}", result)

    def _contract(self, case: Case, chats: list[Reply], broken: list[Reply]) -> Result:
        if broken:
            return self._blame(broken[0].exchange)
        said: list[str] = []
        chance, stage = drawn_by_chance(chats), Stage.BEHAVIOUR
        for reply in chats:
            if case.negative and reply.refused:
                said += [flaw] if (flaw := packing_flaw(reply.exchange)) else []
            else:
                label = f"{reply.ask.name}: " if len(chats) > 1 else ""
                found = [text for text in self._violations(reply) if (reply, text) != chance]
                said += [label + text for text in found]
                if not set(found) <= set(text_flaws(reply.answer)):
                    stage = Stage.ENVELOPE
        canary = self._by_key.get(f"{case.id}/canary")
        if case.canary and canary is None and not self._stops:
            return Result("error", "no record of the plain request that must follow")
        if canary is not None and canary.fault and self._went_with(canary):
            return self._blame(canary)
        if canary is not None:
            said += (after := [f"the plain request after it {text}" for text in self._canary(canary)])
            stage = Stage.ENVELOPE if after else stage
        if said:
            return Result(
                "fail",
                "; ".join(said[:3]) + (f"; and {len(said) - 3} more" if len(said) > 3 else ""),
                len(said),
                0,
                "violations",
                Stage.REASONING if any(hides_in_reasoning(r.answer) for r in chats) else stage,
            )
        if case.canary and canary is None:
            return self._unasked()
        return Result(
            "pass",
            f"{len(chats)} {'reply keeps' if len(chats) == 1 else 'replies keep'} the contract"
            + (
                f"; one sampled answer alone may draw a broken character, and {chance[0].ask.name} did: {chance[1]}"
                if chance
                else ""
            )
            + "".join(f"; {said}" for said in dict.fromkeys(note for reply in chats for note in notes(reply))),
            0,
            0,
            "violations",
        )

    def _violations(self, reply: Reply) -> Iterator[str]:
        profile, target = self._profile, self._profile.target
        return violations(
            reply, target.model, self._seen_ids, self._identity.context_tokens,
            ends_with_done=profile.not_offered("stream_done") is None, counts_streams=profile.not_offered("stream_usage") is None,
            is_alias=lambda asked, told: told in target.aliases or self._identity.is_alias(asked, told), behind_s=self._behind_s,
        )  # fmt: skip

    def _canary(self, canary: Exchange) -> Iterator[str]:
        """What is wrong with the plain answer after a hard request: none, noise, another's (sglang#2414), a broken contract."""
        reply = Reply(Ask(name="canary"), canary)
        if canary.fault or not reply.answer.text.strip():
            yield f"was not answered: {canary.detail or 'empty content'}"
        elif said := noise(reply.answer.text):
            yield f"was answered with noise: {said}"
        elif reply.answer.text.lstrip().startswith("{"):
            yield f"was answered with JSON: an answer or a grammar reached the wrong request: {reply.answer.text[:60]!r}"
        else:
            yield from (f"broke the contract: {text}" for text in self._violations(reply))

    def _unasked(self) -> Result:
        """Why the rest of the notebook was not asked."""
        gone = self._stops[-1].startswith(GONE)
        said = self._with_company(self._last_crash()) if gone else ""
        return Result("not_measured", f"{self._stops[-1]}{said}", stage=Stage.GONE if gone else None)

    def _blame(self, exchange: Exchange) -> Result:
        """Whose fault a request without a usable reply is (DESIGN §6)."""
        target, models, detail = self._profile.target, self._identity.models, exchange.detail
        answered = self._good_first(exchange)
        if exchange.status == 404 and models and target.model not in models:
            said = f"model {target.model!r} is not served; served: {', '.join(models)}"
            return Result("fail", said, stage=Stage.NOT_SERVED)
        if exchange.status == 404 and not models and "model" in detail.lower():
            return Result("fail", f"model {target.model!r} is not served: {detail}", stage=Stage.NOT_SERVED)
        if credentials_refused(exchange.status, exchange.detail):
            said = f"the key was refused ({detail}); check the variable {target.api_key_env or 'OPENAI_API_KEY'}"
            return (
                Result("fail", said, stage=Stage.REFUSED)
                if answered
                else Result("error", said, stage=Stage.UNREACHABLE)
            )
        if exchange.fault == "deadline" and self._identity.health == 200:
            detail += ", though /health says 200"
        if not answered:
            if self._refused_twice(exchange):
                said = f"{detail}; the server refused a plain chat twice so, though it lists {target.model!r} and took the key"
                return Result("fail", said, stage=Stage.REFUSED)
            return Result(
                "error", f"{detail}; the server has not given one good answer in this run", stage=Stage.UNREACHABLE
            )
        limit = self._profile.limits.request_deadline_s
        if exchange.fault == "deadline" and not exchange.had(limit):
            before = next((e.detail for e in reversed(self._earlier) if e.kind == "stop"), None)
            why = (
                f"one short try, because {before}"
                if before and exchange.kind == "ready"
                else "our own deadline cut it short"
            )
            return Result("not_measured", f"{detail}, and a request may take {limit:g} s: {why}")
        fault = "the server had answered before, so this is the deployment's fault"
        if self._went_with(exchange):
            crashed = exchange if exchange.kind != "ready" else self._last_crash()
            back = exchange.kind != "ready" and not any(said.startswith(GONE) for said in self._stops)
            word = "the server was gone for a while" if back else GONE
            return Result("fail", f"{word}: {detail}{self._with_company(crashed)}; {fault}", stage=Stage.GONE)
        others = [name for name in self._company(exchange) if name != _name(exchange)]
        beside = others and exchange.fault in ("no_byte", "broken")
        told = f" (in flight with it: {', '.join(others[:5])})" if beside else ""
        return Result("fail", f"{detail}; {fault}{told}", stage=self._stage(exchange))

    def _stage(self, exchange: Exchange) -> Stage:
        """What a request without a usable reply explains: it was refused, broke off alone, or everything after it broke too."""
        refused = (exchange.status or 0) >= 400
        lives = any(is_good(e) for e in self._exchanges[self._order[exchange.key] + 1 :])
        if refused and ((exchange.status or 0) < 500 or lives or not self._stops):
            return Stage.REFUSED
        if lives and exchange.fault == "deadline":
            return Stage.BEHAVIOUR  # an answer without an end, as other sampling makes one
        return Stage.ENVELOPE if lives else Stage.GONE

    def _refused_twice(self, exchange: Exchange) -> bool:
        """A plain chat of a model that the server lists got the same 4xx twice, and not one of credentials or of the moment."""
        again = [e for e in (*self._earlier, *self._exchanges) if e.kind == "ready" and e.status == exchange.status]
        listed = self._profile.target.model in self._identity.models
        return exchange.kind == "ready" and exchange.refused_for_good and len(again) > 1 and listed

    def _good_first(self, exchange: Exchange) -> bool:
        return self._good_before or (self._first_good is not None and self._first_good < self._order[exchange.key])

    def _went_with(self, exchange: Exchange) -> bool:
        """Whether nobody listened any more, where the server had answered, when this request broke or soon after."""
        if exchange.fault == "connect" or (exchange.kind == "ready" and exchange.fault == "no_byte"):
            return True
        broke = _break(exchange)
        refused = [
            _s(a.at)
            for e in self._exchanges
            for a in (e.attempts if e.kind != "against" else [])
            if a.fault == "connect" or (a.fault == "no_byte" and (e.kind == "ready" or e.ask == "still-there"))
        ]
        return broke is not None and any(-MOMENT_S <= at - broke[1] <= GONE_S for at in refused)

    def _company(self, exchange: Exchange) -> list[str]:
        """The cases whose requests were open when this one broke, and broke within the moment; itself among them."""
        own = _break(exchange)
        if own is None:
            return []
        asked = [e for e in (*self._earlier, *self._exchanges) if e.kind in ("ask", "canary") and e.case is not None]
        broken = [(_name(e), span) for e in asked if (span := _break(e)) and abs(span[1] - own[1]) <= MOMENT_S]
        first = min((span[1] for _, span in broken), default=own[1])
        return list(dict.fromkeys(name for name, span in broken if span[0] <= first))

    def _with_company(self, exchange: Exchange | None) -> str:
        names = self._company(exchange) if exchange else []
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        return f"; in flight: {', '.join(names[:8])}{more}" if names else "; nothing was in flight"

    def _last_crash(self) -> Exchange | None:
        """The last request of this notebook or an earlier one that broke, unless the server answered after it."""
        asked = [e for e in (*self._earlier, *self._exchanges) if e.kind in ("ask", "canary", "ready")]
        crash = next((e for e in reversed(asked) if e.case is not None and _break(e)), None)
        broke = _break(crash) if crash else None
        return crash if broke and not any(_s(e.at) > broke[1] and is_good(e) for e in asked) else None

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


def _break(exchange: Exchange) -> tuple[float, float] | None:
    """When a request that the server broke off, refused to take or answered 5xx was sent and when it broke: seconds of the clock."""
    if exchange.fault not in ("connect", "no_byte", "broken") and (exchange.status or 0) < 500:
        return None
    first = next((a for a in exchange.attempts if a.fault), None)
    return None if first is None else (_s(first.at), _s(first.at) + first.elapsed_ms / 1000)


def _s(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def _name(exchange: Exchange) -> str:
    return exchange.case or exchange.key


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
