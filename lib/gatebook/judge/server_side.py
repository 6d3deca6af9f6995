"""What the server says of its own latencies: llama.cpp in each answer, vLLM and SGLang in the histograms of /metrics."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from gatebook.engines import names as metric_names
from gatebook.judge.timed import Timed
from gatebook.plan.latency import Metric
from gatebook.record.exchange import Exchange

HISTOGRAMS: dict[Metric, tuple[str, ...]] = {
    "ttft": metric_names("ttft_histograms"),
    "itl": metric_names("itl_histograms"),
    "total": metric_names("total_histograms"),
}
NEAR_SHARE, NEAR_MS = 0.1, 20.0
"""Below both, what lies between server and client is no matter."""


@dataclass(frozen=True)
class ServerSide:
    """One metric of a group seen from both ends, means in ms."""

    group: str
    metric: Metric
    client_ms: float
    server_ms: float
    source: str

    @property
    def says(self) -> str:
        """Where the time between the two went."""
        away = self.client_ms - self.server_ms
        if away > max(NEAR_MS, NEAR_SHARE * self.client_ms):
            return f"{away / self.client_ms:.0%} of the wait is outside the engine: network, gateway or its queue"
        if away < -NEAR_SHARE * self.server_ms:
            return "the server counts more than we waited: other requests are in its figures"
        return "the wait is the engine's own"


def server_side(timed: Timed, exchanges: list[Exchange]) -> list[ServerSide]:
    """Means over the samples that count; with histograms, over all requests between the two readings, warm-up too."""
    answers = [s for s in timed.samples[timed.settings.warm_up :] if s.invalid is None]
    pairs: dict[Metric, list[tuple[float | None, float | None]]] = {
        "ttft": [(s.ttft_ms, s.server_ttft_ms) for s in answers],
        "itl": [(s.itl_ms, s.server_itl_ms) for s in answers],
    }
    found = []
    for metric, both in pairs.items():
        known = [(a, b) for a, b in both if a is not None and b is not None]
        if known:
            ours, theirs = fmean(a for a, _ in known), fmean(b for _, b in known)
            found.append(ServerSide(timed.case.group, metric, ours, theirs, "timings in each answer"))
    if found:
        return found
    before, after = (_sums(exchanges, f"metrics/{timed.case.id}/{when}") for when in ("before", "after"))
    for metric, names in HISTOGRAMS.items():
        client = [ms for s in timed.samples if (ms := s.of(metric)) is not None]
        for name in names:
            count = after.get(f"{name}_count", 0) - before.get(f"{name}_count", 0)
            if client and count > 0:
                seconds = after.get(f"{name}_sum", 0) - before.get(f"{name}_sum", 0)
                found.append(ServerSide(timed.case.group, metric, fmean(client), seconds / count * 1000, name))
                break
    return found


def _sums(exchanges: list[Exchange], key: str) -> dict[str, float]:
    """`<histogram>_sum` and `_count` of a reading of /metrics, all labels together."""
    from prometheus_client.parser import text_string_to_metric_families

    read = next((e.text for e in exchanges if e.key == key and e.status == 200 and e.text), "")
    sums: dict[str, float] = {}
    try:
        for family in text_string_to_metric_families(read):
            for sample in family.samples:
                if sample.name.endswith(("_sum", "_count")):
                    sums[sample.name] = sums.get(sample.name, 0) + sample.value
    except ValueError:  # no Prometheus text: a gateway's page
        return {}
    return sums
