"""What the README prints is what stands in the files."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)


def test_the_complete_profile_is_the_shipped_one() -> None:
    assert BLOCKS[0] == (ROOT / "params" / "smollm2.yaml").read_text(encoding="utf-8")


def test_the_complete_case_is_a_shipped_one() -> None:
    assert BLOCKS[1].startswith("- id: ")
    assert BLOCKS[1].strip() in (ROOT / "params" / "cases" / "health.yaml").read_text(encoding="utf-8")


def test_what_it_links_to_exists() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_example_is_a_green_run_of_the_demo_with_small_self_contained_pages() -> None:
    folder = ROOT / "docs" / "example"
    verdict = json.loads((folder / "verdict.json").read_text(encoding="utf-8"))
    assert (verdict["verdict"], verdict["suite"], verdict["partial"]) == ("PASS", "demo", False)
    pages = sorted(folder.glob("*.html"))
    assert {page.stem for page in pages} >= {"index", "01_health", "02_structured_output", "90_verdict"}
    assert all(page.stat().st_size < 500_000 for page in pages)
