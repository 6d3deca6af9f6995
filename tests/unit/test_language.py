"""Which language a prose is in, and the check of it; the detector's accuracy on labelled lines."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import pytest
from gatebook.checks.language_detection import Language, labelled_lines, prose, script_share, tell
from gatebook.errors import BadInput
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.replies import evidence, judged


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("先 ```python\nprint('x')\n``` 后", "先 后"),
        ("先 ```\nnever closed", "先"),
        ("调用 `user_id` 函数", "调用 函数"),
        ("把user_id传给load_profile(user_id)即可", "把 传给 即可"),
        ("见 https://example.org/a?b=1 和 src/main.py", "见 和"),
        ("HttpClient 与 retryCount 与 math.sqrt", "与 与"),
        ("2026-03-01T08:15:02Z ERROR E1042 超时", "ERROR 超时"),
        ("def f(x):\n    return x + 1\n# 注释\n说明文字", "说明文字"),
    ],
)
def test_prose_is_what_is_left_without_code(text: str, left: str) -> None:
    assert prose(text) == left


def test_words_that_stay_are_taken_out_as_whole_words_only() -> None:
    assert prose("score 和 scores，str", ["score", "str"]) == "和 scores，"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("这个函数计算分数，然后返回给调用者。", "zh"),
        ("這個函數計算分數，然後回傳給呼叫者的程式。", "zh"),
        ("呢個函數會計埋個分數，然後俾返你。", "yue"),
        ("この関数は点数を計算して返します。", "ja"),
        ("Cette fonction calcule le score et le renvoie.", "fr"),
        ("This function calculates the score and returns it.", "en"),
        ("Diese Funktion berechnet die Punktzahl und gibt sie zurück.", "other"),
        ("이 함수는 점수를 계산하고 반환합니다.", "other"),
        ("Эта функция вычисляет оценку и возвращает её.", "other"),
        ("「リファクタリング」指的是重构代码，不改变它的行为。", "zh"),
        ("The message 登录失败 means that the login did not succeed.", "en"),
        ("先把 response 存进 cache，再返回给 client 就行了。", "zh"),
        ("OK", "undetermined"),
        ("好的，收到", "undetermined"),
        ("", "undetermined"),
        ("```python\ndef calculate_score(user_id): ...\n```", "undetermined"),
        ("12345 67890 !!!! ----", "undetermined"),
    ],
)
def test_the_language_is_told(text: str, language: str) -> None:
    assert tell(text) == language


def test_code_does_not_change_what_is_told() -> None:
    code = "```python\ndef total(prices):\n    # somme de tous les prix du panier\n    return sum(prices)\n```"
    assert tell(f"这个函数返回所有价格的总和。\n{code}") == "zh"
    assert tell(f"{code}\nThis function returns the sum of all prices.") == "en"


def test_the_share_is_that_of_letters_in_the_script() -> None:
    assert script_share("中文字符 abcd", "zh") == 0.5
    assert script_share("かな漢字 abcd", "ja") == 0.5
    assert script_share("かな漢字", "zh") == 0.5
    assert script_share("été", "fr") == 1.0
    assert script_share("123", "en") == 0.0
    assert script_share("分数 score", "zh", ["score"]) == 1.0


@given(st.text(max_size=80))
def test_a_share_is_a_ratio_whatever_the_text(text: str) -> None:
    assert all(0.0 <= script_share(text, language) <= 1.0 for language in get_args(Language))


def test_the_detector_is_hardly_ever_wrong_on_labelled_lines() -> None:
    """Wrong, not undetermined: only a wrong language fails a case."""
    lines = labelled_lines()
    assert set(lines) == set(get_args(Language)) and min(map(len, lines.values())) >= 40
    assert Counter(line for found in lines.values() for line in found).most_common(1)[0][1] == 1
    for language, found in lines.items():
        told = Counter(tell(line) for line in found)
        assert told[language] >= 0.8 * len(found), (language, told)
        assert len(found) - told[language] - told["undetermined"] <= 0.025 * len(found), (language, told)


def test_an_answer_in_the_asked_language_passes() -> None:
    result = judged("language", {"is": "zh"}, evidence("函数 `f` 返回两个数当中较大的那一个。"))
    assert (result.outcome, result.measured, result.limit, result.unit) == ("pass", 1.0, 0.8, "share")


@pytest.mark.parametrize(
    ("asked", "text", "reason"),
    [
        ({"is": "zh"}, "The function returns the larger value.", "0% of the letters of the prose are in the script of zh, 80% expected; it reads as en"),
        ({"is": "zh"}, "二つの値のうち大きいほうを返す関数です。", "script of zh"),
        ({"is": "yue"}, "这个函数返回两个值当中较大的那一个。", "yue was asked, the prose read as zh"),
        ({"is": "zh"}, "呢個函數會俾返大嗰個數你，唔使諗。", "zh was asked, the prose read as yue"),
        ({"is": "fr"}, "The function returns the larger of the two values.", "fr was asked, the prose read as en"),
        ({"is": "fr"}, "La función devuelve el mayor de los dos valores de la lista.", "fr was asked, the prose read as other"),
        ({"is": "zh"}, "```python\nx = 1\n```", "no prose to judge"),
        ({"is": "en", "where": "comments"}, "```python\nx = 1\n```", "no comments to judge"),
        ({"is": "en", "where": "comments"}, "```python\n# 返回较大的值\nx = 1\n```", "letters of the comments"),
    ],
)  # fmt: skip
def test_another_language_fails_and_is_named(asked: dict[str, str], text: str, reason: str) -> None:
    result = judged("language", asked, evidence(text))
    assert result.outcome == "fail" and reason in result.reason


@pytest.mark.parametrize("text", ["好的。", "重啟伺服器之後再試，連線逾時未有改善", "请稍候"])
def test_undetermined_never_fails(text: str) -> None:
    assert judged("language", {"is": "yue"}, evidence(text)).outcome == "pass"


def test_names_that_stay_do_not_lower_the_share() -> None:
    text = "score 乘以 weight 得到 total 的数值。"
    assert judged("language", {"is": "zh"}, evidence(text)).outcome == "fail"
    assert judged("language", {"is": "zh", "besides": ["score", "weight", "total"]}, evidence(text)).outcome == "pass"


def test_comments_are_judged_apart_from_prose() -> None:
    text = "这是翻译后的代码：\n```python\n# returns the larger of the two values\nx = max(a, b)\n```"
    assert judged("language", {"is": "en", "where": "comments"}, evidence(text)).outcome == "pass"
    assert judged("language", {"is": "zh"}, evidence(text)).outcome == "pass"


@pytest.mark.parametrize(
    "raw", [{"is": "de"}, {}, {"is": "zh", "share": 0}, {"is": "zh", "share": 1.5}, {"is": "zh", "x": 1}]
)
def test_bad_parameters_are_refused(raw: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        judged("language", raw, evidence("x"))
