"""Code in an answer: names, string literals and the syntax tree."""

from __future__ import annotations

from typing import Any

import pytest
from gatebook.checks.code import blocks, comments, identifiers, string_literals
from gatebook.errors import BadInput
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.replies import evidence, judged

CODE = """def calculate_score(user_id: str, score: float) -> dict:
    # TODO: 修正缓存逻辑
    print("Hello")
    return {user_id: score}"""


def fenced(code: str) -> str:
    return f"Here it is:\n\n```python\n{code}\n```\nDone."


def test_names_are_read_without_keywords_and_builtins() -> None:
    assert identifiers(CODE) == ["calculate_score", "user_id", "score"]
    signature = "def calculate_score(user_id: str, score: float) -> dict:"
    assert identifiers(signature) == ["calculate_score", "user_id", "score"], "the article's snippet has no body"
    assert identifiers("class A:\n    def m(self): self.total_price = load(key=1)") == [
        "A",
        "m",
        "total_price",
        "load",
        "key",
    ]
    assert identifiers("x = '''never closed") == ["x"]


def test_comments_are_no_strings() -> None:
    assert comments('x = "# no comment"  # one\n## two\n') == ["one", "two"]


def test_literals_are_without_docstrings() -> None:
    code = 'def f(a):\n    """Says hello."""\n    return "b" + f"{a}, c" + \'a\''
    assert string_literals(code) == ["b", ", c", "a"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("no fence", ["no fence"]),
        ("```python\na = 1\n```\ntext\n~~~\nb = 2\n~~~", ["a = 1\n", "b = 2\n"]),
        ("```py\ncut off", ["cut off"]),
        ("````\n```\nx\n```\n````", ["```\nx\n```\n"]),
    ],
)
def test_blocks_are_found(text: str, found: list[str]) -> None:
    assert blocks(text) == found


@given(st.text(max_size=200))
def test_nothing_in_an_answer_raises(text: str) -> None:
    for name, raw in (("identifiers_kept", {"code": CODE}), ("literals_kept", {"code": CODE}), ("same_syntax_tree", {"code": CODE})):  # fmt: skip
        assert judged(name, raw, evidence(text)).outcome in ("pass", "fail")


@pytest.mark.parametrize(
    "text", ["x\0y", "(" * 5000, "a = " + "-" * 20000 + "1", "x = " + "1 + " * 20000 + "1", "a\n" * 20000]
)
def test_hostile_code_is_data(text: str) -> None:
    assert judged("same_syntax_tree", {"code": CODE}, evidence(fenced(text))).outcome == "fail"


# --- identifiers_kept ---


@pytest.mark.parametrize(
    "text", [fenced(CODE), "calculate_score把user_id和score合成字典", "`calculate_score(user_id, score)`"]
)
def test_names_that_stay_pass(text: str) -> None:
    result = judged("identifiers_kept", {"code": CODE}, evidence(text))
    assert (result.outcome, result.measured, result.limit, result.unit) == ("pass", 3, 3, "identifiers")


@pytest.mark.parametrize(
    ("text", "measured", "reason"),
    [
        ("calculate_score 接收 userId 和 score", 2, "1 of 3 identifiers missing: user_id (written userId)"),
        ("Calculate_Score(user_id, score)", 2, "calculate_score (written Calculate_Score)"),
        ("calculate_score(my_user_id, scores)", 1, "2 of 3 identifiers missing: user_id, score"),
        ("计算分数（用户标识，分数）", 0, "3 of 3 identifiers missing: calculate_score, user_id, score"),
    ],
)
def test_names_that_are_lost_or_changed_are_named(text: str, measured: int, reason: str) -> None:
    result = judged("identifiers_kept", {"code": CODE}, evidence(text))
    assert (result.outcome, result.measured) == ("fail", measured) and reason in result.reason


def test_a_list_of_names_will_do() -> None:
    assert judged("identifiers_kept", ["total_prix"], evidence("total_prix")).outcome == "pass"
    assert judged("identifiers_kept", ["total_prix"], evidence("total_price")).outcome == "fail"


# --- literals_kept ---


@pytest.mark.parametrize(
    "text", [fenced(CODE), fenced("print('Hello')"), 'Calling print("Hello") greets.', "print('Hello'"]
)
def test_literals_that_stay_pass(text: str) -> None:
    assert judged("literals_kept", {"code": CODE}, evidence(text)).outcome == "pass"


@pytest.mark.parametrize(
    "text", [fenced('print("你好")'), fenced('print("Hello!")'), fenced('print("hello")'), "It says Hello.", ""]
)
def test_a_changed_literal_fails_and_is_named(text: str) -> None:
    result = judged("literals_kept", {"code": CODE}, evidence(text))
    assert result.outcome == "fail" and result.reason == "1 of 1 string literals missing or changed: 'Hello'"


def test_full_width_and_blanks_are_bytes_too() -> None:
    code = 'x = "税込￥" + " ; "'
    assert judged("literals_kept", {"code": code}, evidence(fenced(code))).outcome == "pass"
    assert "'税込￥'" in judged("literals_kept", {"code": code}, evidence(fenced('x = "税込¥" + " ; "'))).reason
    assert "' ; '" in judged("literals_kept", {"code": code}, evidence(fenced('x = "税込￥" + "; "'))).reason


# --- same_syntax_tree ---


@pytest.mark.parametrize(
    "code",
    [
        CODE,
        CODE.replace("修正缓存逻辑", "correct the logic of the cache"),
        CODE.replace('"Hello"', "'Hello'"),
        CODE.replace("    # TODO: 修正缓存逻辑\n", ""),
        "# a comment more\n" + CODE.replace("\n", "\n\n"),
    ],
)
def test_comments_and_layout_are_free(code: str) -> None:
    assert judged("same_syntax_tree", {"code": CODE}, evidence(fenced(code))).outcome == "pass"
    assert judged("same_syntax_tree", {"code": CODE}, evidence(code)).outcome == "pass"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (CODE.replace("Hello", "你好"), "\"print('Hello')\" became \"print('你好')\""),
        (CODE.replace("user_id", "user"), "user: str"),
        (CODE + "\n\ncalculate_score('a', 1.0)", "'(the end)' became"),
        (CODE.rsplit("\n", 1)[0], "'return {user_id: score}' became '(the end)'"),
        (CODE.replace("def ", "deff "), "does not parse: invalid syntax in line 1"),
    ],
)
def test_a_changed_tree_fails_and_shows_the_first_change(code: str, reason: str) -> None:
    result = judged("same_syntax_tree", {"code": CODE}, evidence(fenced(code)))
    assert result.outcome == "fail" and reason in result.reason


def test_one_block_of_several_is_enough() -> None:
    assert judged("same_syntax_tree", {"code": CODE}, evidence(fenced("x = 1") + "\n" + fenced(CODE))).outcome == "pass"


def test_docstrings_are_tolerated_only_when_the_case_says_so() -> None:
    documented = CODE.replace("    # TODO", '    """Pairs the two."""\n    # TODO')
    assert judged("same_syntax_tree", {"code": CODE}, evidence(fenced(documented))).outcome == "fail"
    assert (
        judged("same_syntax_tree", {"code": CODE, "docstrings": True}, evidence(fenced(documented))).outcome == "pass"
    )
    assert judged("same_syntax_tree", {"code": CODE, "docstrings": True}, evidence(fenced("x = 1"))).outcome == "fail"


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("identifiers_kept", []),
        ("identifiers_kept", {"code": ""}),
        ("identifiers_kept", {"kode": "x"}),
        ("literals_kept", {"code": "def f(:"}),
        ("literals_kept", {"code": "x = 1"}),
        ("same_syntax_tree", {"code": "def f(:"}),
        ("same_syntax_tree", {"code": "x", "docstrings": "yes"}),
    ],
)
def test_bad_parameters_are_refused(name: str, raw: Any) -> None:
    with pytest.raises(BadInput):
        judged(name, raw, evidence("x"))


def test_code_without_a_name_has_nothing_to_keep() -> None:
    with pytest.raises(BadInput, match="has no identifier"):
        judged("identifiers_kept", {"code": "print(1)"}, evidence("x"))
