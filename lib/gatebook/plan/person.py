"""Who acts: written into manifests and baselines, so that an audit finds a name."""

from __future__ import annotations

import os
import subprocess

from gatebook.plan import project


def person() -> str | None:
    """GITLAB_USER_LOGIN (who started the pipeline), else git's user of the project, else USER; None when none is known."""
    for found in (os.environ.get("GITLAB_USER_LOGIN"), _git_user(), os.environ.get("USER")):
        if found and found.strip():
            return found.strip().encode("utf-8", "replace").decode()  # bytes of another encoding fit no record
    return None


def _git_user() -> str | None:
    """`Name <address>` as a commit would have it."""
    name, address = _git("user.name"), _git("user.email")
    return f"{name} <{address}>" if name and address else name or address


def _git(key: str) -> str | None:
    command = ["git", "-C", str(project.root()), "config", key]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
