"""Log lines in an answer: stamps, levels, sources and codes."""

from __future__ import annotations

import pytest
from gatebook.checks.code import fixed
from gatebook.errors import BadInput

from tests.unit.replies import evidence, judged

LOG = """2026-03-01 08:15:02 ERROR [PaymentService] E1042 连接超时 order=88213
2026-03-01T08:15:07.250Z WARN retry 2/5 from 10.0.0.7"""


def test_what_a_machine_reads_is_fixed() -> None:
    first, second = LOG.splitlines()
    assert fixed(first) == ["2026-03-01 08:15:02", "ERROR", "[PaymentService]", "E1042", "order=88213"]
    assert fixed(second) == ["2026-03-01T08:15:07.250Z", "WARN", "2/5", "10.0.0.7"]
    assert fixed("OK: GET was slow") == []


@pytest.mark.parametrize(
    "text",
    [
        LOG,
        f"Translated:\n```\n{LOG.replace('连接超时', 'connection timed out')}\n```",
        "\n\n".join(f"- {line}" for line in reversed(LOG.splitlines())),
    ],
)
def test_lines_that_stay_pass(text: str) -> None:
    result = judged("lines_kept", {"log": LOG}, evidence(text))
    assert (result.outcome, result.measured, result.limit, result.unit) == ("pass", 2, 2, "lines")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("08:15:02", "08:15:20", "1 of 2 log lines changed: line 1: 2026-03-01 08:15:02 missing"),
        ("ERROR", "错误", "line 1: ERROR missing"),
        ("E1042", "E-1042", "line 1: E1042 missing"),
        ("88213", "8821", "line 1: order=88213 missing"),
        ("88213", "882134", "line 1: order=88213 missing"),
        ("[PaymentService]", "[支付服务]", "line 1: [PaymentService] missing"),
        ("08:15:07.250Z", "08:15:07Z", "line 2: 2026-03-01T08:15:07.250Z missing"),
        ("ERROR [PaymentService]", "[PaymentService] ERROR", "line 1: stamp and codes stand in another order"),
        (" E1042", "\nE1042", "line 1:"),
    ],
)
def test_a_changed_line_fails_and_says_what_is_missing(old: str, new: str, reason: str) -> None:
    result = judged("lines_kept", {"log": LOG}, evidence(LOG.replace(old, new)))
    assert (result.outcome, result.measured) == ("fail", 1) and reason in result.reason


def test_stamps_that_moved_to_another_line_fail() -> None:
    swapped = LOG.replace("08:15:02", "@").replace("08:15:07.250", "08:15:02").replace("@", "08:15:07.250")
    assert "2 of 2 log lines changed" in judged("lines_kept", {"log": LOG}, evidence(swapped)).reason


def test_an_empty_answer_keeps_nothing() -> None:
    assert judged("lines_kept", {"log": LOG}, evidence("")).measured == 0


@pytest.mark.parametrize("log", ["", "no stamp here", LOG + "\nnothing fixed"])
def test_a_log_with_nothing_to_keep_is_refused(log: str) -> None:
    with pytest.raises(BadInput):
        judged("lines_kept", {"log": log}, evidence("x"))
