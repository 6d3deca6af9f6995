"""Memory, production and budget against the real command: the server is real, what it says of itself is scripted on the wire.

vLLM and DCGM cannot run here: their texts follow their documentation (tests/unit/traces.py).
"""

from __future__ import annotations

import json
from typing import Any

from tests.conftest import Project, shipped_cases
from tests.faults.proxy import Fault, FaultProxy
from tests.unit.traces import DCGM, VLLM

GAUGES = ("gpu-memory-peak", "kv-cache-peak", "queue-peak", "preemptions")
LOAD: dict[str, Any] = {
    "id": "asked-beside", "notebook": "08_load", "group": "load.asked", "suites": ["smoke"], "finish": "any",
    "why": "gauges need something to stand beside", "messages": [{"role": "user", "content": "Count to ten."}],
    "options": {"temperature": 0, "max_tokens": 16}, "expect": [{"contains_any": ["1", "one", "e"]}],
}  # fmt: skip
VLLM_CALM = (
    VLLM.replace("0.9732", "0.21").replace('Instruct-2507"} 4.0', 'Instruct-2507"} 1.0').replace("} 3.0", "} 0.0")
)


def like_vllm(*metrics: str) -> list[Fault]:
    """The real server under vLLM's face, with these texts at /metrics one after the other."""
    card = {"object": "list", "data": [{"id": "smollm2-135m-instruct", "object": "model", "max_model_len": 8192}]}
    return [
        Fault("page", path="/version", arg=['{"version": "0.11.0"}']),
        Fault("page", path="/v1/models", arg=[json.dumps(card)]),
        Fault("gone", path="/props"),
        Fault("page", path="/metrics", arg=list(metrics)),
        Fault("slow", arg=2.5),
    ]


def gauged(project: Project, proxy: FaultProxy, **production: Any) -> None:
    shipped = [shipped_cases()[n].model_dump(mode="json", exclude_defaults=True) for n in GAUGES]
    project.write_cases([LOAD, *({**case, "suites": ["smoke"]} for case in shipped)])
    limits = {"gpu_memory_limit_gb": 22, "gpu_metrics_url": proxy.base_url.replace("/v1", "/dcgm")}
    project.edit_profile(
        groups={"load.contract": "must", "load.asked": "watch", "load.gpu_memory": "must", "load.kv_cache": "must"},
        limits={"request_deadline_s": 60}, production={**limits, "nvml": "never", **production},
    )  # fmt: skip


def test_a_server_started_otherwise_fails_and_an_unknown_is_not_green(project: Project, server: str) -> None:
    chosen = ("production-max-model-len", "production-max-num-seqs", "production-dtype")
    project.choose(*chosen)
    with FaultProxy(server, [Fault("says", path="/props", arg={"total_slots": 4, "model_ftype": None})]) as proxy:
        done = project.ask(proxy.base_url)
        found = {f["case"]: (f["outcome"], f["reason"]) for f in done.verdict["findings"]}
        assert done.code == 1, done
        assert "max_num_seqs is 4 by /props total_slots, and production has 2" in done.verdict["reason"]
        assert found["production-max-model-len"][0] == "pass"
        assert found["production-dtype"][0] == "not_measured" and "unknown" in found["production-dtype"][1]
        assert "production-dtype" in (done.run / "01_health.html").read_text()
        project.edit_profile(production={"max_num_seqs": 4})
        unknown = project.ask(proxy.base_url)
    assert (unknown.code, "dtype" in unknown.verdict["reason"]) == (3, True), unknown


def test_a_full_cache_and_preemptions_fail_where_the_card_is_only_evidence(project: Project, server: str) -> None:
    faults = [*like_vllm(VLLM_CALM, VLLM), Fault("page", path="/dcgm", arg=[DCGM])]
    with FaultProxy(server, faults) as proxy:
        gauged(project, proxy)
        done = project.ask(proxy.base_url)
    found = {f["case"]: (f["outcome"], f["reason"]) for f in done.verdict["findings"]}
    assert done.code == 1, done
    assert found["kv-cache-peak"][0] == "fail" and "97% full at the peak, limit 95%" in found["kv-cache-peak"][1]
    assert found["preemptions"][0] == "fail" and "3 preemptions during the load, limit 0" in found["preemptions"][1]
    assert found["queue-peak"][0] == "pass"
    assert found["gpu-memory-peak"][0] == "pass" and "load.kv_cache decides" in found["gpu-memory-peak"][1]
    assert project.gatebook("verify", "--reproduced", done.run).code == 0


def test_a_card_past_its_limit_fails_and_missing_metrics_are_not_measured(project: Project, server: str) -> None:
    faults = [Fault("gone", path="/metrics"), Fault("page", path="/dcgm", arg=[DCGM]), Fault("slow", arg=1.5)]
    with FaultProxy(server, faults) as proxy:
        gauged(project, proxy)
        done = project.ask(proxy.base_url)
    found = {f["case"]: (f["outcome"], f["reason"]) for f in done.verdict["findings"]}
    assert done.code == 1, done
    assert found["gpu-memory-peak"][0] == "fail" and "held 22.5 of 24.0 GB at the peak" in found["gpu-memory-peak"][1]
    assert found["queue-peak"][0] == "not_measured" and "HTTP 404" in found["queue-peak"][1]


def test_a_budget_too_small_is_named_and_not_green(project: Project, server: str) -> None:
    project.edit_profile(limits={"tokens": 200, "request_deadline_s": 60})
    done = project.ask(server, "greeting-nihao", "max-tokens-5", "canary-water")
    assert done.code == 3, done
    assert "limits.tokens of 200 has no room for it" in done.verdict["reason"]
    assert "not asked: limits.tokens of 200: " in done.out and "of a budget of 200" in done.out
    asked = [json.loads(x)["exchange"] for x in (done.run / "01_health.exchanges.jsonl").read_text().splitlines()]
    assert {e["kind"] for e in asked} >= {"skip", "ready"}
    assert "What it cost" in (done.run / "index.html").read_text()
