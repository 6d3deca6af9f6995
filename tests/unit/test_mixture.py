"""One server or two, told from recorded readings; the rates come from benchmarks.replicas with a fixed seed."""

from __future__ import annotations

from random import Random

import pytest
from gatebook.checks.drift import Seen, cut, mixed, mixed_rows

from benchmarks.replicas import Mixture, rate

A, B = {"x": -0.2, "y": -2.0, "z": -4.0}, {"x": -0.6, "y": -1.6, "z": -4.4}


def at(number: int) -> str:
    return f"2026-03-01T12:00:{number:02d}+00:00"


def seen(values: str, place: str = "p", start: int = 0) -> list[Seen]:
    return [Seen(at(start + n), place, value) for n, value in enumerate(values)]


def test_one_value_is_one_server() -> None:
    assert mixed(seen("aaaa")) is None
    assert mixed([*seen("aa", "plain"), *seen("bb", "streams")]) is None, "only readings of one place are compared"


def test_two_values_in_turns_are_two_servers_with_their_shares() -> None:
    found = mixed(seen("abaabaa"))
    assert found is not None
    assert (found.values, found.total, found.changed_at) == ([("a", 5), ("b", 2)], 7, None)


@pytest.mark.parametrize(
    ("values", "changed"), [("aaabbb", True), ("aabb", True), ("aaab", False), ("abb", False), ("aabba", False)]
)
def test_one_switch_in_time_is_a_server_that_changed(values: str, changed: bool) -> None:
    found = mixed(seen(values))
    assert found is not None
    assert (found.changed_at == at(values.index("b")) and found.firm) is changed


def test_a_switch_is_at_one_time_in_all_places() -> None:
    early, late = seen("aabb", "p"), seen("aabb", "q", 1)
    together = mixed([*seen("aabb", "p"), *seen("aabb", "q")])
    assert together is not None and together.changed_at == at(2)
    apart = mixed([*early, *seen("aabb", "q", 20), *late])
    assert apart is not None and apart.changed_at is None


def test_what_only_the_first_reply_to_a_prompt_shows_is_a_caches() -> None:
    assert mixed([*seen("baaa", "p"), *seen("baaa", "q")], first_may_differ=True) is None
    assert mixed(seen("baab", "p"), first_may_differ=True) is not None


def test_rows_are_cut_where_the_gap_is_beyond_tolerance_and_spread() -> None:
    near = {**A, "x": -0.22}
    assert cut([A, near, B, A, B], 0.25) == [0, 0, 1, 0, 1]
    assert cut([A, near, B, A, B], 0.5) is None, "within the profile's tolerance"
    between = {token: (A[token] + B[token]) / 2 for token in A}
    assert cut([A, between, B, B], 0.1) is None, "no gap: the rows are spread evenly"
    step = {**A, "x": -0.45}
    assert cut([A, step, A, step], 0.1) is None, "one token that rounding moved by a step"
    assert cut([A], 0.1) is None


def test_one_prompt_at_a_near_tie_is_no_second_server() -> None:
    rows = [(at(n), row) for n, row in enumerate([A, B, A, B])]
    quiet = [(at(n), A) for n in range(4)]
    assert mixed_rows({"p": rows, "q": quiet}, 0.25) is None
    found = mixed_rows({"p": rows, "q": rows}, 0.25)
    assert found is not None and (found.values, found.places) == ([("first", 4), ("second", 4)], 2)
    assert mixed_rows({"p": rows}, 0.25) is not None, "the only prompt that is asked"


def test_single_strange_rows_are_no_cluster() -> None:
    once = [(at(n), row) for n, row in enumerate([A, A, B, A, A, A, A, A])]
    assert mixed_rows({str(n): once for n in range(8)}, 0.25) is None


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.25])
def test_a_healthy_server_with_noise_is_one(noise: float) -> None:
    assert rate(Mixture(noise_nats=noise, share=0.0, shift_nats=0.0), 150, Random(1)) == 0.0


@pytest.mark.parametrize(("share", "least"), [(0.1, 0.4), (0.2, 0.8), (0.5, 0.98)])
def test_a_replica_that_is_off_by_0_4_nats_is_seen(share: float, least: float) -> None:
    assert rate(Mixture(noise_nats=0.03, share=share, shift_nats=0.4), 100, Random(1)) >= least
