"""The shipped cases of key information and sensitivity are what the notebook says of them."""

from __future__ import annotations

import re
from collections import defaultdict

from gatebook.config.cases import Case

from tests.conftest import shipped_cases

CASES = list(shipped_cases().values())
FACTS = [case for case in CASES if case.group == "fingerprint.facts"]
PHRASINGS = [case for case in CASES if case.group == "fingerprint.sensitivity"]


def last(case: Case) -> str:
    said = case.requests()[0].messages
    assert said
    return str(said[-1]["content"])


def test_half_of_the_prompts_for_facts_are_chinese_and_the_article_s_is_one() -> None:
    chinese = [case for case in FACTS if re.search(r"[\u4e00-\u9fff]", last(case))]
    assert len(FACTS) >= 24 and len(chinese) == len(FACTS) / 2
    assert "请列出Python中常用的数据结构及其时间复杂度。" in [last(case) for case in chinese]


def test_every_prompt_for_facts_names_what_would_be_wrong_and_shows_it() -> None:
    for case in FACTS:
        facts = next(item["facts"] for item in case.expect if "facts" in item)
        assert facts["required"] and facts["forbidden"], case.id
        assert len(case.good) >= 2 and len(case.bad) >= 3, case.id


def test_twelve_tasks_or_more_in_eight_phrasings_that_expect_the_same() -> None:
    tasks: dict[str, list[Case]] = defaultdict(list)
    for case in PHRASINGS:
        assert case.id == f"phrasing-{case.tags['task']}-{case.tags['phrasing']}", case.id
        tasks[str(case.tags["task"])].append(case)
    assert len(tasks) >= 12
    for name, found in tasks.items():
        assert len(found) == 8 and len({last(case) for case in found}) == 8, name
        alike = {str((case.expect, case.options, case.finish, case.suites, case.good, case.bad)) for case in found}
        assert len(alike) == 1, name


def test_the_article_s_table_is_asked_for_in_both_words() -> None:
    for name, word in (("biaoge", "表格"), ("table", "table")):
        texts = [last(case).lower() for case in PHRASINGS if case.id.startswith(f"phrasing-{name}-")]
        marked = [text for text in texts if re.search(r"markdown|md ", text)]
        assert len(marked) == 4 == len([text for text in texts if word in text]) - 4, name


def test_the_demo_has_five_tasks_whole() -> None:
    chosen = [case.id for case in PHRASINGS if "demo" in case.suites]
    assert len(chosen) == 40 and len({i.rsplit("-", 1)[0] for i in chosen}) == 5
