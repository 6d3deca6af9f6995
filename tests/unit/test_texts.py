"""Long texts: stored once, put back as they were, and a changed one is seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gatebook.errors import BrokenRecord
from gatebook.record.journal import LONG_BYTES, Journal, Texts, long_name, read_journal
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.replies import plain

ANCHOR = "0" * 64
LONG = "港" * LONG_BYTES


def asked(text: str, key: str) -> Any:
    return plain("yes", key=key, sent={"messages": [{"role": "user", "content": text}]})


def test_a_text_that_two_requests_send_is_on_disk_once(tmp_path: Path) -> None:
    path = tmp_path / "01.exchanges.jsonl"
    sent = [asked(f"{LONG}\n\nWho?", "a/ask"), asked(f"{LONG}\n\nWhen?", "b/ask"), asked("short", "c/ask")]
    with Journal(path, ANCHOR) as journal:
        for exchange in sent:
            journal.append(exchange)
    assert read_journal(path, ANCHOR) == sent
    assert [p.name for p in (tmp_path / "texts").iterdir()] == [f"{long_name(LONG)}.txt"]
    assert path.stat().st_size < LONG_BYTES


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_changed_or_lost_text_breaks_the_record(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "01.exchanges.jsonl"
    with Journal(path, ANCHOR) as journal:
        journal.append(asked(LONG, "a/ask"))
    file = tmp_path / "texts" / f"{long_name(LONG)}.txt"
    if damage == "changed":
        file.write_text(file.read_text(encoding="utf-8").replace("港", "巷", 1), encoding="utf-8")
    else:
        file.unlink()
    with pytest.raises(BrokenRecord, match="changed" if damage == "changed" else "missing"):
        read_journal(path, ANCHOR)


@given(st.text(st.characters(codec=None), max_size=30), st.integers(0, 2 * LONG_BYTES))
def test_whatever_is_put_away_comes_back(tmp_path_factory: Any, text: str, times: int) -> None:
    value = {"messages": [{"role": "user", "content": text * (1 + times // max(len(text), 1))}], "n": 1}
    texts = Texts(tmp_path_factory.mktemp("run") / "texts")
    assert texts.put_back(texts.put_away(value)) == value


def test_only_a_long_text_has_a_name() -> None:
    assert long_name("x" * LONG_BYTES) is None
    assert long_name("x" * (LONG_BYTES + 1)) is not None
    assert long_name("港" * (LONG_BYTES // 3)) is None
