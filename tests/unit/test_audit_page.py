"""What docs/audit.md tells an auditor to type is typed here, on an intact and on an edited bundle."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from gatebook.config.policies import Waiver
from gatebook.record.run import Run

from tests.unit.runs import bundle

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "audit.md").read_text(encoding="utf-8")
SUMS, ADDED, CHAIN, SEAL, SIGN = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle(tmp_path_factory.mktemp("audit") / "run-1").path


@pytest.fixture
def path(intact: Path, tmp_path: Path) -> Path:
    shutil.copytree(intact, tmp_path / "run-1")
    return tmp_path / "run-1"


def typed(commands: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-eu", "-c", commands], cwd=folder, capture_output=True, text=True)


def test_an_intact_bundle_passes_every_command(path: Path) -> None:
    assert (typed(SUMS, path).returncode, typed(ADDED, path).stdout) == (0, "")
    assert typed(CHAIN, path).stdout == "intact 01_x.exchanges.jsonl\n"
    assert re.fullmatch(r"[0-9a-f]{64}  SHA256SUMS\n", typed(SEAL, path).stdout)
    assert Run(path).damage() == [], "and is what it was"


def test_what_was_changed_added_or_edited_under_new_sums_is_seen(path: Path) -> None:
    (path / "more.txt").write_text("x")
    assert typed(ADDED, path).stdout == "more.txt\n"
    record = path / "01_x.exchanges.jsonl"
    record.write_text(record.read_text().replace("Hello", "HELLO"))
    assert typed(SUMS, path).returncode == 1
    Run(path).seal()
    assert typed(SUMS, path).returncode == 0
    assert typed(CHAIN, path).returncode == 1


def test_a_signature_is_good_for_one_bundle(path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    assert typed(SIGN, path).returncode == 0
    assert Run(path).damage() == [], "it stands beside the bundle"
    (path / "SHA256SUMS").write_text((path / "SHA256SUMS").read_text() + "\n")
    assert typed(SIGN.splitlines()[-1], path).returncode != 0


def test_the_waiver_of_the_page_is_one() -> None:
    told = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0])
    assert [Waiver.model_validate(entry).case for entry in told["waivers"]] == ["greeting-nihao"]
