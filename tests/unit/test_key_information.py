"""What accept keeps of key information."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gatebook import Workbook
from gatebook.commands.accept import accept
from gatebook.config.cases import Case
from gatebook.record.run import Run
from gatebook.verdict.baseline import Baseline, read_baseline
from gatebook.verdict.judging import judge

from tests.conftest import checkout
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
    return Workbook(BOOK, run)


def test_accept_writes_coverage_and_key_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEBOOK_ROOT", str(checkout(tmp_path)))
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
    assert (taken.cases["facts-order"].score, taken.cases["phrasing-week-1"].score) == (0.5, 1.0)
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
