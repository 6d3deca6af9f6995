"""What the machine's disk has when the power fails: everything that a later request stands on, and a record that goes on."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from gatebook.collect.scheduler import collect
from gatebook.collect.session import STARTED
from gatebook.record.journal import Journal, LineFile, read_journal
from gatebook.record.run import Run, now

from tests.faults.scripted import ScriptedServer
from tests.unit.replies import MODEL, plain
from tests.unit.test_collect import chat, planned

NOTEBOOK, COUNT = "01_x", 12
LONG = "The ship sails on. " * 400


def conversation(number: int) -> dict[str, object]:
    """Two requests, the second of which goes on from the answer to the first."""
    text = f"{LONG if number % 3 == 0 else ''}Ship {number}: say hello."
    return {
        "asks": [
            {"name": "first", "messages": [{"role": "user", "content": text}]},
            {"name": "second", "follows": "first", "messages": [{"role": "user", "content": f"And now, {number}?"}]},
        ]
    }


class Disk:
    """What of each file had been synced, and how many requests the server had by then."""

    def __init__(self, server: ScriptedServer) -> None:
        self.noted: list[tuple[Path, int, int]] = []
        self._server = server

    def note(self, path: Path, size: int) -> None:
        self.noted.append((path, size, len(self._server.chats)))

    def cut(self, run: Run, to: Path, syncs: int) -> Run:
        """The run as it was after so many syncs, and nothing more."""
        shutil.copytree(run.path, to)
        kept = {path.relative_to(run.path): size for path, size, _ in self.noted[:syncs]}
        for file in (run.record_file(NOTEBOOK), *(run.path / "texts").iterdir()):
            name = file.relative_to(run.path)
            if name in kept:
                (to / name).write_bytes(file.read_bytes()[: kept[name]])
            else:
                (to / name).unlink()
        return Run(to)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Run, Disk, ScriptedServer]]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv(STARTED, now())
    with ScriptedServer(MODEL, answer_s=0.01) as server:
        disk = Disk(server)
        monkeypatch.setattr(LineFile, "on_sync", staticmethod(disk.note))
        cases = [chat(f"talk-{number}", **conversation(number)) for number in range(COUNT)]
        run = planned(tmp_path / "run", server.url, cases, in_flight=6, request_deadline_s=30.0)
        collect(run, NOTEBOOK)
        yield run, disk, server


def test_what_a_request_goes_on_from_is_on_the_disk_when_it_is_sent(asked: tuple[Run, Disk, ScriptedServer]) -> None:
    run, disk, server = asked
    record, followed = run.record_file(NOTEBOOK).read_bytes(), 0
    for place, body in enumerate(server.chats):
        said = str(body["messages"][-1]["content"])
        if said.startswith("And now, "):
            number = said.removeprefix("And now, ").removesuffix("?")
            synced = max(size for path, size, chats in disk.noted if path.suffix == ".jsonl" and chats <= place)
            assert f'"key": "talk-{number}/first"' in record[:synced].decode(), number
            followed += 1
    assert followed == COUNT


def test_a_run_cut_back_to_any_sync_goes_on(asked: tuple[Run, Disk, ScriptedServer], tmp_path: Path) -> None:
    run, disk, _ = asked
    whole = {e.key for e in run.exchanges(NOTEBOOK)}
    assert any(path.parent.name == "texts" for path, _, _ in disk.noted), "a long text is synced too"
    syncs = len(disk.noted)
    for number in range(1, syncs + 1, 5):
        cut = disk.cut(run, tmp_path / f"cut-{number}", number)
        before = read_journal(cut.record_file(NOTEBOOK), cut.anchor)
        collect(cut, NOTEBOOK)
        after = cut.exchanges(NOTEBOOK)
        assert after[: len(before)] == before, number
        keys = Counter(e.key for e in after)
        assert keys.keys() >= whole and not any(e.fault for e in after if e.kind == "ask"), number
        assert {key for key, count in keys.items() if count > 1} == set(), number


def test_what_is_written_together_is_synced_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(LineFile, "on_sync", staticmethod(lambda path, size: sizes.append(size)))
    path, kept = tmp_path / "x.exchanges.jsonl", [plain("a", key=f"case-{n}/ask") for n in range(3)]
    with Journal(path, "0" * 64) as journal:
        journal.append(*kept)
    assert read_journal(path, "0" * 64) == kept
    assert sizes == [path.stat().st_size]
