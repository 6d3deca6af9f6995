"""What is told of a fleet run: verdict.json, the page, JUnit and metrics in the store; a table in the terminal."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections import Counter

from gatebook.fleet.outcome import FleetVerdict, Row
from gatebook.fleet.store import Store
from gatebook.report.figures import labelled
from gatebook.report.terminal import STYLE, Cell, print_table, say
from gatebook.report.text import SITE, render, visible
from gatebook.verdict.verdict import PRECEDENCE

MOST_CHANGES = 50
SHOWN = 200
"""Rows of the terminal's table, those that are not green first."""
REASON_CHARS = 160


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
    lines = [
        "# TYPE gatebook_fleet_exit_code gauge",
        f"gatebook_fleet_exit_code{labelled(whose)} {verdict.exit_code}",
        "# TYPE gatebook_fleet_verdict gauge",
    ]
    for row in verdict.deployments:
        own = {**{f"label_{n}": v for n, v in row.labels.items()}, **whose, "deployment": row.deployment}
        lines.append(f"gatebook_fleet_verdict{labelled({**own, 'verdict': row.verdict})} 1")
    lines.append("# TYPE gatebook_fleet_notebook gauge")
    for row in verdict.deployments:
        for name, word in row.notebooks.items():
            own = {**whose, "deployment": row.deployment, "notebook": name, "verdict": word}
            lines.append(f"gatebook_fleet_notebook{labelled(own)} 1")
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
