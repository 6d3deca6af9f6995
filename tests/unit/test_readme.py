"""What the README and the overview print is what stands in the files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh.md").read_text(encoding="utf-8")
OVERVIEW = (ROOT / "docs" / "overview.md").read_text(encoding="utf-8")
OVERVIEW_ZH = (ROOT / "docs" / "overview.zh.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", OVERVIEW, re.DOTALL)


def test_the_profile_is_taken_from_the_shipped_one() -> None:
    """Line by line and in its order; some groups are left out."""
    shipped = iter((ROOT / "params" / "smollm2.yaml").read_text(encoding="utf-8").splitlines())
    assert [line for line in BLOCKS[0].splitlines() if line not in shipped] == []


def test_every_notebook_has_its_row() -> None:
    notebooks = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert notebooks == set(re.findall(r"^\| `(\d\d_\w+)` \|", OVERVIEW, re.MULTILINE))


def test_the_complete_case_is_a_shipped_one() -> None:
    assert BLOCKS[1].startswith("- id: ")
    assert BLOCKS[1].strip() in (ROOT / "params" / "cases" / "health.yaml").read_text(encoding="utf-8")


def test_the_readme_is_one_screen() -> None:
    assert len(README.splitlines()) <= 70 and len(README.split()) <= 800


def test_it_names_the_engines_and_gateways_that_were_really_run() -> None:
    page = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| [^|]*\| [^|]+ \|$", page, re.MULTILINE)[2:]
    assert len(rows) == 9
    for name, version in rows:
        word = re.split(r" before|,| with|'", name)[0].removesuffix(" no model pinned")
        number = re.search(r"[\d.]*\d", version)
        for text in (README, CHINESE):
            assert word in text and (number is None or number[0] in text), (word, version)


FIRST_GATE = (ROOT / "docs" / "first-gate.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "words",
    [
        ("A model that thinks", "target.thinking: parsed", "target.request", "engines.md#a-model-that-thinks"),
        ("LoRA adapters", "engines.md#adapters-lora"),
        ("target.replicas", "the one that differs is named", "engines.md#what-stands-behind-the-address-and-before-it"),
        ("a proxy in front", "in one piece", "engines.md#what-stands-behind-the-address-and-before-it"),
        ("`--suite live`", "one request in flight", "at most 100 requests and 30,000 tokens"),
        ("`--yes-load`", "requests that are not ours", "load.md"),
        ("in a repository of your own", "own-repository.md"),
        ("`--languages en`", "cases.md#in-which-language-the-tag-language"),
        ("summary.md", "at most 15 lines", "ci.md#elsewhere-than-gitlab"),
        ("`--no-texts`", "verdicts and figures", "security.md#where-prompts-and-answers-travel"),
        ("From a FAIL to a baseline", "mend the server", "correct the profile", "audit.md#waivers", "then accept"),
    ],
    ids=lambda words: words[0],
)
def test_the_first_gate_has_a_line_for_each_ground(words: tuple[str, ...]) -> None:
    """In one paragraph, with a link to a heading that is there."""
    paragraphs = [p for p in FIRST_GATE.split("\n\n") if all(word in p for word in words)]
    assert paragraphs, words
    for page, _, anchor in (word.partition("#") for word in words if ".md#" in word):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        headings = [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, re.M)]
        assert anchor in headings, headings


@pytest.mark.parametrize(("folder", "text"), [(ROOT, README), (ROOT / "docs", OVERVIEW)], ids=["README", "overview"])
def test_what_it_links_to_exists(folder: Path, text: str) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert len(links) > 5
    assert [link for link in links if not (folder / link).exists()] == []


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


def _commands(text: str) -> list[str]:
    """The lines of all fenced blocks, without what stands after `#`."""
    lines = [
        line
        for block in re.findall(r"^```\w*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
    ]
    return [line if line.startswith("#") else line.split(" # ")[0].rstrip() for line in lines]


@pytest.mark.parametrize(
    ("english", "chinese"), [(README, CHINESE), (OVERVIEW, OVERVIEW_ZH)], ids=["README", "overview"]
)
def test_the_chinese_page_has_the_same_commands_links_tables_and_numbers(english: str, chinese: str) -> None:
    assert _commands(chinese) == _commands(english)
    for pattern, least in ((r"^#+ ", 2), (r"^\|", 5)):
        count = [len(re.findall(pattern, text, re.MULTILINE)) for text in (english, chinese)]
        assert count[0] == count[1] > least
    links = [
        sorted(
            link for link in re.findall(r"\]\(([^)]+)\)", text) if not re.search(r"(README|overview)(\.zh)?\.md$", link)
        )
        for text in (english, chinese)
    ]
    assert links[0] == links[1]
    for text, other in ((english, chinese), (chinese, english)):
        assert [number for number in re.findall(r"\d[\d.,:/]*\d", text) if number not in other] == []


def test_what_it_catches_is_what_the_fault_lab_measured() -> None:
    score = (ROOT / "docs" / "fault-score.md").read_text(encoding="utf-8")
    found = [
        re.search(pattern, text)
        for text in (score, OVERVIEW)
        for pattern in (
            r"(\d+) of (\d+) faults\D+(\d+) kinds",
            r"(\d+) FAIL in (\d+) runs[^(]+\(95 % upper bound ([\d.]+)",
        )
    ]
    assert all(found)
    assert [m.groups() for m in found[:2] if m] == [m.groups() for m in found[2:] if m]
