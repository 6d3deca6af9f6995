"""What a fleet would cost and could see, before anything is asked."""

from __future__ import annotations

from collections import Counter, defaultdict

from gatebook.checks import stats
from gatebook.config.cases import Case
from gatebook.config.profile import Profile, profile_from
from gatebook.config.selection import Shard, part_of
from gatebook.fleet.plan import Deployment, Fleet, resolve
from gatebook.opening import accepted
from gatebook.opening import planned as planned_cases
from gatebook.report.estimate import estimate
from gatebook.verdict.baseline import Baseline
from gatebook.verdict.policy import COMPARED, compared_groups

ROW = "  {:<34}{:>7}{:>22}{:>22}"


def checked(fleet: Fleet, where: str) -> list[tuple[list[Deployment], Profile, list[Case], dict[str, int]]]:
    """(the deployments of a profile, it as the first of them has it, the cases, what its languages leave out), for each profile
    of the fleet. Raises BadInput where one could not be begun. Keys are the workers': none is needed here."""
    data = resolve(fleet, where)
    by_profile: dict[str, list[Deployment]] = defaultdict(list)
    for one in fleet.deployments:
        by_profile[one.profile].append(one)
    found = []
    for file, several in by_profile.items():
        name = several[0].name
        profile = profile_from(data[name], f"{where}, deployment {name!r} ({file})", name)
        keyless = profile.target.model_copy(update={"api_key_env": None, "headers": {}})
        cases, left = planned_cases(profile.model_copy(update={"target": keyless}), fleet.suite, None)
        for number in range(1, fleet.shards + 1) if fleet.shards > 1 else ():
            part_of(cases, Shard(number, fleet.shards))
        found.append((several, profile, cases, left))
    return found


def planned(fleet: Fleet, where: str) -> str:
    """What a run of it would be: its jobs, the cost of one deployment of each profile, and the smallest drop that a deployment
    shows by itself and among all. Raises BadInput where it could not be begun."""
    count, lines = len(fleet.deployments), list[str]()
    for several, profile, cases, left in checked(fleet, where):
        baseline = accepted(profile)[0]
        lines += [f"{several[0].profile}: {len(several)} deployments, such as {several[0].name}, each:", ""]
        lines += [
            estimate(profile, fleet.suite, cases, baseline, left),
            "",
            *_drops(profile, cases, baseline, count),
            "",
        ]
    shards = f", {fleet.shards} shards each" if fleet.shards > 1 else ""
    return "\n".join(
        [*lines, f"fleet {fleet.name}: {count} deployments{shards}, suite {fleet.suite}, evidence in {fleet.store}"]
    )


def _drops(profile: Profile, cases: list[Case], baseline: Baseline | None, count: int) -> list[str]:
    """Group by group the fewest newly failing cases that would block, alone and among `count` deployments."""
    compared = [case for case in cases if profile.policy(case.group).policy in COMPARED and not case.scored]
    family, lines = compared_groups(profile, (case.group for case in compared)), list[str]()
    if not compared or count == 1:
        return []
    sizes = Counter(case.group for case in compared)
    old = baseline.cases if baseline else {}
    passed = Counter(c.group for c in compared if c.id in old and old[c.id].outcome == "pass") if old else sizes
    for group in sizes:
        drops = (stats.smallest_visible_drop(passed[group], family, stats.ALPHA / n) for n in (1, count))
        lines.append(ROW.format(group, passed[group], *(f"{n} cases" if n else "no size" for n in drops)))
    basis = f"passed in the baseline {baseline.run}" if baseline else "if all pass in the baseline"
    head = ROW.format("smallest drop that blocks", "passed", "alone", f"among {count}")
    return [head, *lines, f"  ({basis}; the level {stats.ALPHA:g} is the fleet's: Holm over deployments x groups)"]
