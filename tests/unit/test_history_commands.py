"""`gatebook history`: what it prints, writes, draws and refuses."""

from __future__ import annotations

import csv
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from gatebook.commands import history as commands
from gatebook.errors import BadInput, BrokenRecord, CannotMeasure
from gatebook.record.exchange import Measurement
from gatebook.record.history import VARIABLE, open_history
from gatebook.report import history as tell
from gatebook.report.history import VERDICT_COLOURS, export, plot_trend

from tests import forging
from tests.unit.measured import NOW, measurement
from tests.unit.replies import case, profile, run_folder
from tests.unit.test_entering import made


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GATEBOOK_ROOT", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path


ROWS = [
    measurement(3, run="r1"),
    measurement(2, run="r2", verdict="FAIL", revision=None),
    measurement(1, run="r3", profile="q", group="g.i", itl_ms=[], gpu_peak_mib=None),
]


def test_the_list_says_what_there_is_and_where(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands.list_rows()
    assert capsys.readouterr().out == f"0 rows of 0 runs in {project}/outputs/history.sqlite\n"
    open_history().enter(ROWS)
    commands.list_rows()
    head, *lines, last = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "group", "n", "ttft", "itl", "total", "tokens/s", "gpu", "revision", "verdict", "accepted"]  # fmt: skip
    assert lines[0].split() == ["r1", "g.h", "3", "110.5", "11.0", "510.0", "99.0", "NVIDIA", "L4", "rev-1", "PASS", "yes"]  # fmt: skip
    assert "none named" in lines[1] and lines[1].split()[-2:] == ["FAIL", "no"]
    assert last.startswith("3 rows of 3 runs in ")
    commands.list_rows(profile="q")
    assert "1 rows of 1 runs" in capsys.readouterr().out
    commands.list_rows(group="g.h")
    assert "2 rows of 2 runs" in capsys.readouterr().out


def test_days_reach_back_from_now(capsys: pytest.CaptureFixture[str]) -> None:
    now = datetime.now(UTC)
    open_history().enter([measurement(run="today", at=now), measurement(run="older", at=now - timedelta(days=3))])
    commands.list_rows(days=2)
    assert "1 rows of 1 runs" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_an_export_holds_every_column_and_sample(tmp_path: Path, suffix: str) -> None:
    open_history().enter(ROWS)
    file = tmp_path / f"rows.{suffix}"
    commands.export(file)
    frame = pd.read_csv(file, dtype={"engine_version": str}) if suffix == "csv" else pd.read_parquet(file)
    assert list(frame.columns) == list(Measurement.model_fields)
    found = [Measurement.model_validate(_plain(row)) for row in frame.to_dict("records")]
    assert found == ROWS


def _plain(row: dict[Any, Any]) -> dict[str, Any]:
    """A row as it was before pandas: lists are lists, what is missing is None."""
    lists = {k: json.loads(v) if isinstance(v, str) else [float(x) for x in v] for k, v in row.items() if k.endswith(("_ms", "_tokens"))}  # fmt: skip
    return {k: None if not isinstance(v, list) and k not in lists and pd.isna(v) else v for k, v in row.items()} | lists


def test_no_cell_of_an_export_is_a_formula(tmp_path: Path) -> None:
    names = ["=cmd|' /C calc'!A0", "@SUM(1+1)", "+1", "-1+1", "\t=1", "＝1", " =1", "plain", "a=b", ""]
    export([measurement(run=f"r{n}", revision=name, gpu=name) for n, name in enumerate(names)], tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for name, row in zip(names, rows, strict=True):
        shown = name if name in ("plain", "a=b", "") else f"'{name}"
        assert (row["revision"], row["gpu"]) == (shown, shown)


def test_an_empty_export_still_has_its_columns(tmp_path: Path) -> None:
    export([], tmp_path / "none.csv")
    assert list(pd.read_csv(tmp_path / "none.csv").columns) == list(Measurement.model_fields)


@pytest.mark.parametrize(("name", "starts"), [("trend.png", b"\x89PNG"), ("trend.svg", b"<?xml")])
def test_the_trend_is_a_picture(tmp_path: Path, name: str, starts: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    open_history().enter(ROWS)
    commands.plot(tmp_path / name)
    drawn = (tmp_path / name).read_bytes()
    assert drawn.startswith(starts) and capsys.readouterr().out == f"{tmp_path / name}: 2 groups\n"
    if name.endswith("svg"):
        assert all(VERDICT_COLOURS[v].encode() in drawn for v in ("PASS", "FAIL"))
        assert VERDICT_COLOURS["ERROR"].encode() not in drawn


@pytest.mark.parametrize("days", [0.01, 0.6, 1.5, 4, 11, 23, 45, 90, 200, 400])
def test_the_trend_has_dates_for_every_span(tmp_path: Path, days: float) -> None:
    """matplotlib warns when it finds no ticks, and a warning is an error here."""
    assert plot_trend([measurement(days, run="r1"), measurement(0, run="r2")], tmp_path / "t.png")


def test_a_trend_of_too_many_groups_says_what_it_leaves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tell, "MOST_ROWS", 3)  # of 24, which take seconds to draw
    rows = [measurement(n, group=f"g.n{n}") for n in range(5)]
    assert plot_trend(rows, tmp_path / "t.svg").endswith("3 groups; 2 older ones left out, narrow it with --profile or --group")  # fmt: skip


def test_pruning_says_what_is_gone(capsys: pytest.CaptureFixture[str]) -> None:
    now = datetime.now(UTC)
    open_history().enter([*ROWS, measurement(run="today", at=now), measurement(run="old", at=now - timedelta(days=99))])
    commands.prune(before=f"{NOW - timedelta(days=2):%Y-%m-%dT%H:%M}")
    assert "rows of runs before 2026-11-18 12:00 UTC deleted" in capsys.readouterr().out
    commands.prune(before="2026-11-20T20:00+08:00")
    assert "before 2026-11-20 12:00 UTC" in capsys.readouterr().out
    left = {row.run for row in open_history().rows()}
    commands.prune(days=30)
    assert {row.run for row in open_history().rows()} == left - {"old"} and "today" in left


def test_a_run_made_elsewhere_is_entered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made(tmp_path / "r1")
    commands.enter(run.path)
    commands.enter(run.path)
    assert "1 groups of r1 stored" in capsys.readouterr().out
    assert [row.run for row in open_history().rows()] == ["r1"]
    (run.path / "verdict.json").write_text("{}")
    with pytest.raises(BrokenRecord, match="verdict.json was changed; only an intact run enters"):
        commands.enter(run.path)


def test_another_bundle_of_an_entered_runs_name_is_refused(tmp_path: Path) -> None:
    run = made(tmp_path / "r1")
    commands.enter(run.path)
    before, other = open_history().rows(), Path(shutil.copytree(run.path, tmp_path / "sent"))
    forging.edit(other / "manifest.json", lambda manifest: manifest.update(created="2026-11-21T12:00:00+00:00"))
    forging.seal(other)
    with pytest.raises(BadInput, match="run r1 has entered with other evidence"):
        commands.enter(other)
    assert open_history().rows() == before


def test_a_run_without_a_verdict_is_not_entered(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "r1", [case("a")], profile({"g.h": "watch"}))
    run.seal()
    with pytest.raises(BadInput, match="has no verdict yet"):
        commands.enter(run.path)


REFUSED: dict[str, tuple[Any, str]] = {
    "export to a file of another kind": (lambda f: commands.export(f / "rows.xlsx"), r"FILE\.csv or FILE\.parquet"),
    "plot to a file of another kind": (lambda f: commands.plot(f / "trend.pdf"), r"FILE\.png or FILE\.svg"),
    "plot of nothing": (lambda f: commands.plot(f / "trend.png", profile="none"), "nothing to plot"),
    "prune without a limit": (lambda f: commands.prune(), "takes one of --before"),
    "prune with two": (lambda f: commands.prune(before="2026-01-01", days=3), "takes one of --before"),
    "prune by no date": (lambda f: commands.prune(before="last week"), "--before has value 'last week'"),
    "no days": (lambda f: commands.prune(days=0), "--days has value 0"),
    "days that are no number": (lambda f: commands.list_rows(days=float("nan")), "--days has value nan"),
    "enter what is no run": (lambda f: commands.enter(f), "not a run folder"),
}


@pytest.mark.parametrize(("command", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_input_is_one_line(tmp_path: Path, command: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        command(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    for write in (export, plot_trend):
        with pytest.raises(CannotMeasure, match="cannot be written"):
            write(ROWS, tmp_path / "missing" / ("x.csv" if write is export else "x.png"))  # type: ignore[operator]
