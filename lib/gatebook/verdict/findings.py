"""From the record to findings: the contract, then what each case expects."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from gatebook.checks import CHECKS, parameters
from gatebook.checks.boundaries import length_kept
from gatebook.checks.contract import (
    clock_behind_s,
    drawn_by_chance,
    kept_back,
    leaves_open,
    notes,
    packing_flaw,
    text_flaws,
    thinking_advice,
    thoughts_astray,
    violations,
)
from gatebook.checks.evidence import Evidence, Reply, Watched, timed_cases
from gatebook.checks.finding import Finding, Result, Stage, worst
from gatebook.checks.load import restarts_of
from gatebook.checks.similarity import cosines_of
from gatebook.checks.text import noise
from gatebook.config.cases import Ask, Case
from gatebook.config.policies import Level, level_of
from gatebook.config.sending import is_answer
from gatebook.record.exchange import ELSEWHERE, HANGING, OVER_BUDGET, Exchange
from gatebook.record.identity import Identity, asked_of_parent, identify
from gatebook.record.logprobs import VOCABULARY
from gatebook.record.replies import read_answer
from gatebook.record.run import Run
from gatebook.verdict.blame import Blame

OWN = {"contract": Stage.ENVELOPE, "length": Stage.REFUSED}
"""Stages of what is found here and by no check of a case; whatever else is found here is behaviour."""
NO_RUN_WRITES = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, OSError)
"""What a record whose chain and fields are right still raises where its values are not: a time that is none, JSON without end."""
Said = tuple[str, str, Result]
"""Group, check and what it found, of one case."""


def contract_group(group: str) -> str:
    """The group in which the contract of a notebook's answers is judged: `health.contract` for `health.greeting`."""
    return f"{group.split('.')[0]}.contract"


def judge_run(run: Run) -> list[Finding]:
    """Return all findings of all notebooks. Raises BrokenRecord."""
    return [finding for notebook in run.notebooks for finding in judge_notebook(run, notebook)]


def judge_notebook(run: Run, notebook: str) -> list[Finding]:
    """Return one notebook's findings. What earlier notebooks recorded decides whose fault a silent server is."""
    earlier = [e for name in run.notebooks[: run.notebooks.index(notebook)] for e in run.exchanges(name)]
    return list(_Judge(run, notebook, earlier, run.exchanges(notebook)).findings())


def run_identity(run: Run) -> Identity:
    """Return who answered, by the probes of the first notebook that has any."""
    probed = (e for e in map(run.exchanges, run.notebooks) if any(one.kind == "probe" for one in e))
    return next((identify(exchanges, run.manifest.profile.target.model) for exchanges in probed), Identity())


def expectations(evidence: Evidence) -> Iterator[tuple[str, int, Result]]:
    """Run the case's own checks: (name, how many times it has occurred, result).

    A rung of the ladder that was missed hides those above it: of an answer that is no JSON, only that is said.
    """
    count: Counter[str] = Counter()
    fallen = False
    for name, raw in (item for expectation in evidence.case.expect for item in expectation.items()):
        if fallen and name.startswith("json_"):
            continue
        count[name] += 1
        result = CHECKS[name].run(evidence, parameters(evidence.case, name, raw))
        fallen = fallen or (name.startswith("json_") and result.outcome != "pass")
        yield name, count[name], result if result.stage is not None else replace(result, stage=CHECKS[name].stage)


class _Judge:
    def __init__(self, run: Run, notebook: str, earlier: list[Exchange], exchanges: list[Exchange]) -> None:
        self._profile, self._notebook = run.manifest.profile, notebook
        self._cosines = cache(lambda: cosines_of(run, notebook))
        self._loaded = cache(self._of_load)
        self._watched = cache(lambda: Watched(run.gauges(notebook), exchanges))
        self._cases, self._exchanges = run.expected(notebook), exchanges
        self._thinks = self._profile.target.thinks
        self._by_key = {e.key: e for e in exchanges}
        self._rulers_told: set[str] = set()
        self._identity = identify(exchanges, self._profile.target.model)
        self._blame = Blame(self._profile, self._identity, earlier, exchanges)
        self._timed = timed_cases(run, notebook, exchanges)
        self._restarts = restarts_of(exchanges)
        self._behind_s = max(clock_behind_s(exchanges), 0.0)
        self._kept_back, self._leaves_open = kept_back([*earlier, *exchanges]), leaves_open([*earlier, *exchanges])
        self._seen_ids: dict[str, str] = {}
        for exchange in (e for e in earlier if e.kind not in {"probe", *ELSEWHERE}):
            for name in read_answer(exchange).ids:
                self._seen_ids.setdefault(name, f"{exchange.key} (in an earlier notebook)")

    def findings(self) -> Iterator[Finding]:
        group = contract_group(self._cases[0].group) if self._cases else "contract"
        yield self._finding(f"{self._notebook}.ready", group, "ready", self._ready())
        seen: dict[str | None, list[Evidence]] = defaultdict(list)
        for case in (c for c in self._cases if c.over is None):
            found = [self._finding(case.id, *said) for said in self._case(case)]
            yield from found
            outcome = worst([f.outcome for f in found if f.group == case.group])
            judged = Evidence(case, self._replies(case), self._identity, self._profile)
            seen[case.group].append(replace(judged, outcome=outcome, canary=self._canary(case)))
        for case in (c for c in self._cases if c.over is not None):
            yield from (self._finding(case.id, *said) for said in self._over(case, seen[case.over]))

    def _finding(self, case: str, group: str, check: str, result: Result) -> Finding:
        return Finding(
            id=case if check == "ready" else f"{case}.{check}", notebook=self._notebook, case=case, group=group, check=check,
            outcome=result.outcome, measured=result.measured, limit=result.limit, unit=result.unit, reason=result.reason,
            stage=result.stage if result.stage is not None else OWN.get(check, Stage.BEHAVIOUR),
        )  # fmt: skip

    def _replies(self, case: Case) -> list[Reply]:
        """Return the replies to those of its requests that are in the record."""
        asks = [(a, self._by_key[key]) for a in case.requests() if (key := f"{case.id}/{a.name}") in self._by_key]
        return [Reply(a, e, self._thinks, not is_answer(case, a)) for a, e in asks]

    def _canary(self, case: Case) -> Exchange | None:
        """Return the plain request after the case, where one was recorded."""
        return self._by_key.get(f"{case.id}/canary")

    def _ready(self) -> Result:
        """Judge the one-token chat that opens every notebook."""
        readies = [e for e in self._exchanges if e.kind == "ready"]
        if not readies:
            return self._blame.unasked("nothing was recorded: the notebook did not reach the server")
        if readies[-1].fault is not None:
            return self._blame.of(readies[-1])
        took_ms = round(sum(a.elapsed_ms for e in readies for a in e.attempts), 1)
        limit_ms = self._profile.limits.ready_deadline_s * 1000
        return Result("pass", "a one-token chat was answered", took_ms, limit_ms, "ms")

    def _case(self, case: Case) -> Iterator[Said]:
        if lacking := self._profile.not_offered(*case.needs):
            yield case.group, "offered", Result("not_measured", f"not offered: {lacking}")
            return
        recorded = self._replies(case)
        may_refuse = case.negative or case.scored
        broken = [r.exchange for r in recorded if r.exchange.fault and not (may_refuse and r.refused)]
        if lost := ", ".join(a.name for a in case.requests() if f"{case.id}/{a.name}" not in self._by_key):
            if broken and self._blame.stops:  # the rest was not asked because of it
                yield from self._broken(case, broken[0])
            else:
                why = self._blame.unasked(f"no record of {lost}: expected, but never asked or lost")
                yield case.group, "recorded", why
            return
        replies = [r for r in recorded if r.exchange.kind != "skip"]
        skipped = [r.exchange.detail for r in recorded if r.exchange.kind == "skip"]
        contract, chats = contract_group(case.group), [r for r in replies if r.ask.path is None and not case.scored]
        if chats:
            yield contract, "contract", self._blame.of(broken[0]) if broken else self._contract(case, chats)
        if case.document is not None and not broken and not skipped:
            yield contract, "length", length_kept(replies[0], case.document, self._by_key)
        if broken:
            yield case.group, "answered", self._blamed(case, broken[0])
        elif said := self._in_thoughts(case, chats):
            yield case.group, "finished", said
        elif skipped:
            yield from self._skipped(case, skipped[0])
        elif case.canary and self._blame.stops and self._canary(case) is None:
            yield case.group, "recorded", self._blame.unasked()
        else:
            yield from self._answers(case, replies, chats)

    def _over(self, case: Case, seen: list[Evidence]) -> Iterator[Said]:
        """Judge a case over a group. It asks nothing, unless it is about an adapter, whose parent is asked the same."""
        served = self._identity.parent in self._identity.models
        asked = [ask for of, ask in asked_of_parent(self._cases, self._profile) if served and of.id == case.id]
        replies = [Reply(a, self._by_key[key]) for a in asked if (key := f"{case.id}/{a.name}") in self._by_key]
        skipped = [r.exchange.detail for r in replies if r.exchange.kind == "skip"]
        broken = [r.exchange for r in replies if r.exchange.fault and not 400 <= (r.exchange.status or 0) < 500]
        lost = ", ".join(a.name for a in asked if f"{case.id}/{a.name}" not in self._by_key)
        if lost and not broken:
            why = f"no record of {lost} as asked of {self._identity.parent}: expected, but never asked or lost"
            yield case.group, "recorded", self._blame.unasked(why)
        elif broken:
            yield case.group, "answered", self._blame.of(broken[0])
        elif skipped:
            yield from self._skipped(case, skipped[0])
        else:
            yield from self._expected(Evidence(
                case, replies, self._identity, self._profile, over=seen, watching=self._watched, restarts=self._restarts
            ))  # fmt: skip

    def _broken(self, case: Case, exchange: Exchange) -> Iterator[Said]:
        for group, check in ((contract_group(case.group), "contract"), (case.group, "answered")):
            yield group, check, self._blamed(case, exchange)

    def _blamed(self, case: Case, exchange: Exchange) -> Result:
        """Return whose fault it is and, for a server that died while scoring a golden answer, what may have killed it."""
        found = self._blame.of(exchange)
        told = case.scored and (exchange.status or 500) >= 500 and found.outcome == "fail"
        return replace(found, reason=f"{found.reason}; {VOCABULARY}") if told else found

    def _skipped(self, case: Case, why: str) -> Iterator[Said]:
        """Report what was not asked; a broken sample of a document's length once, at the first case that needs it."""
        rulers = (e for e in self._exchanges if e.key.startswith("ruler/") and e.fault and f"({e.key})" in why)
        ruler = next(rulers, None)
        if ruler is not None and ruler.key not in self._rulers_told:
            self._rulers_told.add(ruler.key)
            yield from self._broken(case, ruler)
        else:  # no policy looks away from what is `recorded`
            check = "recorded" if why.startswith((OVER_BUDGET, HANGING)) else "asked"
            yield case.group, check, Result("not_measured", why)

    def _answers(self, case: Case, replies: list[Reply], chats: list[Reply]) -> Iterator[Said]:
        if case.draws:
            yield case.group, "draws", self._drawn(case, replies)
            return
        if noisy := next((heard for r in chats if (heard := noise(r.answer.text))), None):
            yield case.group, "noise", Result("fail", f"noise instead of an answer: {noisy}")
        if said := _unfinished(chats):
            yield case.group, "finished", said
        together = self._loaded(case.group, frozenset(case.load.at_once)) if case.load else []
        yield from self._expected(Evidence(
            case, replies, self._identity, self._profile, self._cosines, canary=self._canary(case),
            timed=self._timed.get(case.id), together=together, restarts=self._restarts,
        ))  # fmt: skip

    def _drawn(self, case: Case, replies: list[Reply]) -> Result:
        """Judge the share of sampled answers that pass; one that could not be judged decides for the case."""
        failed: list[str] = []
        for reply in replies:
            said = expectations(Evidence(case, [reply], self._identity, self._profile, self._cosines))
            found = (_unfinished([reply]), *(result for _, _, result in said))
            red = [result for result in found if result and result.outcome != "pass"]
            if unjudged := next((result for result in red if result.outcome != "fail"), None):
                return replace(unjudged, reason=f"{reply.ask.name}: {unjudged.reason}")
            failed += [f"{reply.ask.name}: {noise(reply.answer.text) or red[0].reason}"] if red else []
        share, first = round(1 - len(failed) / len(replies), 4), f" ({failed[0]})" if failed else ""
        reason = f"{len(replies) - len(failed)} of {len(replies)} sampled answers pass{first}"
        return Result.of(share >= case.pass_share, reason, share, case.pass_share, "rate")

    def _expected(self, evidence: Evidence) -> Iterator[Said]:
        for check, number, result in expectations(evidence):
            yield evidence.case.group, check if number == 1 else f"{check}-{number}", result

    def _in_thoughts(self, case: Case, chats: list[Reply]) -> Result | None:
        """Fail a model that was asked for an answer and did not finish thinking; None where it did."""
        for reply in chats if self._thinks else ():
            if is_answer(case, reply.ask) and reply.answer.ends_in_thoughts:
                spent, room = reply.answer.tokens("completion_tokens"), self._profile.target.room
                told = f"spent its {'' if spent is None else f'{spent:,} '}tokens thinking and did not answer"
                todo = f"target.thinking_tokens ({room:,}) is the room for thoughts"
                return Result("fail", f"{reply.ask.name}: {told}; {todo}", spent, room, "tokens")
        return None

    def _of_load(self, group: str, levels: frozenset[Level]) -> list[Exchange]:
        """Return what a group asked at these levels of load."""
        asked = [(c, a) for c in self._cases if c.load and c.group == group for a in c.requests()]
        keys = [f"{c.id}/{a.name}" for c, a in asked if level_of(a.name) in levels]
        return [self._by_key[key] for key in keys if key in self._by_key and self._by_key[key].kind == "ask"]

    def _contract(self, case: Case, chats: list[Reply]) -> Result:
        chance, canary = drawn_by_chance(chats), self._canary(case)
        flaws = [*self._flaws(case, chats, chance), *self._canary_flaws(canary)]
        if case.canary and canary is None and not self._blame.stops:
            return self._blame.unasked("no record of the plain request that must follow")
        if canary is not None and canary.fault and self._blame.went_with(canary):
            return self._blame.of(canary)
        if flaws:
            said = "; ".join(text for _, text in flaws[:3]) + (f"; and {len(flaws) - 3} more" if len(flaws) > 3 else "")
            astray = any(thoughts_astray(r.answer, self._thinks) for r in chats)
            stage = Stage.REASONING if astray else min(stage for stage, _ in flaws)
            advice = next(filter(None, (thinking_advice(r.answer, self._thinks) for r in chats)), None)
            said += f"; {advice}" if advice else ""
            return Result("fail", said, len(flaws), 0, "violations", stage)
        if case.canary and canary is None:
            return self._blame.unasked()
        reason = f"{len(chats)} {'reply keeps' if len(chats) == 1 else 'replies keep'} the contract"
        if chance:
            reason += f"; one sampled answer alone may draw this by chance, and {chance[0].ask.name} did: {chance[1]}"
        told = dict.fromkeys(note for reply in chats for note in notes(reply, self._thinks))
        return Result("pass", "; ".join([reason, *told]), 0, 0, "violations")

    def _flaws(self, case: Case, chats: list[Reply], chance: tuple[Reply, str] | None) -> Iterator[tuple[Stage, str]]:
        """Yield what breaks the contract, by stage; what is wrong with the text alone is behaviour."""
        for reply in chats:
            if case.negative and reply.refused:
                yield from [(Stage.BEHAVIOUR, flaw)] if (flaw := packing_flaw(reply.exchange)) else []
                continue
            label = f"{reply.ask.name}: " if len(chats) > 1 else ""
            of_text = set(text_flaws(reply.answer, self._thinks))
            if how := self._kept_back.get(reply.exchange.key):
                said = f"{label}the streamed reply arrives in one piece: something in front buffers it ({how})"
                yield Stage.ENVELOPE, said
            for text in self._violations(reply):
                if (reply, text) != chance:
                    yield Stage.BEHAVIOUR if text in of_text else Stage.ENVELOPE, label + text

    def _violations(self, reply: Reply) -> Iterator[str]:
        profile, target = self._profile, self._profile.target
        return violations(
            reply, target.model, self._seen_ids, self._identity.context_tokens,
            ends_with_done=profile.not_offered("stream_done") is None, counts_streams=profile.not_offered("stream_usage") is None,
            is_alias=lambda asked, told: told in target.aliases or self._identity.is_alias(asked, told), behind_s=self._behind_s,
            thinks=self._thinks, leaves_open=self._leaves_open,
        )  # fmt: skip

    def _canary_flaws(self, canary: Exchange | None) -> Iterator[tuple[Stage, str]]:
        """Yield flaws of the plain answer after a hard request: none, noise, another's (sglang#2414), a broken contract."""
        if canary is None:
            return
        reply = Reply(Ask(name="canary"), canary, self._thinks, raw=True)
        text, stage = reply.answer.text, Stage.ENVELOPE
        if canary.fault or not text.strip():
            said = [f"was not answered: {canary.detail or 'empty content'}"]
        elif heard := noise(text):
            said = [f"was answered with noise: {heard}"]
        elif text.lstrip().startswith("{"):
            stage = Stage.SWAPPED
            said = [f"was answered with JSON: an answer or a grammar reached the wrong request: {text[:60]!r}"]
        else:
            said = [f"broke the contract: {flaw}" for flaw in self._violations(reply)]
        yield from ((stage, f"the plain request after it {flaw}") for flaw in said)


def _unfinished(chats: list[Reply]) -> Result | None:
    """Judge the finish_reason of each reply; None when no ask expects one."""
    judged = [(r.ask, r.answer.finish_reason) for r in chats if r.ask.finish != "any" and not r.refused]
    for ask, reason in judged:
        if reason != ask.finish:
            said = f"{ask.name}: finish_reason is {reason!r}, expected {ask.finish!r}"
            return Result("fail", said, reason, ask.finish)
    return Result("pass", f"finish_reason is {judged[0][1]!r}", judged[0][1], judged[0][1]) if judged else None
