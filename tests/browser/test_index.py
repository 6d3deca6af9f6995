"""The page of a run as a person sees it, in Chromium, wide and narrow: nothing sticks out, what is green is folded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from gatebook.report.archive import archive
from gatebook.report.figures import publish
from gatebook.verdict.judging import judge

from tests.unit.replies import baseline
from tests.unit.runs import bundle, hellos

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ANSWERS = {"green": {}, "red": {f"c{n}": "No, and this is why: " + "x" * 300 for n in range(12)}}


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("kind", ["green", "red", "without a baseline", "without texts"])
def test_nothing_sticks_out(kind: str, width: int, browser: Browser, tmp_path: Path) -> None:
    cases = hellos(20)
    old = baseline({c.id: "pass" for c in cases}, cases).to_json().encode()
    run = bundle(
        tmp_path / "run",
        ANSWERS.get(kind, ANSWERS["red"]),
        cases=cases,
        baseline=None if kind[:9] == "without a" else old,
    )
    file = publish(run, judge(run), tmp_path / "figures") if kind == "without texts" else run.path / "index.html"
    page = browser.new_page(viewport={"width": width, "height": 900})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(f"file://{file}")
    assert (
        said == [] and page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    )
    pictures = page.locator("svg.drop")
    assert pictures.count() == 1 and pictures.first.is_visible()
    boxes = [pictures.first.bounding_box(), page.locator("svg.drop .now").bounding_box()]
    assert all(box and box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes)
    folded = page.locator("details", has_text="in which every case passes")
    assert folded.count() == 1 and not folded.locator("table").is_visible()
    page.close()


def test_two_runs_without_texts_are_compared_by_outcome(browser: Browser, tmp_path: Path) -> None:
    for name, answers in (("run-1", {}), ("run-2", {"m": "No."})):
        archive(bundle(tmp_path / name, answers).path, tmp_path / "public", texts=False)
    page = browser.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"file://{tmp_path}/public/index.html#a=run-1&b=run-2&diff=1")
    page.locator("#cases details").first.wait_for()
    assert "newly failing" in page.locator("#cases details").first.inner_text()
    text = page.locator("#diff").inner_text()
    assert "contains_any: fail" in text and "gatebook compare" not in text and said == []
    page.locator("#kind").select_option("all")
    assert "same outcome" in page.locator("#cases").inner_text() and "Hello" not in page.locator("#cases").inner_text()
    page.close()
