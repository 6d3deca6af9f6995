"""The commands that the documents tell people to type."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "README.zh.md", ROOT / "CONTRIBUTING.md", ROOT / "outputs" / "README.md"]
PAGES += sorted(p for p in (ROOT / "docs").rglob("*.md"))
PROGRAMS = ("gatebook", "make", "python", "docker", "cosign", "openssl", "check-jsonschema")
_COMMAND = re.compile(rf"^(?:\.venv/bin/)?({'|'.join(PROGRAMS)})\s")


def blocks(page: Path) -> list[list[str]]:
    """Lines of every fenced block that is a shell's or says nothing of its language."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [body.splitlines() for language, body in found if language in ("", "sh")]


def commands(page: Path) -> list[str]:
    """Those of its lines that call one of PROGRAMS, comments with them."""
    return [line for block in blocks(page) for line in block if _COMMAND.match(line)]


def exit_code(line: str) -> int:
    """What its comment says: `# ... exit 3`; 0 without."""
    told = re.search(r"#.*\bexit (\d+)", line)
    return int(told.group(1)) if told else 0
