"""Opening a run: whatever is wrong with the plan is said before anything is asked or written."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from gatebook.config.profile import Profile, load_profile, profile_from
from gatebook.errors import BadInput
from gatebook.opening import LIVE_REQUESTS, LIVE_TOKENS, accepted, estimated, open_run, planned, versions
from gatebook.record.run import Run

from tests.conftest import checkout
from tests.unit.replies import baseline, case, profile

ROOT = Path(__file__).resolve().parents[2]


class Place:
    """A project with two notebooks and a case file."""

    def __init__(self, root: Path) -> None:
        self.root = checkout(root)
        for name in ("01_x", "02_y"):
            (root / "notebooks" / f"{name}.ipynb").write_text("{}")

    def cases(self, *entries: dict[str, Any], name: str = "some.yaml") -> None:
        base = {
            "notebook": "01_x",
            "group": "g.h",
            "why": "because",
            "suites": ["smoke"],
            "messages": [{"role": "user", "content": "hi"}],
        }
        (self.root / "params" / "cases" / name).write_text(yaml.safe_dump([{**base, **entry} for entry in entries]))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("GATEBOOK_ROOT", str(tmp_path / "project"))
    return Place(tmp_path / "project")


def refused(by: Profile, *words: str, suite: Any = "full", only: list[str] | None = None) -> None:
    with pytest.raises(BadInput) as caught:
        planned(by, suite, only)
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == []


def test_a_good_plan_is_every_selected_case(place: Place) -> None:
    place.cases({"id": "a"}, {"id": "b", "suites": []}, {"id": "c", "notebook": "02_y"})
    by = profile({"g.h": "must"})
    assert [c.id for c in planned(by, "full", None)[0]] == ["a", "b", "c"]
    assert [c.id for c in planned(by, "smoke", None)[0]] == ["a", "c"]
    assert [c.id for c in planned(by, "full", ["02"])[0]] == ["c"]


def test_an_unknown_check_names_its_file_even_when_the_case_is_not_selected(place: Place) -> None:
    place.cases({"id": "a"})
    place.cases({"id": "b", "suites": [], "expect": [{"jsn_schema": "same"}]}, name="other.yaml")
    refused(profile({"g.h": "must"}), "other.yaml", "'b'", "jsn_schema", "known checks", suite="smoke")


def test_wrong_check_parameters_name_their_file(place: Place) -> None:
    place.cases({"id": "b", "expect": [{"length_chars": {"mim": 3}}]})
    refused(profile({"g.h": "must"}), "some.yaml", "'b'", "length_chars", "mim", "3")


def test_a_notebook_that_does_not_exist_is_named(place: Place) -> None:
    place.cases({"id": "b", "notebook": "03_z"})
    refused(profile({"g.h": "must"}), "03_z.ipynb", "01_x, 02_y")


def test_a_case_for_the_verdict_notebook_would_never_be_asked(place: Place) -> None:
    (place.root / "notebooks" / "90_verdict.ipynb").write_text("{}")
    place.cases({"id": "a"}, {"id": "b", "notebook": "90_verdict"})
    refused(profile({"g.h": "must"}), "90_verdict")


def test_a_case_file_with_another_ending_is_not_silently_left_out(place: Place) -> None:
    place.cases({"id": "a"})
    place.cases({"id": "b"}, name="more.yml")
    try:
        assert [c.id for c in planned(profile({"g.h": "must"}), "full", None)[0]] == ["b", "a"]
    except BadInput as error:
        assert "more.yml" in str(error)


@pytest.mark.parametrize(
    ("groups", "excused", "words"),
    [
        ({"g.h": "no_worse"}, {}, ["groups.g.h", "could never be"]),
        ({"g.h": "must"}, {"g.hh": "no GPU"}, ["'excused.g.hh'", "no case and no group"]),
    ],
)
def test_a_profile_that_does_not_fit_the_cases_is_refused(
    place: Place, groups: Any, excused: Any, words: list[str]
) -> None:
    place.cases({"id": "a"})
    refused(profile(groups, excused), *words)


def test_a_waiver_for_a_case_that_does_not_exist_is_refused(place: Place) -> None:
    place.cases({"id": "a"})
    waiver = {"case": "b", "owner": "li", "reason": "x", "expires": "2027-01-31"}
    by = profile({"g.h": "must"})
    refused(Profile.model_validate({**by.model_dump(), "waivers": [waiver]}), "'waivers.b'", "no case and no group")


def test_a_group_that_is_newer_than_the_profile_is_planned_and_one_that_is_misspelt_is_not(place: Place) -> None:
    place.cases({"id": "a", "group": "structured.tools"}, {"id": "b", "group": "latency.constrained"})
    assert len(planned(profile({"structured.tools": "must", "structured.gone": "must"}), "full", None)[0]) == 2
    for wrong, right in (("structured.tool", "structured.tools"), ("structured.contarct", "structured.contract")):
        refused(profile({wrong: "must"}), f"'groups.{wrong}': no case has this group", f"{right!r} has no policy")


def test_an_excuse_may_name_a_case_a_group_or_a_group_that_is_not_selected(place: Place) -> None:
    place.cases({"id": "a"}, {"id": "b", "group": "g.i", "suites": []})
    by = profile({"g.h": "must", "g.i": "must", "g.later": "must"}, {"a": "x", "b": "x", "g.i": "x", "g.later": "x"})
    assert len(planned(by, "smoke", None)[0]) == 1


def test_languages_select_and_what_they_leave_out_is_counted(place: Place) -> None:
    place.cases({"id": "a"}, {"id": "b", "tags": {"language": "en"}}, {"id": "c", "tags": {"language": "zh"}})
    by = profile({"g.h": "must"}).model_copy(update={"languages": ["en"]})
    chosen, left_out = planned(by, "full", None)
    assert ([c.id for c in chosen], left_out) == (["a", "b"], {"zh": 1})
    refused(by, "--only 'c' matches no case of suite 'full' in en", only=["c"])


def test_languages_that_ask_nothing_of_a_group_that_must_pass_are_refused(place: Place) -> None:
    place.cases(
        {"id": "a", "tags": {"language": "en"}},
        {"id": "b", "group": "g.i", "tags": {"language": "zh"}},
        {"id": "c", "group": "g.j", "over": "g.i", "messages": [], "expect": [{"decision_flips": True}]},
    )
    for groups, lost in (({"g.i": "must"}, "g.i"), ({"g.j": "must"}, "g.j")):
        by = profile({"g.h": "must", **groups}).model_copy(update={"languages": ["en"]})
        refused(by, "key 'languages' has value en", f"group {lost!r} is must", "suite 'full'", "docs/cases.md")
    by = profile({"g.h": "must", "g.i": "watch", "g.j": "watch"}).model_copy(update={"languages": ["en"]})
    assert [c.id for c in planned(by, "full", None)[0]] == ["a"], "a case over nothing is not asked either"
    refused(by.model_copy(update={"languages": ["eng"]}), "no case is tagged 'eng'; the cases are in en, zh")


@pytest.mark.parametrize(
    ("said", "key"),
    [
        ({"languages": ["fr"]}, "key 'languages' has value fr: no case is tagged 'fr'"),
        ({"languages": ["en"]}, "key 'languages' has value en: group 'g.i' is must"),
        ({"target": {"request": {"temperature": 1}}}, "key 'target.request.temperature' has value 1: every case"),
        ({"groups": {"g.h": "no_worse"}}, "key 'groups.g.h': 'no_worse' with 1 selected cases"),
        ({"excused": {"g.zz": "x"}}, "key 'excused.g.zz': no case and no group"),
        ({"target": {"replicas": ["http://a/v1/chat/completions"]}}, "key 'target.replicas' has value"),
    ],
)
def test_a_profile_that_does_not_fit_is_named_by_its_file(place: Place, said: dict[str, Any], key: str) -> None:
    place.cases(
        {"id": "a", "options": {"temperature": 0}, "tags": {"language": "en"}},
        {"id": "b", "options": {"temperature": 0}, "group": "g.i", "tags": {"language": "zh"}},
    )
    groups = {} if "groups" in said else {"g.h": "must", "g.i": "must"}
    whole = {"groups": groups, **said, "target": {"model": "m", **said.get("target", {})}}
    refused(profile_from(whole, "params/mine.yaml", "mine"), f"params/mine.yaml, {key}")


def test_an_option_that_nobody_knows_and_a_case_says_too_is_refused(place: Place) -> None:
    place.cases({"id": "a"}, {"id": "b", "options": {"zzz_unknown": 2}}, {"id": "c", "options": {"top_k": 2}})
    by = profile({"g.h": "must"}, request={"zzz_unknown": 1})
    refused(by, "'target.request.zzz_unknown' has value 1", "case 'b'", "some.yaml", "delete one of the two")
    assert planned(by, "full", ["a"])[0], "a case that is not asked contradicts nothing"
    for fine in ({"zzz_other": 1}, {"top_k": 1}):
        assert planned(profile({"g.h": "must"}, request=fine), "full", None)[0], fine


REPLICAS = [f"http://pod-{n}:8000/v1" for n in range(3)]


@pytest.mark.parametrize("replicas", [0, 1, 3])
@pytest.mark.parametrize(
    ("thinking", "fits"),
    [({}, True), ({"thinking": "parsed"}, False), ({"thinking": "parsed", "thinking_tokens": 1000}, True)],
    ids=["off", "parsed", "parsed, shorter"],
)
@pytest.mark.parametrize("name", ["qwen3-4b", "smollm2"])
def test_live_asks_what_it_promises_or_nothing(name: str, thinking: dict[str, Any], fits: bool, replicas: int) -> None:
    by = load_profile(ROOT / "params" / f"{name}.yaml")
    target = by.target.model_validate({**by.target.model_dump(), **thinking, "replicas": REPLICAS[:replicas]})
    by = by.model_copy(update={"target": target})
    if not fits:
        said = (
            r"key 'target.thinking_tokens' has value 2048: .* promises users at most 100 and 30,000; set (\d+) or less"
        )
        with pytest.raises(BadInput, match=rf"{name}\.yaml, {said}") as caught:
            estimated(by, "live", None)
        least = int(re.findall(said, str(caught.value))[0])
        fitting = target.model_copy(update={"thinking_tokens": least})
        assert estimated(by.model_copy(update={"target": fitting}), "live", None)
        return
    plan = estimated(by, "live", None)
    total = next(line for line in plan.splitlines() if line.startswith("total")).replace(",", "").split()
    assert int(total[2]) + 27 <= LIVE_REQUESTS and int(total[3]) + int(total[4]) <= LIVE_TOKENS
    assert ("asks none of target.replicas" in plan) == bool(replicas)
    promise = f"at most {LIVE_REQUESTS} requests and {LIVE_TOKENS:,} tokens"
    assert promise in (ROOT / "docs" / "first-gate.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("own", [{"asks": [{"name": f"n{n}"} for n in range(92)]}, {"options": {"max_tokens": 30_000}}])
def test_cases_that_are_too_much_beside_users_are_named(place: Place, own: dict[str, Any]) -> None:
    place.cases({"id": "a", "suites": ["live"], "options": {"max_tokens": 8}, **own}, name="ours.yaml")
    by = profile({"g.h": "must"})
    with pytest.raises(BadInput, match=r"ours\.yaml, key 'suites' has value live: .* leave live out of some cases"):
        open_run(by, "http://x/v1", "live", None)
    assert not (place.root / "outputs").exists()
    assert planned(by, "full", None)[0], "elsewhere it may be asked"


def test_a_key_or_header_that_is_not_set_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.cases({"id": "a"})
    monkeypatch.delenv("GATE_KEY", raising=False)
    refused(profile({"g.h": "must"}, api_key_env="GATE_KEY"), "GATE_KEY", "is not set")
    refused(profile({"g.h": "must"}, headers={"X-A": "env:GATE_KEY"}), "GATE_KEY", "target.headers.X-A")


def test_a_selection_that_matches_nothing_is_refused(place: Place) -> None:
    place.cases({"id": "a"})
    refused(profile({"g.h": "must"}), "--only '09'", only=["09"])
    refused(profile({"g.h": "must"}), "suite 'demo' selects no case", suite="demo")


def test_a_bad_plan_makes_no_folder(place: Place) -> None:
    place.cases({"id": "a"})
    with pytest.raises(BadInput, match="a contract is kept or broken"):
        open_run(profile({"g.h": "must", "g.contract": "no_worse"}), "http://x/v1", "full", None)
    assert not (place.root / "outputs").exists()


def test_the_run_folder_holds_all_that_judging_needs(place: Place) -> None:
    place.cases({"id": "a"}, {"id": "b"}, {"id": "c", "notebook": "02_y"})
    kept = baseline({"a": "pass"}, [case("a")]).to_json()
    (place.root / "params" / "baselines").mkdir()
    (place.root / "params" / "baselines" / "mine.json").write_text(kept)
    run = Run(open_run(profile({"g.h": "must"}, baseline="mine"), "http://x/v1", "full", ["01"]).path)
    shutil.rmtree(place.root / "params")
    assert (run.manifest.expected, run.manifest.only, run.manifest.partial) == ({"01_x": ["a", "b"]}, ["01"], True)
    assert (run.path / "baseline.json").read_text() == kept and set(run.cases) == {"a", "b"}
    assert run.path.parent == place.root / "outputs" and run.manifest.run == run.path.name


def test_a_damaged_baseline_is_bad_input_before_the_run(place: Place) -> None:
    place.cases({"id": "a"})
    (place.root / "params" / "baselines").mkdir()
    (place.root / "params" / "baselines" / "mine.json").write_text('{"profile": 1}')
    with pytest.raises(BadInput, match="mine.json"):
        open_run(profile({"g.h": "must"}, baseline="mine"), "http://x/v1", "full", None)
    assert not (place.root / "outputs").exists()
    assert accepted(profile()) == (None, None)


def test_versions_leave_out_what_is_missing() -> None:
    found = versions(["pydantic", "no-such-package-here"])
    assert set(found) == {"python", "pydantic"} and json.dumps(found)


@pytest.mark.parametrize(
    ("env", "url"),
    [
        ({"CI_JOB_URL": "https://gitlab.example/g/p/-/jobs/7"}, "https://gitlab.example/g/p/-/jobs/7"),
        ({"CI_JOB_URL": "https://user:pass@gitlab.example/jobs/7"}, None),
        (
            {"GITHUB_SERVER_URL": "https://github.example", "GITHUB_REPOSITORY": "o/r", "GITHUB_RUN_ID": "42"},
            "https://github.example/o/r/actions/runs/42",
        ),
        ({"GITHUB_RUN_ID": "42"}, None),
        ({}, None),
    ],
)
def test_the_job_that_made_a_run_stands_in_its_manifest(
    env: dict[str, str], url: str | None, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CI_JOB_URL", "GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    place.cases({"id": "a"})
    assert open_run(profile({"g.h": "must"}), "http://x/v1", "full", None).manifest.job_url == url
