"""Where a run's time went and what it cost in tokens: from the record, and from what papermill notes of each notebook."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

from gatebook.checks.evidence import Timed, clipped, epoch_ms, length_s, opened, union, worked
from gatebook.config.policies import METRICS, Metric
from gatebook.engines import names as metric_names
from gatebook.record.exchange import Exchange
from gatebook.record.executed import execution
from gatebook.record.replies import read_answer
from gatebook.record.run import Run

N = TypeVar("N", int, float)


@dataclass(frozen=True)
class Spent:
    """One notebook, or all of them. Seconds of wall time; None where nothing tells it."""

    notebook: str
    requests: int
    server_s: float
    """With at least one request at the server."""
    waiting_s: float
    """With requests open and none at the server: refused connections, 429 and 503, pauses before another try, not ready yet."""
    harness_s: float | None
    """The rest of the notebook's last execution: kernel, writing, judging, tables, pictures."""
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None
    """Of the prompt tokens, as usage tells them; None when no reply does."""
    uncounted: int
    """Answered requests whose usage is missing."""


@dataclass(frozen=True)
class Unfit:
    """Why cases were not asked, and which."""

    why: str
    groups: dict[str, int]
    """Group -> cases."""
    cases: list[str]


def spent(run: Run, notebook: str) -> Spent:
    """Return what one notebook spent. Raises BrokenRecord."""
    exchanges = [e for e in run.exchanges(notebook) if e.attempts]
    server_s = length_s(union(span for e in exchanges for span in worked(e)))
    open_ = union(span for e in exchanges for span in opened(e))
    harness_s = None
    if (ran := execution(run.path / f"{notebook}.ipynb")) is not None:
        begin_ms, took_s = epoch_ms(ran[0]), ran[1]
        harness_s = max(took_s - length_s(clipped(open_, (begin_ms, begin_ms + took_s * 1000))), 0.0)
    usages = [read_answer(e) for e in exchanges if e.method == "POST" and e.status == 200]
    return Spent(
        notebook=notebook, requests=len(exchanges), server_s=server_s,
        waiting_s=max(length_s(open_) - server_s, 0.0), harness_s=harness_s,
        prompt_tokens=sum(a.tokens("prompt_tokens") or 0 for a in usages),
        completion_tokens=sum(a.tokens("completion_tokens") or 0 for a in usages),
        cached_tokens=_sum(a.cached_tokens for a in usages),
        uncounted=sum(a.tokens("prompt_tokens") is None for a in usages),
    )  # fmt: skip


def total(parts: list[Spent], more_harness_s: float | None = None) -> Spent:
    """Add up notebooks, which run one after the other. `more_harness_s`: of a notebook that asks nothing."""
    return Spent(
        notebook="all", requests=sum(p.requests for p in parts), server_s=sum(p.server_s for p in parts),
        waiting_s=sum(p.waiting_s for p in parts), harness_s=_sum([*(p.harness_s for p in parts), more_harness_s or None]),
        prompt_tokens=sum(p.prompt_tokens for p in parts), completion_tokens=sum(p.completion_tokens for p in parts),
        cached_tokens=_sum(p.cached_tokens for p in parts), uncounted=sum(p.uncounted for p in parts),
    )  # fmt: skip


def _sum(values: Iterable[N | None]) -> N | None:
    """Return the sum of the known values; None where none is known."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def unfit(run: Run) -> list[Unfit]:
    """What was not asked because time, tokens or the documents' budget did not suffice, one entry a reason. Raises BrokenRecord."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for notebook in run.notebooks:
        exchanges = run.exchanges(notebook)
        for exchange in exchanges:
            if exchange.kind == "skip" and exchange.case in run.cases:
                # without the figures of the one request, so that all requests of a budget stand under one reason
                found[exchange.detail.partition(" has no room for it")[0]][str(exchange.case)] = None
        keys, stops = {e.key for e in exchanges}, [e.detail for e in exchanges if e.kind == "stop"]
        for case in run.expected(notebook) if stops else ():
            if any(f"{case.id}/{ask.name}" not in keys for ask in case.requests()):
                found[stops[-1]][case.id] = None
    return [Unfit(why, dict(Counter(run.cases[i].group for i in ids)), list(ids)) for why, ids in found.items()]


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
        """Return where the time between the two went."""
        away = self.client_ms - self.server_ms
        if away > max(NEAR_MS, NEAR_SHARE * self.client_ms):
            return f"{away / self.client_ms:.0%} of the wait is outside the engine: network, gateway or its queue"
        if away < -NEAR_SHARE * self.server_ms:
            return "the server counts more than we waited: other requests are in its figures"
        return "the wait is the engine's own"


def server_side(timed: Timed, exchanges: list[Exchange]) -> list[ServerSide]:
    """Means over the samples that count; with histograms, over all requests between the two readings, warm-up too."""
    group, found = timed.case.group, []
    answers = [s for s in timed.samples[timed.settings.warm_up :] if s.invalid is None]
    pairs: dict[Metric, list[tuple[float | None, float | None]]] = {
        "ttft": [(s.ttft_ms, s.server_ttft_ms) for s in answers],
        "itl": [(s.itl_ms, s.server_itl_ms) for s in answers],
    }
    for metric, both in pairs.items():
        if known := [(ours, its) for ours, its in both if ours is not None and its is not None]:
            client_ms, server_ms = (fmean(column) for column in zip(*known, strict=True))
            found.append(ServerSide(group, metric, client_ms, server_ms, "timings in each answer"))
    if found:
        return found
    before, after = (_sums(exchanges, f"metrics/{timed.case.id}/{when}") for when in ("before", "after"))
    for metric in METRICS:
        names = metric_names(f"{metric}_histograms")
        client = [ms for s in timed.samples if (ms := s.of(metric)) is not None]
        counts = {name: after[f"{name}_count"] - before[f"{name}_count"] for name in names}
        name = next((name for name, count in counts.items() if client and count > 0), None)
        if name is not None:
            seconds = after[f"{name}_sum"] - before[f"{name}_sum"]
            found.append(ServerSide(group, metric, fmean(client), seconds / counts[name] * 1000, name))
    return found


def _sums(exchanges: list[Exchange], key: str) -> dict[str, float]:
    """`<histogram>_sum` and `_count` of a reading of /metrics, all labels together; none where it is no Prometheus text."""
    from prometheus_client.parser import text_string_to_metric_families

    read = next((e.text for e in exchanges if e.key == key and e.status == 200 and e.text), "")
    sums: dict[str, float] = defaultdict(float)
    try:
        for sample in (sample for family in text_string_to_metric_families(read) for sample in family.samples):
            if sample.name.endswith(("_sum", "_count")):
                sums[sample.name] += sample.value
    except ValueError:  # a gateway's page
        return defaultdict(float)
    return sums
