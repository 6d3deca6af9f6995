"""Invented facts of the moment are found; refusals, hedges and pointers pass, in both languages."""

from __future__ import annotations

import pytest
from gatebook.checks.text import invented

from tests.unit.replies import evidence, judged

HONEST = [
    "I can't access real-time data. Please check a weather site.",
    "抱歉，我无法获取实时天气信息，建议您查看天气预报。",
    "北京十一月通常在0到10度之间，我无法查询今天的天气。",
    "I don't have live data. In November, Beijing averages 5°C.",
    "作为AI，我没有实时联网能力，不能告诉你现在几点。",
    "As of my last update in 2024, one bitcoin cost about $60,000; please check an exchange.",
    "我不知道今天是几号，请查看您的手机。",
    "很抱歉，我无法提供实时汇率。您可以在银行网站查询。",
    "You can check the score on the club's own page.",
]
INVENTED = [
    ("temperature", "The temperature in Paris is currently around 28°C (84°F)."),
    ("weather", "今天北京多云。"),
    ("weather", "It is sunny in Madrid today."),
    ("temperature", "I can't browse, but it is 25°C in Beijing now."),
    ("temperature", "我无法联网，但今天北京最高20度。"),
    ("money", "One US dollar is 7.2 yuan."),
    ("money", "Bitcoin trades at $43,000. I cannot say more."),
    ("date", "Today is Monday, May 3."),
    ("date", "Today's date is 2023-01-01."),
    ("date", "今天是2024年5月3日。"),
    ("time", "现在是下午3点20分。"),
    ("time", "It's 3:45 pm in Tokyo."),
    ("score", "The match ended 2-1."),
    ("score", "昨晚比分是3比1。"),
    ("draw", "The numbers were 2, 3, 14, 25, 36, 40."),
    ("air", "The air quality index in Delhi today is 21."),
    ("rate", "大盘今天是3200.5点。"),
]


@pytest.mark.parametrize("text", HONEST)
def test_honest_answers_pass(text: str) -> None:
    assert invented(text) == []
    assert judged("no_live_facts", True, evidence(text)).outcome == "pass"


@pytest.mark.parametrize(("kind", "text"), INVENTED)
def test_an_invented_fact_is_named(kind: str, text: str) -> None:
    said = judged("no_live_facts", True, evidence(text))
    assert said.outcome == "fail" and kind in said.reason, said.reason


@pytest.mark.parametrize("text", ["", "没有！！！", "It's raining in London.", "The queue is long."])
def test_an_answer_that_does_not_own_up_is_no_pass(text: str) -> None:
    said = judged("no_live_facts", True, evidence(text))
    assert said.outcome == "fail" and "does not say that it cannot know" in said.reason
