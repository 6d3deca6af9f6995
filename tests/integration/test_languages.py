"""A model of one language is gated by the cases of that language, and is green by them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator

import pytest
import yaml
from gatebook.commands.init import introduce
from gatebook.errors import BadInput
from gatebook.record.run import Run

from tests.conftest import ROOT, Done, Project, small_project

pytestmark = pytest.mark.timeout(1200)  # two runs of the smoke suite by the command
CJK = re.compile(
    "[\u1100-\u11ff\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)


@pytest.fixture(scope="module")
def english(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, list[Done]]]:
    """init --languages en, run (without kernels), accept, run: the smoke suite as it is shipped."""
    project = small_project(tmp_path_factory.mktemp("english"))
    shutil.rmtree(project.root / "params")
    shutil.copytree(ROOT / "params", project.root / "params", ignore=shutil.ignore_patterns("baselines"))
    done = [project.gatebook("init", "--base-url", server, "--name", "english", "--languages", "en")]
    profile = project.root / "params" / "english.yaml"
    said = yaml.safe_load(profile.read_text())
    said["limits"] |= {"ttft_ms": 60_000, "total_ms": 90_000}  # tests run side by side
    profile.write_text(yaml.safe_dump(said, allow_unicode=True))
    done.append(project.ask(server, profile=profile, suite="smoke"))
    done.append(project.gatebook("accept", done[-1].run, "--reason", "first run", "--by", "tests"))
    done.append(project.gatebook("run", "--profile", profile, "--suite", "smoke", timeout=900))
    yield project, done


def test_an_english_model_is_accepted_and_green(english: tuple[Project, list[Done]]) -> None:
    project, (init, first, accepted, second) = english
    assert [d.code for d in (init, first, accepted, second)] == [0, 3, 0, 0], "\n".join(map(str, english[1]))
    assert yaml.safe_load((project.root / "params" / "english.yaml").read_text())["languages"] == ["en"]
    assert not second.verdict["partial"]
    line = "languages of the profile: en; cases in others are not expected: 14 in zh"
    assert line in second.verdict["notes"] and line in second.out
    kept = json.loads((project.root / "params" / "baselines" / "english.json").read_text())
    assert kept["languages"] == ["en"]


def test_no_prompt_of_another_language_was_sent(english: tuple[Project, list[Done]]) -> None:
    run = Run(english[1][-1].run)
    bodies = [json.dumps(e.body, ensure_ascii=False) for name in run.notebooks for e in run.exchanges(name)]
    assert len(bodies) > 100 and [body for body in bodies if CJK.search(body)] == []


def test_of_another_language_it_was_never_asked(english: tuple[Project, list[Done]], server: str) -> None:
    """The baseline of an English profile says nothing of Chinese cases, and does not make them red either."""
    project, _ = english
    both = project.root / "params" / "both.yaml"
    said = yaml.safe_load((project.root / "params" / "english.yaml").read_text()) | {"name": "both"}
    said["target"]["baseline"] = "english"
    both.write_text(yaml.safe_dump(said | {"languages": ["en", "zh"]}, allow_unicode=True))
    only = ("greeting-nihao", "greeting-hello", "count-text", "count-text-en")
    done = project.gatebook("run", "--profile", both, "--suite", "smoke", "--only", ",".join(only))
    assert done.code == 0, done
    asked = {
        case for cases in json.loads((done.run / "manifest.json").read_text())["expected"].values() for case in cases
    }
    assert asked == {*only}


def of_the_package(project: Project) -> Project:
    """With all cases of the checkout, and the production profile that `init` follows."""
    shutil.copytree(ROOT / "params" / "cases", project.root / "params" / "cases", dirs_exist_ok=True)
    (project.root / "params" / "cases" / "small.yaml").unlink()
    shutil.copy(ROOT / "params" / "qwen3-4b.yaml", project.root / "params")
    return project


@pytest.mark.parametrize(
    ("languages", "said"),
    [
        ("xx", "no case is tagged 'xx'; the cases are in ar, de, en"),
        ("fr", "group 'health.canaries' is must"),
        ("en,en", "each once"),
        ("", "must be languages"),
        ("English", "must be languages"),
    ],
)
def test_languages_that_cannot_be_asked_are_named(project: Project, server: str, languages: str, said: str) -> None:
    with of_the_package(project).inside(), pytest.raises(BadInput) as refused:
        introduce(server, "other", None, None, languages=languages)
    assert said in str(refused.value) and "languages" in str(refused.value), refused
    assert not (project.root / "params" / "other.yaml").exists()


def test_languages_that_cannot_be_asked_are_one_line(project: Project, server: str) -> None:
    done = of_the_package(project).gatebook("init", "--base-url", server, "--name", "other", "--languages", "fr")
    assert done.code == 2 and len(done.err.splitlines()) == 1 and "languages" in done.err, done
    assert not (project.root / "params" / "other.yaml").exists()
