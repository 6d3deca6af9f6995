"""What a fleet would cost; and its reports: verdict.json, page, JUnit, metrics, a table in the terminal."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from typing import Any

from gatebook import opening
from gatebook.checks import stats
from gatebook.config.cases import Case
from gatebook.config.profile import Profile, profile_from
from gatebook.config.selection import Shard, part_of
from gatebook.fleet.outcome import FleetVerdict, Row
from gatebook.fleet.plan import Deployment, Fleet, resolve
from gatebook.fleet.store import Store
from gatebook.report.estimate import estimate
from gatebook.report.figures import labelled
from gatebook.report.terminal import STYLE, Cell, print_table, say
from gatebook.report.text import SITE, render, visible
from gatebook.verdict.baseline import Baseline
from gatebook.verdict.policy import COMPARED, compared_groups
from gatebook.verdict.verdict import PRECEDENCE

MOST_CHANGES = 50
SHOWN = 200
"""Rows of the terminal's table, those that are not green first."""
REASON_CHARS = 160
ROW = "  {:<34}{:>7}{:>22}{:>22}"
"""Of the table of drops."""


def write_reports(store: Store, verdict: FleetVerdict) -> None:
    """Everything that people and other programs read of a fleet run; verdict.json is the last. Raises StoreFailed."""
    files = {
        "fleet.js": (SITE / "fleet.js").read_text(encoding="utf-8"),
        "index.html": page(verdict),
        "junit.xml": junit(verdict),
        "metrics.txt": metrics(verdict),
        "verdict.json": verdict.model_dump_json(indent=1),
    }
    for name, text in files.items():
        store.write(name, text.encode())


def page(verdict: FleetVerdict) -> str:
    """One table of deployments and notebooks, each cell a link into the bundle."""
    rows = verdict.deployments
    counts = Counter(row.verdict for row in rows)
    labels = sorted({name for row in rows for name in row.labels})
    return render(
        "fleet.html.j2", v=verdict, most=MOST_CHANGES, filtered=_filtered, order={w: n for n, w in enumerate(PRECEDENCE)},
        counts={word: counts[word] for word in PRECEDENCE if counts[word]},
        labels={name: sorted({row.labels[name] for row in rows if name in row.labels}) for name in labels},
        notebooks=sorted({name for row in rows for name in row.notebooks}),
    )  # fmt: skip


def _filtered(row: Row) -> str:
    """What the page filters a row by, as JSON."""
    labels = {f"label.{name}": visible(value) for name, value in row.labels.items()}
    return json.dumps({"verdict": row.verdict, **labels})


def junit(verdict: FleetVerdict) -> str:
    """One suite a deployment, one testcase a notebook and one for the run. Something of it is red unless it passes."""
    root = ET.Element("testsuites")
    for row in verdict.deployments:
        cases = {"run": row.verdict, **row.notebooks}
        failed = sum(word == "FAIL" for word in cases.values())
        errors = sum(word in ("ERROR", "INCONCLUSIVE") for word in cases.values())
        counts = {"tests": str(len(cases)), "failures": str(failed), "errors": str(errors)}
        suite = ET.SubElement(root, "testsuite", {"name": visible(row.deployment), **counts})
        for name, word in cases.items():
            case = ET.SubElement(suite, "testcase", classname=visible(row.deployment), name=visible(name))
            if word != "PASS":
                told = f"{word}: {row.reason}" if name == "run" else f"{word}: see {row.bundle}/{name}.html"
                ET.SubElement(case, "failure" if word == "FAIL" else "error").text = visible(told)
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text.decode() + "\n"


def metrics(verdict: FleetVerdict) -> str:
    """OpenMetrics with the labels of each deployment; the fleet's own line has no deployment."""
    whose = {"fleet": verdict.fleet, "suite": verdict.suite}
    rows = [({**whose, "deployment": row.deployment}, row) for row in verdict.deployments]
    families = {
        "exit_code": [(whose, verdict.exit_code)],
        "verdict": [
            ({**{f"label_{n}": v for n, v in row.labels.items()}, **own, "verdict": row.verdict}, 1)
            for own, row in rows
        ],
        "notebook": [({**own, "notebook": n, "verdict": w}, 1) for own, row in rows for n, w in row.notebooks.items()],
    }
    lines = []
    for name, samples in families.items():
        lines.append(f"# TYPE gatebook_fleet_{name} gauge")
        lines += [f"gatebook_fleet_{name}{labelled(labels)} {value}" for labels, value in samples]
    return "\n".join([*lines, "# EOF"]) + "\n"


def show(verdict: FleetVerdict, store: Store) -> None:
    """The table of deployments, what is not as accepted, and the last line."""
    rows: list[tuple[Cell, ...]] = []
    worst_first = sorted(verdict.deployments, key=lambda row: PRECEDENCE.index(row.verdict))
    for row in worst_first[:SHOWN]:
        labels = ", ".join(f"{name} {value}" for name, value in row.labels.items())
        moved = f"; went on elsewhere {row.moved_on} times" if row.moved_on else ""
        reason = f"{row.reason[:REASON_CHARS]}{moved}"
        rows.append((row.deployment, labels, (row.verdict, STYLE[row.verdict]), f"{row.seconds:g} s", reason))
    print_table(("deployment", "labels", "verdict", "took", "because"), rows)
    if len(worst_first) > SHOWN:
        say(f"and {len(worst_first) - SHOWN} more in verdict.json")
    for line in verdict.changes[:MOST_CHANGES]:
        say(f"not as in {verdict.accepted}: {line}")
    if any(row.needs_baseline for row in worst_first):
        say(f'next: gatebook fleet accept {store.url} --reason "first night of this fleet"')
    say(verdict.verdict, STYLE[verdict.verdict], (f"  {verdict.reason}  {store.url}/index.html", ""))


def checked(
    fleet: Fleet, data: dict[str, dict[str, Any]], where: str
) -> list[tuple[list[Deployment], Profile, list[Case], dict[str, int]]]:
    """Return (deployments, profile of the first, cases, what its languages leave out) for each profile of the fleet.
    Raises BadInput where one could not start. No keys are needed: the workers have them."""
    by_profile: dict[str, list[Deployment]] = defaultdict(list)
    for one in fleet.deployments:
        by_profile[one.profile].append(one)
    found = []
    for file, several in by_profile.items():
        name = several[0].name
        profile = profile_from(data[name], f"{where}, deployment {name!r} ({file})", name)
        keyless = profile.target.model_copy(update={"api_key_env": None, "headers": {}})
        cases, left = opening.planned(profile.model_copy(update={"target": keyless}), fleet.suite, None)
        for number in range(1, fleet.shards + 1) if fleet.shards > 1 else ():
            part_of(cases, Shard(number, fleet.shards))
        found.append((several, profile, cases, left))
    return found


def planned(fleet: Fleet, where: str) -> str:
    """Describe a run: the cost of one deployment of each profile, and the smallest drop that shows, alone and among all.
    Raises BadInput where it could not start."""
    count, lines = len(fleet.deployments), list[str]()
    for several, profile, cases, left in checked(fleet, resolve(fleet, where), where):
        baseline = opening.accepted(profile)[0]
        lines += [f"{several[0].profile}: {len(several)} deployments, such as {several[0].name}, each:", ""]
        lines += [estimate(profile, fleet.suite, cases, baseline, left), ""]
        lines += [*_drops(profile, cases, baseline, count), ""]
    shards = f", {fleet.shards} shards each" if fleet.shards > 1 else ""
    last = f"fleet {fleet.name}: {count} deployments{shards}, suite {fleet.suite}, evidence in {fleet.store}"
    return "\n".join([*lines, last])


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
