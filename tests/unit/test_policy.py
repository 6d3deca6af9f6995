"""The one rule. PASS exactly when nothing blocks; and the first of FAIL, ERROR, INCONCLUSIVE, PASS that holds."""

from __future__ import annotations

from typing import Any

import pytest
from gatebook.errors import BadInput
from gatebook.judge.finding import WORST_FIRST, Finding, Outcome, worst
from gatebook.judge.policy import check_plan
from gatebook.judge.verdict import EXIT_CODES, Verdict
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.replies import baseline, case, finding, profile, verdict_of

GROUPS = {"g.must": "must", "g.watch": "watch"}
MUST = [case(f"m{n}", group="g.must") for n in range(4)]
WATCH = [case(f"w{n}", group="g.watch") for n in range(2)]
outcomes = st.sampled_from(WORST_FIRST)
Found = dict[str, list[Outcome]]


def findings_of(found: Found) -> list[Finding]:
    groups = {one.id: one.group for one in [*MUST, *WATCH]}
    return [
        finding(i, outcome, groups[i], check=f"c{n}")
        for i, several in found.items()
        for n, outcome in enumerate(several)
    ]


def expected_word(found: Found, excused: set[str], troubles: list[str]) -> str:
    """The rule of DESIGN §6 once more, from the cases alone."""
    must = {i: worst(several) for i, several in found.items() if i.startswith("m") and several}
    if "fail" in must.values():
        return "FAIL"
    unanswered = any(
        "error" in several for i, several in found.items() if i.startswith("w")
    )  # not even watch looks away
    if troubles or unanswered or "error" in must.values() or any(not found.get(one.id) for one in [*MUST, *WATCH]):
        return "ERROR"
    if any(outcome == "not_measured" and not excused & {i, "g.must"} for i, outcome in must.items()):
        return "INCONCLUSIVE"
    return "PASS"


found_by_case = st.dictionaries(st.sampled_from([one.id for one in [*MUST, *WATCH]]), st.lists(outcomes, max_size=3))
mostly_complete = found_by_case.map(lambda found: {one.id: ["pass"] for one in [*MUST, *WATCH]} | found)
excuses = st.sets(st.sampled_from(["m0", "m1", "g.must", "w0"]))


@given(found_by_case | mostly_complete, excuses, st.sampled_from([[], [], ["its kernel died"]]))
@example({one.id: ["pass"] for one in [*MUST, *WATCH]} | {"w0": ["error"]}, {"w0"}, [])
@example({one.id: ["pass"] for one in [*MUST, *WATCH]} | {"m0": ["pass", "not_measured"]}, {"g.must"}, [])
def test_pass_exactly_when_nothing_blocks(found: Found, excused: set[str], troubles: list[str]) -> None:
    by = profile(GROUPS, dict.fromkeys(excused, "no GPU here"))
    said = verdict_of(findings_of(found), [*MUST, *WATCH], by, troubles=troubles)
    word = expected_word(found, excused, troubles)
    assert (said.verdict, said.exit_code) == (word, EXIT_CODES[said.verdict])
    assert (said.exit_code == 0) == (word == "PASS") == (not said.reasons)
    covered = {
        i
        for i, several in found.items()
        if several and worst(several) == "not_measured" and excused & {i, f"g.{'must' if i[0] == 'm' else 'watch'}"}
    }
    assert {excuse.id for excuse in said.excused} == covered, "an excuse covers only what was not measured"


@given(mostly_complete, excuses, st.data())
def test_another_bad_finding_never_makes_it_greener(found: Found, excused: set[str], data: st.DataObject) -> None:
    by = profile(GROUPS, dict.fromkeys(excused, "no GPU here"))
    more = found | {"m3": [*found["m3"], data.draw(outcomes)]}
    ranks = [[*EXIT_CODES].index(verdict_of(findings_of(f), [*MUST, *WATCH], by).verdict) for f in (found, more)]
    order = [[*EXIT_CODES].index(word) for word in ("PASS", "INCONCLUSIVE", "ERROR", "FAIL")]
    assert order.index(ranks[1]) >= order.index(ranks[0]) or not found["m3"]


def must(*results: Outcome, **changes: Any) -> Verdict:
    cases = MUST[: len(results)]
    found = [finding(one.id, outcome, "g.must") for one, outcome in zip(cases, results, strict=True)]
    return verdict_of(found, cases, profile(GROUPS, changes.pop("excused", None)), **changes)


@pytest.mark.parametrize(
    ("results", "word", "code"),
    [
        (("pass", "pass"), "PASS", 0),
        (("pass", "not_measured"), "INCONCLUSIVE", 3),
        (("not_measured", "error"), "ERROR", 75),
        (("error", "not_measured", "fail"), "FAIL", 1),
        (("not_measured",), "INCONCLUSIVE", 3),
    ],
)
def test_the_worst_comes_first(results: tuple[Outcome, ...], word: str, code: int) -> None:
    said = must(*results)
    assert (said.verdict, said.exit_code) == (word, code)


def test_a_fail_stands_above_our_own_trouble_and_both_are_told() -> None:
    said = must("pass", "fail", troubles=["01_x: its kernel died"])
    assert said.verdict == "FAIL" and "g.must: 1 of 2 must-pass cases fail: m1 (said fail)" in said.reason
    assert said.reasons[1] == "01_x: its kernel died"


@pytest.mark.parametrize(
    ("results", "word"),
    [(("not_measured",), "PASS"), (("pass", "not_measured"), "PASS"), (("fail",), "FAIL"), (("error",), "ERROR")],
)
@pytest.mark.parametrize(
    "excused", [{"g.must": "no GPU"}, {"m0": "no GPU", "m1": "no GPU"}], ids=["by group", "by case"]
)
def test_an_excuse_covers_not_measured_and_nothing_else(
    results: tuple[Outcome, ...], word: str, excused: dict[str, str]
) -> None:
    said = must(*results, excused=excused)
    assert said.verdict == word
    assert [excuse.reason for excuse in said.excused] == ["no GPU"] * results.count("not_measured")


@pytest.mark.parametrize("check", ["recorded", "answered", "contract"])
@pytest.mark.parametrize("policy", ["must", "no_worse", "watch"])
@pytest.mark.parametrize("excused", [{"g.must": "no time"}, {"m1": "no time"}, {"g.*": "no time"}, {"m*": "no time"}])
def test_no_excuse_and_no_policy_covers_what_was_not_asked_or_cut_short(
    check: str, policy: str, excused: dict[str, str]
) -> None:
    """Our own deadline says nothing of the deployment; another finding of the same case may be excused."""
    cut = finding("m1", "not_measured", "g.must", id="m1.cut", check=check, reason="limits.run_deadline_s of 45 s")
    found = [finding("m0", "pass", "g.must"), finding("m1", "not_measured", "g.must"), cut]
    old = baseline({one.id: "pass" for one in MUST[:2]}, MUST[:2])
    said = verdict_of(found, MUST[:2], profile({"g.must": policy}, excused), old)
    assert (said.verdict, said.excused) == ("INCONCLUSIVE", [])
    assert verdict_of(found[:2], MUST[:2], profile({"g.must": "must"}, excused)).verdict == "PASS"


def test_nothing_expected_is_an_error() -> None:
    assert (verdict_of([], [], profile()).verdict, verdict_of([], [], profile()).reason) == (
        "ERROR",
        "no case was expected, so nothing was judged",
    )


def test_expected_cases_without_a_finding_are_an_error() -> None:
    said = verdict_of([finding("m0", "pass", "g.must")], MUST, profile(GROUPS))
    assert (said.verdict, said.reason) == ("ERROR", "3 expected cases were not judged: m1, m2, m3")


@pytest.mark.parametrize("measured", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_none_is_an_error(measured: float) -> None:
    broken = finding("m0", "pass", "g.must", measured=measured, limit=5.0)
    assert (broken.outcome, broken.measured) == ("error", None) and "measured" in broken.reason
    assert verdict_of([broken], MUST[:1], profile(GROUPS)).verdict == "ERROR"


# --- compared with the baseline ---

CASES = [case(f"c{n}", group="g.cmp") for n in range(8)]


def compared(now: str, before: str | None, policy: Any = "no_worse", cases: Any = None, **changes: Any) -> Verdict:
    """`now` and `before`: a letter a case (Pass, Fail, Error, Not measured)."""
    words: dict[str, Outcome] = {"P": "pass", "F": "fail", "E": "error", "N": "not_measured"}
    cases = cases or [case(f"c{n}", group="g.cmp") for n in range(len(now))]
    found = [finding(one.id, words[letter], "g.cmp") for one, letter in zip(cases, now, strict=True)]
    old = None
    if before is not None:
        kept = {f"c{n}": words[letter] for n, letter in enumerate(before)}
        old = baseline(kept, [case(i, group="g.cmp") for i in kept], **changes.pop("accepted", {}))
    by = profile({"g.cmp": policy}, changes.pop("excused", None), **changes.pop("target", {}))
    return verdict_of(found, cases, by, old, **changes)


@pytest.mark.parametrize(
    ("now", "before", "word", "said"),
    [
        ("PPPPPPPP", "PPPPPPPP", "PASS", "0 worse, 0 better of 8 paired"),
        ("FFFFPPPP", "PPPPPPPP", "PASS", "not shown worse: 4 worse, 0 better of 8 paired (p = 0.0625); could have seen a drop of 5 of 8 cases (62%)"),
        ("FFFFFPPP", "PPPPPPPP", "FAIL", "shown worse than the baseline: 5 worse"),
        ("FFFFFFPP", "PPPPPPFF", "PASS", "6 worse, 2 better"),
        ("PPPPPPPP", "FFFPPPPP", "PASS", "0 worse, 3 better"),
        ("PPPPPPPP", None, "INCONCLUSIVE", "no baseline to compare with (8 of 8 pass)"),
        ("PPPPPPPP", "PPPPFFFF", "INCONCLUSIVE", "only 4 of 8 paired cases passed in the baseline"),
        ("PPPPPPPP", "PPPPPPEN", "PASS", "0 worse, 0 better of 6 paired"),
        ("FFFFFPPE", "PPPPPPPP", "FAIL", "shown worse"),
        ("PPPPPPPE", "PPPPPPPP", "ERROR", "1 of 8 could not be measured: c7 (said error)"),
        ("PPPPPPPN", "PPPPPPPP", "INCONCLUSIVE", "1 of 8 not measured: c7"),
        ("PPPPPPPP", "PPPPP", "PASS", "of 5 paired"),
    ],
)  # fmt: skip
def test_no_worse(now: str, before: str | None, word: str, said: str) -> None:
    found = compared(now, before)
    [group] = found.groups
    if said.startswith("6 worse"):  # the two better cases are c6 and c7
        assert group.comparison and (len(group.comparison.worse), len(group.comparison.better)) == (6, 2)
    assert (group.word, found.verdict) == (word, word)
    assert said in group.reason


def test_changed_and_new_cases_are_told_and_not_paired() -> None:
    cases = [
        case("c0", group="g.cmp", options={"temperature": 1}),
        *(case(f"c{n}", group="g.cmp") for n in range(1, 7)),
        case("new", group="g.cmp"),
    ]
    [group] = compared("FPPPPPPF", "PPPPPPP", cases=cases).groups
    assert group.comparison is not None
    assert (group.comparison.changed, group.comparison.worse, group.comparison.paired) == (["c0", "new"], [], 6)


def test_a_case_that_moved_to_another_group_keeps_its_pair_only_by_its_prompt() -> None:
    cases = [case(f"c{n}", group="g.cmp", messages=[{"role": "user", "content": "new words"}]) for n in range(8)]
    found = compared("FFFFFFFF", "PPPPPPPP", cases=cases)
    assert found.verdict == "INCONCLUSIVE" and "the baseline has none of its cases" in found.reason
    assert found.needs_baseline, "a person may accept it, as a first run"


def test_two_groups_share_the_error_rate() -> None:
    both = {"g.a": "no_worse", "g.b": "no_worse"}
    cases = [case(f"{g}{n}", group=f"g.{g}") for g in "ab" for n in range(8)]
    old = baseline({one.id: "pass" for one in cases}, cases)

    def judge(worse_a: int, worse_b: int) -> dict[str, str]:
        bad = {f"a{n}" for n in range(worse_a)} | {f"b{n}" for n in range(worse_b)}
        found = [finding(one.id, "fail" if one.id in bad else "pass", one.group) for one in cases]
        return {group.group: group.word for group in verdict_of(found, cases, profile(both), old).groups}

    assert judge(5, 0) == {"g.a": "PASS", "g.b": "PASS"}, "0.031 > 0.05 / 2"
    assert judge(6, 0) == {"g.a": "FAIL", "g.b": "PASS"}
    assert judge(6, 5) == {"g.a": "FAIL", "g.b": "FAIL"}, "Holm steps down"


def test_a_compared_group_that_is_wholly_excused_does_not_block() -> None:
    for before in (None, "PPPPPPPP"):
        found = compared("NNNNNNNN", before, excused={"g.cmp": "no GPU on this machine"})
        assert (found.verdict, len(found.excused)) == ("PASS", 8)


@pytest.mark.parametrize(
    ("worse", "n", "word", "said"),
    [
        (0, 59, "PASS", "not shown worse"),
        (0, 50, "INCONCLUSIVE", "a drop of up to 5.8% is possible, the margin is 5.0%"),
        (1, 59, "INCONCLUSIVE", "a drop of up to 7.8% is possible"),
        (6, 59, "FAIL", "shown worse than the baseline"),
    ],
)
def test_proven_no_worse(worse: int, n: int, word: str, said: str) -> None:
    found = compared("F" * worse + "P" * (n - worse), "P" * n, {"policy": "proven_no_worse", "margin": 0.05})
    assert (found.verdict, found.exit_code) == (word, EXIT_CODES[found.verdict])
    assert said in found.groups[0].reason


def test_proven_no_worse_without_baseline_proves_nothing() -> None:
    assert compared("P" * 59, None, {"policy": "proven_no_worse", "margin": 0.05}).verdict == "INCONCLUSIVE"


@pytest.mark.parametrize(
    ("now", "before", "needs"),
    [
        ("P" * 8, None, True),
        ("P" * 7 + "N", None, False),
        ("P" * 7 + "E", None, False),
        ("P" * 8, "P" * 8, False),
        ("P" * 8, "PF" * 4, False),
    ],
)
def test_only_the_missing_baseline_asks_to_accept(now: str, before: str | None, needs: bool) -> None:
    assert compared(now, before).needs_baseline is needs


def test_a_first_run_with_another_reason_does_not_ask_to_accept() -> None:
    assert not compared("P" * 8, None, troubles=["01_x: its kernel died"]).needs_baseline


# --- who answers ---

THEN, NOW = {"tokens.hello.ask": 12, "version": "1"}, {"tokens.hello.ask": 7, "version": "1"}


@pytest.mark.parametrize(
    ("was", "revision", "now", "word", "changes"),
    [
        ("r1", "r1", THEN, "PASS", 0),
        ("r1", "r1", NOW, "FAIL", 1),
        ("r1", "r2", NOW, "PASS", 1),
        (None, None, NOW, "FAIL", 1),
        (None, "r2", NOW, "PASS", 1),
        ("r1", "r1", {**THEN, "new": 1}, "PASS", 0),
    ],
)
def test_another_fingerprint_under_the_same_revision_fails(
    was: str | None, revision: str | None, now: dict[str, Any], word: str, changes: int
) -> None:
    found = compared(
        "P" * 8,
        "P" * 8,
        accepted={"fingerprint": THEN, "revision": was},
        target={"revision": revision},
        fingerprint=now,
    )
    assert (found.verdict, len(found.changes)) == (word, changes)
    if word == "FAIL":
        assert "chat template or tokenizer changed: tokens.hello.ask was 12, is 7" in found.reason


# --- the plan ---


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ({"g.cmp": "no_worse"}, None),
        ({"g.cmp": "must"}, None),
        ({"g.other": "must"}, "group 'g.cmp' has no policy"),
        ({"g.cmp": "no_worse", "h.x": "no_worse"}, None),
    ],
)
def test_a_plan_needs_a_policy_for_every_group(groups: dict[str, Any], said: str | None) -> None:
    by = profile(groups)
    if said is None:
        check_plan(by, CASES, {"g.contract"})
    else:
        with pytest.raises(BadInput, match=said):
            check_plan(by, CASES, {"g.contract"})
    with pytest.raises(BadInput, match="'z.contract' has no policy"):
        check_plan(by, [], {"z.contract"})


@pytest.mark.parametrize(
    ("size", "families", "enough"),
    [(4, 1, False), (5, 1, True), (5, 2, False), (6, 2, True), (6, 3, True), (6, 4, False)],
)
def test_a_group_too_small_ever_to_be_shown_worse_is_refused(size: int, families: int, enough: bool) -> None:
    groups = {f"g.{n}": "no_worse" for n in range(families)}
    cases = [case(f"{group[2:]}-{n}", group=group) for group in groups for n in range(size if group == "g.0" else 20)]
    if enough:
        check_plan(profile(groups), cases, {"g.contract"})
    else:
        with pytest.raises(BadInput, match=rf"'groups\.g\.0'.*{size} selected cases could never be shown worse"):
            check_plan(profile(groups), cases, {"g.contract"})


def test_a_contract_group_cannot_be_compared() -> None:
    """The baseline keeps what a case's own group says, not what its contract says: there is nothing to compare with."""
    with pytest.raises(BadInput, match=r"groups\.g\.contract"):
        check_plan(profile({"g.contract": "no_worse", "g.cmp": "must"}), CASES, {"g.contract"})


def test_what_is_excused_does_not_keep_a_first_run_from_being_accepted() -> None:
    assert compared("P" * 7 + "N", None, excused={"c7": "a context of 8,192 tokens"}).needs_baseline


def test_a_pass_counts_only_what_was_measured() -> None:
    assert must("pass", "pass").reason == "2 cases asked, recorded and judged"
    said = must("pass", "not_measured", excused={"m1": "no GPU here"})
    assert (said.verdict, said.reason) == (
        "PASS",
        "1 cases asked, recorded and judged; 1 not measured, excused or watched",
    )
