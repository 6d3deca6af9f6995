"""Has what is served changed? Values against the baseline's: exact where the engine is deterministic, by permutation where not.

First-token logprobs are compared as in Chauvin et al. (arXiv 2512.03816): mean difference a token, an absent token counts as the
row's minimum. Samples drawn with the server's defaults are compared by the maximum mean discrepancy with a Hamming kernel
(Gao et al., arXiv 2410.20247). Permutation p-values are (1 + #) / (b + 1). A run makes two tests, one of all first tokens and one
of all samples, each with a level of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from gatebook.checks.stats import seed_of

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
"""Token -> logprob, of one request's first token."""
Samples = list[list[Any]]
"""[text, mean shortfall in nats or None] of each request."""


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


def _at(row: Row, token: str) -> float:
    """An absent token counts as the smallest of its row."""
    return row.get(token, min(row.values()))


def _apart(token: str, a: Row, b: Row) -> float:
    return abs(_at(a, token) - _at(b, token))


def _mean(rows: list[Row]) -> Row:
    return {t: sum(_at(row, t) for row in rows) / len(rows) for t in sorted({t for row in rows for t in row})}


def distance_nats(old: list[Row], new: list[Row]) -> float:
    """The largest difference of a token's mean logprob."""
    a, b = _mean(old), _mean(new)
    return max((_apart(t, a, b) for t in a.keys() | b.keys()), default=0.0)


def noise_nats(rows: list[Row]) -> float:
    """The largest difference between any two rows of equal requests."""
    return max((distance_nats([a], [b]) for a, b in combinations(rows, 2)), default=0.0)


def noisy(old: list[Row], new: list[Row]) -> bool:
    """Whether equal requests did not get equal rows, on one side at least: then chance is to be asked."""
    return noise_nats(old) > 0 or noise_nats(new) > 0


def logprobs_moved(old: list[Row], new: list[Row], tolerance: float) -> Moved | None:
    """First-token logprobs of repeated requests, then and now, whatever the noise.

    Nothing within `tolerance` nats is a change: another CPU or batch rounds differently.
    """
    effect = distance_nats(old, new)
    if effect <= tolerance:
        return None
    was, now = _mean(old), _mean(new)
    token = max(was.keys() | now.keys(), key=lambda t: (_apart(t, was, now), t))
    said = [f"{token!r} {'' if token in row else 'below '}{_at(row, token):.2f}" for row in (was, now)]
    return Moved(said[0], f"{said[1]} ({effect:.2f} nats apart, tolerance {tolerance:g})")


def greedy_moved(old: list[list[Any]], new: list[list[Any]], tolerance: float) -> Moved | None:
    """A greedy answer as [token, logprob, gap to the second-best token] rows, then and now.

    Where tokens part at a near tie (gap within twice the tolerance), rounding may have flipped it, and only what
    stands before is compared.
    """
    before, after = (repr("".join(str(row[0]) for row in rows)[:60]) for rows in (old, new))
    for place, (was, now) in enumerate(zip(old, new, strict=False), 1):
        if was[0] != now[0]:
            return None if was[2] <= 2 * tolerance else Moved(before, f"{after} (parts at token {place})")
        if abs(was[1] - now[1]) > max(tolerance, tolerance * abs(was[1])):
            return Moved(f"{was[0]!r} {was[1]:.2f}", f"{now[0]!r} {now[1]:.2f} (token {place})")
    return None if len(old) == len(new) else Moved(before, f"{after} (ends elsewhere)")


def noisy_logprobs_moved(pairs: dict[str, tuple[list[Row], list[Row]]], tolerance: float, seed: str) -> ByChance | None:
    """First tokens of a server with noise, prompt -> rows (then, now), in one test that permutes within each prompt.

    The statistic is the sum over prompts of (mean difference a token / spread within a side)^2, so that one prompt that
    moved is enough and many that moved add up. One test a prompt would not do: eight rows a side have 12,870 splits, too
    few for Holm's first step over eight prompts. Named are the prompts that moved by more than `tolerance` nats.
    """
    import numpy as np

    if not pairs:
        return None
    prompts, tables = [pairs[name] for name in sorted(pairs)], []
    for rows in ((*old, *new) for old, new in prompts):
        tokens = sorted({token for row in rows for token in row})
        tables.append(np.array([[_at(row, token) for token in tokens] for row in rows]))

    def apart(drawn: list[Any]) -> Any:
        total = 0
        for values, then in zip(tables, drawn, strict=True):
            weights = [side / side.sum(axis=1, keepdims=True) for side in (then, ~then)]
            means = [weight @ values for weight in weights]
            squares = [weight @ values**2 - mean**2 for weight, mean in zip(weights, means, strict=True)]
            spread = sum(np.sqrt(np.clip(square, 0, None).mean(axis=1)) for square in squares) / 2
            total += (np.abs(means[0] - means[1]).mean(axis=1) / (spread + NOISE_FLOOR_NATS)) ** 2
        return total

    p_value = _p_value(apart, prompts, seed, PERMUTATIONS)
    moved = {name: found for name, (old, new) in pairs.items() if (found := logprobs_moved(old, new, tolerance))}
    return ByChance(p_value, ALPHA, moved)


def samples_moved(old: dict[str, Samples], new: dict[str, Samples], seed: str) -> ByChance | None:
    """Samples of the server's default sampling by prompt, then and now, in one test that permutes within each prompt.

    How far the sampled tokens are behind the likeliest is the sharpest sign of another temperature; where the server
    tells no logprobs, the texts are compared.
    """
    import numpy as np

    prompts = sorted(name for name in old.keys() & new.keys() if old[name] and new[name])
    if not prompts:
        return None
    sides = [[row for name in prompts for row in side[name]] for side in (old, new)]
    rows = [row for name in prompts for row in (*old[name], *new[name])]
    if all(row[1] is not None for row in rows):
        mean = [sum(row[1] for row in side) / len(side) for side in sides]
        told = Moved(
            f"{mean[0]:.2f} nats a token behind the likeliest", f"{mean[1]:.2f} over {len(rows)} samples of both"
        )
        behind = np.array([float(row[1]) for row in rows])
        kernel = np.outer(behind, behind)
    else:
        count = [len({str(row[0]) for row in side}) for side in sides]
        told = Moved(f"{count[0]} different texts", f"{count[1]} different texts, other words")
        texts = np.array([list(str(row[0])[:PREFIX_CHARS].ljust(PREFIX_CHARS, "\0")) for row in rows])
        kernel = (texts[:, None] == texts).sum(axis=2, dtype=float)  # Hamming: letters that stand in the same place

    def apart(drawn: list[Any]) -> Any:
        weights = np.where(np.hstack(drawn), 1 / len(sides[0]), -1 / len(sides[1]))
        return ((weights @ kernel) * weights).sum(axis=1)

    p_value = _p_value(apart, [(old[n], new[n]) for n in prompts], seed, FIRST, SAMPLE_PERMUTATIONS - FIRST)
    return ByChance(p_value, SAMPLES_ALPHA, {"defaults": told})


def _p_value(apart: Callable[[list[Any]], Any], prompts: list[tuple[Any, Any]], seed: str, *stages: int) -> float:
    """P(the rows then and now are as far apart | the rows of a prompt are exchangeable), Monte Carlo, never 0.

    `apart` of a table a prompt: a line a draw, the first as it was, of which rows count as those of then. `prompts`: rows
    then and now. A further stage of draws is made when few of the former were as far apart.
    """
    import numpy as np

    rng, found, done = np.random.default_rng(seed_of(seed)), 0, 0
    for number in stages:
        drawn = [np.tile(np.arange(len(then) + len(now)) < len(then), (number + 1, 1)) for then, now in prompts]
        for table in drawn:
            table[1:] = rng.permuted(table[1:], axis=1)
        far = apart(drawn)
        found, done = found + int((far[1:] >= far[0] * (1 - 1e-9) - 1e-12).sum()), done + number
        if found >= ENOUGH:
            break
    return (1 + found) / (done + 1)
