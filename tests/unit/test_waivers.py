"""A waiver excuses a failing case until a day, is told everywhere, used or not, and blocks when it has expired."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from datetime import date
from pathlib import Path
from typing import Any, cast

import pytest
from gatebook.checks.finding import Outcome
from gatebook.config.profile import Profile, profile_from
from gatebook.errors import BadInput
from gatebook.report.junit import junit
from gatebook.report.pages import index_page
from gatebook.report.standing import standings
from gatebook.report.summary import verdict_text
from gatebook.report.terminal import show
from gatebook.verdict.policy import waivers
from gatebook.verdict.verdict import Verdict
from gatebook.workbook import _profile
from papermill.iorw import read_yaml_file

from tests.unit.replies import baseline, case, finding, manifest, profile, run_folder, verdict_of

MUST = [case(f"m{n}", group="g.must") for n in range(3)]
DAY = "2026-03-01"
"""Of the runs that the tests make."""


def waiver(names: str = "m0", **fields: Any) -> dict[str, Any]:
    return {"case": names, "owner": "li@example.org", "reason": "template fixed in 1.9", "expires": DAY, **fields}


def by(*given: dict[str, Any], groups: dict[str, Any] | None = None) -> Profile:
    made = profile(groups or {"g.must": "must", "g.watch": "watch"})
    return Profile.model_validate({**made.model_dump(), "waivers": list(given)})


def must(*results: Outcome, waived: list[dict[str, Any]]) -> Verdict:
    found = [finding(one.id, outcome, "g.must") for one, outcome in zip(MUST, results, strict=False)]
    return verdict_of(found, MUST[: len(results)], by(*waived))


def test_a_waived_failure_does_not_block_and_stands_beside_the_verdict() -> None:
    said = must("fail", "pass", waived=[waiver()])
    assert said.verdict == "PASS"
    assert [(w.case, w.state, w.cases) for w in said.waivers] == [("m0", "in use", ["m0"])]
    assert said.groups[0].failed == 1, "it is still counted as a failure"
    assert said.groups[0].reason == "all 1 pass; waived: m0 (said fail)"


@pytest.mark.parametrize("names", ["m0", "m*", "g.must", "g.*"])
def test_it_names_a_case_a_group_or_a_pattern(names: str) -> None:
    assert must("fail", "pass", waived=[waiver(names)]).verdict == "PASS"


@pytest.mark.parametrize(("outcome", "word"), [("error", "ERROR"), ("not_measured", "INCONCLUSIVE")])
def test_it_excuses_a_failure_and_nothing_else(outcome: Outcome, word: str) -> None:
    said = must(outcome, "pass", waived=[waiver()])
    assert (said.verdict, said.waivers[0].state) == (word, "unused")


def test_another_failing_case_still_blocks() -> None:
    said = must("fail", "fail", waived=[waiver()])
    assert said.verdict == "FAIL"
    assert "1 of 1 must-pass cases fail: m1" in said.reason and "m0" in said.groups[0].reason


def test_a_group_of_nothing_but_waived_failures_passes_and_says_so() -> None:
    said = must("fail", waived=[waiver()])
    assert (said.verdict, said.groups[0].reason) == ("PASS", "nothing else was judged; waived: m0 (said fail)")


def test_an_expired_one_excuses_nothing_and_blocks() -> None:
    said = must("fail", "pass", waived=[waiver(expires="2026-02-28")])
    assert said.verdict == "FAIL"
    assert any("waiver of m0: expired before this run" in reason for reason in said.reasons)
    assert must("pass", "pass", waived=[waiver(expires="2026-02-28")]).verdict == "INCONCLUSIVE"


def test_the_last_day_still_counts() -> None:
    assert must("fail", "pass", waived=[waiver(expires=DAY)]).verdict == "PASS"


def test_one_whose_case_passes_is_told_as_unused_and_does_not_block() -> None:
    """A rounding may turn a waived case, and a healthy server is never red."""
    said = must("pass", "pass", waived=[waiver()])
    assert (said.verdict, said.waivers[0].state) == ("PASS", "stale")
    assert "unused, every case that it names passes now" in str(said.waivers[0])


def test_a_pattern_is_not_called_stale_by_a_run_that_lacks_cases() -> None:
    outcomes: dict[str, dict[str, Outcome]] = {"g.must": {"m0": "pass"}}
    for fields in ({"only": ["m0"]}, {"suite": "smoke"}):
        plan = manifest(MUST[:1], by(waiver("g.must"), waiver("m0")), **fields)
        assert [w.state for w in waivers(plan, outcomes)] == ["unused", "stale"]
    assert waivers(manifest(MUST[:1], by(waiver("g.must"))), outcomes)[0].state == "stale"


def test_one_that_names_nothing_of_this_run_is_told_and_does_not_block() -> None:
    said = must("pass", waived=[waiver("other", expires="2020-01-01")])
    assert (said.verdict, said.waivers[0].state) == ("PASS", "unused")


def test_the_chat_that_opens_a_notebook_cannot_be_waived() -> None:
    ready = finding("01_x.ready", "fail", "g.must", check="ready")
    found = [ready, finding("m0", "fail", "g.must")]
    said = verdict_of(found, MUST[:1], by(waiver("g.must")))
    assert said.verdict == "FAIL"


def test_a_waived_case_is_not_compared() -> None:
    cases = [case(f"c{n}", group="g.cmp") for n in range(8)]
    found = [finding(c.id, "fail" if n < 5 else "pass", "g.cmp") for n, c in enumerate(cases)]
    old = baseline({c.id: "pass" for c in cases}, cases, revision="other")
    groups = {"g.cmp": "no_worse"}
    assert verdict_of(found, cases, by(groups=groups), old).verdict == "FAIL"
    said = verdict_of(found, cases, by(waiver("c0"), groups=groups), old)
    assert said.groups[0].comparison and said.groups[0].comparison.paired == 7
    assert said.groups[0].comparison.worse == ["c1", "c2", "c3", "c4"] and said.verdict == "PASS"


def test_it_is_told_on_the_terminal_the_page_in_junit_and_in_the_notebook(tmp_path: Path, capsys: Any) -> None:
    rules = by(waiver(), waiver("m1"), waiver("m2", expires="2026-02-28"))
    run = run_folder(tmp_path / "run", MUST, rules)
    found = [finding("m0", "fail", "g.must"), *(finding(i, "pass", "g.must") for i in ("m1", "m2"))]
    said = verdict_of(found, MUST, rules)
    show(said, run)
    lines = capsys.readouterr().out
    assert "waiver in use: m0: m0 fails (until 2026-03-01, li@example.org: template fixed in 1.9)" in lines
    assert "waiver stale: m1" in lines
    page = index_page(run, said, {})
    assert "<b>Waived</b>: m0: m0 fails" in page and "<b>Stale waiver</b>: m1" in page
    assert "waived       m0: m0 fails" in verdict_text(said) and "stale        m1" in verdict_text(said)
    stands = {c.id: (c.standing, c.note) for c in standings(run, said, "01_x")}
    assert stands["m0"][0] == "excused" and "waived until 2026-03-01 by li@example.org" in stands["m0"][1]
    cases = {c.get("name"): c for c in ET.fromstring(junit(run, said, "outputs/latest")).iter("testcase")}
    assert cases["m0"].find("skipped") is not None and cases["waivers"].find("error") is not None
    assert Verdict.model_validate_json(said.model_dump_json()) == said


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "everything": ({"case": "*"}, "names a case or a group"),
    "no owner": ({"owner": " "}, "is blank"),
    "no reason": ({"reason": ""}, "reason"),
    "no day": ({"expires": "soon"}, "must be a day such as 2027-01-31"),
    "another key": ({"until": DAY}, "unknown key 'waivers.0.until'"),
}


@pytest.mark.parametrize(("fields", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_waiver(fields: dict[str, Any], said: str) -> None:
    data = {"target": {"model": "m"}, "groups": {"g.h": "must"}, "waivers": [{**waiver(), **fields}]}
    with pytest.raises(BadInput, match=said):
        profile_from(data, "p.yaml", "p")


def test_a_day_of_a_yaml_file_is_a_day() -> None:
    data = {"target": {"model": "m"}, "groups": {"g.h": "must"}, "waivers": [waiver(expires=date(2027, 1, 31))]}
    assert profile_from(data, "p.yaml", "p").waivers[0].expires == date(2027, 1, 31)


def test_papermill_alone_knows_the_waivers_and_the_file_they_are_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """papermill hands over a file's keys, its days as text; 01 alone under it is then judged as in the whole run."""
    (tmp_path / "params").mkdir()
    file = tmp_path / "params" / "ours.yaml"
    file.write_text(
        f"name: ours\ntarget: {{model: m}}\ngroups: {{g.h: must}}\nwaivers:\n- {{case: g.h, owner: li, reason: r, expires: {DAY}}}\n"
    )
    monkeypatch.setenv("GATEBOOK_ROOT", str(tmp_path))
    handed = cast("dict[str, Any]", read_yaml_file(str(file)))
    assert isinstance(handed["waivers"][0]["expires"], str)
    profile = _profile({**handed, "limits": {}})
    assert (profile.name, profile.waivers[0].expires) == ("ours", date.fromisoformat(DAY))
