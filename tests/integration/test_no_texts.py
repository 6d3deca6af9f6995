"""Real runs, published without texts: no prompt and no answer is in any file or line of it."""

from __future__ import annotations

from pathlib import Path

from gatebook.record.run import Run

from tests.conftest import Done, Project
from tests.leaks import leaks


def published(project: Project, run: Path, code: int) -> None:
    """Nothing of it is in report, archive or terminal, and the bundle stays as it was."""
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    bundle = Run(run)
    assert len(leaks(bundle, run)) > 4, "what is looked for is found where it is"
    told = project.gatebook("report", run, "--no-texts", "--out", project.root / "figures")
    as_json = project.gatebook("report", run, "--no-texts", "--out", project.root / "figures", "--json")
    kept = project.gatebook("archive", run, "--to", project.root / "public", "--no-texts")
    assert (told.code, as_json.code, kept.code) == (code, code, 0), (told, as_json, kept)
    said = [done.out + done.err for done in (told, as_json, kept)]
    assert leaks(bundle, project.root / "figures", *said) == {}
    assert leaks(bundle, project.root / "public") == {}
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_a_green_run(project: Project, green: Done) -> None:
    published(project, green.run, 0)


def test_a_red_run_whose_reasons_quote_answers(project: Project, server: str) -> None:
    quoting = [
        {
            "id": name, "notebook": "02_structured_output", "group": "structured.quoting", "suites": ["smoke"], "why": "its reason quotes the answer",
            "messages": [{"role": "user", "content": asked}], "options": {"temperature": 0, "max_tokens": 60}, "expect": [wants], "finish": "any",
        }
        for name, asked, wants in (
            ("as-json", "Please write three short sentences about the sea and its colours.", {"json_schema": {"type": "object"}}),
            ("equal", "Please tell me in a sentence what the moon is made of.", {"regex": "^nothing of the kind$"}),
            ("chinese", "请用一句话介绍一下北京这座城市的历史。", {"json_schema": {"type": "object"}}),
        )
    ]  # fmt: skip
    project.write_cases(quoting)
    project.edit_profile(groups={"structured.quoting": "must"})
    done = project.ask(server)
    assert done.code == 1, done
    published(project, done.run, 1)
