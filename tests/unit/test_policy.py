"""The one rule. PASS exactly when nothing blocks; and the first of FAIL, ERROR, INCONCLUSIVE, PASS that holds."""

from __future__ import annotations

from typing import Any

import pytest
from gatebook.checks.finding import WORST_FIRST, Finding, Outcome, Stage, worst
from gatebook.config.profile import Profile
from gatebook.errors import BadInput
from gatebook.verdict.causes import refusals
from gatebook.verdict.policy import check_plan
from gatebook.verdict.verdict import EXIT_CODES, Verdict
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
    if {worst(several) for several in found.values()} == {"not_measured"}:
        return "INCONCLUSIVE"  # whatever covers each of them
    return "PASS"


found_by_case = st.dictionaries(st.sampled_from([one.id for one in [*MUST, *WATCH]]), st.lists(outcomes, max_size=3))
mostly_complete = found_by_case.map(lambda found: {one.id: ["pass"] for one in [*MUST, *WATCH]} | found)
excuses = st.sets(st.sampled_from(["m0", "m1", "g.must", "w0"]))


@given(found_by_case | mostly_complete, excuses, st.sampled_from([[], [], ["its kernel died"]]))
@example({one.id: ["pass"] for one in [*MUST, *WATCH]} | {"w0": ["error"]}, {"w0"}, [])
@example({one.id: ["pass"] for one in [*MUST, *WATCH]} | {"m0": ["pass", "not_measured"]}, {"g.must"}, [])
@example({one.id: ["not_measured"] for one in [*MUST, *WATCH]}, {"g.must"}, [])
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
    [
        (("not_measured",), "INCONCLUSIVE"),
        (("pass", "not_measured"), "PASS"),
        (("fail",), "FAIL"),
        (("error",), "ERROR"),
    ],
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
        ("PPPPPPPP", "PPPPFFFF", "PASS", "only 4 of 8 paired cases passed in the baseline: too few to show a drop, so nothing is compared"),
        ("FFFFFFFF", "FFFFFFFF", "PASS", "only 0 of 8 paired cases passed"),
        ("PPPPPPPP", "PPPP", "INCONCLUSIVE", "only 4 of 4 paired cases passed in the baseline: too few to show a drop; accept this run to take in 4 more"),
        ("PPPPFFFF", "PPPP", "PASS", "only 4 of 4 paired cases passed in the baseline: too few to show a drop, so nothing"),
        ("PPPPFFFF", None, "INCONCLUSIVE", "too few pass to show a drop, so nothing of it will be compared"),
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
    found = compared("NNNNNNNN", "PPPPPPPP", excused={"g.cmp": "no GPU on this machine"})
    assert (found.groups[0].word, len(found.excused)) == ("PASS", 8)
    first = compared("NNNNNNNN", None, excused={"g.cmp": "no GPU on this machine"})
    assert (first.verdict, first.groups[0].word) == ("INCONCLUSIVE", "PASS"), "a first run has no baseline at all"


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
        ("P" * 8, "P" * 4, True),
        ("F" * 8, None, True),
    ],
)
def test_only_the_missing_baseline_asks_to_accept(now: str, before: str | None, needs: bool) -> None:
    assert compared(now, before).needs_baseline is needs


def test_a_first_run_with_another_reason_does_not_ask_to_accept() -> None:
    said = compared("P" * 8, None, troubles=["01_x: its kernel died"])
    assert not said.needs_baseline
    assert [r.todo.startswith("mend what broke on our side") for r in refusals(said)] == [True]


def test_a_complete_run_without_a_baseline_is_not_green_whatever_its_policies() -> None:
    """The first smoke run has no compared group, and nothing to compare what is served with."""
    first = must("pass", "pass", accepted=None)
    assert (first.verdict, first.exit_code, first.needs_baseline, refusals(first)) == ("INCONCLUSIVE", 3, True, [])
    assert first.reason.startswith("no baseline yet")
    assert must("pass", "pass", accepted=None, only=["01"]).verdict == "PASS", "a narrowed run enters no baseline"
    both = compared("P" * 8, None)
    assert both.reason.startswith("no baseline yet")
    assert both.reasons[1].startswith("explained by it: g.cmp: no baseline to compare with")


@pytest.mark.parametrize(
    ("was", "now", "word"),
    [
        ({}, {"tokens.c0.ask": 7}, "INCONCLUSIVE"),
        ({"tokens.old.ask": 7}, {"tokens.c0.ask": 7}, "PASS"),
        ({"tokens.c0.ask": 7}, {"tokens.c0.ask": 7, "version": "1"}, "PASS"),
        ({"tokens.c0.ask": 7}, {"tokens.c0.ask": 7, "keyword.k": "enforced"}, "INCONCLUSIVE"),
        ({"tokens.c0.ask": 7}, {}, "PASS"),
    ],
)
def test_what_the_baseline_was_never_asked_is_no_baseline_yet(
    was: dict[str, Any], now: dict[str, Any], word: str
) -> None:
    found = compared("P" * 8, "P" * 8, accepted={"fingerprint": was}, fingerprint=now)
    assert (found.verdict, found.needs_baseline) == (word, word != "PASS")


def test_a_value_of_another_question_is_not_compared() -> None:
    """A case of the fingerprint that is asked differently since: its token count is another text's and no other template."""
    cases = [case("c0", group="g.cmp", options={"top_k": 1}), *(case(f"c{n}", group="g.cmp") for n in range(1, 8))]
    told = {"accepted": {"fingerprint": {"tokens.c0.ask": 7, "tokens.c1.ask": 9}}}
    found = compared("P" * 8, "P" * 8, cases=cases, fingerprint={"tokens.c0.ask": 8, "tokens.c1.ask": 9}, **told)
    assert (found.verdict, found.changes) == ("PASS", [])


def test_all_that_accept_refuses_is_said_at_once_with_what_to_do() -> None:
    cases = [case(f"c{n}", group="g.cmp") for n in range(8)] + MUST[:3]
    found = [finding(c.id, "pass", "g.cmp") for c in cases[:8]] + [
        finding("m0", "fail", "g.must"), finding("m1", "pass", "g.must"), finding("m2", "not_measured", "g.late")
    ]  # fmt: skip
    by = profile({"g.must": "must", "g.late": "must", "g.cmp": {"policy": "proven_no_worse", "margin": 0.1}})
    said = verdict_of(found[4:], cases, by, None, only=["01"])
    told = {r.about: r.todo for r in refusals(said)}
    assert "without --only" in refusals(said)[0].todo
    assert (
        "mend the deployment" in told["g.must"] and "excuse" in told["g.late"] and "no_worse or watch" in told["g.cmp"]
    )
    assert "baseline" not in told


def test_what_a_change_explains_is_in_the_way_of_accepting_it_too() -> None:
    """A new revision takes the change out of the way, and not what is red beside it."""
    told = {"accepted": {"fingerprint": {"tokens.c0.ask": 7}}}
    lost = compared("F" * 8, "P" * 8, fingerprint={"tokens.c0.ask": 8}, **told)
    [cause] = lost.causes
    assert [r.about for r in cause.explains] == ["g.cmp"], lost.causes
    assert [r.about for r in refusals(lost)] == [cause.about, "g.cmp"]


# --- the cause comes first ---


def staged(*found: tuple[str, str, Outcome, Stage], by: Any = None, **changes: Any) -> Verdict:
    """Findings as (case, group, outcome, stage), under must unless `by` says another policy."""
    groups = dict.fromkeys(sorted({g for _, g, _, _ in found}, reverse=True), "must") | (by or {})
    cases = [case(i, group=g) for i, g in {i: g for i, g, _, _ in found if not g.endswith(".contract")}.items()]
    made = [finding(i, o, g, stage=s, check=s.name.lower(), reason=f"{i} {s.name}") for i, g, o, s in found]
    return verdict_of(made, cases, profile(groups), **changes)


def test_reasons_stand_in_the_order_of_what_explains_what() -> None:
    """Not by the alphabet: of equal stages, the profile's order decides."""
    said = staged(
        ("a", "a.behaves", "fail", Stage.BEHAVIOUR), ("b", "b.sets", "fail", Stage.SETTINGS),
        ("c", "c.refuses", "fail", Stage.REFUSED), ("d", "d.behaves", "fail", Stage.BEHAVIOUR),
        ("e", "e.slow", "error", Stage.UNREACHABLE),
    )  # fmt: skip
    assert [c.about for c in said.causes] == ["c.refuses", "b.sets", "d.behaves", "a.behaves", "e.slow"]
    assert said.reason.startswith("c.refuses: 1 of 1 must-pass cases fail: c (c REFUSED)")
    assert [c.stage for c in said.causes[:2]] == [Stage.REFUSED, Stage.SETTINGS]


def test_of_equal_stages_the_notebook_that_asks_first_speaks_first() -> None:
    """Whatever the profile's order: the profile that `init` wrote for e6cfffa has the alphabet's, so that boundaries led."""
    cases = [
        case("a", group="boundaries.h", notebook="07_boundaries"),
        case("b", group="health.h", notebook="01_health"),
    ]
    made = [finding(c.id, "fail", c.group) for c in cases]
    made += [finding("07_boundaries.ready", "fail", "a.contract"), finding("01_health.ready", "fail", "h.contract")]
    by = profile(dict.fromkeys(("a.contract", "boundaries.h", "h.contract", "health.h"), "must"))
    assert [c.about for c in verdict_of(made, cases, by).causes] == [
        "h.contract",
        "health.h",
        "a.contract",
        "boundaries.h",
    ]


def test_a_reason_is_its_own_groups_and_names_the_earliest_of_its_findings() -> None:
    said = staged(
        ("a", "g.contract", "fail", Stage.ENVELOPE), ("a", "g.h", "fail", Stage.BEHAVIOUR),
        ("b", "g.h", "fail", Stage.BEHAVIOUR), ("b", "g.h", "fail", Stage.CONSTRAINT),
    )  # fmt: skip
    told = {g.group: g.reason for g in said.groups}
    assert told["g.contract"].endswith("a (a ENVELOPE)")
    assert told["g.h"].endswith("b (b CONSTRAINT); a (a BEHAVIOUR)")


def test_what_is_wrong_with_the_same_cases_stands_under_what_explains_it() -> None:
    said = staged(
        ("a", "g.contract", "fail", Stage.REASONING), ("b", "g.contract", "fail", Stage.ENVELOPE),
        ("a", "g.h", "fail", Stage.BEHAVIOUR), ("c", "g.i", "fail", Stage.BEHAVIOUR),
    )  # fmt: skip
    assert [(c.about, [r.about for r in c.explains]) for c in said.causes] == [("g.contract", ["g.h"]), ("g.i", [])]
    assert said.reason.startswith("g.contract: 2 of 2 must-pass cases fail: a (a REASONING); b")
    assert said.reasons[1] == "explained by it: g.h: 1 of 1 must-pass cases fail: a (a BEHAVIOUR)"


@pytest.mark.parametrize("stage", [Stage.GONE, Stage.NOT_SERVED])
def test_where_nothing_is_served_everything_after_it_is_explained(stage: Stage) -> None:
    said = staged(
        ("a", "g.a", "fail", stage), ("b", "g.b", "fail", Stage.REFUSED), ("c", "g.c", "not_measured", Stage.BEHAVIOUR)
    )
    assert [(c.about, [r.about for r in c.explains]) for c in said.causes] == [("g.a", ["g.b", "g.c"])]


PRINTS = {
    "sampling.temperature": 0.8, "tokens.t.ask": 7, "version": "1", "logprobs.l": {"times": 1, "rows": [{"x": -1.0}]}
}  # fmt: skip


@pytest.mark.parametrize(
    ("now", "first", "under"),
    [
        ({"sampling.temperature": 2.0}, "sampling defaults", ["g.h"]),
        ({"tokens.t.ask": 9, "logprobs.l": {"times": 1, "rows": [{"x": -3.0}]}}, "chat template or tokenizer", ["answers, as the prompt's tokens changed", "g.h"]),
        ({"logprobs.l": {"times": 1, "rows": [{"x": -3.0}]}}, "weights or precision", ["g.h"]),
        ({"version": "2", "sampling.temperature": 1.0}, "engine version", ["sampling defaults", "g.h"]),
    ],
)  # fmt: skip
def test_what_changed_explains_how_it_behaves(now: dict[str, Any], first: str, under: list[str]) -> None:
    old = baseline({}, [], fingerprint=PRINTS)
    said = staged(("a", "g.h", "fail", Stage.BEHAVIOUR), accepted=old, fingerprint={**PRINTS, **now})
    assert said.reason.startswith(f"{first} changed")
    assert [(c.about, [r.about for r in c.explains]) for c in said.causes] == [(first, under)]
    assert set(said.causes[0].moved) <= {*now}


def test_a_model_that_is_not_served_is_no_other_model() -> None:
    old = baseline({}, [], fingerprint={"model": "m0"})
    said = staged(("a", "g.h", "fail", Stage.NOT_SERVED), accepted=old, fingerprint={"model": "m1"})
    assert said.reason == "g.h: 1 of 1 must-pass cases fail: a (a NOT_SERVED)" and said.changes == []


def test_an_old_verdict_has_no_stages_and_is_read() -> None:
    old = finding("m0").model_dump(exclude={"stage"}, mode="json")
    assert Finding.model_validate(old).stage == Stage.BEHAVIOUR
    told = finding("m0", stage=Stage.WEIGHTS).model_dump(mode="json")
    assert told["stage"] == "weights" and Finding.model_validate(told).stage == Stage.WEIGHTS


def test_what_is_not_offered_is_one_line() -> None:
    by = profile(GROUPS)
    by = Profile.model_validate(
        {
            **by.model_dump(),
            "offers": {"tools": "HTTP 400", "n": True, "logprobs": "ignored", "tool_choice": "HTTP 400"},
        }
    )
    said = verdict_of([finding("m0", "pass", "g.must")], MUST[:1], by)
    assert said.notes == ["not offered by this server, so not asked: tools, tool_choice (HTTP 400); logprobs (ignored)"]


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
    ("groups", "unnamed"),
    [
        ({"g.cmp": "no_worse"}, []),
        ({"g.cmp": "must"}, []),
        ({"g.other": "must"}, ["g.cmp"]),
        ({"g.cmp": "watch"}, []),
    ],
)
def test_a_group_that_the_profile_does_not_name_is_watched_and_said_so(
    groups: dict[str, Any], unnamed: list[str]
) -> None:
    by = profile(groups)
    check_plan(by, CASES, {"g.contract"})
    found = [finding(c.id, "fail", c.group) for c in CASES]
    said = verdict_of(found, CASES, by)
    [group] = said.groups
    assert group.policy == ("watch" if unnamed else by.groups["g.cmp"].policy)
    assert [
        n for n in said.notes if "is older than g.cmp" in n and "add under `groups`" in n and "g.cmp: must" in n
    ] == (said.notes[:1] if unnamed else [])
    assert (said.verdict == "PASS") == (group.policy == "watch")


def test_a_contract_that_no_policy_names_is_said_loudly() -> None:
    found = [finding("m0", "pass", "g.must"), finding("m0", "fail", "z.contract", check="contract")]
    said = verdict_of(found, MUST[:1], profile(GROUPS))
    assert said.verdict == "PASS" and "NO CONTRACT IS HELD" in said.notes[0] and "z.contract: must" in said.notes[0]


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


@pytest.mark.parametrize("policy", ["must", "watch"])
def test_a_run_of_which_nothing_was_measured_is_never_green(policy: str) -> None:
    found = [finding(one.id, "not_measured", "g.must") for one in MUST]
    by = profile({"g.must": policy}, {"g.must": "no GPU here"} if policy == "must" else None)
    for accepted in ("nothing", None):
        said = verdict_of(found, MUST, by, accepted)
        why = "no case was judged: all 4 were not measured"
        assert (said.verdict, said.exit_code, said.reason) == ("INCONCLUSIVE", 3, why)
        assert not said.needs_baseline and [one.text for one in refusals(said)] == [why]
    found[0] = finding("m0", "fail" if policy == "watch" else "pass", "g.must")
    assert verdict_of(found, MUST, by).verdict == "PASS"


def test_a_case_over_a_group_of_other_languages_was_never_asked() -> None:
    """What it is judged from is not what the baseline judged; a plain case is the same case in any profile."""
    plain = [case(f"p{n}", group="g.p") for n in range(8)]
    over = [case(f"o{n}", group="g.o", over="g.p", messages=[], expect=[{"goodput": "profile"}]) for n in range(8)]
    every = [*plain, *over]
    by = profile({"g.p": "no_worse", "g.o": "no_worse"}).model_copy(update={"languages": ["en"]})
    found = [finding(c.id, "fail", c.group) for c in every]
    for languages, lost in ((["en"], ["g.o", "g.p"]), (None, ["g.p"]), (["en", "zh"], ["g.p"])):
        accepted = baseline({c.id: "pass" for c in every}, every, languages=languages)
        said = verdict_of(found, every, by, accepted)
        assert sorted(g.group for g in said.groups if g.word == "FAIL") == lost, languages


def test_a_run_of_some_languages_says_so_and_is_not_partial() -> None:
    by = profile({"g.must": "must"}).model_copy(update={"languages": ["en"]})
    said = verdict_of([finding(one.id, "pass", "g.must") for one in MUST], MUST, by)
    assert (said.verdict, said.partial) == ("PASS", False)
    assert "languages of the profile: en; cases in others are not expected: none" in said.notes
