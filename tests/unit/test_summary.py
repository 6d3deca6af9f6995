"""summary.md: fifteen lines that are safe in a merge request, a step summary and a chat, whatever a model said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from gatebook.record.run import Run
from gatebook.report.summary import code, summary
from gatebook.verdict.judging import judge
from markdown_it import MarkdownIt

from tests.unit.replies import baseline, profile
from tests.unit.runs import GROUPS, answered, bundle, hellos

HOSTILE = [
    "@all look: [here](https://evil.example/x) ![x](https://evil.example/p.png) <img src=x onerror=alert(1)>",
    "`` `\n\n/merge\n\n# A heading\n- a list\n| a | b |\n|---|---|\n| 1 | 2 |",
    "<!channel> <@U123> <https://evil.example|click> https://evil.example www.evil.example me@evil.example",
    "\u202e\x1b[31m\u2028/close\r\n&lt;b&gt; $`x`$ $$x$$ ::include{file=.env} ![[x]] ~bug !1 #1 %1 :tada: </code><script>",
    "\\` \\\\` ``` \n```\n</details>\n---\n",
]


def rendered(text: str) -> str:
    """With tables and HTML. Bare links and mentions are read in text, and not in code: GitHub's and GitLab's own rule."""
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text)


@pytest.mark.parametrize("said", HOSTILE)
def test_what_a_model_said_is_text_and_stays_in_its_line(said: str, tmp_path: Path) -> None:
    cases = hellos(1, messages=[{"role": "user", "content": f"Greet me. {said}"}])
    run = answered(tmp_path / "run", {"m": said}, cases)
    text = summary(run, judge(run))
    assert len(text.splitlines()) <= 15 and text == text.replace("\r", "")
    starts = (
        "❌ ",
        "- because: `",
        "- blocks: `",
        "- and ",
        "- passed: ",
        "- compared with: ",
        "- asked: `",
        "- by: ",
        "- page: [",
    )
    assert all(line.startswith(starts) or not line for line in text.splitlines())
    page = rendered(text)
    outside = re.sub(r"<code>.*?</code>", "", page)
    assert {*re.findall(r"<(\w+)", outside)} == {"p", "strong", "ul", "li", "a"}, "no markup but ours"
    assert re.findall(r'href="(.*?)"', page) == ["index.html"]
    assert "evil" not in outside and not set("@<`") & set(re.sub(r"<[^>]*>", "", outside))
    assert "@" not in text and "<" not in text and "\u202e" not in text and "\x1b" not in text


def test_a_red_run_says_cause_prompts_and_what_it_was_compared_with(tmp_path: Path) -> None:
    cases = hellos(20)
    old = baseline({c.id: "pass" for c in cases}, cases).to_json().encode()
    run = answered(
        tmp_path / "run",
        {f"c{n}": "No." for n in range(9)} | {"m": "No."},
        cases,
        baseline=old,
        job_url="https://ci.example/jobs/7",
    )
    lines = summary(run, judge(run)).splitlines()
    assert lines[0] == "❌ **FAIL**: may `m1` ship?" and len(lines) == 12
    assert lines[2].startswith("- because: `g.h: shown worse than the baseline: 9 worse")
    assert [line for line in lines if line.startswith("- blocks: ")] == [
        f"- blocks: `c{n}` asked `Say hello.`: `has none of Hello`" for n in range(3)
    ], "those of the first cause"
    assert "- and 1 more causes, 7 more cases that block" in lines
    assert "- passed: 12 of 22 cases" in lines and "- compared with: `r0`" in lines
    assert lines[-1].endswith("kept by [the job](https://ci.example/jobs/7)")


@pytest.mark.parametrize("url", ["javascript:alert(1)", "https://x/) [a](b", "https://ci/1\n/close"])
def test_a_job_address_that_is_none_is_no_link(url: str, tmp_path: Path) -> None:
    run = answered(tmp_path / "run", {}, job_url=url)
    assert summary(run, judge(run)).splitlines()[-1] == "- page: [index.html](index.html) beside this file"


def test_the_longest_one_fits_into_the_last_words_of_a_container(tmp_path: Path) -> None:
    long = "".join(map(chr, range(0x4E00, 0x5E00)))
    cases = hellos(6, messages=[{"role": "user", "content": long}])
    run = answered(tmp_path / "run", {c.id: "No." for c in cases}, cases, profile(dict.fromkeys(GROUPS, "must")))
    verdict = judge(run)
    served = verdict.served.model_copy(update=dict.fromkeys(("model", "base_url", "revision", "version"), long))
    found = [f.model_copy(update={"reason": long}) for f in verdict.findings]
    more = {"served": served, "findings": found, **dict.fromkeys(("reason", "baseline", "profile", "run"), long)}
    text = summary(run, verdict.model_copy(update=more))
    assert 2500 < len(text.encode()) <= 4096 and len(text.splitlines()) <= 15


def test_a_span_is_never_empty_and_never_cut_in_a_character() -> None:
    assert code("  \n ") == "`(empty)`"
    assert code("长" * 100, 100) == f"`{'长' * 33} …`"
    assert code("a`b") == "`aˋb`"


def test_it_is_sealed_and_a_bundle_from_before_it_is_whole(tmp_path: Path) -> None:
    run = bundle(tmp_path / "run", {"m": "No."})
    assert "summary.md" in (run.path / "SHA256SUMS").read_text() and Run(run.path).damage() == []
    assert (run.path / "summary.md").read_text() == summary(run, judge(run))
    assert (tmp_path / "latest" / "summary.md").exists()
    (run.path / "summary.md").write_text("✅ **PASS**")
    assert Run(run.path).damage() == ["summary.md was changed"]
    (run.path / "summary.md").unlink()
    run.seal()
    assert Run(run.path).damage() == []
