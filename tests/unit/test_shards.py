"""Shards: each case is in exactly one, clusters stay together, and nothing else is a shard."""

from __future__ import annotations

from pathlib import Path

import pytest
from gatebook.config.selection import MOST_SHARDS, Shard, part_of, select, shard_of
from gatebook.errors import BadInput

from tests.conftest import shipped_cases
from tests.unit.replies import case, profile, run_folder

CASES = select([*shipped_cases().values()], "full", None)


@pytest.mark.parametrize("total", [1, 2, 3, 8])
def test_every_case_is_in_exactly_one_and_clusters_stay_together(total: int) -> None:
    parts = [part_of(CASES, Shard(number, total)) for number in range(1, total + 1)]
    assert sorted(c.id for part in parts for c in part) == sorted(c.id for c in CASES)
    assert all([c for c in CASES if c in part] == part for part in parts), "in their order"
    for name in {c.cluster for c in CASES}:
        asking = {n for n, part in enumerate(parts) for c in part if c.cluster == name and c.over is None}
        assert len(asking) <= 1, name
    whole = {"01_health", "05_fingerprint", "08_load"}
    assert {c.notebook for part in parts[1:] for c in part} & whole == set()
    assert all(c.over is None for part in parts[1:] for c in part)
    if total > 1:
        sizes = [len([c for c in part if c.notebook == "06_scenarios"]) for part in parts]
        assert max(sizes) < 2 * min(sizes), "by hash, and so about even"


def test_a_shard_without_cases_is_bad_input() -> None:
    with pytest.raises(BadInput, match="none of the 1 selected cases is in it; use fewer shards"):
        [part_of([case("lone")], Shard(number, 3)) for number in (1, 2, 3)]


@pytest.mark.parametrize("text", ["9/8", "0/8", "3", "3/0", "a/b", "1/2/3", "-1/8", "1/10001", "³/8", " 1/2", ""])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(BadInput, match="must be K/N with K from 1 to N"):
        shard_of(text)
    assert str(shard_of("8/8")) == "8/8"


def test_the_folder_of_a_merged_run_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebooks = [f"n{number:02d}" for number in range(50)]
    cases = [case(name, notebook=name) for name in notebooks]
    run = run_folder(tmp_path / "r", cases, profile(), merged_from=[f"r{number}" for number in range(MOST_SHARDS)])
    kept = ["n00.shard-2", "n00.shard-10000", "n00", "n01.shard-3", "n00.shard-1", "n00.shard-02", "n00.shard-10001"]
    for name in kept:
        (run.path / f"{name}.exchanges.jsonl").touch()
    looks, listed = list[Path](), Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda at: looks.append(at) or listed(at))
    monkeypatch.setattr(Path, "exists", looks.append)
    found = {
        name: [file.name.removesuffix(".exchanges.jsonl") for file in run.record_files(name)] for name in notebooks
    }
    assert looks == [run.path]
    assert found["n00"] == ["n00", "n00.shard-2", "n00.shard-10000"]
    assert (found["n01"], found["n02"]) == (["n01.shard-3"], ["n02"])
