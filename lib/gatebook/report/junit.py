"""junit.xml as GitLab reads it: only what blocks is red, and what a person needs stands in the text of the element."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from gatebook.record.replies import read_answer
from gatebook.record.run import Run
from gatebook.report.standing import CaseStanding, standings
from gatebook.report.text import excerpt, visible
from gatebook.verdict.verdict import GroupVerdict, Verdict

LONGEST_BYTES = 4096
ANSWER_CHARS = 800
COMPARED = ("no_worse", "proven_no_worse")


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
    _verdict(ET.SubElement(root, "testsuite", name="verdict"), verdict, blocked, f"{attach_prefix}/index.html")
    for suite in root:
        suite.set("tests", str(len(suite)))
        for kind, attribute in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            suite.set(attribute, str(len(suite.findall(f"testcase/{kind}"))))
    if verdict.verdict != "PASS" and root.find(".//failure") is None and root.find(".//error") is None:
        whole = next(case for case in root[-1] if case.get("name") == "run")
        _red(whole, "failure" if verdict.verdict == "FAIL" else "error", verdict.reason, f"{attach_prefix}/index.html")
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text.decode() + "\n"


def _case(suite: ET.Element, case: CaseStanding, page: str) -> None:
    seconds = sum(e.timing.end_ms or 0 for e in case.exchanges if e.timing) / 1000
    element = _testcase(suite, case.id, seconds)
    if case.blocks:
        _red(element, "failure" if case.standing == "fails" else "error", _explained(case), page)
    elif case.standing == "excused":
        ET.SubElement(element, "skipped").text = _text(f"{case.note}\n{case.reason}")
    elif case.standing == "tolerated":
        ET.SubElement(element, "system-out").text = _text(f"{case.outcome}, {case.note}\n{case.reason}")


def _explained(case: CaseStanding) -> str:
    lines = [f"{f.check}: {f.reason}" for f in case.red] or [case.reason]
    lines.append(case.note)
    if case.case:
        lines.append(f"why this case: {case.case.why}")
    for exchange in case.exchanges:
        if exchange.kind in ("ask", "canary", "ready"):
            messages = exchange.messages or [{}]
            lines += (
                [f"prompt: {excerpt(str(messages[-1].get('content', '')), ANSWER_CHARS)[0]}"] if exchange.body else []
            )
            said = exchange.detail or read_answer(exchange).text or "(empty)"
            lines.append(f"answer: {excerpt(said, ANSWER_CHARS)[0]}")
    return "\n".join(lines)


def _verdict(suite: ET.Element, verdict: Verdict, blocked: set[str], page: str) -> None:
    """The run itself, the fingerprint, and the groups whose decision no single case carries."""
    run = _testcase(suite, "run")
    if verdict.troubles:
        _red(run, "error", "\n".join(verdict.troubles), page)
    fingerprint = _testcase(suite, "fingerprint")
    told = "\n".join(map(str, verdict.changes))
    if any(reason.moved for cause in verdict.causes for reason in (cause, *cause.explains)):
        _red(fingerprint, "failure", f"under the same revision:\n{told}", page)
    elif told:
        ET.SubElement(fingerprint, "system-out").text = _text(f"does not block, the revision is a new one:\n{told}")
    if verdict.waivers:
        waivers, told = _testcase(suite, "waivers"), "\n".join(f"{w.state}: {w}" for w in verdict.waivers)
        if any(w.blocks for w in verdict.waivers):
            _red(waivers, "error", told, page)
        else:
            ET.SubElement(waivers, "system-out").text = _text(told)
    if verdict.notes:
        ET.SubElement(_testcase(suite, "notes"), "system-out").text = _text("\n".join(verdict.notes))
    for group in verdict.groups:
        if group.word != "PASS" and (group.policy in COMPARED or group.group not in blocked):
            _red(_testcase(suite, group.group), "failure" if group.word == "FAIL" else "error", _decision(group), page)


def _decision(group: GroupVerdict) -> str:
    compared = f"\n{group.comparison}" if group.comparison and str(group.comparison) not in group.reason else ""
    return f"{group.word}: {group.reason}{compared}"


def _testcase(suite: ET.Element, name: str, seconds: float = 0.0) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=str(suite.get("name")), name=visible(name), time=f"{seconds:.3f}")


def _red(testcase: ET.Element, kind: str, text: str, page: str) -> None:
    for old in list(testcase):
        testcase.remove(old)
    ET.SubElement(testcase, kind).text = _text(text)
    ET.SubElement(testcase, "system-out").text = f"[[ATTACHMENT|{page}]]"


def _text(text: str) -> str:
    whole = visible(text).encode()
    return whole.decode() if len(whole) <= LONGEST_BYTES else whole[: LONGEST_BYTES - 3].decode(errors="ignore") + "…"
