"""Cantonese told from Mandarin, and a rule's rate over the turns."""

from __future__ import annotations

import pytest
from gatebook.checks.language_detection import is_cantonese

from tests.unit.replies import evidence, judged


@pytest.mark.parametrize(
    ("text", "cantonese"),
    [
        ("你可以先睇下把遮結唔結實，仲要揀啱大細嘅。", True),
        ("因為海水入面有好多鹽，所以係咸嘅。", True),
        ("瞓唔着嘅话，可以饮杯热牛奶，唔好睇手机。", True),
        ("佢哋而家喺邊度？", True),
        ("因为海水里有很多盐，所以是咸的。", False),
        ("睡不着的时候，你可以喝一杯热牛奶，不要看手机。", False),
        ("粤语里“唔该”的意思是谢谢，它在香港很常用，你们可以这么说。", False),
        ("没有什么特别的。", False),
        ("Leaves fall in autumn.", False),
        ("", False),
        ("苹果、香蕉、橙", False),
    ],
)
def test_cantonese_is_told_from_mandarin(text: str, cantonese: bool) -> None:
    assert is_cantonese(text) is cantonese


YUE, ZH = "海水好鹹，係因為有好多鹽嘅。", "海水里有很多盐，所以是咸的。"


@pytest.mark.parametrize(
    ("turns", "outcome", "reason"),
    [
        ([YUE] * 4, "pass", "kept in 4 of 4 turns"),
        ([YUE, YUE, YUE, ZH], "pass", "kept in 3 of 4 turns, lost in d"),
        ([YUE, ZH, ZH, ZH], "fail", "kept in 1 of 4 turns, lost in b, c, d"),
    ],
)
def test_the_rate_of_a_rule_over_the_turns(turns: list[str], outcome: str, reason: str) -> None:
    said = judged("rule_kept", {"language": "cantonese", "min_rate": 0.75}, evidence(*turns))
    assert (said.outcome, said.reason) == (outcome, reason)


@pytest.mark.parametrize(
    ("rule", "text", "outcome"),
    [
        ({"ends": "DONE"}, "Trees save water. DONE", "pass"),
        ({"ends": "DONE"}, "Trees save water. **Done.**\n", "pass"),
        ({"ends": "DONE"}, "DONE is what I say.", "fail"),
        ({"ends": "DONE"}, "", "fail"),
        ({"begins": "NOTE"}, "Note: trees save water.", "pass"),
        ({"begins": "NOTE"}, "A note: trees save water.", "fail"),
    ],
)
def test_a_word_at_the_beginning_or_the_end(rule: dict[str, str], text: str, outcome: str) -> None:
    assert judged("rule_kept", {**rule, "min_rate": 1}, evidence(text)).outcome == outcome


def test_a_rule_is_one_rule() -> None:
    from gatebook.errors import BadInput

    with pytest.raises(BadInput, match="exactly one"):
        judged("rule_kept", {"ends": "x", "begins": "y", "min_rate": 0.5}, evidence("z"))
