"""The rules of latency: a run's samples against a cap, against the window of the history, and against a second target.

Each rule says `pass`, `fail`, or `not_measured` where the samples cannot tell. The deciding functions work over the last
axis of arrays; `python -m benchmarks latency` simulates their errors (docs/decisions/latency-rules.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from math import exp, log
from typing import Any

from gatebook.checks.finding import Outcome
from gatebook.checks.timed import Timed
from gatebook.config.policies import LEAST_SAMPLES, RULES, Latency, Metric, Rule

PASS, OPEN, FAIL = 0, 1, 2
OUTCOMES: tuple[Outcome, ...] = ("pass", "not_measured", "fail")
SHOWN_LEVEL = 0.05
"""Of each end of the interval that stands beside a P90."""
UNSETTLED = 3
"""So many judged samples in a row, from the first on, past `factor` times the median of the later half: still warming up."""


@dataclass(frozen=True)
class Ruling:
    """What one rule says of one metric, in ms; `against` measures and limits a ratio."""

    rule: Rule
    outcome: Outcome
    reason: str
    measured: float | None = None
    limit: float | None = None
    no_history: bool = False
    """The history does not carry the rule yet, so that the absolute limit stands in."""


def quantile_decision(samples: Any, limit: Any, level: float) -> Any:
    """P90 at most the limit: pass. Its lower bound past the limit too: fail. Between them the samples cannot tell."""
    import numpy as np

    return np.where(p90(samples) <= limit, PASS, np.where(p90_bounds(samples, level)[0] > limit, FAIL, OPEN))


def day_decision(log_median: Any, days: Any, settings: Latency, level: float) -> Any:
    """Past what a healthy new day shows, and past `least`: fail. A slowdown by `factor` excluded: pass. Else open."""
    import numpy as np

    mean, strict, loose = day_bounds(days, level, settings.miss)
    shift = log_median - mean
    excluded = shift <= log(settings.factor) - loose
    return np.where(shift > np.maximum(strict, log(settings.least)), FAIL, np.where(excluded, PASS, OPEN))


def against_decision(low: Any, high: Any, settings: Latency) -> Any:
    """The bounds of the log shift: wholly past `least` is fail, wholly below `factor` is pass."""
    import numpy as np

    return np.where(low > log(settings.least), FAIL, np.where(high < log(settings.factor), PASS, OPEN))


def rulings(timed: Timed, metric: Metric) -> list[Ruling]:
    """What every rule says of one metric, blocking or not, in a fixed order."""
    found = timed.values(metric)
    if len(found) < LEAST_SAMPLES:
        why = f"{len(found)} valid samples, {LEAST_SAMPLES} are needed{_left_out(timed)}"
        return [Ruling(rule, "not_measured", why) for rule in RULES]
    if unsettled := _unsettled(found, timed.settings):
        return [Ruling(rule, "not_measured", unsettled) for rule in RULES]
    rules: dict[Rule, Callable[[Timed, Metric, list[float]], Ruling]] = {
        "absolute": _absolute, "p90": _p90, "day": _day, "against": _against,
    }  # fmt: skip
    return [rules[rule](timed, metric, found) for rule in RULES]


def deciding(timed: Timed, metric: Metric) -> list[Ruling]:
    """The rulings that block.

    While the history does not carry a rule yet, the absolute limit stands in for it. Where the days cannot tell and the second
    target, asked at the same time, can, it decides; what the days show to be slower stays shown.
    """
    said = {ruling.rule: ruling for ruling in rulings(timed, metric)}
    chosen = [said[rule] for rule in timed.blocking(metric)]
    stands_in = any(r.no_history for r in chosen) and said["absolute"] not in chosen
    kept = [*([said["absolute"]] if stands_in else []), *(r for r in chosen if not r.no_history)]
    if said["against"].outcome == "pass" and said["against"] in kept:
        kept = [
            r for r in kept if not (r.rule in ("p90", "day") and r.outcome == "not_measured" and r.limit is not None)
        ]
    return kept


def _absolute(timed: Timed, metric: Metric, found: list[float]) -> Ruling:
    cap = timed.cap_ms[metric]
    if cap is None:
        where = f"latency.caps.{timed.case.group}.{metric}_ms"
        return Ruling("absolute", "not_measured", f"the profile names no {where}", _ms(float(p90(found))))
    return _quantile("absolute", found, cap, f"limit {_say(cap)}", timed.level)


def _p90(timed: Timed, metric: Metric, found: list[float]) -> Ruling:
    if timed.history_trouble:
        return Ruling("p90", "not_measured", timed.history_trouble, _ms(float(p90(found))))
    window = [ms for values in timed.days(metric).values() for ms in values]
    if len(window) < LEAST_SAMPLES:
        why = f"{len(window)} samples in the window, {LEAST_SAMPLES} are needed"
        return Ruling("p90", "not_measured", why, _ms(float(p90(found))), no_history=True)
    limit, cap = timed.settings.factor * float(p90(window)), timed.cap_ms[metric]
    said = f"{timed.settings.factor:g} times the window's P90 of {_say(float(p90(window)))}"
    if cap is not None and cap < limit:
        limit, said = cap, f"the cap {_say(cap)}, since {said} lies past it"
    return _quantile("p90", found, limit, said, timed.level)


def _quantile(rule: Rule, found: list[float], limit: float, said: str, level: float) -> Ruling:
    outcome = OUTCOMES[int(quantile_decision(found, limit, level))]
    point, low = float(p90(found)), float(p90_bounds(found, level)[0])
    told = f"P90 {_say(point)}, {said}"
    if outcome == "not_measured":
        told += f"; {len(found)} samples cannot tell (it may be {_say(low)}), so ask more"
    return Ruling(rule, outcome, told, _ms(point), _ms(limit))


def _day(timed: Timed, metric: Metric, found: list[float]) -> Ruling:
    import numpy as np

    settings, days = timed.settings, [float(np.median(np.log(v))) for v in timed.days(metric).values()]
    median = float(np.median(found))
    if timed.history_trouble:
        return Ruling("day", "not_measured", timed.history_trouble, _ms(median))
    if len(days) < settings.min_days:
        why = f"{len(days)} days of history, {settings.min_days} are needed"
        return Ruling("day", "not_measured", why, _ms(median), no_history=True)
    mean, strict, loose = (float(x) for x in day_bounds(days, timed.level, settings.miss))
    limit, cap = exp(mean + max(strict, log(settings.least))), timed.cap_ms[metric]
    outcome = OUTCOMES[int(day_decision(log(median), np.array(days), settings, timed.level))]
    ratio = median / exp(mean)
    told = f"median {_say(median)}, {ratio:.2f} times that of {len(days)} days; a healthy day stays below {_say(limit)}"
    if cap is not None and median > cap:
        outcome, limit, told = "fail", cap, f"median {_say(median)}, past the cap {_say(cap)}"
    elif outcome == "not_measured":
        told += f"; the days differ too much to exclude a slowdown by {settings.factor:g} (below {_say(exp(mean - loose) * settings.factor)} would)"
    return Ruling("day", outcome, told, _ms(median), _ms(limit))


def _against(timed: Timed, metric: Metric, found: list[float]) -> Ruling:
    import numpy as np

    settings = timed.settings
    if timed.second is None:
        return Ruling("against", "not_measured", "no second target was asked (--against PROFILE)")
    pairs = _pairs(timed, metric)
    if len(pairs) < LEAST_SAMPLES:
        why = timed.second_broken or f"{len(pairs)} pairs of valid samples, {LEAST_SAMPLES} are needed"
        return Ruling("against", "error" if timed.second_broken else "not_measured", f"{timed.second_name}: {why}")
    seed = int.from_bytes(hashlib.sha256(f"{timed.samples[0].key} {len(pairs)}".encode()).digest()[:8])
    shift, low, high = (
        float(x) for x in shift_bounds(np.log([a / b for a, b in pairs]), timed.level, settings.miss, seed)
    )
    outcome = OUTCOMES[int(against_decision(low, high, settings))]
    told = f"{exp(shift):.2f} times {timed.second_name} ({exp(low):.2f} to {exp(high):.2f}, {len(pairs)} pairs asked in turn)"
    if outcome == "fail":
        told += f"; shown slower by more than {settings.least:g}"
    elif outcome == "not_measured":
        told += f"; these pairs cannot exclude a slowdown by {settings.factor:g}, so ask more"
    return Ruling("against", outcome, told, round(exp(shift), 4), settings.factor)


def _pairs(timed: Timed, metric: Metric) -> list[tuple[float, float]]:
    """Neighbours in time: the same request to both targets."""
    other = {s.key.removeprefix("against/"): s for s in timed.second or [] if s.invalid is None}
    mine = [s for s in timed.samples[timed.settings.warm_up :] if s.invalid is None and s.key in other]
    both = [(s.of(metric), other[s.key].of(metric)) for s in mine]
    return [(a, b) for a, b in both if a and b]


def _unsettled(found: list[float], settings: Latency) -> str | None:
    """Why the first judged samples are none: they are the end of a warm-up."""
    from statistics import median

    later = settings.factor * median(found[len(found) // 2 :])
    slow = next((n for n, ms in enumerate(found) if ms <= later), len(found))
    if slow < UNSETTLED:
        return None
    return (
        f"the first {slow} judged samples take more than {settings.factor:g} times the later ones ({_say(found[0])} against "
        f"{_say(later / settings.factor)}): it is still warming up, or something compiles; see latency.warm_up"
    )


def _left_out(timed: Timed) -> str:
    why = [s.invalid for s in timed.samples[timed.settings.warm_up :] if s.invalid]
    return f" ({len(why)} do not count: {why[0]})" if why else ""


def _ms(value: float) -> float:
    return round(value, 3)


def _say(ms: float) -> str:
    return f"{ms:.0f} ms" if ms >= 100 else f"{ms:.3g} ms"


Q = 0.9


def p90(samples: Any) -> Any:
    """The 90th percentile, linear interpolation."""
    import numpy as np

    return np.quantile(np.asarray(samples, dtype=float), Q, axis=-1)


def p90_bounds(samples: Any, level: float) -> tuple[Any, Any]:
    """One-sided lower and upper bounds of the P90, each missed with at most `level`, from order statistics.

    Free of any distribution (Conover 1999, 3.2). A bound that n samples cannot give is 0 or infinite: the upper one at 5 %
    needs 29 samples.
    """
    import numpy as np
    from scipy.stats import binom

    ordered = np.sort(np.asarray(samples, dtype=float), axis=-1)
    n = ordered.shape[-1]
    below = binom.cdf(np.arange(n + 1), n, Q)  # below[k]: at most k samples lie under the P90
    low = int(np.sum(below < level)) if level > 0 else 0  # P(fewer than `low` under it) <= level
    above = np.flatnonzero(below >= 1 - level)
    high = int(above[0]) if len(above) else n
    shape = ordered.shape[:-1]
    return (
        ordered[..., low - 1] if low > 0 else np.zeros(shape),
        ordered[..., high] if high < n else np.full(shape, np.inf),
    )


def day_bounds(days: Any, level: float, miss: float) -> tuple[Any, Any, Any]:
    """From the log medians of d days: their mean, how far above it a new healthy day lies with chance `level`, and with `miss`.

    Prediction interval for one new day: t(d - 1) * s * sqrt(1 + 1/d); the days are the unit, since requests of one day share
    its load and its machine (Hahn & Meeker 1991).
    """
    import numpy as np
    from scipy.stats import t

    values = np.asarray(days, dtype=float)
    d = values.shape[-1]
    spread = values.std(axis=-1, ddof=1) * np.sqrt(1 + 1 / d)
    return values.mean(axis=-1), t.ppf(1 - level, d - 1) * spread, t.ppf(1 - miss, d - 1) * spread


def hodges_lehmann(differences: Any) -> Any:
    """The median of all pairwise means (Walsh averages) of paired differences. Source: Hodges & Lehmann 1963."""
    import numpy as np

    values = np.asarray(differences)
    i, j = np.triu_indices(values.shape[-1])
    return np.median((values[..., i] + values[..., j]) / 2, axis=-1)


def shift_bounds(differences: Any, level: float, miss: float, seed: int, resamples: int = 999) -> tuple[Any, Any, Any]:
    """The Hodges-Lehmann shift, its lower bound at `level` and its upper one at `miss`: t quantile times bootstrap error.

    Percentiles of a bootstrap of 30 pairs say nothing about a level of one in a thousand; its standard error does
    (Efron & Tibshirani 1993, ch. 12; their rates are simulated in docs/decisions/latency-rules.md).
    """
    import numpy as np
    from scipy.stats import t

    values = np.asarray(differences, dtype=np.float32)
    n = values.shape[-1]
    rng = np.random.default_rng(seed)
    drawn = [hodges_lehmann(values[..., rng.integers(0, n, n)]) for _ in range(resamples)]
    error, shift = np.std(drawn, axis=0, ddof=1), hodges_lehmann(values)
    return shift, shift - t.ppf(1 - level, n - 1) * error, shift + t.ppf(1 - miss, n - 1) * error
