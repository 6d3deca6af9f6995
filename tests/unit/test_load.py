"""Load: the plan of levels, the closed loop, and what is made of the record."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any

import pytest
from gatebook.checks import CHECKS, parameters
from gatebook.checks.evidence import Evidence, Reply
from gatebook.checks.finding import Result, Stage
from gatebook.checks.load import Step, knee, percentile, restarts_of, spread, steps_of
from gatebook.collect.request import Prepared, closed_loop, stages
from gatebook.config.cases import Case
from gatebook.config.policies import LoadSettings, level_of, word, words_in
from gatebook.config.selection import in_steps
from gatebook.errors import BadInput
from gatebook.record.exchange import Client, Exchange
from gatebook.record.identity import Identity
from pydantic import ValidationError

from tests.unit.replies import ASKED, case, chat_body, plain, profile, ready, timing

SETTINGS = LoadSettings.model_validate(
    {"steps": [1, 2, 4], "goodput": {"at_once": 4, "ttft_ms": 500, "itl_ms": 50, "share": 0.9}}
)


def load_case(name: str = "s", **fields: Any) -> Case:
    fields = {"load": {"at_once": [1]}, "finish": "any", "expect": [{"load_step": True}], **fields}
    return case(name, **fields)


# --- the plan ---


def test_a_step_is_a_case_of_its_own_and_every_lane_asks_twice() -> None:
    made = in_steps([load_case(load={"at_once": ["step"]})], LoadSettings(steps=[1, 2, 8], requests=10))
    assert [(c.id, len(c.requests())) for c in made] == [("s-1", 10), ("s-2", 10), ("s-8", 16)]
    assert made[2].requests()[15].name == "8-ask-16" and level_of("8-ask-16") == 8


def test_the_asks_of_a_level_take_turns() -> None:
    asks = [{"name": name} for name in ("forced", "free")]
    [made] = in_steps([load_case(asks=asks, load={"at_once": [2], "requests": 3})], SETTINGS)
    assert [ask.name for ask in made.requests()] == ["2-forced-01", "2-free-02", "2-forced-03"]


def test_the_peak_is_the_largest_step_and_is_asked_once_when_there_is_no_other() -> None:
    graded = load_case(load={"at_once": [1, "peak"]})
    assert [a.name for a in in_steps([graded], SETTINGS)[0].requests()] == ["1-ask-01", "4-ask-01"]
    assert [a.name for a in in_steps([graded], LoadSettings(steps=[1]))[0].requests()] == ["1-ask-01"]


def test_every_long_prompt_has_a_document_of_its_own() -> None:
    document = {"kind": "needles", "seed": 3, "tokens": 2000, "family": "single", "depth": 50}
    messages = [{"role": "user", "content": "{document} {question}"}]
    long = load_case(load={"at_once": ["long_prompts"]}, document=document, messages=messages)
    settings = LoadSettings.model_validate({"long_prompts": {"at_once": 3, "tokens": 900}})
    made = in_steps([long], settings)
    assert [(c.id, c.document.seed, c.document.tokens) for c in made if c.document] == [
        ("s-1", 3, 900),
        ("s-2", 4, 900),
        ("s-3", 5, 900),
    ]
    assert [(s.at_once, len(s.asks)) for s in stages(made)] == [(3, 3)]


def test_a_name_that_is_taken_is_bad_input() -> None:
    with pytest.raises(BadInput, match="'s-1' 2 times"):
        in_steps([load_case(load={"at_once": ["step"]}), case("s-1", expect=[{"regex": "a"}])], SETTINGS)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"canary": True}, "plain chats beside each other"),
        ({"load": {"at_once": ["step", 1]}}, "stand alone"),
        ({"load": {"at_once": []}}, "at least 1"),
        ({"load": None, "messages": [{"role": "user", "content": "{word}"}]}, "belongs to a case with key 'load'"),
    ],
)
def test_a_load_case_that_cannot_be_asked_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        load_case(**fields)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"steps": [2, 1]}, "ascend"), ({"steps": [1, 2], "goodput": {"at_once": 3}}, "none of the steps")],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        LoadSettings.model_validate(settings)


def test_words_are_one_a_request_and_found_in_any_text() -> None:
    made = [word("run", f"s/{n}") for n in range(2000)]
    assert len(set(made)) == 2000 and made[0] != word("another-run", "s/0")
    assert all(words_in(f'{{"word": "{one}"}}') == [one] for one in made[:50])
    assert words_in("RHYTHMS and BCDFGHJKLM and HTTP/1.1, BCDFGHJK, BCDFGHJK") == ["BCDFGHJK"]


def test_levels_of_a_group_are_asked_one_after_the_other() -> None:
    graded = [load_case(f"q{n}", group="g.graded", load={"at_once": [1, 4]}) for n in range(3)]
    made = stages([case("alone"), load_case(load={"at_once": [2], "requests": 4}), *graded])
    assert [(s.group, s.at_once, [a.name for _, a in s.asks]) for s in made] == [
        ("g.h", 2, [f"2-ask-0{n}" for n in range(1, 5)]),
        ("g.graded", 1, ["1-ask-01"] * 3),
        ("g.graded", 4, ["4-ask-01"] * 3),
    ]


# --- the closed loop ---


class FakeLane:
    async def __aenter__(self) -> FakeLane:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        pass


def loop(todo: list[Prepared], at_once: int, broken: str = "", last: int = 10**9) -> tuple[list[str], int, str | None]:
    """(keys in the order of the record, the most that were in flight, the key that broke)."""
    opened, most, done = [0], [0], list[str]()

    async def send(lane: Any, prepared: Prepared) -> Exchange:
        opened[0] += 1
        most[0] = max(most[0], opened[0])
        await asyncio.sleep(0.001)
        opened[0] -= 1
        return plain(
            chat_body("x"), prepared.key, **({"status": 500, "fault": "status"} if prepared.key == broken else {})
        )

    async def record_(exchange: Exchange) -> None:
        done.append(exchange.key)

    made: Any = FakeLane
    found = asyncio.run(closed_loop(made, at_once, todo, send, record_, lambda: len(done) < last))
    return done, most[0], found.key if found else None


def prepared(count: int) -> list[Prepared]:
    one = load_case(load={"at_once": [2], "requests": count})
    return [Prepared(one, ask, ask.name, {}) for ask in one.requests()]


@pytest.mark.parametrize("at_once", [1, 3, 20])
def test_so_many_are_in_flight_and_each_is_asked_once(at_once: int) -> None:
    todo = prepared(12)
    done, most, broken = loop(todo, at_once)
    assert (sorted(done), most, broken, todo) == ([p.key for p in prepared(12)], min(at_once, 12), None, [])


def test_after_a_break_the_others_finish_and_nothing_more_is_asked() -> None:
    todo = prepared(12)
    done, _, broken = loop(todo, 3, broken="2-ask-02")
    assert broken == "2-ask-02" and 2 <= len(done) <= 5 and len(done) + len(todo) == 12


def test_nothing_is_asked_when_the_time_is_up() -> None:
    todo = prepared(12)
    assert len(loop(todo, 2, last=4)[0]) < 8 and todo


# --- what a step measured ---


def sent(
    key: str, text: str = "x", after_ms: float = 0, ttft: float = 100, took: float = 300, tokens: int = 11, flying: int = 4,
    lag: float = 1.0, cpu: float = 0.1, **changes: Any,
) -> Exchange:  # fmt: skip
    """A streamed answer, as a load case records it."""
    at = (ASKED + timedelta(milliseconds=after_ms)).isoformat(timespec="milliseconds")
    usage = {"prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": 7 + tokens}
    times = timing(first_token_ms=ttft, last_token_ms=took, end_ms=took)
    client = Client(in_flight=flying, loop_lag_ms=lag, cpu_share=cpu)
    attempts = [{"at": at, "elapsed_ms": took, "status": 200}]
    return plain(
        chat_body(text, usage=usage, id=key),
        key,
        at=at,
        **{"timing": times, "client": client, "attempts": attempts, **changes},
    )


def step(*exchanges: Exchange, restarts: tuple[str, ...] = ()) -> Step:
    [found] = steps_of(list(exchanges), SETTINGS, restarts)
    return found


def test_rates_are_over_the_time_from_the_first_request_to_the_last_reply() -> None:
    found = step(*(sent(f"s/4-a-{n}", after_ms=100 * n, took=300) for n in range(8)))
    assert (found.wall_s, found.asked, found.answered) == (1.0, 8, 8)
    assert (found.requests_per_s, found.tokens_per_s) == (8.0, 88.0)
    assert found.itl_ms == [20.0] * 8 and found.good == 8


def test_a_retry_counts_as_waiting() -> None:
    attempts = [{"at": ASKED.isoformat(), "elapsed_ms": 5, "status": 503, "fault": "status"},
                {"at": (ASKED + timedelta(seconds=2)).isoformat(), "elapsed_ms": 300, "status": 200}]  # fmt: skip
    found = step(sent("s/4-a-1", attempts=attempts))
    assert found.ttft_ms == [2100.0] and found.good == 0


def test_percentiles_need_their_samples_and_interpolate() -> None:
    values = [float(n) for n in range(1, 11)]
    assert (percentile(values, 50), percentile(values, 90)) == (5.5, pytest.approx(9.1))
    assert percentile(values[:9], 90) is None and percentile(values * 9, 99) is None
    assert percentile([1.0], 50) is None and percentile(values * 10, 99) is not None
    assert spread(values[:3]) == "P50 2.0 ms (n 3)" and spread([]) == "none"


@pytest.mark.parametrize(
    ("changes", "restart_s", "said"),
    [
        ({}, None, None),
        ({"flying": 3}, None, "never more than 3"),
        ({"lag": 30.0}, None, "event loop was 30 ms late"),
        ({"cpu": 0.95}, None, "used 95% of a core"),
        ({}, 0.35, "broken off and resumed"),
        ({}, 99, None),
    ],
)
def test_a_step_says_why_it_is_no_measure(changes: dict[str, Any], restart_s: float | None, said: str | None) -> None:
    restarts = [ASKED - timedelta(seconds=1)] + ([ASKED + timedelta(seconds=restart_s)] if restart_s else [])
    exchanges = [sent(f"s/4-a-{n}", after_ms=100 * n, **changes) for n in range(8)]
    found = step(*exchanges, restarts=tuple(at.isoformat(timespec="milliseconds") for at in restarts)).invalid
    assert (found is None) if said is None else (said in str(found))


def test_one_late_request_in_twenty_does_not_spoil_a_step() -> None:
    exchanges = [sent(f"s/4-a-{n}", lag=500.0 if n == 0 else 1.0) for n in range(20)]
    assert step(*exchanges).invalid is None


def at_rate(level: int, rate: float) -> Step:
    """A level of `rate` tokens a second."""
    return step(sent(f"s/{level}-a", took=1000, tokens=round(rate), flying=level))


@pytest.mark.parametrize(
    ("rates", "found"),
    [
        ({1: 100, 2: 195, 4: 380, 8: 400, 16: 405}, 4),
        ({1: 100, 2: 101, 4: 150}, 1),
        ({1: 100, 2: 200, 4: 400}, 4),
        ({1: 100, 3: 115, 6: 130}, 1),
        ({1: 100, 16: 200}, 16),
        ({1: 100}, None),
        ({}, None),
    ],
)
def test_the_knee_is_the_last_level_whose_doublings_all_gained(rates: dict[int, float], found: int | None) -> None:
    assert knee([at_rate(level, rate) for level, rate in rates.items()], 0.1) == found


# --- the checks ---


def judged(check: str, raw: Any, seen: list[Evidence], restarts: tuple[str, ...] = (), **load: Any) -> Result:
    by = profile(groups={"g.h": "must"}).model_copy(
        update={"load": LoadSettings.model_validate({**SETTINGS.model_dump(), **load})}
    )
    over = case("over", messages=[], over="g.seen", expect=[{check: raw}])
    evidence = Evidence(over, [], Identity(), by, over=seen, restarts=restarts)
    return CHECKS[check].run(evidence, parameters(over, check, raw))


def seen_of(one: Case, *exchanges: Exchange) -> Evidence:
    asks = {f"{one.id}/{ask.name}": ask for ask in one.requests()}
    return Evidence(one, [Reply(asks[e.key], e) for e in exchanges], Identity(), profile())


FIRST, SECOND, OTHERS = "BCDFGHJK", "LMNPQRST", "VWXZBCDF"


def worded(*said: str, forced: bool = True) -> list[Evidence]:
    """Two requests with the words FIRST and SECOND, answered with `said`."""
    one = load_case(load={"at_once": [2], "requests": 2})
    form = {"response_format": {"type": "json_schema"}} if forced else {}
    bodies = [{"messages": [{"role": "user", "content": f"{own} sails"}], **form} for own in (FIRST, SECOND)]
    exchanges = [
        sent(f"s/2-ask-0{n}", text, flying=2, sent=body)
        for n, (text, body) in enumerate(zip(said, bodies, strict=True), 1)
    ]
    return [seen_of(one, *exchanges)]


def test_own_words_pass() -> None:
    assert judged("own_word", True, worded(f"a {FIRST}", f"a {SECOND}")).outcome == "pass"
    kept = judged("own_word", True, worded("a ship", f"a {SECOND}", forced=False))
    assert (kept.outcome, kept.reason[:6]) == ("pass", "1 of 2")
    assert judged("own_word", True, worded(f"{OTHERS} {FIRST}", SECOND)).outcome == "pass"


@pytest.mark.parametrize("forced", [True, False])
def test_another_request_s_word_is_the_wrong_asker(forced: bool) -> None:
    found = judged("own_word", True, worded(SECOND, FIRST, forced=forced))
    assert (found.outcome, found.measured) == ("fail", 2)
    assert f"s/2-ask-01 (2 in flight) was answered with {SECOND}, the word of s/2-ask-02" in found.reason


def test_a_forced_answer_without_its_word_fails_and_nothing_answered_is_not_measured() -> None:
    found = judged("own_word", True, worded("!!!!", SECOND))
    assert (found.outcome, "without the word that its schema forces: '!!!!'" in found.reason) == ("fail", True)
    noisy = judged("own_word", True, worded("!" * 32, SECOND))
    assert (noisy.outcome, "was answered with noise: '!' is 32 of 32 characters" in noisy.reason) == ("fail", True)
    assert judged("own_word", True, []).outcome == "not_measured"


@pytest.mark.parametrize(
    ("alone", "beside", "outcome"),
    [
        (["a ship"], ["!" * 32, "!" * 40], "fail"),
        (["a ship"], ["!" * 32, "a ship"], "pass"),
        (["!" * 32], ["!" * 32, "!" * 40], "pass"),
        (["!" * 32], ["a ship", "a ship"], "pass"),
        ([], ["!" * 32, "!" * 40], "pass"),
    ],
)
def test_noise_in_company_where_nobody_is_alone_is_no_chance(alone: list[str], beside: list[str], outcome: str) -> None:
    """A structured request that spoils its neighbours: nothing forces their words."""
    by_level = [
        seen_of(
            load_case(f"s{level}", load={"at_once": [level], "requests": len(said)}),
            *(sent(f"s{level}/{level}-ask-0{n}", text, flying=level) for n, text in enumerate(said, 1)),
        )
        for level, said in ((1, alone), (2, beside))
        if said
    ]
    found = judged("own_word", True, by_level)
    assert found.outcome == outcome, found
    assert outcome == "pass" or "s2/2-ask-01 (2 in flight) was answered with noise: '!' is 32" in found.reason


def test_a_swapped_answer_stands_before_what_follows_from_it() -> None:
    assert judged("own_word", True, worded(SECOND, FIRST)).stage == Stage.SWAPPED < Stage.ENVELOPE < Stage.BEHAVIOUR
    assert judged("own_word", True, worded("!" * 32, SECOND)).stage is None


def stepped(level: int, good: int, bad: int, **changes: Any) -> Evidence:
    one = load_case(f"s-{level}", load={"at_once": [level], "requests": good + bad})
    names = [f"s-{level}/{ask.name}" for ask in one.requests()]
    return seen_of(one, *(sent(n, ttft=100 if i < good else 900, took=1000, tokens=100, flying=level, **changes) for i, n in enumerate(names)))  # fmt: skip


@pytest.mark.parametrize(
    ("good", "bad", "outcome"),
    [(10, 0, "pass"), (9, 1, "pass"), (8, 2, "not_measured"), (3, 7, "fail"), (0, 10, "fail"), (80, 20, "fail")],
)
def test_goodput_is_judged_by_its_share_and_what_the_interval_leaves_open(good: int, bad: int, outcome: str) -> None:
    found = judged("goodput", "profile", [stepped(1, 10, 0), stepped(4, good, bad)])
    assert found.outcome == outcome, found
    assert ("at 1 in flight 10 of 10: it is only so under load" in found.reason) == (good / (good + bad) < 0.9)
    assert ("more requests are needed" in found.reason) == (outcome == "not_measured")


def test_slow_at_every_level_is_not_called_a_matter_of_load() -> None:
    assert "only so under load" not in judged("goodput", "profile", [stepped(1, 0, 10), stepped(4, 0, 10)]).reason


def test_goodput_is_not_measured_at_a_step_that_is_none_or_that_was_not_asked() -> None:
    late = judged("goodput", "profile", [stepped(4, 0, 10, lag=99.0)])
    assert (late.outcome, "our own event loop" in late.reason) == ("not_measured", True)
    assert judged("goodput", "profile", [stepped(2, 10, 0)]).outcome == "not_measured"


def test_a_request_without_an_answer_is_not_good_whoever_was_late() -> None:
    one = load_case("s-4", load={"at_once": [4], "requests": 10})
    broken = [
        sent(f"s-4/{a.name}", fault="status", status=500, detail="HTTP 500: dead", lag=99.0) for a in one.requests()
    ]
    found = judged("goodput", "profile", [seen_of(one, *broken)])
    assert (found.outcome, "10 not answered (HTTP 500: dead)" in found.reason) == ("fail", True)


def graded(pairs: list[tuple[str, str]], flying: int = 4, **changes: Any) -> list[Evidence]:
    """Questions whose right answer is `yes`: (said alone, said under load)."""
    found = []
    for number, (alone, loaded) in enumerate(pairs):
        one = load_case(f"q{number}", load={"at_once": [1, 4]}, expect=[{"contains_any": ["yes"]}])
        found.append(
            seen_of(
                one,
                sent(f"q{number}/1-ask-01", alone, flying=1),
                sent(f"q{number}/4-ask-01", loaded, flying=flying, **changes),
            )
        )
    return found


YES, TURNED, MENDED = ("yes", "yes, indeed"), ("yes", "!!!!"), ("no", "yes")


@pytest.mark.parametrize(
    ("pairs", "max_flips", "outcome", "said"),
    [
        ([YES] * 8, None, "pass", "0 of 8 right answers become wrong at 4 in flight"),
        ([YES] * 8, 0, "pass", "0 of 8"),
        ([YES] * 7 + [TURNED], 0, "fail", "q7 (alone 'yes', at 4 '!!!!'); load.max_flips is 0"),
        ([YES] * 7 + [MENDED], 0, "fail", "1 of 1 wrong ones right"),
        ([YES] * 7 + [TURNED], 1, "pass", "1 of 8"),
        ([YES] * 7 + [TURNED], None, "pass", "p 0.5"),
        ([YES] * 4 + [TURNED] * 4, None, "pass", "p 0.0625"),
        ([YES] * 4 + [TURNED] * 5, None, "fail", "p 0.0312"),
        ([YES] * 4 + [TURNED] * 5 + [MENDED] * 2, None, "pass", "p 0.227"),
        ([YES] * 4, None, "not_measured", "too few"),
        ([YES] * 4, 0, "pass", ""),
        ([], 0, "not_measured", "no question"),
    ],
)
def test_flips_are_paired(pairs: list[tuple[str, str]], max_flips: int | None, outcome: str, said: str) -> None:
    found = judged("decision_flips", True, graded(pairs), max_flips=max_flips)
    assert (found.outcome, said in found.reason) == (outcome, True), found


def test_a_question_that_gets_another_request_s_word_names_the_swap() -> None:
    """No question has such a word, so that it is neither chance nor batches."""
    found = judged("decision_flips", True, graded([YES] * 7 + [("yes", f"The {FIRST}, yes, a vessel")]))
    assert (found.outcome, found.stage) == ("fail", Stage.SWAPPED), found
    assert found.reason.startswith(
        f"q7/4-ask-01 (4 in flight) was answered with {FIRST}, the word of another request"
    ), found


def test_a_question_without_an_answer_is_left_out_and_counted() -> None:
    seen = graded([YES] * 6) + graded([YES], fault="status", status=500, detail="HTTP 500")
    found = judged("decision_flips", True, seen)
    assert (found.outcome, "1 questions not answered twice" in found.reason) == ("pass", True)


def test_flips_that_were_never_asked_in_company_are_not_measured() -> None:
    found = judged("decision_flips", True, graded([YES] * 8, flying=2), max_flips=0)
    assert (found.outcome, "never more than 2" in found.reason) == ("not_measured", True)


def test_a_step_tells_what_it_measured() -> None:
    one = load_case("s-4", load={"at_once": [4], "requests": 10})
    exchanges = [sent(f"s-4/{a.name}", after_ms=n, tokens=21) for n, a in enumerate(one.requests())]
    by = profile(groups={"g.h": "must"}).model_copy(update={"load": SETTINGS})
    replies = seen_of(one, *exchanges).replies
    found = CHECKS["load_step"].run(Evidence(one, replies, Identity(), by, together=exchanges), {})
    assert (found.outcome, found.unit) == ("pass", "tokens/s")
    assert "10 of 10 answered at 4 in flight" in found.reason and "TTFT P50 100, P90 100 ms (n 10)" in found.reason
    late = [sent(f"s-4/{a.name}", lag=99.0) for a in one.requests()]
    assert CHECKS["load_step"].run(Evidence(one, replies, Identity(), by, together=late), {}).outcome == "not_measured"


@pytest.mark.parametrize(("check", "raw"), [("own_word", True), ("goodput", "profile"), ("decision_flips", True)])
def test_a_check_over_a_group_needs_one(check: str, raw: Any) -> None:
    with pytest.raises(BadInput, match="key 'over'"):
        parameters(case("c"), check, raw)
    with pytest.raises(BadInput, match="key 'load'"):
        parameters(case("c"), "load_step", True)


# --- what is told ---


def test_collecting_twice_shows_in_the_record() -> None:
    assert restarts_of([ready(), sent("s/1-a-1")]) == (ready().at,)
    assert [s.at_once for s in steps_of([sent("s/4-a-1"), sent("s/1-a-1")], SETTINGS, ())] == [1, 4]
    assert datetime.fromisoformat(ready().at).tzinfo == UTC
