"""Latencies in metrics.txt: quantiles of what was streamed, and none that too few values carry."""

from __future__ import annotations

from pathlib import Path

import pytest
from gatebook.report.metrics import FEWEST_FOR_P90, metrics
from gatebook.verdict.judging import judge
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.unit.replies import case, good_chunks, profile, ready, record, run_folder, streamed, timing


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
