"""The fingerprint for a reader: every value with the baseline's beside it, and how far the log probabilities moved."""

from __future__ import annotations

from typing import Any

import pandas as pd

from gatebook.judge.baseline import Baseline
from gatebook.judge.drift import distance_nats, noise_nats
from gatebook.judge.fingerprint import Fingerprint, rows_of
from gatebook.judge.verdict import Verdict
from gatebook.tell.tables import headed

LONGEST = 60


def fingerprint_table(verdict: Verdict, baseline: Baseline | None) -> pd.DataFrame:
    """Name, baseline, now, and whether it moved; what only one of them knows is told too."""
    old: Fingerprint = baseline.fingerprint if baseline else {}
    moved = {change.name: change.part for change in verdict.changes}
    rows = [
        (name, _told(name, old.get(name)), _told(name, verdict.fingerprint.get(name)), _state(name, old, verdict.fingerprint, moved))
        for name in sorted(old.keys() | verdict.fingerprint.keys())
    ]  # fmt: skip
    return headed(pd.DataFrame(rows, columns=["value", "baseline", "now", "state"]).set_index("value"))


def _state(name: str, old: Fingerprint, new: Fingerprint, moved: dict[str, str]) -> str:
    name = "defaults" if name.startswith("defaults.") and "defaults" in moved else name
    if name in moved:
        return f"CHANGED: {moved[name].rstrip(',')}"
    if name not in old:
        return "not in the baseline"
    return (
        "not measured in this run" if name not in new else "same" if old[name] == new[name] else "same within tolerance"
    )


def _told(name: str, value: Any) -> str:
    if value is None:
        return "–"
    kind = name.split(".")[0]
    if kind == "logprobs":
        rows = rows_of(value)
        best = max(rows[0], key=lambda token: rows[0][token])
        return f"{best!r} {rows[0][best]:.3f}, noise {noise_nats(rows):.4f} over {len(rows)}"
    if kind == "greedy":
        return f"{_short(''.join(str(row[0]) for row in value))}, mean {sum(row[1] for row in value) / len(value):.3f}"
    if kind == "defaults":
        short = [mean for _, mean in value if mean is not None]
        told = f", {sum(short) / len(short):.2f} nats a token behind the likeliest" if short else ""
        return f"{len({text for text, _ in value})} different of {len(value)}{told}"
    return _short(str(value))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def fingerprint_plot(verdict: Verdict, baseline: Baseline | None, tolerance_nats: float) -> Any:
    """How far each first token's log probabilities are from the baseline's, beside the server's own noise and the tolerance."""
    from gatebook.tell.plots import canvas

    new = {n: rows_of(v) for n, v in verdict.fingerprint.items() if n.startswith("logprobs.")}
    old = {n: rows_of(v) for n, v in (baseline.fingerprint if baseline else {}).items() if n in new}
    names = sorted(new, reverse=True)
    drawn = canvas(len(names) + 2)
    floor = 1e-5  # a logarithmic axis has no zero
    noise = [max(noise_nats(new[n]), floor) for n in names]
    away = [max(distance_nats(old[n], new[n]), floor) if n in old else None for n in names]
    labels = [n.removeprefix("logprobs.") for n in names]
    drawn.scatter(noise, labels, marker="|", s=120, color="#6b7280", label="noise: this server against itself")
    known = [(x, label) for x, label in zip(away, labels, strict=True) if x is not None]
    drawn.scatter(
        [x for x, _ in known], [label for _, label in known], color="#1f5fa8", label="distance from the baseline"
    )
    drawn.axvline(
        tolerance_nats, color="#b3261e", linestyle="--", linewidth=1, label=f"tolerance, {tolerance_nats:g} nats"
    )
    drawn.set_xscale("log")
    drawn.set_xlim(floor / 2, max([10.0, *(x for x, _ in known)]))
    drawn.set_xlabel("largest difference of a log probability, nats (left edge: 0.00001 or less)")
    drawn.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3)
    return drawn.figure
