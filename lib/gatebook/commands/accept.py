"""Accept a run: make it the baseline of later ones."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from statistics import median
from typing import Any

from gatebook.checks.facts import COVERAGE
from gatebook.checks.finding import worst
from gatebook.config import project
from gatebook.config.cases import load_cases
from gatebook.config.files import replace_text
from gatebook.config.project import person
from gatebook.entering import enter_accepted, judge_intact
from gatebook.errors import BadInput, one_line
from gatebook.opening import accepted
from gatebook.record.replies import read_answer
from gatebook.record.run import Run, now
from gatebook.record.samples import streamed_times
from gatebook.record.shelf import held
from gatebook.report.standing import named
from gatebook.verdict import golden
from gatebook.verdict.baseline import Acceptance, AcceptedCase, Baseline, Flips, values_asked_alike
from gatebook.verdict.causes import refusals
from gatebook.verdict.fingerprint import asked_otherwise, case_of, changes
from gatebook.verdict.policy import COMPARED
from gatebook.verdict.pooled import score_of
from gatebook.verdict.sensitivity import answer_keywords
from gatebook.verdict.verdict import Verdict

CHANGE_CHARS = 200
SHOWN_CASES = 8
LOCK_TRIES = 200
"""Twenty seconds: another one that accepts is done in two."""


def accept(path: Path, reason: str, group: str | None, by: str | None = None, again: Path | None = None) -> str:
    """Write `params/baselines/<profile>.json`, with an entry in its log, and return what changed in it.

    Takes a complete PASS, or an INCONCLUSIVE that lacks only what accepting it gives (`causes.refusals`). Cases that a smaller
    suite does not ask stay as they were. With `group`, an existing baseline takes that group's cases only, of a red run too.
    `again`: another run of the same deployment, which measures how many cases turn between two. The history marks what was
    accepted. One process at a time changes baselines. Raises BadInput with all that is in the way, BrokenRecord, HistoryFailed;
    then nothing was accepted.
    """
    reason, who = reason.strip(), (by or person() or "").strip()
    if not reason:
        raise BadInput("--reason is empty; say why this run may be the measure of later ones")
    if not who:
        said = "neither git config, GITLAB_USER_LOGIN nor USER says who you are"
        raise BadInput(f"--by is missing, and {said}; name yourself")
    run, verdict = judge_intact(path, "only an intact run is accepted")
    profile = run.manifest.profile
    file = project.baseline_file(profile.baseline_name)
    with held(file.parent, "gatebook accept", LOCK_TRIES):
        old = accepted(profile)[0]
        if wrong := _in_the_way(verdict, group, old, file):
            raise BadInput(f"{path}: is {verdict.called} and not accepted: {'; '.join(wrong)}")
        new, kept = _baseline(run, verdict, reason), 0
        if again is not None:
            new = new.model_copy(update={"flips": _flips(again, new, run)})
        if group is not None and old is not None:
            new = _one_group(new, old, group)
        elif old is not None:
            new, kept = _with_unasked(new, old)
        entry = _entry(old, new, verdict, profile.limits.logprob_tolerance_nats, who, reason, group)
        new = new.model_copy(update={"log": [*_log(old), entry]})
        enter_accepted(run, verdict, group)
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_text(file, new.to_json())
    taken = f"{len(new.cases) - kept} cases of {run.manifest.run} accepted{_difference(old, new)}"
    lines = [f"{file}: {taken}; commit it ({_git_hint(file)})"]
    if again is not None and (flips := new.flips):
        lines.append(f"  {flips.turned} of {flips.paired} compared cases turned between it and {flips.run}")
    if kept:
        spoken = f" in {', '.join(profile.languages)}" if profile.languages else ""
        lines.append(f"  kept: {kept} cases that suite {run.manifest.suite}{spoken} does not ask")
    return "\n".join(map(one_line, [*lines, *_shown(entry)]))


def _in_the_way(verdict: Verdict, group: str | None, old: Baseline | None, file: Path) -> list[str]:
    """Return why a run, or one of its groups, is not accepted; a FAIL is no reason against a group."""
    wrong = [f"{one.text}: {one.todo}" for one in refusals(verdict) if group is None or one.about == "this run"]
    if group is None:
        return wrong
    if old is None:
        wrong.append(f"{file}: there is no baseline yet; accept the whole run first, without --group")
    judged = next((g for g in verdict.groups if g.group == group), None)
    if judged is None:
        known = ", ".join(g.group for g in verdict.groups)
        wrong.append(f"--group has value {group!r}: the run has no such group; it has {known}")
    if (judged and judged.error) or verdict.verdict == "ERROR":
        wrong.append(f"{verdict.reason}: what could not be measured is not accepted; run it again")
    return wrong


def _baseline(run: Run, verdict: Verdict, reason: str) -> Baseline:
    manifest, profile, cases = run.manifest, run.manifest.profile, {}
    for case in (run.cases[i] for ids in manifest.expected.values() for i in ids):
        found = [f for f in verdict.findings if f.case == case.id]
        own = [f for f in found if f.group == case.group]
        cases[case.id] = AcceptedCase(
            group=case.group, outcome=worst([f.outcome for f in own]), prompt=run.asked(case.id),
            measured=next((f.measured for f in found if f.unit == COVERAGE), None), score=score_of(own),
        )  # fmt: skip
    return Baseline(
        profile=profile.name, run=manifest.run, accepted=now(), reason=reason, model=profile.target.model,
        revision=profile.target.revision, suite=manifest.suite, languages=profile.languages,
        fingerprint=verdict.fingerprint, latency_ms=_latencies(run), cases=cases, keywords=answer_keywords(run),
    )  # fmt: skip


def _flips(again: Path, accepted: Baseline, run: Run) -> Flips:
    """Count the compared cases that turned in another run of the same deployment. Raises BadInput where that is none."""
    other, verdict = judge_intact(again, "only an intact run measures how much turns")
    then = _baseline(other, verdict, "")
    if other.manifest.run == run.manifest.run or verdict.verdict == "ERROR":
        what = "the accepted run itself" if verdict.verdict != "ERROR" else "an ERROR"
        raise BadInput(f"--again {again}: is {what}; name another run of the same deployment")
    if (then.model, then.revision) != (accepted.model, accepted.revision):
        its, ours = (f"{one.model}, revision {one.revision or 'none named'}" for one in (then, accepted))
        raise BadInput(f"--again {again}: is of {its}; name a run of what is accepted, {ours}")
    judged = [
        (case.outcome, anew.outcome)
        for i, case in accepted.cases.items()
        if (anew := then.cases.get(i)) and anew.prompt == case.prompt
        and run.manifest.profile.policy(case.group).policy in COMPARED and {case.outcome, anew.outcome} <= {"pass", "fail"}
    ]  # fmt: skip
    if not judged:
        raise BadInput(f"--again {again}: has no compared case that both runs judged; run the same suite")
    return Flips(run=other.manifest.run, paired=len(judged), turned=sum(a != b for a, b in judged))


def _latencies(run: Run) -> dict[str, float]:
    """Return medians over all streamed answers, in ms, and over the samples that measure documents, in ms a prompt token."""
    exchanges = [e for notebook in run.notebooks for e in run.exchanges(notebook)]
    values = {name.removesuffix("_ms"): found for name, found in streamed_times(exchanges).items()}
    values["prompt_token"] = [
        e.attempts[-1].elapsed_ms / tokens
        for e in exchanges
        if e.key.startswith("ruler/") and not e.fault and (tokens := read_answer(e).tokens("prompt_tokens") or 0) > 100
    ]
    return {name: round(float(median(found)), 2) for name, found in values.items() if found}


def _with_unasked(new: Baseline, old: Baseline) -> tuple[Baseline, int]:
    """The new baseline with the project's cases that its suite does not ask, as they were accepted before (their fingerprints for
    the same revision only), and their number."""
    if new.flips is None and old.revision == new.revision:
        new = new.model_copy(update={"flips": old.flips})
    missing = old.cases.keys() - new.cases.keys()
    kept = missing & {case.id for case in load_cases(*project.case_folders())} if missing else set()
    if not kept:
        return new, 0
    same = old.revision == new.revision
    prints = {name: value for name, value in old.fingerprint.items() if same and case_of(name) in kept}
    joined = _joined(old, kept, new, new.cases)
    return new.model_copy(update={**joined, "suite": old.suite, "fingerprint": prints | new.fingerprint}), len(kept)


def _one_group(new: Baseline, old: Baseline, group: str) -> Baseline:
    """The old baseline with this group's cases of the new one; of the fingerprint, what those measured that are asked anew,
    and golden answers."""
    taken = {i: case for i, case in new.cases.items() if case.group == group}
    anew = {i for i, case in taken.items() if i not in old.cases or old.cases[i].prompt != case.prompt}
    anew |= {i for i in taken if golden.PREFIX + i in new.fingerprint}
    prints = {name: value for name, value in old.fingerprint.items() if case_of(name) not in anew}
    prints |= {name: value for name, value in new.fingerprint.items() if case_of(name) in anew}
    reason = f"{group}: {new.reason} (before: {old.reason})"
    joined = _joined(old, {i for i, case in old.cases.items() if case.group != group}, new, taken)
    return old.model_copy(update={**joined, "fingerprint": prints, "accepted": new.accepted, "reason": reason})


def _joined(old: Baseline, of_old: Collection[str], new: Baseline, of_new: Collection[str]) -> dict[str, Any]:
    """Join cases and their key words out of two baselines."""

    def join(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
        return {i: v for i, v in before.items() if i in of_old} | {i: v for i, v in after.items() if i in of_new}

    return {"cases": join(old.cases, new.cases), "keywords": join(old.keywords, new.keywords)}


def _difference(old: Baseline | None, new: Baseline) -> str:
    if old is None:
        return " as the first baseline"
    turned = [i for i in new.cases if i in old.cases and new.cases[i].outcome != old.cases[i].outcome]
    added, gone = len(new.cases.keys() - old.cases.keys()), len(old.cases.keys() - new.cases.keys())
    return f" ({len(turned)} outcomes changed, {added} cases new, {gone} gone since {old.run})"


def _log(old: Baseline | None) -> list[Acceptance]:
    """Return the log so far; an old baseline without one says at least when and why it was accepted."""
    if old is None:
        return []
    log = old.log or [Acceptance(at=old.accepted, by="not recorded", run=old.run, reason=old.reason)]
    return [*log[:-1], log[-1].model_copy(update={"content": old.content})]  # entries were written without it once


def _entry(
    old: Baseline | None,
    new: Baseline,
    verdict: Verdict,
    tolerance_nats: float,
    by: str,
    reason: str,
    group: str | None,
) -> Acceptance:
    before, after = (old.cases if old else {}), new.cases
    both = sorted(before.keys() & after.keys())
    same = [i for i in both if before[i].prompt == after[i].prompt]
    known = values_asked_alike(old, {i: case.prompt for i, case in after.items()}) if old else {}
    moved = [str(c) for c in changes(known, new.fingerprint, tolerance_nats, new.run)]
    if old and (asked := asked_otherwise(old.fingerprint, new.fingerprint)):
        moved = [asked, *moved]
    if old and old.revision != new.revision:
        moved = [f"revision changed: was {old.revision or 'none named'}, is {new.revision or 'none named'}", *moved]
    waived = {case for waiver in verdict.waivers for case in waiver.cases}
    return Acceptance(
        at=now(), by=by, run=verdict.run, reason=reason, group=group, content=new.content,
        newly_passing=[i for i in same if after[i].outcome == "pass" != before[i].outcome],
        newly_failing=[i for i in same if before[i].outcome == "pass" != after[i].outcome],
        added=sorted(after.keys() - before.keys()) if old else [], gone=sorted(before.keys() - after.keys()),
        other_prompt=[i for i in both if i not in same],
        fingerprint=[text if len(text) <= CHANGE_CHARS else f"{text[:CHANGE_CHARS]} ..." for text in moved],
        waived=sorted(i for i in waived if group is None or (i in after and after[i].group == group)),
    )  # fmt: skip


def _shown(entry: Acceptance) -> list[str]:
    """Render the log's new entry for the terminal."""
    lists = {
        "newly passing": entry.newly_passing, "NEWLY FAILING": entry.newly_failing, "new": entry.added, "gone": entry.gone,
        "asked differently": entry.other_prompt, "deployment": entry.fingerprint, "waived": entry.waived,
    }  # fmt: skip
    lines = [f"  by {entry.by}: {entry.reason}"]
    return lines + [f"  {what}: {named(found, SHOWN_CASES)}" for what, found in lists.items() if found]


def _git_hint(file: Path) -> str:
    tracked = project.git(file.parent, "ls-files", "--error-unmatch", file.name) is not None
    return "`git diff` shows it" if tracked else "it is the measure of later runs"
