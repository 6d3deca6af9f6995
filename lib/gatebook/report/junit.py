"""junit.xml as GitLab reads it: only what blocks is red, and what a person needs stands in the text of the element."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import NamedTuple

from gatebook.record.replies import read_answer
from gatebook.record.run import Run
from gatebook.report.standing import CaseStanding, standings
from gatebook.report.text import visible
from gatebook.verdict.policy import COMPARED
from gatebook.verdict.verdict import Verdict, Word

LONGEST_BYTES = 4096
ANSWER_CHARS = 800
RED = ("failure", "error")
KINDS = {"failure": "failures", "error": "errors", "skipped": "skipped"}
"""Element of a testcase -> attribute of its suite with their number."""
ELEMENTS = {"fails": "failure", "unmeasured": "error", "excused": "skipped", "tolerated": "system-out", "passes": ""}


class Testcase(NamedTuple):
    """`kind` is its element: failure, error, skipped or system-out; empty where there is nothing to say."""

    name: str
    kind: str = ""
    text: str = ""
    seconds: float = 0.0


def junit(run: Run, verdict: Verdict, attach_prefix: str | None = None) -> str:
    """One suite a notebook, one testcase a case; a suite `verdict` for what belongs to no case.

    `attach_prefix` is the run folder relative to the CI project; without it no page, prompt or answer is told. Something is
    red unless the verdict is PASS.
    """
    stands = {notebook: standings(run, verdict, notebook) for notebook in run.notebooks}
    blocked = {g for found in stands.values() for c in found if c.blocks for g in (c.group, *(f.group for f in c.red))}
    texts = attach_prefix is not None
    suites = {notebook: [_case(c, texts) for c in found] for notebook, found in stands.items()}
    suites["verdict"] = whole = list(_whole(verdict, blocked))
    if verdict.verdict != "PASS" and not any(case.kind in RED for cases in suites.values() for case in cases):
        whole[0] = Testcase("run", _red(verdict.verdict), verdict.reason)
    root = ET.Element("testsuites")
    for name, cases in suites.items():
        suite = ET.SubElement(root, "testsuite", name=name, tests=str(len(cases)))
        for kind, attribute in KINDS.items():
            suite.set(attribute, str(sum(case.kind == kind for case in cases)))
        for case in cases:
            made = ET.SubElement(suite, "testcase", classname=name, name=visible(case.name), time=f"{case.seconds:.3f}")
            if case.kind:
                ET.SubElement(made, case.kind).text = _cut(case.text)
            if case.kind in RED and texts:
                page = "index" if cases is whole else name
                ET.SubElement(made, "system-out").text = f"[[ATTACHMENT|{attach_prefix}/{page}.html]]"
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text.decode() + "\n"


def _case(case: CaseStanding, texts: bool) -> Testcase:
    text = _explained(case, texts) if case.blocks else f"{case.note}\n{case.reason}"
    if case.standing == "tolerated":
        text = f"{case.outcome}, {text}"
    seconds = sum(e.timing.end_ms or 0 for e in case.exchanges if e.timing) / 1000
    return Testcase(case.id, ELEMENTS[case.standing], text, seconds)


def _explained(case: CaseStanding, texts: bool) -> str:
    if not texts:
        return f"{case.reason}\n{case.note}"
    lines = [*([f"{f.check}: {f.reason}" for f in case.red] or [case.reason]), case.note]
    if case.case:
        lines.append(f"why this case: {case.case.why}")
    for exchange in (e for e in case.exchanges if e.kind in ("ask", "canary", "ready")):
        if exchange.body:
            prompt = str((exchange.messages or [{}])[-1].get("content", ""))
            lines.append(f"prompt: {prompt[:ANSWER_CHARS]}")
        said = exchange.detail or read_answer(exchange).text or "(empty)"
        lines.append(f"answer: {said[:ANSWER_CHARS]}")
    return "\n".join(lines)


def _whole(verdict: Verdict, blocked: set[str]) -> Iterator[Testcase]:
    """The run itself, the fingerprint, and the groups whose decision no single case carries."""
    yield Testcase("run", "error" if verdict.troubles else "", "\n".join(verdict.troubles))
    changes = "\n".join(map(str, verdict.changes))
    if any(reason.moved for cause in verdict.causes for reason in (cause, *cause.explains)):
        yield Testcase("fingerprint", "failure", f"under the same revision:\n{changes}")
    else:
        kind = "system-out" if changes else ""
        yield Testcase("fingerprint", kind, f"does not block, the revision is a new one:\n{changes}")
    if verdict.waivers:
        kind = "error" if any(w.blocks for w in verdict.waivers) else "system-out"
        yield Testcase("waivers", kind, "\n".join(f"{w.state}: {w}" for w in verdict.waivers))
    if verdict.notes:
        yield Testcase("notes", "system-out", "\n".join(verdict.notes))
    for group in verdict.groups:
        if group.word != "PASS" and (group.policy in COMPARED or group.group not in blocked):
            compared = str(group.comparison or "")
            text = f"{group.word}: {group.reason}" + (f"\n{compared}" if compared not in group.reason else "")
            yield Testcase(group.group, _red(group.word), text)


def _red(word: Word) -> str:
    return "failure" if word == "FAIL" else "error"


def _cut(text: str) -> str:
    """Cut a text to LONGEST_BYTES."""
    whole = visible(text).encode()
    return whole.decode() if len(whole) <= LONGEST_BYTES else whole[: LONGEST_BYTES - 3].decode(errors="ignore") + "…"
