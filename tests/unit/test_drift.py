"""Has what is served changed? Noise is quiet, a change is seen, and the false-alarm rate is what it says."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from gatebook.checks import drift
from gatebook.checks.drift import (
    ALPHA,
    Moved,
    Row,
    greedy_moved,
    logprobs_moved,
    noise_nats,
    noisy_logprobs_moved,
    samples_moved,
)
from gatebook.record.logprobs import TokenLogprobs, mean_shortfall
from gatebook.verdict.fingerprint import changes
from scipy.stats import permutation_test

A = {"x": -1.0, "y": -2.0, "z": -3.0}


def noisy(rng: random.Random, shift: float, n: int = 10, sd: float = 0.05) -> list[dict[str, float]]:
    return [{t: v + (shift if t == "x" else 0) + rng.gauss(0, sd) for t, v in A.items()} for _ in range(n)]


def test_noise_is_the_largest_difference_between_equal_requests() -> None:
    assert noise_nats([A, A, A]) == 0
    assert noise_nats([A, {**A, "y": -2.25}]) == 0.25
    assert (
        noise_nats([A, {"x": -1.0, "y": -2.0, "w": -3.5}]) == 0.5
    )  # an absent token counts as the smallest of its row


def test_two_deterministic_servers_differ_beyond_the_tolerance_or_not_at_all() -> None:
    assert logprobs_moved([A] * 8, [{**A, "x": -1.09}] * 8, 0.1) is None
    moved = logprobs_moved([A] * 8, [{**A, "x": -1.4}] * 8, 0.1)
    assert isinstance(moved, Moved) and "0.40 nats apart" in moved.now


def test_the_token_that_is_shown_is_the_one_that_moved() -> None:
    """The leading token stays; showing it would say that nothing moved."""
    moved = logprobs_moved([A], [{**A, "x": -1.01, "z": -3.6}], 0.1)
    assert moved and (moved.was, moved.now) == ("'z' -3.00", "'z' -3.60 (0.60 nats apart, tolerance 0.1)")
    gone = logprobs_moved([{"x": -1.0, "y": -1.5, "z": -3.0}], [{"x": -1.0, "w": -2.9, "z": -3.0}], 0.1)
    assert gone and gone.was == "'y' -1.50" and gone.now.startswith("'y' below -3.00")


def prompts(
    rng: random.Random, moved: int, shift: float, number: int = 8, sd: float = 0.05
) -> dict[str, tuple[list[Row], list[Row]]]:
    """Eight requests of each prompt then and now; of the first `moved` a token is `shift` nats likelier."""
    return {f"p{n}": (noisy(rng, 0, 8, sd), noisy(rng, shift if n < moved else 0, 8, sd)) for n in range(number)}


@pytest.fixture
def fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Permutations: (1 + #) / (b + 1) is a p-value for any b, and fewer see a change no better."""
    monkeypatch.setattr(drift, "PERMUTATIONS", 3_999)


@pytest.mark.usefixtures("fewer")
@pytest.mark.parametrize(("moved", "number"), [(1, 1), (1, 8), (3, 8), (8, 8), (12, 12), (1, 12)])
def test_with_noise_one_test_of_all_prompts_sees_one_that_moved_and_all_of_them(moved: int, number: int) -> None:
    """At least 19 of 20 changes, and the right names."""
    rng, seen = random.Random(3), 0
    for n in range(20):
        found = noisy_logprobs_moved(prompts(rng, moved, 0.6, number), 0.25, str(n))
        assert found and set(found.moved) == {f"p{k}" for k in range(moved)}
        seen += found.rejected
    assert seen >= 19


@pytest.mark.usefixtures("fewer")
def test_a_prompt_with_much_noise_does_not_hide_the_others() -> None:
    rng, seen = random.Random(4), 0
    for n in range(20):
        found = noisy_logprobs_moved(
            {**prompts(rng, 2, 0.6), "wild": (noisy(rng, 0, 8, 1.0), noisy(rng, 0, 8, 1.0))}, 0.25, str(n)
        )
        seen += found is not None and found.rejected
    assert seen >= 19


@pytest.mark.usefixtures("fewer")
@pytest.mark.parametrize("sd", [0.002, 0.05, 0.8])
def test_a_healthy_server_with_noise_alarms_no_more_often_than_the_test_says(sd: float) -> None:
    """60 pairs: at 5 % no more than 5 % and three standard errors, whatever the tolerance names."""
    rng, alarms = random.Random(6), 0
    for n in range(60):
        found = noisy_logprobs_moved(prompts(rng, 0, 0, sd=sd), 0.25, str(n))
        alarms += found is not None and found.p_value <= 0.05
    assert alarms <= 60 * 0.05 + 3 * (60 * 0.05 * 0.95) ** 0.5


def test_a_difference_within_the_tolerance_is_never_named() -> None:
    found = noisy_logprobs_moved(prompts(random.Random(8), 8, 0.15), 0.25, "s")
    assert found and found.p_value <= ALPHA and found.moved == {}
    assert noisy_logprobs_moved({}, 0.25, "s") is None


def test_the_p_value_of_one_prompt_is_scipys() -> None:
    rng = random.Random(11)
    old, new = noisy(rng, 0, 8, 0.3), noisy(rng, 0.35, 8, 0.3)
    found = noisy_logprobs_moved({"p": (old, new)}, 0.25, "s")
    rows = np.array([[row[t] for t in "xyz"] for row in (*old, *new)])

    def statistic(first: Any, second: Any) -> float:
        a, b = rows[first.astype(int)], rows[second.astype(int)]
        spread = sum(np.sqrt(side.var(axis=0).mean()) for side in (a, b)) / 2
        return float((np.abs(a.mean(axis=0) - b.mean(axis=0)).mean() / (spread + 0.01)) ** 2)

    exact = permutation_test((np.arange(8), np.arange(8, 16)), statistic, alternative="greater", n_resamples=19_999)
    assert found and found.p_value == pytest.approx(exact.pvalue, abs=0.01)


def test_the_p_value_is_scipys() -> None:
    rng = random.Random(5)
    old, new = [[["t", rng.gauss(-1, 0.4)] for _ in range(9)], [["t", rng.gauss(-1.35, 0.4)] for _ in range(9)]]
    tested = samples_moved({"d": old}, {"d": new}, "s")
    values = [[row[1] for row in rows] for rows in (old, new)]
    exact = permutation_test(
        values,
        lambda a, b, axis: abs(a.mean(axis) - b.mean(axis)),
        vectorized=True,
        alternative="greater",
        n_resamples=99_999,
    )
    assert tested is not None
    assert tested.p_value == pytest.approx(exact.pvalue, abs=0.01)


def test_healthy_samples_alarm_no_more_often_than_the_test_says() -> None:
    """250 pairs of samples of one server: at 5 % no more than 5 % and three standard errors."""
    rng, alarms = random.Random(7), 0
    for number in range(250):
        old, new = ([["t", rng.gauss(-1, 0.5)] for _ in range(12)] for _ in range(2))
        tested = samples_moved({"d": old}, {"d": new}, str(number))
        alarms += tested is not None and tested.p_value <= 0.05
    assert alarms <= 250 * 0.05 + 3 * (250 * 0.05 * 0.95) ** 0.5


def test_another_temperature_shows_in_the_samples_and_in_bare_texts() -> None:
    rng = random.Random(9)
    old, hot = ([["t", rng.gauss(mean, 0.5)] for _ in range(24)] for mean in (-1.9, -2.6))
    assert (tested := samples_moved({"d": old}, {"d": hot}, "s")) and tested.rejected
    calm, wild = (
        [["".join(rng.choices("abcde ", weights, k=30)), None] for _ in range(24)]
        for weights in ([9, 1, 1, 1, 1, 1], [1] * 6)
    )
    assert (tested := samples_moved({"d": calm}, {"d": wild}, "s")) and tested.rejected
    assert samples_moved({"d": []}, {"d": calm}, "s") is None


def test_what_is_sampled_is_told_by_how_far_it_is_behind_the_likeliest() -> None:
    best, other = TokenLogprobs("a", -0.2, {"a": -0.2}), TokenLogprobs("b", -2.2, {"a": -0.2})
    assert mean_shortfall([best, best]) == 0
    assert mean_shortfall([best, other]) == pytest.approx(1.0)
    assert mean_shortfall([best, TokenLogprobs("b", -2.2, {})]) is None
    assert mean_shortfall([]) is None


def greedy(*rows: tuple[str, float, float]) -> list[list[object]]:
    return [list(row) for row in rows]


BOAT = greedy(("A", -0.1, 3.0), (" boat", -0.5, 2.0), (".", -0.2, 4.0))


@pytest.mark.parametrize(
    ("now", "moved"),
    [
        (BOAT, False),
        (greedy(("A", -0.15, 3.0), (" boat", -0.5, 2.0), (".", -0.2, 4.0)), False),
        (greedy(("A", -0.1, 3.0), (" ship", -0.5, 2.0), (".", -0.2, 4.0)), True),
        (greedy(("A", -0.1, 3.0), (" boat", -1.5, 2.0), (".", -0.2, 4.0)), True),
        (BOAT[:2], True),
    ],
    ids=["same", "within tolerance", "another word", "another likelihood", "shorter"],
)
def test_a_greedy_answer(now: list[list[object]], moved: bool) -> None:
    assert (greedy_moved(BOAT, now, 0.1) is not None) == moved


def test_a_near_tie_may_flip() -> None:
    tie = greedy(("A", -0.1, 3.0), (" boat", -0.5, 0.15), (".", -0.2, 4.0))
    assert greedy_moved(tie, greedy(("A", -0.1, 3.0), (" ship", -0.6, 0.15), ("!", -9.0, 4.0)), 0.1) is None


TOKENS = {"tokens.c.short": 31, "tokens.c.long": 73, "tokens.r.short": 18}
PRINT = {"logprobs.p": {"times": 8, "rows": [A]}, "greedy.g": BOAT}


@pytest.mark.parametrize(
    ("now", "parts"),
    [
        ({"tokens.c.short": 12, "tokens.c.long": 54, "tokens.r.short": -1}, {"chat template"}),
        ({"tokens.c.short": 31, "tokens.c.long": 70, "tokens.r.short": 18}, {"tokenizer"}),
        ({"tokens.c.short": 12, "tokens.c.long": 54, "tokens.r.short": 18}, {"chat template or tokenizer"}),
        ({"logprobs.p": {"times": 8, "rows": [{**A, "x": -2.0}]}}, {"weights or precision"}),
        ({"greedy.g": BOAT[:1]}, {"sampling defaults"}),
        ({"greedy.g": BOAT[:1], "logprobs.p": {"times": 8, "rows": [{**A, "x": -2.0}]}}, {"weights or precision"}),
    ],
    ids=["template", "tokenizer", "either", "weights", "penalty", "both"],
)
def test_what_moved_points_to_a_part(now: dict[str, object], parts: set[str]) -> None:
    old = {**TOKENS, **PRINT}
    assert {change.part for change in changes(old, {**old, **now}, 0.1)} == parts


def test_answers_that_moved_with_the_template_do_not_accuse_the_weights() -> None:
    old = {**TOKENS, **PRINT}
    found = changes(
        old, {**{k: v - 19 for k, v in TOKENS.items()}, "logprobs.p": {"times": 8, "rows": [{**A, "x": -2.0}]}}, 0.1
    )
    assert "weights or precision" not in {change.part for change in found}


def test_a_noisy_server_is_told_by_name() -> None:
    old, new = prompts(random.Random(2), 0, 0), prompts(random.Random(3), 2, 0.8)
    sides = [{f"logprobs.{n}": {"times": 8, "rows": rows[0]} for n, rows in found.items()} for found in (old, new)]
    sides[1] = {f"logprobs.{n}": {"times": 8, "rows": rows[1]} for n, rows in new.items()}
    told = changes(sides[0], sides[1], 0.25)
    assert [(c.name, c.part) for c in told] == [(f"logprobs.p{n}", "weights or precision") for n in (0, 1)]
    assert changes(sides[0], sides[0], 0.25) == []
