"""The record: what is written comes back, and nobody changes it unseen."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from gatebook.errors import BrokenRecord, CannotMeasure
from gatebook.record import journal
from gatebook.record.exchange import Client, Exchange
from gatebook.record.journal import Journal, read_journal
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.replies import exchange, plain, streamed, timing

ANCHOR = "0" * 64
ODD = "NUL \x00, \n, \r\n, \u2028, \u2029, \x85, \ufeff, \ufffd, 😀, é, \\ud83d, \x7f"


def write(path: Path, *exchanges: Exchange) -> None:
    with Journal(path, ANCHOR) as opened:
        for one in exchanges:
            opened.append(one)


def three(path: Path) -> list[Exchange]:
    kept = [plain(f"Nº {n}", key=f"case-{n}/ask", timing=timing(end_ms=12.5 * n)) for n in (1, 2, 3)]
    write(path, *kept)
    return kept


odd_text = st.text(st.characters(codec=None)) | st.sampled_from([ODD, "\ud83d", "a\udc80b"])
numbers = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | odd_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
exchanges = st.builds(
    exchange,
    key=odd_text,
    text=st.none() | odd_text,
    events=st.none() | st.lists(st.tuples(numbers, odd_text), max_size=4),
    body=st.none() | st.dictionaries(st.text(), json_values, max_size=3),
    headers=st.dictionaries(st.text(), odd_text, max_size=2),
    detail=odd_text,
    timing=st.none() | st.builds(timing, first_token_ms=st.none() | numbers),
    client=st.none() | st.builds(Client, in_flight=st.integers(0, 9), cpu_share=st.none() | numbers),
)


@given(st.lists(exchanges, max_size=4))
@example([plain(ODD), streamed([ODD, "\ud83d"])])
def test_what_is_written_comes_back(tmp_path_factory: pytest.TempPathFactory, kept: list[Exchange]) -> None:
    path = tmp_path_factory.mktemp("journal") / "r.jsonl"
    write(path, *kept)
    assert read_journal(path, ANCHOR) == kept


def test_one_exchange_is_one_line(tmp_path: Path) -> None:
    write(tmp_path / "r.jsonl", plain(ODD), plain("second"))
    assert (tmp_path / "r.jsonl").read_bytes().count(b"\n") == 2


def test_a_record_that_was_never_begun_is_empty(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "none.jsonl", ANCHOR) == []


def test_a_record_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    write(path, plain("a", key="a/ask"))
    write(path, plain("b", key="b/ask"))
    write(path)
    assert [e.key for e in read_journal(path, ANCHOR)] == ["a/ask", "b/ask"]


@given(st.data())
def test_no_flipped_bit_passes_unseen(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """A changed byte is noticed, or it stands where JSON has no meaning (a space for a tab) and nothing is read otherwise."""
    path = tmp_path_factory.mktemp("journal") / "r.jsonl"
    kept = three(path)
    raw = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(raw) - 1), label="byte")
    raw[at] ^= data.draw(st.integers(1, 255), label="bits")
    path.write_bytes(raw)
    with suppress(BrokenRecord):
        assert read_journal(path, ANCHOR) == kept


@pytest.mark.parametrize("line", [1])
def test_every_byte_of_a_line_is_guarded(tmp_path: Path, line: int) -> None:
    """Every byte of one line in turn becomes an `x`."""
    path = tmp_path / "r.jsonl"
    kept = three(path)
    lines = path.read_bytes().splitlines(keepends=True)
    for at in range(len(lines[line])):
        if lines[line][at : at + 1] == b"x":
            continue
        changed = lines[line][:at] + b"x" + lines[line][at + 1 :]
        path.write_bytes(b"".join([*lines[:line], changed, *lines[line + 1 :]]))
        try:
            assert read_journal(path, ANCHOR) == kept, changed
        except BrokenRecord:
            continue
        raise AssertionError(f"byte {at} ({lines[line][at : at + 1]!r}) may be changed unseen")


REARRANGED: dict[str, Any] = {
    "the first line removed": lambda a, b, c: [b, c],
    "a middle line removed": lambda a, b, c: [a, c],
    "two lines swapped": lambda a, b, c: [b, a, c],
    "a line twice": lambda a, b, c: [a, b, b, c],
    "an empty line": lambda a, b, c: [a, b"\n", b, c],
    "a line put before": lambda a, b, c: [b"{}\n", a, b, c],
    "a line of another schema": lambda a, b, c: [a.replace(b'{"v": 1,', b'{"v": 2,'), b, c],
    "an exchange edited and its own hash kept": lambda a, b, c: [a, b.replace("Nº".encode(), b"No"), c],
}


@pytest.mark.parametrize("change", REARRANGED.values(), ids=REARRANGED.keys())
def test_a_rearranged_record_is_broken(tmp_path: Path, change: Any) -> None:
    path = tmp_path / "r.jsonl"
    three(path)
    path.write_bytes(b"".join(change(*path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(BrokenRecord, match=r"r\.jsonl, line \d"):
        read_journal(path, ANCHOR)
    with pytest.raises(BrokenRecord):
        Journal(path, ANCHOR)


def test_a_record_belongs_to_its_cases(tmp_path: Path) -> None:
    three(tmp_path / "r.jsonl")
    with pytest.raises(BrokenRecord, match="line 1"):
        read_journal(tmp_path / "r.jsonl", "1" * 64)


@pytest.mark.parametrize("content", [b"\n", b"[]\n", b"5\n", b"null\n", b"not json\n", b"\xff\xfe\n", b'{"v": 1}\n'])
def test_lines_that_are_no_record_are_broken(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.jsonl").write_bytes(content)
    with pytest.raises(BrokenRecord, match="line 1"):
        read_journal(tmp_path / "r.jsonl", ANCHOR)


@pytest.mark.parametrize(
    "body", [{"kind": "ask", "extra": 1}, {"kind": "ask", "key": "a/ask", "at": "tomorrow"}, 5, [], "body", None]
)
def test_a_forged_chain_without_the_fields_of_an_exchange_is_broken(tmp_path: Path, body: Any) -> None:
    line = {"v": 1, "seq": 0, "prev": ANCHOR, "exchange": body, "hash": journal._digest(ANCHOR, body)}
    (tmp_path / "r.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(BrokenRecord, match="does not have its fields|was edited or damaged"):
        read_journal(tmp_path / "r.jsonl", ANCHOR)


@given(st.integers(1, 400))
def test_a_torn_last_line_is_set_aside(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("journal") / "r.jsonl"
    kept = three(path)
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    torn = last[: min(cut, len(last) - 1)]
    path.write_bytes(whole[: -len(last)] + torn)
    with pytest.raises(BrokenRecord, match="cut off"):
        read_journal(path, ANCHOR)
    write(path, kept[2])
    assert read_journal(path, ANCHOR) == kept
    assert path.with_name("r.jsonl.torn").read_bytes() == torn + b"\n"


def test_a_second_writer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "LOCK_WAIT_S", 0.1)
    path = tmp_path / "r.jsonl"
    with Journal(path, ANCHOR) as first:
        with pytest.raises(CannotMeasure, match="another process is writing"):
            Journal(path, ANCHOR)
        first.append(plain("still mine"))
    write(path, plain("free again"))
    assert len(read_journal(path, ANCHOR)) == 2


def test_a_broken_record_is_not_kept_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "LOCK_WAIT_S", 0.1)
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"{}\n")
    with pytest.raises(BrokenRecord) as caught:  # its traceback keeps the half-made journal alive
        Journal(path, ANCHOR)
    path.write_bytes(b"")
    write(path, plain("fine"))
    assert caught.value is not None


FULL_DISK = """
import resource, sys
from pathlib import Path
from gatebook.errors import CannotMeasure
from gatebook.record.journal import Journal, read_journal
from tests.unit.replies import plain

path, refused = Path(sys.argv[1]), 0
with Journal(path, "a") as opened:
    opened.append(plain("fits", key="one/ask"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, resource.RLIM_INFINITY))
    for name in ("two", "three", "four"):
        if name == "four":
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        try:
            opened.append(plain("x" * 200, key=name + "/ask"))
        except CannotMeasure as error:
            assert "cannot write the record" in str(error), error
            refused += 1
assert refused >= 2, refused
with Journal(path, "a") as opened:
    opened.append(plain("room again", key="five/ask"))
print(" ".join(e.key for e in read_journal(path, "a")))
"""


def test_a_full_disk_cannot_measure_and_leaves_a_record_to_resume(tmp_path: Path) -> None:
    """The disk is full for two writes (RLIMIT_FSIZE) and has room again: no line is written half, twice or out of turn."""
    done = subprocess.run([sys.executable, "-c", FULL_DISK, tmp_path / "r.jsonl"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    keys = done.stdout.split()
    assert keys[0] == "one/ask" and keys[-1] == "five/ask" and len(set(keys)) == len(keys)
