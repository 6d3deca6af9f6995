"""The archive as a person uses it, in Chromium, from disk: list, filters, trends, differences, keys, dark mode, hostile answers."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from gatebook.report.archive import archive

from tests.unit.replies import MODEL, profile
from tests.unit.runs import GROUPS, bundle

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = (
    "No. <script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">"
    "</script><a href='javascript:document.title=1'>here</a> \u202egpj.exe\u2066 \x1b[31m\x00 \u2028 ' \" ` ${document.title} \\u003c"
)
LONG = (
    "Hello "
    + "".join(hashlib.sha256(bytes([n])).hexdigest() for n in range(50))
    + "".join(map(chr, range(0x5000, 0x5200)))
)
DAY = "2026-03-0{}T10:00:00+00:00"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five runs: two green, a red one with a hostile answer, one of another profile, and one with a changed byte."""
    outputs = tmp_path_factory.mktemp("archive") / "outputs"
    first = profile({**GROUPS, "g.h": "watch"}, revision="v1")
    second = first.model_copy(update={"target": first.target.model_copy(update={"revision": "v2"})})
    other = second.model_copy(update={"name": "other"})
    bundle(outputs / "run-1", by=first, created=DAY.format(1))
    bundle(outputs / "run-2", {"c1": "Hello, in other words", "c2": LONG}, by=second, created=DAY.format(2), ms=90)
    bundle(outputs / "run-3", {"m": HOSTILE, "c0": "No.", "w": ""}, by=second, created=DAY.format(3))
    bundle(outputs / "run-4", by=other, created=DAY.format(4), suite="smoke")
    damaged = bundle(outputs / "run-5", by=second, created=DAY.format(5)).path / "verdict.json"
    damaged.write_text(damaged.read_text().replace("cases asked", "cases  asked"))
    shutil.rmtree(outputs / "latest")  # an intact copy of the last one
    archive(outputs, outputs.parent / "public")
    shutil.rmtree(outputs)  # the folder stands alone
    return outputs.parent / "public"


@pytest.fixture
def page(browser: Browser, site: Path) -> Iterator[Page]:
    """The list, opened from disk; whatever the console complains about fails the test."""
    context = browser.new_context()
    opened = context.new_page()
    said: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
    opened.on("request", lambda request: request.url.startswith("file://") or said.append(f"asked for {request.url}"))
    opened.goto(f"file://{site}/index.html")
    yield opened
    context.close()
    assert said == []


def shown(page: Page) -> list[str]:
    return [row.get_attribute("data-key") or "" for row in page.locator("tr[data-key]").all() if row.is_visible()]


def pick(page: Page, a: str, b: str) -> None:
    page.get_by_label(f"A is {a}").check()
    page.get_by_label(f"B is {b}").check()


def compare(page: Page, a: str, b: str) -> None:
    pick(page, a, b)
    page.get_by_role("button", name="Compare A with B").click()
    page.locator("#cases").wait_for()


def test_the_list_is_newest_first_and_leads_to_each_run(page: Page) -> None:
    assert shown(page) == ["run-5", "run-4", "run-3", "run-2", "run-1"]
    assert page.locator("tr[data-key=run-3] .word").inner_text() == "✗ FAIL"
    page.get_by_role("link", name="run-2").click()
    page.wait_for_load_state()
    assert "PASS" in page.title() and MODEL in page.title()
    page.get_by_role("link", name="verdict.json").click()
    assert page.url.endswith("/runs/run-2/verdict.json")


def test_a_damaged_bundle_is_never_green(page: Page) -> None:
    row = page.locator("tr[data-key=run-5]")
    assert "DAMAGED" in row.inner_text() and "verdict.json was changed" in row.inner_text()
    assert "PASS" not in row.inner_text() and row.locator("a, input").count() == 0
    page.get_by_label("verdict").select_option("DAMAGED")
    assert shown(page) == ["run-5"] and page.locator("#trends").is_hidden()


def test_filters_narrow_list_and_trends_and_stay_in_the_address(page: Page, site: Path) -> None:
    page.get_by_label("revision").select_option("v2")
    assert shown(page) == ["run-4", "run-3", "run-2"]
    assert page.locator("#count").inner_text() == "3 of 5 runs"
    page.get_by_label("verdict").select_option("PASS")
    page.get_by_label("suite").select_option("full")
    assert shown(page) == ["run-2"]
    assert page.locator("#charts figure").first.locator("circle").count() == 1
    address = page.url
    page.get_by_role("button", name="all runs").click()
    page.wait_for_function("document.querySelectorAll('tr[data-key]').length === 5")
    page.goto("about:blank")
    page.goto(address)
    assert shown(page) == ["run-2"]
    page.get_by_role("button", name="all runs").click()
    page.get_by_label("text").fill("must-pass RUN-3")
    assert shown(page) == ["run-3"]
    page.get_by_label("text").fill("no such thing")
    assert shown(page) == [] and page.locator("#count").inner_text() == "0 of 5 runs"


def test_trends_show_every_run_with_its_verdict(page: Page) -> None:
    chart = page.locator("figure", has_text="cases passed")
    assert [dot.get_attribute("class") for dot in chart.locator("circle").all()] == [
        "dot PASS",
        "dot PASS",
        "dot FAIL",
        "dot PASS",
    ]
    assert (
        chart.locator("svg").get_attribute("aria-label")
        == "cases passed: 4 runs, last 100.0 %, lowest 70.0 %, highest 100.0 %"
    )
    assert chart.locator("polyline").count() == 1, "another profile is another line"
    assert (
        "dashed: other" in page.locator("#legend").inner_text()
        or "solid: other" in page.locator("#legend").inner_text()
    )
    first_token = page.locator("figure", has_text="first token, median").locator("circle title").nth(1)
    assert first_token.text_content() == "run-2: 94.5 ms, PASS, revision v2"
    assert (
        page.locator("figure", has_text="g.must").count() == 1
        and page.locator("figure", has_text="GPU memory").count() == 0
    )


def test_the_difference_of_two_runs_with_both_answers_side_by_side(page: Page) -> None:
    compare(page, "run-1", "run-2")
    assert page.locator("#kind").input_value() == "=answer", "no outcome changed, so other answers are shown"
    details = page.locator("#cases details")
    assert details.count() == 2 and "c1" in details.nth(0).inner_text()
    left, right = details.nth(0).locator(".sides > div").all()
    assert "Hello from c1" in left.inner_text() and "Hello, in other words" in right.inner_text()
    page.locator("#kind").select_option("all")
    assert details.count() == 10
    last = details.last
    assert last.locator("pre").count() == 0, "filled when it is opened"
    last.locator("summary").click()
    last.locator("pre").first.wait_for()
    page.get_by_role("button", name="all runs").first.click()
    compare(page, "run-2", "run-3")
    rows = page.locator("#diff table tbody tr").all_inner_texts()
    assert [row.split() for row in rows] == [
        ["g.h", "8", "8", "7", "1", "0"],
        ["g.must", "1", "1", "0", "1", "0"],
        ["g.watch", "1", "1", "0", "1", "0"],
    ]
    assert "newly failing (3)" in page.locator("#kind").inner_text()


def test_a_hostile_answer_is_text_and_nothing_else(page: Page) -> None:
    compare(page, "run-1", "run-3")
    said = page.locator("#cases details", has_text="g.must").locator(".sides > div").nth(1).locator("pre")
    text = said.text_content() or ""
    assert "<script>document.title = 'owned'</script><img src=x onerror=" in text and "\\u003c" in text
    assert "\\u202egpj.exe\\u2066 \\x1b[31m\\x00" in text, (
        "what turns the direction or is invisible is shown as an escape"
    )
    assert "\u202e" not in (page.locator("body").text_content() or "")
    assert said.evaluate("e => e.childElementCount") == 0
    assert page.locator("#diff img, #diff script, #diff a[href^=javascript]").count() == 0
    assert page.title() == "Gatebook archive · 5 runs"
    page.goto(page.url.split("index.html")[0] + "runs/run-3/01_x.html")
    assert "owned" not in page.title()


def test_inline_scripts_would_not_run_either(browser: Browser, site: Path) -> None:
    """The policy holds where a page slips: what gets into the document as markup stays dead."""
    context = browser.new_context()
    opened = context.new_page()
    opened.goto(f"file://{site}/index.html")
    opened.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = \"document.title = 'owned'\"; document.body.append(s); }"
    )
    assert opened.title() == "Gatebook archive · 5 runs"
    context.close()


@pytest.mark.parametrize("width", [360, 800])
def test_narrow_screens_do_not_scroll_sideways(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 700})
    fits = "document.documentElement.scrollWidth <= innerWidth"
    assert page.evaluate(fits)
    compare(page, "run-2", "run-3")
    page.locator("#kind").select_option("all")
    long = page.locator("#cases details", has_text="c2")
    long.locator("summary").click()
    long.locator("pre").first.wait_for()
    assert page.evaluate(fits), "lines of 3,000 characters wrap"


def test_dark_mode_follows_the_system(page: Page) -> None:
    colours = "() => ['backgroundColor', 'color'].map(name => getComputedStyle(document.body)[name].match(/\\d+/g).reduce((a, b) => a + +b, 0))"
    page.emulate_media(color_scheme="light")
    back, ink = page.evaluate(colours)
    assert back > 600 > 200 > ink
    page.emulate_media(color_scheme="dark")
    back, ink = page.evaluate(colours)
    assert back < 200 < 600 < ink
    fill = "getComputedStyle(document.querySelector('svg .dot.FAIL')).fill"
    dark = page.evaluate(fill)
    page.emulate_media(color_scheme="light")
    assert page.evaluate(fill) != dark, "pictures too"


def test_everything_can_be_done_with_the_keyboard(page: Page) -> None:
    focused = "() => { const e = document.activeElement; return e.name || e.id || e.textContent; }"
    order = []
    for _ in range(9):
        page.keyboard.press("Tab")
        order.append(page.evaluate(focused))
    assert order[:6] == ["state", "profile", "revision", "suite", "text", "all runs"]
    assert order[6:] == ["b", "run-4", "a"], "one stop a choice (arrows move in it), and the links between"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", "the focus is seen"
    pick(page, "run-2", "run-3")
    page.keyboard.press("Enter")
    page.locator("#cases").wait_for()
    assert page.evaluate(focused) == "diffhead"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "A"
    page.locator("#cases summary").last.focus()
    before = page.locator("#cases details").last.get_attribute("open")
    page.keyboard.press("Enter")
    assert page.locator("#cases details").last.get_attribute("open") != before
    page.keyboard.press("Escape")
    assert page.locator("#diff").is_hidden() and page.evaluate(focused) == "compare"
    page.get_by_label("text").focus()
    page.keyboard.press("Enter")
    assert page.locator("#diff").is_hidden() and len(shown(page)) == 5


def test_a_run_is_not_compared_with_itself(page: Page) -> None:
    pick(page, "run-2", "run-2")
    assert page.locator("#compare").is_disabled()
    assert page.locator("#pairsaid").inner_text() == "A and B are the same run."


def test_without_scripts_the_list_still_says_everything(browser: Browser, site: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(f"file://{site}/index.html")
    assert "DAMAGED" in opened.inner_text("tr[data-key=run-5]") and opened.locator("tr[data-key] a").count() == 4
    context.close()
