"""What we ship: every case tells a good answer from a bad one, every profile can be planned, every notebook has its shape."""

from __future__ import annotations

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import pytest
from gatebook.checks import validate
from gatebook.checks.facts import states_all
from gatebook.config.cases import Case, read_case_file
from gatebook.config.profile import SUITES, load_profile
from gatebook.config.selection import in_languages, select
from gatebook.config.sending import cap, prompt_tokens
from gatebook.errors import BadInput
from gatebook.opening import planned
from gatebook.verdict.baseline import read_baseline
from gatebook.verdict.examples import Tried, text_checks, try_examples
from gatebook.verdict.findings import contract_group
from gatebook.verdict.policy import COMPARED
from gatebook.verdict.pooled import visible_drop

from tests.conftest import ROOT, shipped_cases

CASES = list(shipped_cases().values())
PROFILES = sorted((ROOT / "params").glob("*.yaml"))
CJK = re.compile(
    "[\u1100-\u11ff\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)
FOR_PEOPLE = ROOT / "notebooks" / "00_explore.ipynb"
"""No part of any run: no parameters, no gate."""
NOTEBOOKS = [path for path in sorted((ROOT / "notebooks").glob("*.ipynb")) if path != FOR_PEOPLE]


@cache
def examples() -> list[tuple[Case, Tried]]:
    """Every good and bad answer of every case, judged."""
    return [(case, tried) for case in CASES for tried in try_examples(case)]


def test_there_are_cases_with_answers_to_try_them_on() -> None:
    kinds = Counter(tried.kind for _, tried in examples())
    assert len(CASES) > 100 and kinds["good"] > 100 and kinds["bad"] > 100


def test_every_good_answer_passes() -> None:
    assert [(case.id, t.text, t.said) for case, t in examples() if t.kind == "good" and t.outcome != "pass"] == []


def test_golden_answers_and_paraphrases_state_the_facts() -> None:
    known = [(case, text) for case in CASES for text in (*case.golden, *case.paraphrases)]
    assert len(known) > 100
    assert [(case.id, text) for case, text in known if not states_all(case, text)] == []


def test_the_scenarios_are_as_many_as_were_asked_for() -> None:
    count = Counter(case.id.split("-")[0] for case in CASES if case.notebook == "06_scenarios")
    wanted = {"ticket": 12, "ask": 8, "polish": 10, "todos": 12}
    assert sum(count.values()) >= 40 and all(count[scenario] >= n for scenario, n in wanted.items())
    assert all(any(ask.follows for ask in c.asks) for c in CASES if c.group == "scenarios.questions")


def test_every_bad_answer_fails() -> None:
    assert [(case.id, t.text, t.said) for case, t in examples() if t.kind == "bad" and t.outcome != "fail"] == []


def test_every_case_that_judges_a_text_shows_a_good_and_a_bad_one() -> None:
    assert [case.id for case in CASES if text_checks(case) and not (case.good and case.bad)] == []


def test_every_case_is_valid_says_why_and_has_an_id_of_its_own() -> None:
    for case in CASES:
        validate(case)
        assert len(case.why) >= 10, case.id
    assert Counter(case.id for case in CASES).most_common(1)[0][1] == 1


def test_every_case_judges_something() -> None:
    """A case without an expectation and without a finish_reason would leave its group with nothing to say."""
    assert [
        c.id for c in CASES if not c.expect and not any(a.path is None and a.finish != "any" for a in c.requests())
    ] == []


def test_no_two_cases_ask_the_same() -> None:
    """Cases that only read the probes ask alike; a chat that is asked twice is one case too many."""
    asked = Counter((c.notebook, c.prompt_hash) for c in CASES if any(ask.path is None for ask in c.requests()))
    assert [c.id for c in CASES if asked[c.notebook, c.prompt_hash] > 1] == []


def test_a_group_belongs_to_one_notebook() -> None:
    books: dict[str, set[str]] = {}
    for case in CASES:
        books.setdefault(case.group, set()).add(case.notebook)
    assert {group: found for group, found in books.items() if len(found) > 1} == {}


def test_the_labelled_set_has_sixty_items_balanced_over_three_classes() -> None:
    labels = Counter(
        item["json_value"]["equals"] for c in CASES if c.group == "structured.classification"
        for item in c.expect if item.get("json_value", {}).get("path") == "$.type"
    )  # fmt: skip
    assert len(labels) == 3 and sum(labels.values()) >= 60
    assert max(labels.values()) - min(labels.values()) <= 2


KEYWORDS = ("type", "enum", "const", "pattern", "minLength", "maxLength", "minimum", "maximum", "multipleOf", "minItems", "maxItems", "uniqueItems", "required", "additionalProperties", "anyOf", "$ref", "if/then", "nested object")  # fmt: skip


def test_the_keyword_matrix_is_complete() -> None:
    named = {item["keyword"] for c in CASES for item in c.expect if "keyword" in item}
    assert [keyword for keyword in KEYWORDS if keyword not in named] == []


def test_keywords_may_be_refused_and_what_every_engine_enforces_is_held_apart() -> None:
    """vLLM's `auto` refuses uniqueItems and ignores multipleOf, if/then, and maxLength beside pattern; llama.cpp has its own list."""
    matrix = [c for c in CASES if any("keyword" in item for item in c.expect)]
    assert all(c.negative and c.group == "structured.keywords" for c in matrix)
    enforced = [a.options["response_format"]["json_schema"]["schema"] for c in CASES if c.group == "structured.enforced" for a in c.requests()]  # fmt: skip
    used = {word for schema in enforced for part in (schema, *schema["properties"].values()) for word in part}
    both = {"type", "properties", "required", "additionalProperties", "enum", "maxLength", "minimum", "maximum"}
    assert used <= both


FORMATS = {"json_schema": "json_schema", "json_object": "json_object"}


def met(case: Case) -> set[str]:
    """What it says that it needs. Prompt tokens are compared whatever becomes of the tools, as long as they are not refused."""
    only_counted = "tools_accepted" in case.needs and all("prompt_tokens" in item for item in case.expect)
    return {*case.needs} | ({"tools"} if only_counted else set())


def wanted_features(case: Case) -> set[str]:
    """What the requests of a case use beyond a plain chat of texts."""
    found: set[str] = set()
    for ask in (ask for ask in case.requests() if ask.path is None):
        options, messages = ask.options, ask.messages or []
        found |= {name for name in ("tools", "logprobs", "n", "stop", "seed", "max_completion_tokens") if options.get(name)}  # fmt: skip
        found |= {"tool_choice"} if isinstance(options.get("tool_choice"), dict) else set()
        found |= {FORMATS[options["response_format"]["type"]]} if "response_format" in options else set()
        parts = [part for m in messages if isinstance(m.get("content"), list) for part in m["content"]]
        found |= {"text_parts" if all(p["type"] == "text" for p in parts) else "refuses_media"} if parts else set()
        found |= {"tool_history"} if any(m.get("tool_calls") or m["role"] == "tool" for m in messages) else set()
        found |= {"second_system"} if sum(m["role"] == "system" for m in messages) > 1 else set()
    return found


def test_every_case_names_what_it_needs_of_the_api() -> None:
    """What only has to be lived through needs nothing; what must be refused needs a server that refuses."""
    checks = {c.id: {name for item in c.expect for name in item} for c in CASES}
    lived = [c for c in CASES if "survives" in checks[c.id]]
    assert [c.id for c in lived if c.needs] == []
    refused = [c for c in CASES if c.id.startswith("wrong-") and "refused" in checks[c.id]]
    assert {n for c in refused for n in c.needs} == {"refuses_malformed", "refuses_parameters"}
    assert all(len(c.needs) == 1 for c in refused)
    texts_do = [
        c for c in CASES if "default_samples" in checks[c.id]
    ]  # without logprobs, greedy or not, texts are compared
    assert {n for c in texts_do for n in c.needs} == set()
    others = [c for c in CASES if c not in lived and c not in refused and c not in texts_do]
    assert [(c.id, missing) for c in others if (missing := wanted_features(c) - met(c))] == []
    by_check = {"distinct_answers": "default_sampling", "model_listed": "lists_models", "tools_called": "parallel_tools", "schema_ms": "json_schema"}  # fmt: skip
    assert [c.id for c in CASES for check, need in by_check.items() if check in checks[c.id] and need not in c.needs] == []  # fmt: skip


def test_half_of_the_schema_requests_are_plain() -> None:
    """Servers constrain plain and streamed answers on two paths; where times are measured, all are streamed."""
    for suite in ("demo", "smoke", "integration", "full"):
        cases = [c for c in select(CASES, suite, None) if not (c.load or c.samples)]
        asks = [a for c in cases for a in c.requests() if "response_format" in a.options and "survives" not in str(c.expect)]  # fmt: skip
        plain = sum(not ask.stream for ask in asks)
        assert len(asks) >= 10 and 0.4 <= plain / len(asks) <= 0.6, (suite, plain, len(asks))


def test_every_negative_case_is_followed_by_a_plain_request() -> None:
    assert [c.id for c in CASES if c.negative and not c.canary] == []


@pytest.mark.parametrize("file", PROFILES, ids=lambda file: file.stem)
def test_every_group_has_a_policy_and_every_policy_a_group(file: Path) -> None:
    shipped = load_profile(file)
    groups = {case.group for case in CASES} | {contract_group(case.group) for case in CASES}
    assert set(shipped.groups) == groups


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("file", PROFILES, ids=lambda file: file.stem)
def test_every_suite_of_every_profile_can_be_planned(file: Path, suite: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the demo, which is the embedded model's: of what that model only shows, it asks too few to compare them."""
    monkeypatch.setenv("GATEBOOK_ROOT", str(ROOT))
    shipped = load_profile(file)
    if suite == "demo" != shipped.target.default_suite:
        with pytest.raises(BadInput, match="could never be shown worse .* choose a larger suite"):
            planned(shipped, suite, None)
        return
    cases, _ = planned(shipped, suite, None)
    assert {case.notebook for case in cases} >= {"01_health"}


def test_the_demo_sees_a_drop_of_six_per_cent() -> None:
    """Over all cases that are compared with what the embedded model passed when it was accepted, and golden answers beside them."""
    shipped, file = load_profile(ROOT / "params" / "smollm2.yaml"), ROOT / "params" / "baselines" / "smollm2.json"
    accepted = read_baseline(file.read_bytes(), str(file))
    assert accepted
    demo = select(CASES, "demo", None)
    outcomes = [accepted.cases[c.id].outcome for c in demo if shipped.policy(c.group).policy in COMPARED]
    passed, drop = outcomes.count("pass"), visible_drop(outcomes.count("pass"), len(outcomes), shipped.flip_rate)
    assert passed >= 100 and drop and drop / passed <= 0.06
    assert 20 <= sum(c.scored for c in demo) <= 40


def test_suites_contain_each_other() -> None:
    chosen = {suite: {c.id for c in select(CASES, suite, None)} for suite in SUITES}
    assert chosen["smoke"] <= chosen["integration"] <= chosen["scenario"] <= chosen["full"]
    assert chosen["demo"] <= chosen["full"] == {c.id for c in CASES}


@pytest.mark.parametrize("file", PROFILES, ids=lambda file: file.stem)
def test_every_group_that_must_pass_asks_in_english_and_in_chinese(file: Path) -> None:
    """Or is pure protocol, which is asked of everybody."""
    shipped = load_profile(file)
    must = {case.group for case in CASES if shipped.policy(case.group).policy == "must"}
    for suite in ("live", "smoke", "integration", "scenario", "full"):
        asked = {case.group for case in select(CASES, suite, None)} & must
        for language in ("en", "zh"):
            assert asked <= {case.group for case in select(CASES, suite, None, [language])}, (suite, language)
    tags = {group: {c.tags["language"] for c in CASES if c.group == group and "language" in c.tags} for group in must}
    alone = {"boundaries.media"}  # pictures in English ask no language of anybody
    assert {group for group, has in tags.items() if has and not has >= {"en", "zh"}} <= alone


def test_an_english_model_is_shown_no_other_script_and_a_chinese_one_loses_nothing() -> None:
    def shown(case: Case) -> str:
        document = case.document.language if case.document else ""
        return f"{document} {[[ask.messages, ask.options] for ask in case.requests()]}"

    foreign = [c.id for c in in_languages(CASES, ["en"]) if CJK.search(shown(c)) or shown(c).startswith("zh")]
    assert foreign == []
    chinese = {c.id for c in CASES if c.tags.get("language") == "zh"}
    assert len(chinese) > 200 and chinese <= {c.id for c in in_languages(CASES, ["zh"])}


def test_what_is_asked_beside_users_is_small_harmless_and_ends() -> None:
    live = select(CASES, "live", None)
    asks = [ask for case in live for ask in case.requests() if ask.path is None]
    assert all("max_tokens" in ask.options or "max_completion_tokens" in ask.options for ask in asks)
    spent = sum(prompt_tokens(ask.messages or [], ask.options) + cap(ask.options) for ask in asks)
    assert len(asks) + sum(case.canary for case in live) <= 70 and spent <= 10_000, "probes and greetings come on top"
    assert not [c.id for c in live if c.load or c.samples or c.document or c.golden or c.negative]
    assert not {"boundaries.hostile", "load.graded", "latency.chat"} & {case.group for case in live}
    assert not [c.id for c in live for e in c.expect if {"ttft_ms", "total_ms", "schema_ms"} & e.keys()]


def test_the_article_s_limits_hold_in_production() -> None:
    shipped = load_profile(ROOT / "params" / "qwen3-4b.yaml")
    assert (shipped.target.model, shipped.limits.total_ms) == ("Qwen/Qwen3-4B-Instruct-2507", 800)
    assert shipped.policy("health.latency").policy == "must"


# --- notebooks ---

SHAPE = {
    "parameters": ["parameters"],
    "open": ["nbval-check-output"],
    "collect": ["collect", "nbval-skip"],
    "replies": ["nbval-check-output"],
    "examples": ["nbval-check-output"],
    "verdict": ["nbval-check-output"],
    "gate": [],
}
"""DESIGN §5: the code cells that every notebook has, in their order, with their tags."""
ASK_NOTHING = ("90_verdict",)
LONGEST_CELL = 25


def code_cells(path: Path) -> list[Any]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_the_shipped_notebooks_are_those_that_cases_name() -> None:
    names = {path.stem for path in NOTEBOOKS}
    assert names >= {case.notebook for case in CASES} | {"90_verdict"}


def test_the_cells_stand_in_their_order_with_their_tags(notebook: Path) -> None:
    cells = code_cells(notebook)
    known = [(cell.id, cell.metadata.get("tags", [])) for cell in cells if cell.id in SHAPE]
    left_out = ("collect", "replies", "examples") if notebook.stem in ASK_NOTHING else ()
    assert known == [(name, tags) for name, tags in SHAPE.items() if name not in left_out]
    more = [cell.metadata.get("tags") for cell in cells if cell.id not in SHAPE]
    assert all(tags in (["nbval-check-output"], ["nbval-ignore-output"]) for tags in more)


def test_it_begins_with_its_question_and_what_pass_means(notebook: Path) -> None:
    first = nbformat.read(notebook, as_version=4).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.splitlines()[0].endswith("?") and "**PASS means:**" in first.source


def test_its_parameters_are_a_profile_and_a_run_folder(notebook: Path) -> None:
    tree = ast.parse(code_cells(notebook)[0].source)
    given = {target.id: ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign) for target in node.targets if isinstance(target, ast.Name)}  # fmt: skip
    assert given == {"profile": "", "run_dir": ""}


def test_it_opens_the_run_of_its_own_name(notebook: Path) -> None:
    assert f'run = open_run("{notebook.stem}", globals())\nrun.settings()' in code_cells(notebook)[1].source


def test_only_collect_asks_and_only_the_last_cell_is_the_gate(notebook: Path) -> None:
    cells = code_cells(notebook)
    asking = [] if notebook.stem in ASK_NOTHING else ["collect"]
    assert [cell.id for cell in cells if "collect(" in cell.source] == asking
    assert [cell.source for cell in cells if "gate(" in cell.source] == ["run.gate()"]
    assert cells[-1].source == "run.gate()"


def test_it_ends_with_three_edits_to_try(notebook: Path) -> None:
    last = nbformat.read(notebook, as_version=4).cells[-1]
    assert last.cell_type == "markdown" and last.source.startswith("## Try it")
    assert sum(line.startswith("* ") for line in last.source.splitlines()) == 3


@pytest.mark.parametrize("notebook", [FOR_PEOPLE, *NOTEBOOKS], ids=lambda path: path.stem)
def test_a_cell_is_one_step_that_can_be_read(notebook: Path) -> None:
    assert [cell.id for cell in code_cells(notebook) if len(cell.source.splitlines()) > LONGEST_CELL] == []


@pytest.mark.parametrize("notebook", [FOR_PEOPLE, *NOTEBOOKS], ids=lambda path: path.stem)
def test_nothing_that_was_run_is_committed(notebook: Path) -> None:
    nbformat.validate(nbformat.read(notebook, as_version=4))
    for cell in code_cells(notebook):
        assert (cell.outputs, cell.execution_count) == ([], None), cell.id
    assert set(nbformat.read(notebook, as_version=4).metadata) <= {"kernelspec", "language_info"}


def test_the_notebook_for_people_gates_nothing_and_saves_nothing_when_it_is_run() -> None:
    source = "\n".join(cell.source for cell in code_cells(FOR_PEOPLE))
    assert "Explorer()" in source
    assert [word for word in ("Workbook", "gate(", "collect(", ".save(") if word in source] == []


def test_case_files_are_read_whole_and_in_order() -> None:
    files = sorted((ROOT / "params" / "cases").iterdir())
    assert {file.suffix for file in files} == {".yaml"}
    assert [c.id for file in files for c in read_case_file(file)] == [c.id for c in CASES]
