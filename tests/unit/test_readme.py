"""What the README prints is what stands in the files."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)


def test_the_profile_is_taken_from_the_shipped_one() -> None:
    """Line by line and in its order; some groups are left out."""
    shipped = iter((ROOT / "params" / "smollm2.yaml").read_text(encoding="utf-8").splitlines())
    assert [line for line in BLOCKS[0].splitlines() if line not in shipped] == []


def test_every_notebook_has_its_row() -> None:
    notebooks = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert notebooks == set(re.findall(r"^\| `(\d\d_\w+)` \|", README, re.MULTILINE))


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
    assert {page.stem for page in pages} == {"index", *(p.stem for p in (ROOT / "notebooks").glob("*.ipynb"))} - {
        "00_explore"
    }
    assert all(page.stat().st_size < 500_000 for page in pages)


def test_what_was_asked_for_stands_on_the_page_that_is_named() -> None:
    table = (ROOT / "docs" / "coverage.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?!asked for|---)(.+) \| (.+) \| \[\w+\]\((.+)\) \|$", table, re.MULTILINE)
    assert len(rows) > 20
    for asked, groups, page in rows:
        told = (ROOT / "docs" / page).read_text(encoding="utf-8")
        for group in re.findall(r"`([\w.]+)`", groups):
            assert group in told, f"{asked}: {group} is not on {page}"
