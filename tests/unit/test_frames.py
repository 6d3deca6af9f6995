"""Tidy frames of a record: a row a case, a reply, a finding; numbers are numbers, and what is missing is null."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from gatebook import open_run
from gatebook.errors import BadInput
from gatebook.record.frames import REPLIES
from gatebook.report.plots import heatmap
from gatebook.workbook import Workbook

from tests.unit.replies import case, chat_body, exchange, plain, profile, ready, record, run_folder

BOOK = "01_x"


@pytest.fixture
def run(tmp_path: Path) -> Workbook:
    cases = [
        case("a", group="g.h", notebook=BOOK, tags={"task": "greet", "language": "en"}),
        case("b", group="g.h", notebook=BOOK, tags={"task": "greet", "language": "fr"}, finish="length"),
    ]
    folder = run_folder(tmp_path / "run", cases, profile({"g.h": "must"}))
    record(
        folder,
        BOOK,
        ready(),
        plain(chat_body("Hello."), key="a/ask"),
        exchange(key="b/ask", status=None, fault="broken", detail="cut off"),
    )
    return Workbook(BOOK, folder)


def test_a_case_is_a_row_with_its_tags(run: Workbook) -> None:
    cases = run.cases()
    assert list(cases.index) == ["a", "b"] and list(cases["language"]) == ["en", "fr"]
    assert list(cases["policy"]) == ["must", "must"]


def test_a_reply_is_a_row_and_what_is_missing_is_null(run: Workbook) -> None:
    replies = run.replies()
    assert list(replies.index) == ["a/ask", "b/ask"] and list(replies.columns) == list(REPLIES)
    assert replies.dtypes.astype(str).to_dict() == REPLIES
    assert (replies.loc["a/ask", "text"], replies.loc["a/ask", "status"], replies.loc["b/ask", "fault"]) == (
        "Hello.",
        200,
        "broken",
    )
    assert replies.loc["b/ask", ["text", "completion_tokens", "ttft_ms"]].isna().all()
    assert list(replies["valid"]) == [False, False] and set(replies["why_invalid"]) == {"no complete streamed answer"}


def test_findings_are_ordered_the_worst_first(run: Workbook) -> None:
    findings = run.findings()
    assert findings["outcome"].cat.ordered and findings["outcome"].min() == "fail"
    assert set(findings.loc[findings["case"] == "a", "outcome"]) == {"pass"}
    assert findings.groupby("case")["outcome"].min()["b"] == "fail"


def test_a_run_folder_is_opened_and_nothing_else_is_read(run: Workbook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEBOOK_PROFILE", "nowhere.yaml")
    again = open_run(BOOK, {"run_dir": str(run.record.path), "profile": "elsewhere.yaml", "target": {"model": "other"}})
    assert again.profile.target.model == run.profile.target.model


def test_no_target_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GATEBOOK_PROFILE", raising=False)
    with pytest.raises(BadInput, match="no target is named"):
        open_run(BOOK, {"run_dir": "", "profile": "", "name": "left over from a loop"})


def test_a_heatmap_has_a_cell_a_number_and_a_sentence_where_there_is_none() -> None:
    shares = pd.DataFrame({"en": [1.0, None], "fr": [0.5, 0.0]}, index=["g.a", "g.b"])
    labels = pd.DataFrame({"en": ["2/2", ""], "fr": ["1/2", "0/2"]}, index=shares.index)
    texts = [text.get_text() for text in heatmap(shares, labels).axes[0].texts]
    assert texts == ["2/2", "1/2", "", "0/2"]
    assert heatmap(shares.iloc[:0]) == "nothing of it was asked"
