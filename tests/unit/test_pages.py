"""What a page is made of: the executed notebook inside it, the size that it keeps, and what makes it readable."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from gatebook.record.run import Run
from gatebook.report.pages import LARGEST_BYTES, TEMPLATES, index_page, notebook_page
from gatebook.verdict.judging import judge
from gatebook.verdict.verdict import Verdict

from tests.unit.replies import baseline, case, chat_body, plain, profile, ready, record, run_folder, timing
from tests.unit.runs import answered

WANTS = [{"contains_any": ["Hello"]}]
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def made(path: Path, answers: list[str], **fields: Any) -> tuple[Run, Verdict]:
    cases = [case(f"c{n}", expect=WANTS, finish="any", **fields) for n in range(len(answers))]
    run = run_folder(path / "run", cases, profile({"g.h": "must"}))
    record(run, "01_x", ready(), *(plain(chat_body(a, id=f"id-{n}"), key=f"c{n}/ask") for n, a in enumerate(answers)))
    return run, judge(run)


def code(source: str, *outputs: Any, count: int | None = 1, tags: tuple[str, ...] = ()) -> Any:
    return nbformat.v4.new_code_cell(
        source, outputs=list(outputs), execution_count=count, metadata={"tags": list(tags)}
    )


def shown(data: dict[str, str]) -> Any:
    return nbformat.v4.new_output("display_data", data)


def executed(run: Run, *cells: Any) -> None:
    nbformat.write(nbformat.v4.new_notebook(cells=list(cells)), run.path / "01_x.ipynb")


def levels(page: str) -> list[int]:
    return [int(level) for level in re.findall(r"<h([1-6])", page)]


def test_the_notebook_is_shown_with_its_code_folded_and_its_pictures_inside(tmp_path: Path) -> None:
    run, verdict = made(tmp_path, ["Hello"])
    executed(
        run,
        nbformat.v4.new_markdown_cell("# 01 · Is it there?\n\n## Ask"),
        code("book.plot()", shown({"image/png": PNG, "text/plain": "<Figure>"})),
        code("book.table()", shown({"text/html": "<table><tr><td>a number</td></tr></table>", "text/plain": "t"})),
        code("book.gate()"),
    )
    page = notebook_page(run, "01_x", verdict)
    assert "<h1>01 · Is it there?</h1>" in page
    assert '<details class="code"><summary>code <code>book.plot()</code></summary>' in page
    assert f'src="data:image/png;base64,{PNG}" alt="picture made by book.plot()"' in page
    assert "<td>a number</td>" in page and "did not run" not in page
    assert all(after - before <= 1 for before, after in zip(levels(page), levels(page)[1:], strict=False))


def test_an_output_can_neither_run_nor_hide(tmp_path: Path) -> None:
    run, verdict = made(tmp_path, ["Hello"])
    stream = nbformat.v4.new_output(
        "stream", name="stdout", text="<script>alert(1)</script>\x1b[31mred\x1b[0m \u202egpj.exe"
    )
    script = shown({"application/javascript": "alert(2)", "text/plain": "plain"})
    executed(run, code("a()", stream), code("b()", script), code("gate()"))
    page = notebook_page(run, "01_x", verdict)
    assert "<script" not in page and "alert(2)" not in page and "\u202e" not in page and "\x1b" not in page
    assert "&lt;script&gt;alert(1)" in page and "\\u202egpj.exe" in page and ">red<" in page


def test_a_notebook_that_stopped_half_way_says_where(tmp_path: Path) -> None:
    run, verdict = made(tmp_path, ["Hello"])
    error = nbformat.v4.new_output("error", ename="KeyError", evalue="'x'", traceback=["\x1b[31mKeyError\x1b[39m: 'x'"])
    banner = nbformat.v4.new_markdown_cell(
        "An Exception was encountered", metadata={"tags": ["papermill-error-cell-tag"]}
    )
    executed(run, banner, code("first()", error), code("book.gate()", count=None))
    page = notebook_page(run, "01_x", verdict)
    assert "It did not run to its end. 01_x: cell 1 of 2 raised KeyError" in page
    assert "<code>book.gate()</code> <b>did not run</b>" in page and "An Exception was" not in page


@pytest.mark.parametrize("text", ["", '{"cells": [', "[]", '{"cells": 3, "metadata": {}, "nbformat": 4}'])
def test_a_torn_notebook_file_does_not_take_the_page_with_it(tmp_path: Path, text: str) -> None:
    run, verdict = made(tmp_path, ["No."])
    (run.path / "01_x.ipynb").write_text(text)
    page = notebook_page(run, "01_x", verdict)
    assert "01_x.ipynb cannot be shown" in page and 'id="c0"' in page


@pytest.mark.parametrize(("cases", "picture_bytes"), [(3, 600_000), (80, 300_000), (200, 0)])
def test_a_page_keeps_its_size(tmp_path: Path, cases: int, picture_bytes: int) -> None:
    run, verdict = made(tmp_path, [f"{n} " + "<&长" * 4000 for n in range(cases)])
    small = shown({"text/html": "<b>a small table</b>"})
    executed(run, code("plot()", shown({"image/png": "A" * picture_bytes})), code("table()", small), code("gate()"))
    page = notebook_page(run, "01_x", verdict)
    assert len(page.encode()) <= LARGEST_BYTES
    assert 'id="c0"' in page and len(index_page(run, verdict, {"01_x": verdict}).encode()) <= LARGEST_BYTES
    assert ("bytes, too long for this page: open 01_x.ipynb" in page) == (picture_bytes > 250_000)
    assert "a small table" in page


def test_a_case_shows_what_was_asked_answered_and_measured(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", [case("c0", expect=WANTS, finish="any")], profile({"g.h": "must"}))
    sent = {"messages": [{"role": "user", "content": "这是什么？"}], "temperature": 0, "max_tokens": 32}
    times = timing(first_token_ms=238.4, end_ms=1823)
    record(run, "01_x", ready(), plain(chat_body("不知道"), key="c0/ask", sent=sent, timing=times))
    page = notebook_page(run, "01_x", judge(run))
    for text in ("这是什么？", "不知道", 'lang="zh"', "Why it is asked: a test", "temperature", "contains_any"):
        assert text in page
    assert (
        "HTTP 200 · finish_reason stop · 7 prompt tokens · 5 answer tokens · first token 238 ms · complete 1.82 s"
        in page
    )


def test_a_case_that_was_never_asked_still_shows_its_prompt(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", [case("c0", expect=WANTS)], profile({"g.h": "must"}))
    record(run, "01_x", ready())
    page = notebook_page(run, "01_x", judge(run))
    assert "never asked" in page and "Say hello." in page and "no record of ask" in page


def test_half_a_character_can_be_written(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", [case("c0", expect=WANTS, finish="any")], profile({"g.h": "must"}))
    body = json.dumps(chat_body("half a smile: @")).replace("@", "\\ud83d")
    record(run, "01_x", ready(), plain(body, key="c0/ask"))
    page = notebook_page(run, "01_x", judge(run))
    assert "half a smile: " in page and page.encode()


def test_the_overall_page_links_to_the_cases_of_the_others(tmp_path: Path) -> None:
    run, verdict = made(tmp_path, ["No.", "Hello"])
    page = notebook_page(run, "90_verdict", verdict)
    assert 'href="01_x.html#c0"' in page and "<article" not in page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(scheme: str) -> None:
    """WCAG 2.2 AA: 4.5 to 1 for text."""
    css = (TEMPLATES / "style.css").read_text()
    roots = re.findall(r":root\{(.*?)\}", css, re.DOTALL)
    colours = dict(re.findall(r"--(\w+):(#\w+)", roots[0]))
    if scheme == "dark":
        colours |= dict(re.findall(r"--(\w+):(#\w+)", roots[1]))
    inks = [
        (ink, paper)
        for ink in ("ink", "soft", "link", "pass", "fail", "error", "inc")
        for paper in ("bg", "card", "code")
    ]
    inks += [(ink, f"{word}bg") for word in ("pass", "fail", "error", "inc") for ink in ("ink", word)]
    for ink, paper in inks:
        bright, dim = sorted((luminance(colours[ink]), luminance(colours[paper])), reverse=True)
        assert (bright + 0.05) / (dim + 0.05) >= 4.5, f"{ink} on {paper}"


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def compared(path: Path, **fields: Any) -> tuple[Run, Verdict]:
    """Two compared groups, one of them shown worse, one that must pass, and one that is watched and fails."""
    groups = {"g.kept": "no_worse", "g.fell": "no_worse", "g.must": "must", "g.eyed": "watch"}
    cases = [case(f"{g[2:]}-{n}", group=g, expect=WANTS, finish="any") for g in groups for n in range(20)]
    old = baseline({c.id: "fail" if c.id == "kept-0" else "pass" for c in cases}, cases)
    bad = {"eyed-0": "No.", **{f"fell-{n}": "No." for n in range(9)}}
    run = answered(path / "run", bad, cases, profile(groups), baseline=old.to_json().encode(), **fields)
    return run, judge(run)


def test_the_index_shows_what_blocks_then_what_was_compared_and_folds_what_is_green(tmp_path: Path) -> None:
    run, verdict = compared(tmp_path)
    page = index_page(run, verdict, {"01_x": verdict})
    marks = (
        "What blocks (9)", "Compared with r0", "g.fell</th>", "g.kept</th>", "Other groups", "g.eyed</th>", "in which every case passes",
        "g.must</th>", "Notebooks", '01_x.html">',
    )  # fmt: skip
    rest = page[page.index("What blocks (9)") :]
    order = [rest.index(mark) for mark in marks[:-1]]
    assert order == sorted(order) and rest.rindex(marks[-1]) > order[-1]
    folded = re.findall(r"<details>.*?</details>", page, re.DOTALL)
    assert "g.must" in folded[0] and not any(
        name in part for part in folded for name in ("g.fell", "g.eyed", "01_x.html")
    )


def test_a_green_notebook_is_folded(tmp_path: Path) -> None:
    run, verdict = made(tmp_path, ["Hello"])
    assert verdict.verdict == "PASS"
    folded = re.findall(r"<details>.*?</details>", index_page(run, verdict, {"01_x": verdict}), re.DOTALL)
    assert "1 green notebook<" in folded[1] and "01_x.html" in folded[1]


def test_a_compared_group_has_a_picture_of_then_and_now(tmp_path: Path) -> None:
    run, verdict = compared(tmp_path)
    page = index_page(run, verdict, {})
    fell, kept = re.findall(r"<svg class=\"drop\".*?</svg>", page)
    assert 'aria-label="11 of 20 pass, 20 in the baseline; 14 or fewer block"' in fell and 'class="now FAIL"' in fell
    assert 'aria-label="20 of 20 pass, 19 in the baseline; 13 or fewer block"' in kept and 'class="now PASS"' in kept
    assert float(re.findall(r'class="now FAIL" cx="([\d.]+)"', fell)[0]) == pytest.approx(8 + 184 * 11 / 20, abs=0.1)
    assert float(re.findall(r'class="then" cx="([\d.]+)"', fell)[0]) == 192
    assert "20 → 11 of 20" in page and "6 of 20 cases (30 %)" in page


def test_without_a_baseline_the_picture_says_so(tmp_path: Path) -> None:
    cases = [case(f"c{n}", expect=WANTS, finish="any") for n in range(12)]
    run = answered(tmp_path / "run", {}, cases, profile({"g.h": "no_worse"}), baseline=None)
    page = index_page(run, judge(run), {})
    assert "Compared with nothing yet" in page and "no baseline yet" in page
    assert 'class="then"' not in page and 'aria-label="12 of 12 pass"' in page
