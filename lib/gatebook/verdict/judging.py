"""From a run folder to its verdict: the pure half of the story, used by the notebooks, the runner and verify alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from copy import copy
from itertools import chain

from gatebook.checks.contract import clock_behind_s
from gatebook.checks.finding import NEVER_EXCUSED, Finding, Stage
from gatebook.config.selection import told_languages
from gatebook.engines.fronts import fronts
from gatebook.errors import BrokenRecord
from gatebook.record.exchange import ELSEWHERE, IN_USE
from gatebook.record.folder import MAX_MEMORY_MIB, MAX_S
from gatebook.record.planned import beyond_plan
from gatebook.record.run import Run
from gatebook.stopping import TookTooMuch, within
from gatebook.verdict.baseline import Baseline, read_baseline, values_asked_alike
from gatebook.verdict.causes import ACCEPT, ALLOW, Said, causes
from gatebook.verdict.findings import NO_RUN_WRITES, judge_notebook, run_identity
from gatebook.verdict.fingerprint import (
    NO_THOUGHTS,
    Change,
    Fingerprint,
    asked_otherwise,
    changes,
    fingerprint,
    measured,
    noted,
)
from gatebook.verdict.golden import Golden, compared
from gatebook.verdict.kept import kept_findings
from gatebook.verdict.looking import GO_ON, unsettled
from gatebook.verdict.policy import AGAIN, COMPARED, EXCUSE, MEND, WORDS, Judged, compared_groups, judge_groups, waivers
from gatebook.verdict.pooled import Key, Pooled, pool, score_of
from gatebook.verdict.replicas import NOT_BY_THEMSELVES, servers
from gatebook.verdict.verdict import EXIT_CODES, Excuse, GroupVerdict, Served, Verdict, WaiverUse, Word

FindingsOf = Callable[[Run, str], list[Finding]]
"""What gives the findings of a notebook of a run."""
JUDGE_S, JUDGE_MIB, CASE_S = MAX_S, MAX_MEMORY_MIB, 0.05
"""Wall time and memory of judging a bundle, and the time that each case adds: a pattern that somebody else wrote may have no end."""
RENEW = "renew the waiver with a reason, or delete it"
MEND_ALL = "mend the deployment; `gatebook compare` with the accepted run shows where it lost, or set `pooled: watch`"


def judge(run: Run, notebook: str | None = None, troubles: list[str] | None = None, *, kept: bool = False) -> Verdict:
    """The verdict of a run, or of one of its notebooks. Raises BrokenRecord, and nothing else whatever the folder holds.

    A notebook alone is judged as if the compared groups of the others showed nothing (p = 1), which is the strictest
    Holm step; the run's verdict has them all. `kept`: what the notebooks found is taken from the files that they wrote.
    """
    return judge_by(run, notebook, troubles or [], kept_findings if kept else judge_notebook)


def so_far(run: Run, notebook: str) -> Run:
    """The run as its notebook saw it: without the exchanges of those that come after it, which a replay would see."""
    names, found = run.notebooks, copy(run)
    later = names[names.index(notebook) + 1 :] if notebook in names else []
    found.record_files = lambda notebook: [] if notebook in later else run.record_files(notebook)  # type: ignore[method-assign]
    return found


def bounded(run: Run, what: str) -> AbstractContextManager[None]:
    """Limit a block that reads or judges a bundle, in time and memory; it raises TookTooMuch."""
    return within(JUDGE_S + CASE_S * sum(map(len, run.manifest.expected.values())), JUDGE_MIB, what)


def judge_by(run: Run, notebook: str | None, troubles: list[str], findings_of: FindingsOf) -> Verdict:
    """`judge`, with the findings of each notebook from `findings_of`."""
    try:
        with bounded(run, "judging it, by patterns of its own cases,"):
            return decide(_read(run, notebook, troubles, findings_of))
    except TookTooMuch as error:
        raise BrokenRecord(f"{run.path}: {error}") from None
    except NO_RUN_WRITES as error:
        said = " ".join(str(error).split())[:200]
        raise BrokenRecord(
            f"{run.path}: cannot be judged ({type(error).__name__}: {said}): it holds what no run writes; if one did, please report it"
        ) from error


def _read(run: Run, notebook: str | None, troubles: list[str], findings_of: FindingsOf) -> Judged:
    judged = [notebook] if notebook else run.notebooks
    if beyond := beyond_plan(run, judged):
        raise BrokenRecord(f"{run.path}: {beyond}")
    findings = [found for name in judged for found in findings_of(run, name)]
    manifest, target, identity = run.manifest, run.manifest.profile.target, run_identity(run)
    planned = (run.cases[i] for ids in manifest.expected.values() for i in ids)
    family = compared_groups(manifest.profile, (case.group for case in planned if not case.scored))
    if notebook:
        manifest = manifest.model_copy(update={"expected": {notebook: manifest.expected[notebook]}})
    served = Served(
        base_url=manifest.base_url, model=target.model, revision=target.revision,
        engine=identity.engine, version=identity.version, context_tokens=identity.context_tokens,
    )  # fmt: skip
    baseline, notebooks = run_baseline(run), list(manifest.expected)
    known = baseline.fingerprint if baseline and baseline.revision == target.revision else {}
    return Judged(
        manifest, run.cases, findings, served, fingerprint(run, identity, findings), baseline, troubles, family,
        alone=notebook is not None, record={name: run.exchanges(name) for name in notebooks},
        servers=list(servers(run, notebooks, known)),
    )  # fmt: skip


def run_baseline(run: Run) -> Baseline | None:
    """The baseline that was copied into the run when it was planned, or the one by which it is judged instead."""
    path = run.path / "baseline.json"
    return read_baseline(run.measure or (path.read_bytes() if path.exists() else None), str(path))


def judge_beside(run: Run, baseline: Baseline) -> Verdict:
    """The verdict of a run, had it been compared with this baseline. Raises BrokenRecord."""
    other = Run(run.path)
    other.measure = baseline.to_json().encode()
    return judge(other, troubles=run.troubles)


def golden_answers(run: Run, now: Fingerprint) -> dict[str, Golden]:
    """Group -> its golden answers in this fingerprint of the run, beside the baseline's."""
    baseline, prompts = run_baseline(run), {i: run.asked(i) for i in run.cases}
    before = values_asked_alike(baseline, prompts) if baseline else {}
    return compared(run.manifest.profile, run.cases, before, now, run.manifest.run)


def decide(judged: Judged) -> Verdict:
    """Fold everything into one verdict; the first of FAIL, ERROR, INCONCLUSIVE, PASS that holds."""
    manifest, baseline, used = judged.manifest, judged.baseline, waivers(judged.manifest, judged.outcomes)
    accepted = judged.accepted
    moved = _moved(judged, accepted)
    groups, of_groups = judge_groups(judged, used)
    pooled = _pooled(judged, used)
    said = [
        *(Said("ERROR", None, "this run", text, f"mend what broke on our side; {AGAIN}") for text in judged.troubles),
        *judged.servers,
        *_missing(judged),
        *_beside_others(judged),
        *_unasked(judged),
        *_under_one_revision(judged, moved),
        *(Said("INCONCLUSIVE", None, f"waiver of {w.case}", f"waiver of {w}", RENEW) for w in used if w.blocks),
        *of_groups,
        *_together(judged, pooled, groups),
        *_without_baseline(judged, measured(judged.fingerprint) - measured(accepted)),
    ]  # fmt: skip
    said += [*_none_judged(judged, said)]
    found = causes(said)
    word: Word = found[0].word if found else "PASS"
    return Verdict(
        run=manifest.run, profile=judged.profile.name, suite=manifest.suite, partial=manifest.partial,
        effort=manifest.effort, served=judged.served, verdict=word, exit_code=EXIT_CODES[word],
        reason=found[0].text if found else _counts(judged), causes=found,
        reasons=[line for cause in found for line in (cause.text, *(f"explained by it: {r.text}" for r in cause.explains))],
        notes=[*_notes(judged, groups), *([f"pooled: {pooled}"] if pooled else [])], groups=groups, pooled=pooled, findings=judged.findings,
        excused=[Excuse(id=case, reason=why) for (_, case), why in judged.excused.items()],
        waivers=used, baseline=baseline.run if baseline else None,
        needs_baseline=word == "INCONCLUSIVE" and all(one.todo == ACCEPT for one in said),
        fingerprint=judged.fingerprint, changes=moved, troubles=judged.troubles,
    )  # fmt: skip


def _missing(judged: Judged) -> Iterator[Said]:
    have, expected = {f.case for f in judged.findings}, [i for ids in judged.manifest.expected.values() for i in ids]
    lost = [i for i in expected if i not in have]
    if not expected:
        yield Said("ERROR", None, "this run", "no case was expected, so nothing was judged", "select some cases")
    elif lost:
        text = f"{len(lost)} expected cases were not judged: {', '.join(lost[:5])}"
        yield Said("ERROR", None, "this run", text, AGAIN)


def _beside_others(judged: Judged) -> Iterator[Said]:
    """Report notebooks whose load was not asked because others use the server, with the cases not measured for it."""
    stops = {name: e.detail for name, exchanges in judged.record.items() for e in exchanges if e.kind == "stop"}
    for notebook, why in ((name, why) for name, why in stops.items() if why.startswith(IN_USE)):
        unmeasured = [f for f in judged.findings if f.notebook == notebook and f.outcome == "not_measured"]
        if any(f.check == "recorded" for f in unmeasured):
            cases = frozenset(f.case for f in unmeasured)
            yield Said("INCONCLUSIVE", None, notebook, f"{notebook}: {why}", ALLOW, cases)


def _unasked(judged: Judged) -> Iterator[Said]:
    """Report what not even `watch` may ignore: a server that was not ready, a case without an answer or a record."""
    todo = {"fail": MEND, "error": AGAIN, "not_measured": EXCUSE}
    for f in judged.findings:
        if f.outcome == "pass" or judged.profile.policy(f.group).policy != "watch":
            continue
        cut = f.outcome == "not_measured" and f.check in NEVER_EXCUSED
        if f.outcome == "error" or f.check in ("ready", "recorded") or cut:
            text = f"{f.case}: {f.reason}"
            yield Said(WORDS[f.outcome], f.stage, f.case, text, todo[f.outcome], frozenset([f.case]))


def _moved(judged: Judged, accepted: dict[str, object]) -> list[Change]:
    """Return what changed since it was accepted; nothing of a model that is not served is compared."""
    if any(f.outcome == "fail" and f.stage == Stage.NOT_SERVED for f in judged.findings):
        accepted = {name: value for name, value in accepted.items() if name != "model"}
    tolerance = judged.profile.limits.logprob_tolerance_nats
    return changes(accepted, judged.fingerprint, tolerance, judged.manifest.run) if accepted else []


def _under_one_revision(judged: Judged, moved: list[Change]) -> Iterator[Said]:
    """Report each part of the deployment that changed, by the first value that shows it."""
    revision = judged.profile.target.revision
    parts: dict[str, list[Change]] = defaultdict(list)
    for change in moved if judged.baseline and judged.baseline.revision == revision else ():
        parts[change.part].append(change)
    for part, found in parts.items():
        more = f" (and {len(found) - 1} more values)" if len(found) > 1 else ""
        told = f"under the same revision ({revision or 'none named'}); a new one is told with --revision"
        yield Said(
            "FAIL", found[0].stage, part.rstrip(","), f"{found[0]}{more}, {told}",
            "find out who changed it, or name the new revision (--revision)",
            frozenset(case for change in found for case in change.cases), tuple(change.name for change in found),
        )  # fmt: skip


def _pooled(judged: Judged, used: list[WaiverUse]) -> Pooled | None:
    """Test all compared cases together; None for one notebook alone, and without a baseline or this test."""
    if judged.alone or judged.baseline is None or judged.profile.pooled is None:
        return None
    outcomes = {
        (group, case): outcome
        for group, cases in judged.outcomes.items()
        if judged.profile.policy(group).policy in COMPARED and group not in judged.golden
        for case, outcome in cases.items()
        if case in judged.baseline.cases and case in judged.cases and judged.asks_alike(case)
        if (group, case) not in judged.excused and not any(case in w.cases and w.names(case, group) for w in used)
    }
    found: dict[Key, list[Finding]] = defaultdict(list)
    for finding in judged.findings:
        found[finding.group, finding.case].append(finding)
    scores = {key: score for key in outcomes if (score := score_of(found[key])) is not None}
    share, early = judged.manifest.level_share, judged.manifest.early
    return pool(outcomes, scores, judged.cases, judged.baseline, judged.profile.flip_rate, share, early)


def _together(judged: Judged, pooled: Pooled | None, groups: list[GroupVerdict]) -> Iterator[Said]:
    """Report what all compared cases show; a first stage is green only where its look settles the run."""
    if pooled and pooled.shown_worse and judged.profile.pooled == "no_worse":
        text = f"all compared cases together: shown worse than the baseline: {pooled}"
        yield Said("FAIL", Stage.BEHAVIOUR, "all compared cases", text, MEND_ALL)
    look = judged.manifest.look
    if look and judged.manifest.early and not judged.alone and (why := unsettled(look.margin, pooled, groups)):
        text = f"effort quick: the look settles nothing, and {len(look.later)} cases were not asked: {why}"
        yield Said("INCONCLUSIVE", None, "the look", text, GO_ON)


def _without_baseline(judged: Judged, lacking: set[str]) -> Iterator[Said]:
    """Report a complete run that lacks a baseline, or some kind of fingerprint value in it."""
    if judged.alone or judged.manifest.partial or not judged.findings:
        return
    if judged.baseline is None:
        text = "no baseline yet: nothing was accepted that this run could be compared with; accept it as the baseline"
        yield Said("INCONCLUSIVE", None, "baseline", text, ACCEPT)
    elif moved := asked_otherwise(judged.baseline.fingerprint, judged.fingerprint):
        text = f"{moved}; the baseline's answers are answers to other requests, so nothing is compared with them; accept this run"
        yield Said("INCONCLUSIVE", None, "baseline", text, ACCEPT)
    elif lacking:
        text = f"fingerprint: the baseline has no {' and no '.join(sorted(lacking))} as they are asked now; accept this run to take them in"
        yield Said("INCONCLUSIVE", None, "fingerprint", text, ACCEPT)


def _measured_and_not(judged: Judged) -> tuple[int, int]:
    """Return how many expected cases were judged, and how many were not measured."""
    expected = [case for cases in judged.manifest.expected.values() for case in cases]
    unmeasured = sum(judged.outcomes.get(judged.cases[c].group, {}).get(c) == "not_measured" for c in expected)
    return len(expected) - unmeasured, unmeasured


def _none_judged(judged: Judged, said: list[Said]) -> Iterator[Said]:
    """Report a run of which nothing was measured, and nothing else but a missing baseline is to be said: excuses and `watch`
    cover each case, and not all of them."""
    count, unmeasured = _measured_and_not(judged)
    if not judged.alone and not count and all(one.todo == ACCEPT for one in said):
        text = f"no case was judged: all {unmeasured} were not measured"
        yield Said("INCONCLUSIVE", None, "this run", text, "ask cases that can be measured here")


def _counts(judged: Judged) -> str:
    """Return what a PASS rests on."""
    count, unmeasured = _measured_and_not(judged)
    told = f"{count} cases asked, recorded and judged"
    if judged.manifest.look and judged.manifest.early:
        told += f", {len(judged.manifest.look.later)} not asked after an early look"
    return f"{told}; {unmeasured} not measured, excused or watched" if unmeasured else told


def _notes(judged: Judged, groups: list[GroupVerdict]) -> Iterator[str]:
    """Yield notes that stand beside every verdict and never block."""
    profile, exchanges = judged.profile, [*chain.from_iterable(judged.record.values())]
    if unnamed := [g.group for g in groups if g.group not in profile.groups and g.group != "contract"]:
        loud = "; NO CONTRACT IS HELD in them" if any(g.endswith(".contract") for g in unnamed) else ""
        yield (
            f"the profile is older than {', '.join(unnamed)}: watched, they never block{loud}; "
            f"add under `groups` of {profile.name}: {', '.join(f'{g}: must' for g in unnamed)} (or no_worse, or watch)"
        )
    blind = [(g.group, g.comparison) for g in groups if g.blind and g.comparison]
    if told := ", ".join(f"{group} ({c.baseline_passed} of {c.paired})" for group, c in blind):
        yield f"nothing is compared where too few cases passed in the baseline to show a drop: {told}"
    if behind_s := clock_behind_s(exchanges):
        yield (
            f"the server's clock is {abs(behind_s):,.0f} s {'behind' if behind_s > 0 else 'ahead of'} ours by what its replies tell; "
            "set this machine's clock if it is the wrong one. The freshest reply is the measure of what came from a cache"
        )
    yield from (e.detail for e in exchanges if e.kind == "note")
    if passed_on := fronts(e.headers for e in exchanges if e.kind not in ELSEWHERE):
        yield f"answers come through {', '.join(passed_on)}"
    for group in (g.group for g in groups):
        if (scores := judged.golden.get(group)) and scores.texts:
            new = f"; {len(scores.new)} more are new to the baseline" if scores.new else ""
            yield f"{group}: {scores}{new}"
    if judged.alone:
        return
    if judged.manifest.among > 1:
        yield f"one of {judged.manifest.among} deployments that are gated together: what is compared may spend that share of the error budget"
    if judged.fingerprint.get("thinking") == NO_THOUGHTS:
        yield "target.thinking is parsed, and no answer came after thoughts: set it to off, or find out why the model does not think"
    if profile.target.replicas and not profile.replicas(judged.manifest.suite):
        yield NOT_BY_THEMSELVES
    if told := told_languages(profile.languages, judged.manifest.left_out):
        yield told
    lacks = dict.fromkeys(said for said in profile.offers.values() if said is not True)
    if told := "; ".join(f"{', '.join(f for f, s in profile.offers.items() if s == said)} ({said})" for said in lacks):
        yield f"not offered by this server, so not asked: {told}"
    yield from noted(judged.baseline.fingerprint, judged.fingerprint) if judged.baseline else ()
