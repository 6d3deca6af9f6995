"""Has what is served changed? Values against the baseline's: exact where the engine is deterministic, by permutation where not.

First-token logprobs are compared as in Chauvin et al. (arXiv 2512.03816): mean difference a token, an absent token counts as the
row's minimum. Samples drawn with the server's defaults are compared by the maximum mean discrepancy with a Hamming kernel
(Gao et al., arXiv 2410.20247). Permutation p-values are (1 + #) / (b + 1). A run makes two tests, one of all first tokens and one
of all samples, each with a level of its own.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import combinations
from typing import Any

PERMUTATIONS, FIRST, ENOUGH = 19_999, 1_999, 40
SAMPLE_PERMUTATIONS = 99_999
"""Of the default samples. After the FIRST ones it is enough that ENOUGH of them are as far apart (Besag & Clifford 1991)."""
ALPHA = 0.001
"""Of the first tokens; what it rejects must be beyond the tolerance too."""
SAMPLES_ALPHA = 0.0001
"""Of the default samples, which have no tolerance: with 60 runs a day, one false alarm in half a year."""
NOISE_FLOOR_NATS = 0.01
"""Added to the spread by which a difference is divided, so that rows that agree by luck do not make it infinite."""
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
    """Values that were compared by chance in one test, by name."""

    p_value: float
    level: float
    moved: dict[str, Moved]

    @property
    def rejected(self) -> bool:
        return self.p_value <= self.level


def noise_nats(rows: list[Row]) -> float:
    """The largest difference between any two rows of equal requests."""
    return max((_distance(a, b) for a, b in combinations(rows, 2)), default=0.0)


def distance_nats(old: list[Row], new: list[Row]) -> float:
    """The largest difference of a token's mean logprob."""
    return _distance(_mean(old), _mean(new))


def _distance(a: Row, b: Row) -> float:
    """Largest |difference| of a token's logprob; an absent one counts as the smallest of its row."""
    return max((_apart(t, a, b) for t in a.keys() | b.keys()), default=0.0)


def _apart(token: str, a: Row, b: Row) -> float:
    return abs(a.get(token, min(a.values())) - b.get(token, min(b.values())))


def logprobs_moved(old: list[Row], new: list[Row], tolerance: float) -> Moved | None:
    """First-token logprobs of repeated requests, then and now, whatever the noise.

    Nothing within `tolerance` nats is a change: another CPU or batch rounds differently.
    """
    effect = distance_nats(old, new)
    if effect <= tolerance:
        return None
    was, now = _mean(old), _mean(new)
    token = max(was.keys() | now.keys(), key=lambda t: (_apart(t, was, now), t))
    return Moved(_told(token, was), f"{_told(token, now)} ({effect:.2f} nats apart, tolerance {tolerance:g})")


def noisy(old: list[Row], new: list[Row]) -> bool:
    """Whether equal requests did not get equal rows, on one side at least: then chance is to be asked."""
    return noise_nats(old) > 0 or noise_nats(new) > 0


def noisy_logprobs_moved(pairs: dict[str, tuple[list[Row], list[Row]]], tolerance: float, seed: str) -> ByChance | None:
    """First tokens of a server with noise, prompt -> rows (then, now), in one test that permutes within each prompt.

    The statistic is the sum over prompts of (mean difference a token / spread within a side)^2, so that one prompt that
    moved is enough and many that moved add up. One test a prompt would not do: eight rows a side have 12,870 splits, too
    few for Holm's first step over eight prompts. Named are the prompts that moved by more than `tolerance` nats.
    """
    import numpy as np

    if not pairs:
        return None
    rng = np.random.default_rng(_seeded(seed))
    total = np.zeros(PERMUTATIONS + 1)
    for _, (old, new) in sorted(pairs.items()):
        tokens = sorted({t for row in (*old, *new) for t in row})
        values = np.array([[row.get(t, min(row.values())) for t in tokens] for row in (*old, *new)])
        drawn = np.tile(np.arange(len(values)) < len(old), (PERMUTATIONS + 1, 1))
        drawn[1:] = rng.permuted(drawn[1:], axis=1)
        means, spreads = zip(
            *(_side(values, side / side.sum(axis=1, keepdims=True)) for side in (drawn, ~drawn)), strict=True
        )
        total += (np.abs(means[0] - means[1]).mean(axis=1) / (sum(spreads) / 2 + NOISE_FLOOR_NATS)) ** 2
    p_value = float((1 + (total[1:] >= total[0] * (1 - 1e-9)).sum()) / (PERMUTATIONS + 1))
    moved = {name: found for name, (old, new) in pairs.items() if (found := logprobs_moved(old, new, tolerance))}
    return ByChance(p_value, ALPHA, moved)


def _side(values: Any, weights: Any) -> tuple[Any, Any]:
    """(mean of each token, root mean square deviation over all tokens) of the rows with these weights, a line a draw."""
    import numpy as np

    mean = weights @ values
    variance = weights @ values**2 - mean**2
    return mean, np.sqrt(np.clip(variance, 0, None).mean(axis=1))


def _mean(rows: list[Row]) -> Row:
    tokens = {t for row in rows for t in row}
    return {t: sum(row.get(t, min(row.values())) for row in rows) / len(rows) for t in sorted(tokens)}


def _told(token: str, row: Row) -> str:
    """A token's log probability; of one that is not among the row's, what it is below."""
    return f"{token!r} {row[token]:.2f}" if token in row else f"{token!r} below {min(row.values()):.2f}"


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
    p_value = _permuted(table, blocks, [which == 0 for _, _, which in rows], seed, squared)
    return ByChance(p_value, SAMPLES_ALPHA, {"defaults": told})


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
    rng = np.random.default_rng(_seeded(seed))
    weights = np.where(first, 1 / sum(first), -1 / (len(first) - sum(first)))
    found, done = 0, 0
    for number in (FIRST, SAMPLE_PERMUTATIONS - FIRST):
        drawn = np.tile(weights, (number + 1, 1))
        for block in blocks:
            drawn[1:, block] = rng.permuted(drawn[1:, block], axis=1)
        stats = ((drawn @ gram) * drawn).sum(axis=1) if gram is not None else np.abs(drawn @ values).sum(axis=1)
        found, done = found + int((stats[1:] >= stats[0] - 1e-12).sum()), done + number
        if found >= ENOUGH:
            break
    return (1 + found) / (done + 1)


def _seeded(seed: str) -> int:
    return int(hashlib.sha256(seed.encode()).hexdigest()[:16], 16)
