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
class ByChance:
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


def logprobs_moved(old: list[Row], new: list[Row], tolerance: float, seed: str) -> Moved | ByChance | None:
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
    first = [True] * len(old) + [False] * len(new)
    return ByChance(_permuted(table, [list(range(len(first)))], first, seed), moved)


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


Samples = list[list[Any]]
"""[text, mean shortfall in nats or None] of each request."""


def samples_moved(old: dict[str, Samples], new: dict[str, Samples], seed: str) -> ByChance | None:
    """Samples of the server's default sampling by prompt, then and now, in one test that permutes within each prompt.

    How far the sampled tokens are behind the likeliest is the sharpest sign of another temperature; where the server
    tells no logprobs, the texts are compared.
    """
    prompts = sorted(name for name in old.keys() & new.keys() if old[name] and new[name])
    rows = [(row, name, which) for name in prompts for which, s in ((0, old[name]), (1, new[name])) for row in s]
    if not rows:
        return None
    table, squared = _means(rows), False
    if table is None:
        table, squared = _letters(rows), True
        counts = [len({str(row[0]) for row, _, w in rows if w == which}) for which in (0, 1)]
        told = Moved(f"{counts[0]} different texts", f"{counts[1]} different texts, other words")
    else:
        average = [_average([row[1] for row, _, w in rows if w == which]) for which in (0, 1)]
        told = Moved(
            f"{average[0]:.2f} nats a token behind the likeliest", f"{average[1]:.2f} over {len(rows)} samples of both"
        )
    blocks = [[n for n, (_, prompt, _) in enumerate(rows) if prompt == name] for name in prompts]
    return ByChance(_permuted(table, blocks, [which == 0 for _, _, which in rows], seed, squared), told)


def _means(rows: list[tuple[list[Any], str, int]]) -> list[list[float]] | None:
    return None if any(row[1] is None for row, _, _ in rows) else [[float(row[1])] for row, _, _ in rows]


def _letters(rows: list[tuple[list[Any], str, int]]) -> list[list[float]]:
    """One-hot letters by place: the Hamming kernel is their dot product, so the discrepancy is a squared distance of means."""
    texts = [str(row[0])[:PREFIX_CHARS].ljust(PREFIX_CHARS, "\0") for row, _, _ in rows]
    letters = sorted(set("".join(texts)))
    return [[float(c == letter) for c in text for letter in letters] for text in texts]


def _average(values: list[float]) -> float:
    return sum(values) / len(values)


def _permuted(
    table: list[list[float]], blocks: list[list[int]], first: list[bool], seed: str, squared: bool = False
) -> float:
    """P(the means of the two kinds of rows are as far apart | rows of a block are exchangeable), Monte Carlo, never 0.

    The distance is the sum of absolute differences by column, or of their squares.
    """
    import numpy as np

    values = np.asarray(table)
    gram = values @ values.T if squared else None
    rng = np.random.default_rng(int(hashlib.sha256(seed.encode()).hexdigest()[:16], 16))
    weights = np.where(first, 1 / sum(first), -1 / (len(first) - sum(first)))
    drawn = np.tile(weights, (PERMUTATIONS + 1, 1))
    for block in blocks:
        drawn[1:, block] = rng.permuted(drawn[1:, block], axis=1)
    stats = ((drawn @ gram) * drawn).sum(axis=1) if gram is not None else np.abs(drawn @ values).sum(axis=1)
    return float((1 + (stats[1:] >= stats[0] - 1e-12).sum()) / (PERMUTATIONS + 1))
