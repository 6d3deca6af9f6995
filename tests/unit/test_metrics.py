"""Latencies in metrics.txt: quantiles of what was streamed, and none that too few values carry."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from gatebook.record.run import Run
from gatebook.report.figures import FEWEST_FOR_P90, metrics
from gatebook.verdict.judging import judge
from gatebook.verdict.verdict import EXIT_CODES
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as classic

from tests.unit.replies import case, good_chunks, profile, ready, record, run_folder, streamed, timing
from tests.unit.runs import answered, hellos


@pytest.mark.parametrize("answers", [1, FEWEST_FOR_P90 - 1, FEWEST_FOR_P90])
def test_quantiles(tmp_path: Path, answers: int) -> None:
    cases = [
        case(f"c{n}", group='g.a "b" #c', expect=[{"contains_any": ["Hello"]}], finish="any") for n in range(answers)
    ]
    run = run_folder(tmp_path / "run", cases, profile({'g.a "b" #c': "must"}))
    times = [
        timing(first_token_ms=100.0 * (n + 1), last_token_ms=100.0 * (n + 1) + 80, end_ms=999) for n in range(answers)
    ]
    replies = [streamed(good_chunks(), key=f"c{n}/ask", timing=t) for n, t in enumerate(times)]
    record(run, "01_x", ready(), *replies)
    text = metrics(run, judge(run))
    families = {
        f.name: {s.labels.get("quantile"): s.value for s in f.samples} for f in text_string_to_metric_families(text)
    }
    assert families["gatebook_ttft_ms"]["0.5"] == 50 * (answers + 1)
    assert families["gatebook_total_ms"]["0.5"] == 50 * (answers + 1) + 80
    assert families["gatebook_tpot_ms"]["0.5"] == 20, "80 ms over the 4 tokens after the first, by usage"
    assert ("0.9" in families["gatebook_ttft_ms"]) == (answers >= FEWEST_FOR_P90)
    assert all(line.count(" ") == 1 and "#" not in line for line in text.splitlines() if not line.startswith("#"))


DASHBOARD = Path(__file__).resolve().parents[2] / "deploy" / "grafana-dashboard.json"
WHOSE = {"profile", "model", "suite"}


def told(run: Run) -> list[Any]:
    return [s for family in text_string_to_metric_families(metrics(run, judge(run))) for s in family.samples]


def test_every_sample_says_whose_it_is_so_that_two_deployments_do_not_collide(tmp_path: Path) -> None:
    one = profile({"g.h": "watch", "g.must": "must", "g.watch": "watch"}, revision="sha256:aaa")
    other = one.model_copy(update={"target": one.target.model_copy(update={"model": "m2"})})
    found = [told(answered(tmp_path / name, {}, by=by)) for name, by in (("run-1", one), ("run-2", other))]
    keys = [{(s.name, *sorted(s.labels.items())) for s in samples} for samples in found]
    assert len(keys[0]) == len(found[0]) and not keys[0] & keys[1]
    assert all(s.labels.keys() >= WHOSE for samples in found for s in samples)
    info = next(s for s in found[0] if s.name == "gatebook_run_info")
    assert (info.value, info.labels["revision"], info.labels["run"]) == (1, "sha256:aaa", "run-1")
    assert info.labels.keys() == {*WHOSE, "revision", "run"}
    assert not any({"run", "revision"} & s.labels.keys() for s in found[0] if s is not info), "one series over the runs"


def test_it_is_read_as_the_older_text_format_too(tmp_path: Path) -> None:
    """As node_exporter and the Pushgateway read it, which know no type `info` (prometheus/pushgateway#479)."""
    text = metrics(run := answered(tmp_path / "run", {}), judge(run))
    assert {*re.findall(r"^# TYPE \S+ (\w+)$", text, re.MULTILINE)} == {"gauge", "summary"}
    samples = {(s.name, *sorted(s.labels.items())): s.value for family in classic(text) for s in family.samples}
    assert samples == {(s.name, *sorted(s.labels.items())): s.value for s in told(run)}


def test_a_start_that_is_no_time_is_left_out(tmp_path: Path) -> None:
    run = answered(tmp_path / "run", {}, created="yesterday")
    assert "gatebook_run_started_seconds" not in metrics(run, judge(answered(tmp_path / "other", {})))


def test_the_dashboard_asks_for_nothing_that_is_not_told(tmp_path: Path) -> None:
    waiver = {"case": "m", "reason": "known", "owner": "me", "expires": "2099-01-01"}
    by = profile({"g.h": "watch", "g.must": "must", "g.watch": "watch"})
    by = by.model_validate({**by.model_dump(), "waivers": [waiver]})
    have: dict[str, set[str]] = {}
    for sample in told(answered(tmp_path / "run", {"m": "No."}, hellos(12), by)):
        have.setdefault(sample.name, set()).update(sample.labels)
    board = json.loads(DASHBOARD.read_text())
    asked = [(t["expr"], t["legendFormat"]) for panel in board["panels"] for t in panel["targets"]]
    asked += [(v["query"]["query"], "") for v in board["templating"]["list"] if v["type"] == "query"]
    names = set()
    for expression, legend in asked:
        found = re.findall(r"(gatebook_\w+)(?:\{(.*?)\})?", expression)
        assert found, expression
        for name, selectors in found:
            names.add(name)
            assert name in have, expression
            used = [*re.findall(r"(\w+)=~?\"", selectors), *re.findall(r"\{\{(\w+)\}\}", legend)]
            assert {*used} <= have[name], (expression, legend)
    wanted = {
        "run_info",
        "exit_code",
        "group_pass_ratio",
        "ttft_ms",
        "tpot_ms",
        "total_ms",
        "cases",
        "waived_cases",
        "run_started_seconds",
    }
    assert names >= {f"gatebook_{name}" for name in wanted}
    variables = {v["name"] for v in board["templating"]["list"]}
    assert {*re.findall(r"\$\{?(\w+)", DASHBOARD.read_text())} - {"__all"} <= variables
    codes = next(p for p in board["panels"] if p["title"] == "Verdict")["fieldConfig"]["defaults"]["mappings"][0][
        "options"
    ]
    assert {int(code): one["text"] for code, one in codes.items()} == {code: word for word, code in EXIT_CODES.items()}
    assert codes["0"]["color"] == "green" and all(one["color"] != "green" for code, one in codes.items() if code != "0")
