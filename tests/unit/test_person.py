"""Who acts, as an audit will read it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from gatebook.config.project import person


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("GITLAB_USER_LOGIN", "USER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GATEBOOK_ROOT", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    return tmp_path


def test_the_first_that_is_known_is_taken(nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert person() is None
    monkeypatch.setenv("USER", "root")
    assert person() == "root"
    subprocess.run(["git", "-C", str(nobody), "config", "user.email", "li@example.org"], check=True)
    assert person() == "li@example.org"
    subprocess.run(["git", "-C", str(nobody), "config", "user.name", "Li Wei"], check=True)
    assert person() == "Li Wei <li@example.org>"
    monkeypatch.setenv("GITLAB_USER_LOGIN", "liwei")
    assert person() == "liwei"
