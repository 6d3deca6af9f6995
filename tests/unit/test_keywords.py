"""Key words are telemetry: identifiers stay whole, the same text gives the same words, nothing is printed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from gatebook.verdict.sensitivity import FACTS_GROUP, answer_keywords, jaccard, keywords

from tests.unit.replies import case, chat_body, plain, profile, record, run_folder


def test_identifiers_and_numbers_are_not_torn_apart() -> None:
    words = keywords("函数 calculate_score 在 2.4.1 版中 08:42 时闪退，区域 east-2。")
    assert {"calculate_score", "2.4.1", "08:42", "east-2"} <= set(words)
    assert not {"calculate", "score", "闪退时"} & set(words)


def test_there_are_ten_at_most_and_case_does_not_count() -> None:
    assert len(keywords(" ".join(f"word{n}" for n in range(30)))) == 10
    assert keywords("Friday FRIDAY friday") == ["friday"]


@pytest.mark.parametrize("text", ["", " \n", "。，！", "the of and"])
def test_a_text_without_words_has_none(text: str) -> None:
    assert keywords(text) == []


def test_overlap() -> None:
    assert jaccard(["a", "b"], ["b", "c"]) == pytest.approx(1 / 3)
    assert (jaccard(["a"], ["a"]), jaccard(["a"], []), jaccard([], [])) == (1.0, 0.0, None)


def test_only_answers_to_questions_for_facts_are_read(tmp_path: Path) -> None:
    cases = [case("f", group=FACTS_GROUP), case("silent", group=FACTS_GROUP), case("other")]
    run = run_folder(
        tmp_path / "run", cases, profile({FACTS_GROUP: "watch", "fingerprint.contract": "must", "g.h": "watch"})
    )
    record(run, "01_x", plain(chat_body("Order 4417"), key="f/ask"), plain(chat_body("Hello"), key="other/ask"))
    assert answer_keywords(run) == {"f": ["order", "4417"]}


def test_jieba_is_silent_and_harmless_even_where_warnings_are_errors() -> None:
    """In a process of its own, so that the import is the first: escapes, pkg_resources and open files warn there."""
    code = "from gatebook.verdict.sensitivity import keywords; assert '登录' in keywords('请先登录系统 2.4.1')"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    lazy = "import sys, gatebook.workbook, gatebook.commands.accept; assert 'jieba' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", lazy]).returncode == 0
