"""Golden answers: what a reply tells of them, the two statements, and what a verdict makes of them. Replies as the engines send them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gatebook.checks.finding import Outcome
from gatebook.collect.request import kept
from gatebook.config.cases import Case, cases_in
from gatebook.engines import by_name
from gatebook.errors import BadInput
from gatebook.record.exchange import Exchange
from gatebook.record.logprobs import GOLDEN, Scored, read_scored
from gatebook.report.estimate import estimate
from gatebook.verdict.golden import FEWEST, Golden, compare, p_below
from gatebook.verdict.judging import judge
from gatebook.verdict.policy import check_plan
from gatebook.verdict.verdict import Verdict
from scipy import stats as scipy_stats

from tests.unit.replies import MODEL, baseline, case, chat_body, exchange, plain, profile, ready, record, run_folder

GROUP = "fingerprint.golden"
VLLM = {"choices": [{"text": " ", "prompt_logprobs": [None, {"7": {"logprob": -9.0}}, {"11": {"logprob": -1.5, "rank": 2}}, {"12": {"logprob": -0.5}}]}]}  # fmt: skip
SGLANG = {"text": " ", "meta_info": {"input_token_logprobs": [[None, 7, None], [-1.5, 11, None], [-0.5, 12, None]]}}
LLAMA = {"choices": [{"logprobs": {"content": [{"id": 11, "token": "a", "logprob": -1.5}, {"id": 12, "token": "b", "logprob": -0.5}]}}]}  # fmt: skip


def golden_case(name: str = "golden-en-a", text: str = "Paris.", **fields: Any) -> Case:
    more = {"finish": "any", "stream": False, "golden": [text], "expect": [{"golden_logprobs": True}]}
    return case(name, group=GROUP, notebook="05_fingerprint", **{**more, **fields})


def told(
    values: list[Any], ids: list[int] | None = None, answer: list[int] | None = None, key: str = "golden-en-a"
) -> Exchange:
    """A scored answer as it stands in a record."""
    ids = ids if ids is not None else list(range(len(values)))
    said = {
        "answer": answer if answer is not None else ids,
        "told": [list(pair) for pair in zip(ids, values, strict=True)],
    }
    return plain({GOLDEN: said}, key=f"{key}/ask", path="completions")


@pytest.mark.parametrize(("engine", "reply"), [("vllm", VLLM), ("sglang", SGLANG), ("llama.cpp", LLAMA)])
def test_of_a_reply_the_answer_s_tokens_are_kept(engine: str, reply: dict[str, Any]) -> None:
    done = kept(plain({**reply, "id": "x-1"}, path="completions"), by_name(engine), [11, 12])
    assert read_scored(done) == Scored(2, -1.0, read_scored(told([-1.5, -0.5], [11, 12])).ids)  # type: ignore[union-attr]
    said = json.loads(done.text or "")
    assert said["id"] == "x-1" and said[GOLDEN]["reply"]["bytes"] > 0 and "choices" not in said


@pytest.mark.parametrize(
    "body", [{"choices": []}, {"choices": [{"prompt_logprobs": None}]}, "no JSON", {"error": "out of memory"}]
)
def test_a_reply_without_log_probabilities_scores_nothing_and_is_kept(body: Any) -> None:
    done = kept(plain(body), by_name("vllm"), [11, 12])
    assert read_scored(done) == "the server told 0 log probabilities for 2 tokens of the given answer"
    assert json.loads(done.text or "")[GOLDEN]["reply"]["text"]


@pytest.mark.parametrize(
    ("done", "why"),
    [
        (told([-1.0, -9999.0]), "1 of 2 log probabilities are none, such as -9999.0"),
        (told([float("nan"), -1.0]), "1 of 2 log probabilities are none, such as nan"),
        (told([None, -1.0]), "1 of 2 log probabilities are none, such as None"),
        (told([-1.0], answer=[0, 1]), "the server told 1 log probabilities for 2 tokens of the given answer"),
        (told([-1.0, -1.0], ids=[0, 9], answer=[0, 1]), "the server told the log probabilities of other tokens than those of the given answer"),
        (plain(chat_body("Hello"), key="golden-en-a/ask"), "the server told no log probabilities of the given answer"),
        (exchange(status=400, fault="status", detail="HTTP 400: prompt_logprobs is not supported"), "HTTP 400: prompt_logprobs is not supported"),
    ],
)  # fmt: skip
def test_what_is_no_score_says_why(done: Exchange, why: str) -> None:
    assert read_scored(done) == why


# --- the two statements ---


def differences(values: Any) -> Golden:
    cases = {f"c{n:03d}": golden_case(f"c{n:03d}") for n in range(len(values))}
    before = {f"golden.{name}": "-2.00000 10 abcd" for name in cases}
    now = {f"golden.{name}": f"{-2 + value:.5f} 10 abcd" for name, value in zip(cases, values, strict=True)}
    return compare(cases, before, now, 0.005, 1, "run")


def test_the_test_is_that_of_scipy() -> None:
    values = np.random.default_rng(1).normal(-0.01, 0.03, 30)
    theirs = scipy_stats.permutation_test(
        (values,), np.mean, permutation_type="samples", alternative="less", n_resamples=9999, rng=1
    )
    assert p_below(list(values), 0.0, "x") == pytest.approx(theirs.pvalue, abs=0.012)
    assert p_below([], 0.0, "x") == 1.0


@pytest.mark.parametrize(("mean", "which", "level"), [(0.0, "worse", 0.05), (-0.005, "lost", 0.01)])
def test_false_alarms_are_as_rare_as_told(mean: float, which: str, level: float) -> None:
    """Also where a few texts move far (Student's t with 3 degrees of freedom)."""
    dice, runs = np.random.default_rng(2), 600
    alarms = sum(getattr(differences(mean + 0.03 * dice.standard_t(3, 40)), which) for _ in range(runs))
    assert alarms <= scipy_stats.binom.ppf(0.999, runs, level)


def test_the_smallest_visible_loss_is_seen_in_four_runs_of_five() -> None:
    dice, runs = np.random.default_rng(3), 200
    visible = differences(dice.normal(0, 0.05, 100)).visible_nats
    seen = sum(differences(dice.normal(-visible, 0.05, 100)).worse for _ in range(runs))
    assert 0.65 < seen / runs < 0.92


def test_the_same_answers_lose_nothing_and_an_even_loss_is_shown() -> None:
    same, even = differences([0.0] * 40), differences([-0.02] * 40)
    assert not same.worse and not same.lost and same.interval is None and same.names == ""
    assert even.worse and even.lost and even.names == "knows less: "


def test_a_loss_within_the_margin_is_told_and_does_not_block() -> None:
    small = differences(np.random.default_rng(4).normal(-0.003, 0.005, 100))
    assert small.worse and not small.lost
    assert "shown worse" in str(small) and "not shown to have lost more than 0.005" in str(small)


def test_another_model_scatters_and_a_damaged_one_loses_everywhere() -> None:
    dice = np.random.default_rng(5)
    assert differences(dice.normal(-0.1, 0.5, 100)).names == "is another model: "
    assert differences(dice.normal(0.1, 0.5, 100)).names == "is another model: "
    assert differences(dice.normal(-0.64, 0.31, 100)).names == "knows less: "
    assert differences(dice.normal(-0.09, 0.11, 100)).names == "knows less: "


def test_the_kind_that_lost_most_is_named() -> None:
    cases = {
        f"c{n}": golden_case(f"c{n}", tags={"task": "code" if n % 2 else "facts", "language": "zh"}) for n in range(20)
    }
    now = {f"golden.c{n}": f"{-2 - 0.1 * (n % 2):.5f} 10 abcd" for n in range(20)}
    told = compare(cases, {f"golden.c{n}": "-2.00000 10 abcd" for n in range(20)}, now, 0.005, 1, "run")
    assert "most in code zh (-0.1000)" in str(told)


def test_few_texts_show_nothing() -> None:
    assert str(differences([-1.0] * (FEWEST - 1))) == f"7 texts can be compared, and fewer than {FEWEST} show nothing"


# --- the verdict ---

TEXTS = [f"golden-en-{n:02d}" for n in range(12)]


def texts() -> list[Case]:
    return [golden_case(name, messages=[{"role": "user", "content": name}]) for name in TEXTS]


def accepted(ids: Callable[[int], str] = lambda n: "", **fields: Any) -> bytes:
    """A baseline in which every text has -2 nats a token; `ids` names other tokens of a text."""
    digest = read_scored(told([-2.0, -2.0])).ids  # type: ignore[union-attr]
    prints = {f"golden.{name}": f"-2.00000 2 {ids(n) or digest}" for n, name in enumerate(TEXTS)}
    outcomes: dict[str, Outcome] = dict.fromkeys(TEXTS, "pass")
    return baseline(outcomes, texts(), **{"fingerprint": prints, **fields}).to_json().encode()


def scored_run(folder: Path, policy: str | None, lost: float = 0.0, before: bytes | None = None) -> Verdict:
    by = profile({"fingerprint.contract": "must", **({GROUP: policy} if policy else {})})
    run = run_folder(folder / "run", texts(), by, before or accepted())
    asked = [told([-2.0 - lost, -2.0 - lost * (1 + n / 10)], key=name) for n, name in enumerate(TEXTS)]
    record(run, "05_fingerprint", ready(), *asked)
    return judge(run)


def test_a_loss_past_the_margin_is_red_and_named(tmp_path: Path) -> None:
    verdict = scored_run(tmp_path, "no_worse", lost=0.05)
    assert verdict.verdict == "FAIL" and verdict.reason.startswith(f"{GROUP}: knows less: golden answers -0.0"), (
        verdict.reason
    )


@pytest.mark.parametrize("policy", ["watch", None])
def test_who_only_watches_is_told_of_it(tmp_path: Path, policy: str | None) -> None:
    verdict = scored_run(tmp_path, policy, lost=0.05)
    assert verdict.verdict == "PASS"
    assert any(note.startswith(f"{GROUP}: knows less: ") and "shown worse" in note for note in verdict.notes)


def test_the_same_answers_are_green(tmp_path: Path) -> None:
    verdict = scored_run(tmp_path, "no_worse")
    assert verdict.verdict == "PASS", verdict.reason
    assert [g.reason for g in verdict.groups if g.group == GROUP][0].startswith("golden answers +0.0000 nats a token")


@pytest.mark.parametrize(
    ("policy", "word"), [("no_worse", "INCONCLUSIVE"), ("must", "INCONCLUSIVE"), ("watch", "PASS")]
)
def test_a_baseline_without_golden_answers_takes_them_in(tmp_path: Path, policy: str, word: str) -> None:
    verdict = scored_run(tmp_path, policy, before=accepted(fingerprint={"model": MODEL}))
    assert verdict.verdict == word, verdict.reason
    if word == "INCONCLUSIVE":
        assert verdict.needs_baseline and verdict.causes[0].accepts


def test_a_text_that_is_split_otherwise_is_not_compared_and_not_green(tmp_path: Path) -> None:
    verdict = scored_run(tmp_path, "no_worse", before=accepted(lambda n: "" if n else "other"))
    assert (verdict.verdict, verdict.needs_baseline) == ("INCONCLUSIVE", True)
    assert "the tokenizer splits golden-en-00 otherwise" in verdict.reason


def test_what_tells_no_scores_is_not_green(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", texts(), profile({"fingerprint.contract": "must", GROUP: "no_worse"}))
    refused = {"status": 400, "fault": "status", "detail": "HTTP 400: prompt_logprobs is not supported"}
    record(
        run, "05_fingerprint", ready(), *(exchange(key=f"{name}/ask", path="completions", **refused) for name in TEXTS)
    )
    verdict = judge(run)
    assert verdict.verdict == "INCONCLUSIVE" and "prompt_logprobs is not supported" in verdict.reason
    assert {f.outcome for f in verdict.findings if f.group == GROUP} == {"not_measured"}


def test_a_server_that_dies_of_it_is_told_so(tmp_path: Path) -> None:
    cases = texts()
    run = run_folder(tmp_path / "run", cases, profile({"fingerprint.contract": "must", GROUP: "no_worse"}))
    dead = exchange(
        key=f"{TEXTS[0]}/ask", path="completions", status=500, fault="status", detail="HTTP 500: EngineCore died"
    )
    record(run, "05_fingerprint", ready(), dead)
    reasons = [f.reason for f in judge(run).findings if f.group == GROUP and f.outcome == "fail"]
    assert reasons and "keeps the logits of its whole vocabulary" in reasons[0]


# --- the plan ---


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"golden": []}, "holds one text"),
        ({"golden": ["a", "b"]}, "holds one text"),
        ({"golden": [" Paris."]}, "without blanks around it"),
        ({"asks": [{"name": "a"}]}, "stands alone"),
        ({"canary": True}, "stands alone"),
        ({"expect": [{"golden_logprobs": True}, {"length_chars": {"max": 5}}]}, "stands alone"),
    ],
)
def test_a_case_that_scores_has_one_answer_and_nothing_else(changed: dict[str, Any], said: str) -> None:
    data = golden_case().model_dump(exclude_defaults=True) | changed
    with pytest.raises(BadInput, match=said):
        cases_in([data], "golden.yaml")


@pytest.mark.parametrize(("policy", "texts", "said"), [("no_worse", 7, "8 are needed"), ({"policy": "proven_no_worse", "margin": 0.1}, 20, "golden.margin_nats")])  # fmt: skip
def test_a_plan_that_cannot_be_judged_is_refused(policy: Any, texts: int, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        check_plan(profile({GROUP: policy}), [golden_case(f"c{n}") for n in range(texts)], set())


def test_the_plan_says_how_much_memory_it_takes() -> None:
    said = estimate(profile({GROUP: "no_worse"}), "full", [golden_case()], None)
    assert "1 golden answers, 2 at a time: up to 1.4 GiB on the server" in said


def test_other_cases_in_a_group_of_golden_answers_are_refused() -> None:
    """They would be compared with nothing, and green."""
    other = case("plain", group=GROUP, notebook="05_fingerprint")
    with pytest.raises(
        BadInput, match="case 'plain', key 'group' has value 'fingerprint.golden': it holds golden answers"
    ):
        check_plan(profile({GROUP: "no_worse"}), [*(golden_case(f"c{n}") for n in range(12)), other], set())
