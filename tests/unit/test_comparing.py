"""Two runs, case by case: what is shown worse, what cannot be told, and what is not paired."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gatebook.commands.compare import are_urls, recorded, two
from gatebook.config.profile import Profile
from gatebook.errors import BadInput, BrokenRecord
from gatebook.report.pages import comparison_page
from gatebook.report.terminal import show_comparison
from gatebook.verdict.comparing import Difference, _other, difference

from tests.unit.replies import case, profile, ready, record, run_folder
from tests.unit.runs import GROUPS, answered, bundle, hellos, judged, reply

BAD = "No."


def compare(tmp_path: Path, before: dict[str, Any], after: dict[str, Any], **second: Any) -> Difference:
    first = answered(tmp_path / "a", before)
    return difference(judged(first), judged(answered(tmp_path / "b", after, **second)))


def bad(*names: str) -> dict[str, Any]:
    return dict.fromkeys(names, BAD)


SIX = [f"c{n}" for n in range(6)]
SAID: dict[str, tuple[dict[str, Any], dict[str, Any], str, int]] = {
    "the same": ({}, {}, "same", 0),
    "other words": ({}, {"c0": "Hello, in other words"}, "same", 0),
    "two fail that passed, of eight": ({}, bad("c0", "c1"), "same", 0),
    "six fail that passed": ({}, bad(*SIX), "worse", 1),
    "six are mended": (bad(*SIX), {}, "better", 0),
    "as many mended as broken": (bad("c6", "c7"), bad("c0", "c1"), "same", 0),
    "one that must pass fails": ({}, bad("m"), "worse", 1),
    "one that must pass failed before": (bad("m"), bad("m"), "same", 0),
    "one that must pass is mended": (bad("m"), {}, "better", 0),
    "what is watched fails": ({}, bad("w"), "same", 0),
    "too few passed before": (bad(*SIX), bad(*SIX), "cannot tell", 3),
}


@pytest.mark.parametrize(("before", "after", "word", "code"), SAID.values(), ids=SAID.keys())
def test_what_is_said(tmp_path: Path, before: dict[str, Any], after: dict[str, Any], word: str, code: int) -> None:
    found = compare(tmp_path, before, after)
    assert (found.word, found.exit_code) == (word, code), found.reason


def test_the_numbers_of_a_group(tmp_path: Path) -> None:
    group = next(g for g in compare(tmp_path, bad("c7"), bad("c0", "c1")).groups if g.group == "g.h")
    found = group.comparison
    assert (found.paired, group.passed, found.worse, found.better) == (8, (7, 6), ["c0", "c1"], ["c7"])
    assert found.p_value == 0.5
    interval = group.comparison.interval
    assert interval and interval[0] < -1 / 8 < interval[1]
    assert (
        found.visible_drop == 5
        and group.reason == "2 newly failing, 1 fixed of 8 pairs; a drop of 5 would have been shown"
    )


def test_holm_covers_all_compared_groups(tmp_path: Path) -> None:
    names = [f"g.g{n}" for n in range(4)]
    cases = [c.model_copy(update={"id": f"{g[2:]}-{c.id}", "group": g}) for g in names for c in hellos(8)[:8]]
    by = profile(dict.fromkeys(names, "no_worse"))
    runs = [
        answered(tmp_path / n, bad(*(f"g0-c{i}" for i in range(k))), cases, by)
        for n, k in (("a", 0), ("b", 6), ("c", 7))
    ]
    assert difference(judged(runs[0]), judged(runs[1])).word == "same", "p = 1/64 is above 0.05 / 4"
    assert difference(judged(runs[0]), judged(runs[2])).word == "worse"


def test_a_run_that_was_not_measured_is_no_comparison_and_a_broken_answer_is_worse(tmp_path: Path) -> None:
    first = judged(answered(tmp_path / "a", {}))
    broken = judged(answered(tmp_path / "b", {"w": None}))
    found = difference(first, broken)
    assert found.word == "worse" and found.reason.startswith("g.contract: 1 newly failing"), (
        "no policy looks away from it"
    )
    unreached = answered(tmp_path / "c", {})
    unreached.record_file("01_x").unlink()
    found = difference(first, judged(unreached))
    assert (found.word, found.exit_code) == ("error", 75)
    assert "the second run could not be measured" in found.reason


@pytest.mark.parametrize(("offers", "word"), [({"tools": "HTTP 400"}, "same"), ({}, "error")])
def test_what_the_second_profile_does_not_offer_is_nothing_that_could_not_be_judged(
    tmp_path: Path, offers: dict[str, Any], word: str
) -> None:
    needing = case("t", group="g.m", needs=["tools"])
    by = profile(GROUPS).model_copy(update={"offers": offers})
    runs = [run_folder(tmp_path / name, [*hellos(), needing], by, run=name) for name in "ab"]
    for run in runs:
        record(run, "01_x", ready(), *(reply(c.id, f"Hello from {c.id}", 20) for c in hellos()))
    found = difference(*map(judged, runs))
    assert found.word == word, found.reason


def test_another_prompt_and_another_expectation_are_not_paired(tmp_path: Path) -> None:
    cases = hellos()
    asked = [{"role": "user", "content": "Say hello twice."}]
    cases[0] = cases[0].model_copy(update={"messages": asked})
    cases[1] = cases[1].model_copy(update={"expect": [{"contains_any": ["Hi"]}]})
    cases[2] = cases[2].model_copy(update={"id": "new"})
    cases[3] = cases[3].model_copy(update={"why": "said better", "suites": ["smoke"], "tags": {"language": "en"}})
    found = compare(tmp_path, {}, {}, cases=cases)
    told = {(u.case, u.why) for u in found.unpaired if u.group == "g.h"}
    assert told == {
        ("c0", "asked differently: the prompts or options are others"),
        ("c1", "asked alike, but something else is expected"),
        ("new", "only in the second run"),
        ("c2", "only in the first run"),
    }
    assert next(g.comparison.paired for g in found.groups if g.group == "g.h") == 5


def test_a_case_over_a_group_is_paired_in_the_same_languages_only(tmp_path: Path) -> None:
    asks = [{"name": "a"}, {"name": "b"}]
    plain, over = case(asks=asks), case(over="g.o", messages=[], expect=[{"goodput": "profile"}])
    tagged = case(asks=[asks[0], {**asks[1], "language": "zh"}])
    of_plain, of_tagged, of_over = (
        run_folder(tmp_path / name, [one], profile()) for name, one in (("p", plain), ("t", tagged), ("o", over))
    )
    assert _other(of_plain, of_tagged, "case", "pass", "pass", alike=False) == ""
    assert _other(of_over, of_over, "case", "pass", "pass", alike=True) == ""
    assert _other(of_over, of_over, "case", "pass", "pass", alike=False) == "judged over cases of other languages"


def test_a_group_without_a_pair_cannot_be_told(tmp_path: Path) -> None:
    asked = [{"role": "user", "content": "Say hello twice."}]
    found = compare(tmp_path, {}, {}, cases=hellos(messages=asked))
    assert (found.word, found.exit_code) == ("cannot tell", 3)


def test_a_margin_that_is_not_excluded_cannot_be_told(tmp_path: Path) -> None:
    tight = {**GROUPS, "g.h": {"policy": "proven_no_worse", "margin": 0.05}}
    found = compare(tmp_path, {}, {}, by=profile(tight))
    assert found.word == "cannot tell" and "a drop of up to 31.2% is possible, the margin is 5.0%" in found.reason


def test_latencies_are_paired_by_request(tmp_path: Path) -> None:
    found = compare(tmp_path, {}, {}, ms=35)
    first = next(row for row in found.latencies if row.name == "first token")
    assert first.pairs == 10 and first.shift == (15.0, 15.0, 15.0)


def test_too_few_answers_or_other_load_are_not_compared(tmp_path: Path) -> None:
    few = compare(tmp_path, {}, {"w": ""})
    assert {row.not_compared for row in few.latencies[:2]} == {"9 answers were timed in both runs, 10 are needed"}
    busy = profile(GROUPS).model_dump()
    by = Profile.model_validate({**busy, "limits": {**busy["limits"], "in_flight": 8}})
    other = difference(judged(answered(tmp_path / "x", {})), judged(answered(tmp_path / "y", {}, by=by)))
    assert {row.not_compared for row in other.latencies} == {"4 requests in flight in the first run, 8 in the second"}


def test_both_answers_stand_in_the_terminal_and_on_the_page_as_text(tmp_path: Path, capsys: Any) -> None:
    hostile = "No.<script>alert(1)</script>\u202egpj.exe\x1b[31m"
    first, second = judged(answered(tmp_path / "a", {})), judged(answered(tmp_path / "b", {"m": hostile}))
    found = difference(first, second)
    show_comparison(found, first, second)
    told = capsys.readouterr().out
    page = comparison_page(found, first, second)
    for text in (told, page):
        assert "newly failing" in text and "Hello from m" in text and "\\u202egpj.exe\\x1b" in text
        assert "\u202e" not in text and "\x1b[31m" not in text
    assert told.splitlines()[-1].startswith("WORSE  g.must: 1 newly failing")
    assert "&lt;script&gt;alert(1)" in page and "<script" not in page


def test_a_page_of_very_long_answers_stays_small(tmp_path: Path) -> None:
    cases = hellos(30)
    long = {c.id: "No. " + "x" * 20_000 for c in cases}
    first, second = judged(answered(tmp_path / "a", {}, cases)), judged(answered(tmp_path / "b", long, cases))
    assert len(comparison_page(difference(first, second), first, second).encode()) < 500_000


def test_only_two_finished_intact_and_different_runs_are_compared(tmp_path: Path) -> None:
    a, b = bundle(tmp_path / "a").path, bundle(tmp_path / "b", bad("m")).path
    assert difference(*recorded(str(a), str(b))).word == "worse"
    with pytest.raises(BadInput, match="is the same run as"):
        recorded(str(a), str(a))
    with pytest.raises(BadInput, match="not a run folder"):
        recorded(str(a), str(tmp_path))
    file = b / "01_x.exchanges.jsonl"
    file.write_text(file.read_text().replace("No.", "Hello"))
    with pytest.raises(BrokenRecord, match="was changed; only intact runs are compared"):
        recorded(str(a), str(b))


def test_the_verdict_file_is_not_believed(tmp_path: Path) -> None:
    a, b = bundle(tmp_path / "a"), bundle(tmp_path / "b", bad("m"))
    (b.path / "verdict.json").write_text((a.path / "verdict.json").read_text())
    b.seal()
    assert difference(*recorded(str(a.path), str(b.path))).word == "worse"


def test_two_urls_or_two_folders() -> None:
    assert are_urls("http://a:8000/v1", "http://b:8000/v1") and not are_urls("outputs/a", "outputs/b")
    with pytest.raises(BadInput, match="two run folders or two URLs"):
        are_urls("http://a:8000/v1", "outputs/b")
    assert (
        two("model", ["a"]) == ("a", "a")
        and two("model", ["a", "b"]) == ("a", "b")
        and two("model", None) == (None, None)
    )
    with pytest.raises(BadInput, match="--model is given 3 times"):
        two("model", ["a", "b", "c"])
