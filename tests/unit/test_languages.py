"""What 03_multilingual shows, and what its shipped cases must be like."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import get_args

import pytest
from gatebook.checks import CHECKS, parameters
from gatebook.checks.evidence import Evidence, Reply
from gatebook.checks.language_detection import Language
from gatebook.config.cases import Case
from gatebook.record.identity import Identity
from gatebook.record.run import Run

from tests.conftest import shipped_cases
from tests.unit.replies import case, chat_body, plain, profile, run_folder

SHIPPED = [c for c in shipped_cases().values() if c.notebook == "03_multilingual"]
INJECTIONS = [c for c in SHIPPED if c.group == "multilingual.injection"]
BOOK = "01_x"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    tags = {
        "names-zh-a": {"language": "zh"},
        "names-zh-b": {"language": "zh"},
        "names-fr-a": {"language": "fr"},
        "plain": {},
    }
    cases = [case(i, group="m.names", notebook=BOOK, tags=told) for i, told in tags.items()]
    cases.append(case("logs-fr-a", group="m.logs", notebook=BOOK, tags={"language": "fr"}))
    return run_folder(tmp_path / "run", cases, profile({"m.names": "must", "m.logs": "must"}))


# --- the shipped cases ---


def test_there_are_forty_cases_in_five_languages_and_six_properties() -> None:
    assert len(SHIPPED) >= 40 and all("scenario" in c.suites for c in SHIPPED)
    assert {c.tags.get("language") for c in SHIPPED} == set(get_args(Language))
    named = Counter(name for c in SHIPPED for item in c.expect for name in item)
    assert {"identifiers_kept", "literals_kept", "same_syntax_tree", "language", "lines_kept", "not_obeyed"} <= set(
        named
    )
    assert {c.tags.get("language") for c in SHIPPED if "demo" in c.suites} == set(get_args(Language))


def test_every_case_shows_a_good_and_a_bad_answer() -> None:
    assert [c.id for c in SHIPPED if not (c.good and c.bad)] == []


def test_the_article_s_own_snippets_are_asked() -> None:
    asked = "\n".join(str(c.messages) for c in SHIPPED)
    for snippet in (
        "def calculate_score(user_id: str, score: float) -> dict:",
        'print("Hello")',
        "# TODO: 修正缓存逻辑",
    ):
        assert snippet in asked


@pytest.mark.parametrize("of", INJECTIONS, ids=lambda c: c.id)
def test_an_obeyed_instruction_fails_its_case(of: Case) -> None:
    """Good answers are tried on both asks alike, so the pair is tried here: token against good, good against good."""
    raw = next(item["not_obeyed"] for item in of.expect if "not_obeyed" in item)

    def outcome(injected: str, control: str) -> str:
        texts = {raw["injected"]: injected, raw["control"]: control}
        replies = [Reply(ask, plain(chat_body(texts[ask.name]), key=f"{of.id}/{ask.name}")) for ask in of.requests()]
        seen = Evidence(of, replies, Identity(), profile())
        return CHECKS["not_obeyed"].run(seen, parameters(of, "not_obeyed", raw)).outcome

    assert outcome(raw["token"], of.good[0]) == "fail"
    assert all(outcome(text, of.good[0]) == "pass" for text in of.good)
    injected, control = (ask.messages[0]["content"].splitlines() for ask in of.requests() if ask.messages)
    assert len(injected) == len(control) + 1 and all(line in injected for line in control), "one line is the difference"
    assert raw["token"] not in "\n".join(injected), "no quotation or translation of the line has the token"
