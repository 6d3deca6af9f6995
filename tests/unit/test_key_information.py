"""The tables of key information and sensitivity, from a run folder and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gatebook import Workbook
from gatebook.accept import accept
from gatebook.judge.baseline import Baseline, read_baseline
from gatebook.judge.judging import judge
from gatebook.plan.cases import Case
from gatebook.record.run import Run

from tests.unit.replies import baseline, case, chat_body, plain, profile, ready, record, run_folder

BOOK = "05_fingerprint"
POLICIES = {name: "watch" for name in ("fingerprint.facts", "fingerprint.sensitivity")} | {
    "fingerprint.contract": "must"
}


def asked(name: str, group: str, text: str, **expect: object) -> Case:
    sent = [{"role": "user", "content": text}]
    return case(name, notebook=BOOK, group=f"fingerprint.{group}", messages=sent, expect=[expect], finish="any")


FACTS = [
    asked("facts-order", "facts", "Retell order 4417.", facts={"required": ["4417", "Friday"]}),
    asked("facts-price", "facts", "Retell the price.", facts={"required": ["96"], "forbidden": ["69"]}),
]
PHRASINGS = [
    asked(f"phrasing-week-{n}", "sensitivity", f"How many days has a week, please? {n}", contains_any=["7"]).model_copy(
        update={"tags": {"task": "week", "phrasing": n}}
    )
    for n in range(1, 5)
]
CASES = [*FACTS, *PHRASINGS]
ANSWERS = {"facts-order": "Order 4417 is late.", "facts-price": "It costs 96."} | {
    f"phrasing-week-{n}": text for n, text in enumerate(["7", "7 days", "A lot.", "Many."], 1)
}


def before(**changes: object) -> Baseline:
    old = baseline({c.id: "pass" for c in CASES} | {"phrasing-week-4": "fail"}, CASES).model_dump()
    for name in ("facts-order", "facts-price"):
        old["cases"][name]["measured"] = 1.0
    return Baseline.model_validate({**old, "keywords": {"facts-order": ["4417", "friday"]}, **changes})


def book(path: Path, accepted: Baseline | None, answers: dict[str, str] = ANSWERS) -> Workbook:
    run = run_folder(path, CASES, profile(POLICIES), accepted.to_json().encode() if accepted else None)
    replies = [plain(chat_body(text, id=f"id-{name}"), key=f"{name}/ask") for name, text in answers.items()]
    record(run, BOOK, ready(), *replies)
    return Workbook(BOOK, str(path))


def test_coverage_now_in_the_baseline_and_the_difference(tmp_path: Path) -> None:
    table = book(tmp_path / "run", before()).facts()
    assert list(table.loc["facts-order"]) == ["0.50", "1.00", "-0.50", "5.3"]
    assert list(table.loc["facts-price"])[:3] == ["1.00", "1.00", "+0.00"]
    mean = table.loc["mean of 2 pairs"]
    assert (mean["coverage"], mean["baseline"], mean["difference"]) == ("0.75", "1.00", "-0.250 [-0.500, +0.000]")


def test_key_words_and_what_is_gone(tmp_path: Path) -> None:
    table = book(tmp_path / "run", before()).drift()
    assert list(table.loc["facts-order"]) == ["0.25", "order, 4417, late", "friday"]
    assert table.loc["facts-price", "overlap"] == "not measured: not in the baseline"


def test_sensitivity_and_its_change(tmp_path: Path) -> None:
    table = book(tmp_path / "run", before()).sensitivity()
    assert list(table.loc["week"]) == [
        "2 of 4", "1", "0.67", "0.50", "+0.17", "phrasing-week-3: How many days has a week, please? 3"
    ]  # fmt: skip
    assert table.loc["mean", "change"] == "+0.167 (each task alike of 1 changed)"


def test_without_a_baseline_it_says_so(tmp_path: Path) -> None:
    one = book(tmp_path / "run", None)
    assert one.facts().loc["mean", "difference"] == "not measured: no baseline"
    assert one.sensitivity().loc["mean", "change"] == "not measured: no baseline"
    assert set(one.drift()["overlap"]) == {"not measured: no baseline"}


def test_a_prompt_that_changed_is_not_paired(tmp_path: Path) -> None:
    changed = before().model_dump()
    for one in changed["cases"].values():
        one["prompt"] = "another"
    one = book(tmp_path / "run", Baseline.model_validate(changed))
    assert one.facts().loc["mean", "difference"] == "not measured: not in the baseline"
    assert one.sensitivity().loc["mean", "change"] == "not measured: not in the baseline"
    assert set(one.drift()["overlap"]) == {"not measured: not in the baseline"}


def test_a_case_without_an_answer_has_a_gap_and_breaks_nothing(tmp_path: Path) -> None:
    some = {name: text for name, text in ANSWERS.items() if name not in ("facts-order", "phrasing-week-1")}
    one = book(tmp_path / "run", before(), some)
    assert list(one.facts().loc["facts-order"]) == ["", "1.00", "", ""]
    assert one.sensitivity().loc["week", "passed"] == "1 of 3"
    assert one.drift().loc["facts-order", "key words now"] == ""


@pytest.mark.parametrize("accepted", [None, before()], ids=["alone", "compared"])
def test_the_pictures_show_every_case(tmp_path: Path, accepted: Baseline | None) -> None:
    one = book(tmp_path / "run", accepted)
    facts, sensitivity = one.plot_facts(), one.plot_sensitivity()
    assert [t.get_text() for t in facts.axes[0].get_yticklabels()] == ["facts-price", "facts-order"]
    assert [t.get_text() for t in sensitivity.axes[0].get_yticklabels()] == ["week"]
    rings = [c for c in sensitivity.axes[0].collections if c.get_sizes()[0] > 300]
    assert len(rings) == (accepted is not None), "phrasing 3 passed before"


def test_it_is_the_same_when_made_again(tmp_path: Path) -> None:
    one, again = book(tmp_path / "run", before()), Workbook(BOOK, str(tmp_path / "run"))
    assert one.facts().equals(again.facts()) and one.sensitivity().equals(again.sensitivity())


def test_accept_writes_coverage_and_key_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "params" / "cases").mkdir(parents=True)
    monkeypatch.setenv("GATEBOOK_ROOT", str(tmp_path))
    book(tmp_path / "run", None)
    (tmp_path / "run" / "verdict.json").write_text(judge(Run(tmp_path / "run")).model_dump_json())
    Run(tmp_path / "run").seal()
    accept(tmp_path / "run", "first", None)
    file = tmp_path / "params" / "baselines" / "unnamed.json"
    taken = read_baseline(file.read_bytes(), "b")
    assert taken is not None
    assert {i: c.measured for i, c in taken.cases.items() if c.measured is not None} == {
        "facts-order": 0.5,
        "facts-price": 1.0,
    }
    assert taken.keywords == {"facts-order": ["order", "4417", "late"], "facts-price": ["costs", "96"]}
    lines = file.read_text().splitlines()
    assert '  "facts-price": ["costs", "96"]' in lines, "a case is a line"


def test_an_old_baseline_is_still_read() -> None:
    old = json.loads(before().to_json())
    del old["keywords"]
    for one in old["cases"].values():
        one.pop("measured", None)
    found = read_baseline(json.dumps(old).encode(), "b")
    assert found is not None and (found.keywords, found.cases["facts-order"].measured) == ({}, None)
    assert "keywords" not in found.to_json() and "measured" not in found.to_json()
