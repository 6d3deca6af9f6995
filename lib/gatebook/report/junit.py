"""junit.xml as GitLab reads it: only what blocks is red, and what a person needs stands in the text of the element."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from gatebook.record.replies import read_answer
from gatebook.record.run import Run
from gatebook.report.standing import CaseStanding, standings
from gatebook.report.text import excerpt, visible
from gatebook.verdict.policy import COMPARED
from gatebook.verdict.verdict import GroupVerdict, Verdict

LONGEST_BYTES = 4096
ANSWER_CHARS = 800


def junit(run: Run, verdict: Verdict, attach_prefix: str) -> str:
    """One suite a notebook, one testcase a case; a suite `verdict` for what belongs to no case.

    `attach_prefix` is the run folder relative to the CI project. Something is red unless the verdict is PASS.
    """
    root = ET.Element("testsuites")
    blocked: set[str] = set()
    for notebook in run.notebooks:
        suite = ET.SubElement(root, "testsuite", name=notebook)
        for case in standings(run, verdict, notebook):
            _case(suite, case, f"{attach_prefix}/{notebook}.html")
            if case.blocks:
                blocked |= {f.group for f in case.red} | {case.group}
    page = f"{attach_prefix}/index.html"
    suite = ET.SubElement(root, "testsuite", name="verdict")
    whole = _verdict(suite, verdict, blocked, page)
    if verdict.verdict != "PASS" and root.find(".//failure") is None and root.find(".//error") is None:
        _mark(whole, "failure" if verdict.verdict == "FAIL" else "error", verdict.reason, page)
    for suite in root:
        suite.set("tests", str(len(suite)))
        for kind, attribute in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            suite.set(attribute, str(len(suite.findall(f"testcase/{kind}"))))
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text.decode() + "\n"


def _case(suite: ET.Element, stands: CaseStanding, page: str) -> None:
    element = _testcase(suite, stands.id, sum(e.timing.end_ms or 0 for e in stands.exchanges if e.timing) / 1000)
    match stands.standing:
        case "fails":
            _mark(element, "failure", _explained(stands), page)
        case "unmeasured":
            _mark(element, "error", _explained(stands), page)
        case "excused":
            _mark(element, "skipped", f"{stands.note}\n{stands.reason}")
        case "tolerated":
            _mark(element, "system-out", f"{stands.outcome}, {stands.note}\n{stands.reason}")


def _explained(case: CaseStanding) -> str:
    lines = [f"{f.check}: {f.reason}" for f in case.red] or [case.reason]
    lines.append(case.note)
    if case.case:
        lines.append(f"why this case: {case.case.why}")
    for exchange in (e for e in case.exchanges if e.kind in ("ask", "canary", "ready")):
        if exchange.body:
            prompt = str((exchange.messages or [{}])[-1].get("content", ""))
            lines.append(f"prompt: {excerpt(prompt, ANSWER_CHARS)[0]}")
        said = exchange.detail or read_answer(exchange).text or "(empty)"
        lines.append(f"answer: {excerpt(said, ANSWER_CHARS)[0]}")
    return "\n".join(lines)


def _verdict(suite: ET.Element, verdict: Verdict, blocked: set[str], page: str) -> ET.Element:
    """The run itself (which is returned), the fingerprint, and the groups whose decision no single case carries."""
    run, fingerprint = _testcase(suite, "run"), _testcase(suite, "fingerprint")
    if verdict.troubles:
        _mark(run, "error", "\n".join(verdict.troubles), page)
    changes = "\n".join(map(str, verdict.changes))
    if any(reason.moved for cause in verdict.causes for reason in (cause, *cause.explains)):
        _mark(fingerprint, "failure", f"under the same revision:\n{changes}", page)
    elif changes:
        _mark(fingerprint, "system-out", f"does not block, the revision is a new one:\n{changes}")
    if verdict.waivers:
        kind = "error" if any(w.blocks for w in verdict.waivers) else "system-out"
        _mark(_testcase(suite, "waivers"), kind, "\n".join(f"{w.state}: {w}" for w in verdict.waivers), page)
    if verdict.notes:
        _mark(_testcase(suite, "notes"), "system-out", "\n".join(verdict.notes))
    for group in verdict.groups:
        if group.word != "PASS" and (group.policy in COMPARED or group.group not in blocked):
            kind = "failure" if group.word == "FAIL" else "error"
            _mark(_testcase(suite, group.group), kind, _decision(group), page)
    return run


def _decision(group: GroupVerdict) -> str:
    compared = f"\n{group.comparison}" if group.comparison and str(group.comparison) not in group.reason else ""
    return f"{group.word}: {group.reason}{compared}"


def _testcase(suite: ET.Element, name: str, seconds: float = 0.0) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=str(suite.get("name")), name=visible(name), time=f"{seconds:.3f}")


def _mark(testcase: ET.Element, kind: str, text: str, page: str = "") -> None:
    """Put the text, at most LONGEST_BYTES, into an element of this kind; a red one attaches the page."""
    whole = visible(text).encode()
    cut = whole.decode() if len(whole) <= LONGEST_BYTES else whole[: LONGEST_BYTES - 3].decode(errors="ignore") + "…"
    ET.SubElement(testcase, kind).text = cut
    if kind in ("failure", "error"):
        ET.SubElement(testcase, "system-out").text = f"[[ATTACHMENT|{page}]]"
