"""Has what is served changed? Values against the baseline's: exact where the engine is deterministic, by permutation where not.

First-token logprobs are compared as in Chauvin et al. (arXiv 2512.03816): mean difference a token, an absent token counts as the
row's minimum. Samples drawn with the server's defaults are compared by the maximum mean discrepancy with a Hamming kernel
(Gao et al., arXiv 2410.20247). Permutation p-values are (1 + #) / (b + 1), and Holm's correction covers all of a run.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import combinations
from typing import Any

PERMUTATIONS = 9_999
ALPHA = 0.001
"""Of the whole family: the comparison runs on every commit, and one false alarm in a thousand runs is quiet."""
PREFIX_CHARS = 40
"""Of a default sample; later characters follow from the earlier ones."""

Row = dict[str, float]


@dataclass(frozen=True)
class Moved:
    """A value that moved by more than noise, in words."""

    was: str
    now: str


@dataclass(frozen=True)
class Tested:
    """A value that was compared by chance; the family of all of them decides which moved."""

    p_value: float
    moved: Moved


def noise_nats(rows: list[Row]) -> float:
    """The largest difference between any two rows of equal requests."""
    return max((_distance(a, b) for a, b in combinations(rows, 2)), default=0.0)


def distance_nats(old: list[Row], new: list[Row]) -> float:
    """The largest difference of a token's mean logprob."""
    return _distance(_mean(old), _mean(new))


def _distance(a: Row, b: Row) -> float:
    """Largest |difference| of a token's logprob; an absent one counts as the smallest of its row."""
    return max((abs(a.get(t, min(a.values())) - b.get(t, min(b.values()))) for t in a.keys() | b.keys()), default=0.0)


def logprobs_moved(old: list[Row], new: list[Row], tolerance: float, seed: str) -> Moved | Tested | None:
    """First-token logprobs of repeated requests, then and now.

    Nothing within `tolerance` nats is a change (another CPU or batch rounds differently). Beyond it, two deterministic
    servers have changed; with noise, a permutation test of the mean difference a token decides.
    """
    effect = distance_nats(old, new)
    if effect <= tolerance:
        return None
    moved = Moved(_told(_mean(old)), f"{_told(_mean(new))} ({effect:.2f} nats apart, tolerance {tolerance:g})")
    if noise_nats(old) == noise_nats(new) == 0:
        return moved
    tokens = sorted({t for row in (*old, *new) for t in row})
    table = [[row.get(t, min(row.values())) for t in tokens] for row in (*old, *new)]
    return Tested(_permuted(table, len(old), seed), moved)


def _mean(rows: list[Row]) -> Row:
    tokens = {t for row in rows for t in row}
    return {t: sum(row.get(t, min(row.values())) for row in rows) / len(rows) for t in sorted(tokens)}


def _told(row: Row) -> str:
    token, value = max(row.items(), key=lambda item: item[1])
    return f"{token!r} {value:.2f}"


def greedy_moved(old: list[list[Any]], new: list[list[Any]], tolerance: float) -> Moved | None:
    """A greedy answer as [token, logprob, gap to the second-best token] rows, then and now.

    Where tokens part at a near tie (gap within twice the tolerance), rounding may have flipped it, and only what
    stands before is compared.
    """
    for place, (was, now) in enumerate(zip(old, new, strict=False)):
        if was[0] != now[0]:
            return None if was[2] <= 2 * tolerance else Moved(_text(old), f"{_text(new)} (parts at token {place + 1})")
        if abs(was[1] - now[1]) > max(tolerance, tolerance * abs(was[1])):
            return Moved(f"{was[0]!r} {was[1]:.2f}", f"{now[0]!r} {now[1]:.2f} (token {place + 1})")
    return None if len(old) == len(new) else Moved(_text(old), f"{_text(new)} (ends elsewhere)")


def _text(rows: list[list[Any]]) -> str:
    return repr("".join(str(row[0]) for row in rows)[:60])


def samples_moved(old: list[str], new: list[str], seed: str) -> Tested | None:
    """Samples of the server's default sampling, then and now."""
    if not old or not new:
        return None
    texts = [text[:PREFIX_CHARS].ljust(PREFIX_CHARS, "\0") for text in (*old, *new)]
    letters = {letter: number for number, letter in enumerate(sorted(set("".join(texts))))}
    # The Hamming kernel is a dot product of one-hot letters, so the discrepancy is the squared distance of two means.
    hot = [[float(letters[c] == n) for c in text for n in range(len(letters))] for text in texts]
    told = Moved(f"{len(set(old))} different of {len(old)}", f"{len(set(new))} different of {len(new)}, other words")
    return Tested(_permuted(hot, len(old), seed, squared=True), told)


def _permuted(table: list[list[float]], n: int, seed: str, squared: bool = False) -> float:
    """P(distance of the means of the first `n` rows and of the rest is as large | rows exchangeable), Monte Carlo, never 0.

    The distance is the sum of absolute differences by column, or of their squares.
    """
    import numpy as np

    values = np.asarray(table)
    gram = values @ values.T if squared else None
    rng = np.random.default_rng(int(hashlib.sha256(seed.encode()).hexdigest()[:16], 16))
    weights = np.repeat([1 / n, -1 / (len(values) - n)], [n, len(values) - n])
    drawn = np.vstack([weights, rng.permuted(np.tile(weights, (PERMUTATIONS, 1)), axis=1)])
    stats = ((drawn @ gram) * drawn).sum(axis=1) if gram is not None else np.abs(drawn @ values).sum(axis=1)
    return float((1 + (stats[1:] >= stats[0] - 1e-12).sum()) / (PERMUTATIONS + 1))
