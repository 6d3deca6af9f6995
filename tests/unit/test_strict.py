"""Every mistake in a YAML file is one line with file, key, value and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from gatebook.errors import BadInput
from gatebook.plan.cases import Case
from gatebook.plan.settings import Profile
from gatebook.plan.strict import Strict, build, parse_yaml, read_yaml
from hypothesis import given
from hypothesis import strategies as st


def refused(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        read_yaml(path)
    message = str(caught.value)
    assert "\n" not in message, "one line"
    assert str(path) in message
    return message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", "line 3"),
        ("a: 1\n\tb: 2\n", "line 2"),
        ("a: 1\nb: 2\na: 3\n", "line 3: not valid YAML: key 'a' is written twice"),
        ("t: {model: m, model: n}\n", "line 1: not valid YAML: key 'model' is written twice"),
        ("- content: {{text}}\n", "line 1"),
        ("? [a, b]\n: 1\n", "line 1"),
        ("a: *nowhere\n", "line 1"),
        ("a: 1\n--- \nb: 2\n", "line 2"),
        ("a: !!python/object/apply:os.system [true]\n", "line 1"),
        ("a: 2026-02-30\n", "not valid YAML"),
    ],
    ids=["unclosed list", "tab", "key twice", "nested key twice", "placeholder without quotes", "list as key", "unknown anchor", "two documents", "python object", "day that is none"],
)  # fmt: skip
def test_unreadable_yaml_names_the_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    assert said in refused(file)


@pytest.mark.parametrize("raw", ["model: 名字".encode("gbk"), b"\xff\xfea\x00", b"a: \x00", b"a: \x85\x1b"])
def test_bytes_that_are_no_utf8_text_are_refused(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(raw)
    refused(file)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "none.yaml")
    assert "is a folder" in refused(tmp_path)


def test_merged_keys_may_be_set_again(tmp_path: Path) -> None:
    file = tmp_path / "good.yaml"
    file.write_text("base: &b {a: 1, c: 2}\nmore: {<<: *b, a: 3}\n")
    assert read_yaml(file)["more"] == {"a": 3, "c": 2}


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_but_bad_input(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(raw)
    try:
        read_yaml(file)
    except BadInput as error:
        assert "\n" not in str(error)


CASE = {"id": "a", "notebook": "01_x", "group": "g.h", "why": "because"}
PROFILE = {"target": {"model": "m"}, "groups": {"g.h": "must"}}


@pytest.mark.parametrize(
    ("model", "data", "words"),
    [
        (Case, {**CASE, "mesages": []}, ["'mesages'", "[]", "did you mean 'messages'?"]),
        (Case, {**CASE, "asks": [{"name": "a", "strem": True}]}, ["'asks.0.strem'", "True", "did you mean 'stream'?"]),
        (Case, {**CASE, "asks": [{"name": "a", "pth": "x"}]}, ["'asks.0.pth'", "did you mean 'path'?"]),
        (Profile, {**PROFILE, "grups": {}}, ["'grups'", "did you mean 'groups'?"]),
        (Profile, {**PROFILE, "target": {"model": "m", "revison": "x"}}, ["'target.revison'", "'x'", "did you mean 'revision'?"]),
        (Profile, {**PROFILE, "limits": {"inflight": 2}}, ["'limits.inflight'", "2", "did you mean 'in_flight'?"]),
        (Profile, {**PROFILE, "groups": {"g.h": {"policy": "must", "marginn": 0.1}}}, ["'groups.g.h.marginn'", "0.1", "did you mean 'margin'?"]),
        (Profile, {**PROFILE, "zzz": 1}, ["'zzz'", "known keys: ", "target"]),
    ],
)  # fmt: skip
def test_an_unknown_key_is_named_with_a_suggestion(
    model: type[Strict], data: dict[str, object], words: list[str]
) -> None:
    with pytest.raises(BadInput) as caught:
        build(model, data, "some.yaml")
    message = str(caught.value)
    assert message.startswith("some.yaml: ") and "\n" not in message
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"groups": {}}, ["'target' is missing"]),
        ({**PROFILE, "target": {"model": 3}}, ["'target.model'", "3", "string"]),
        ({**PROFILE, "target": {"model": "m", "revision": 1.1}}, ["'target.revision'", "1.1", "string"]),
        ({**PROFILE, "limits": {"in_flight": "4"}}, ["'limits.in_flight'", "'4'", "integer"]),
        ({**PROFILE, "limits": {"in_flight": True}}, ["'limits.in_flight'", "True"]),
        ({**PROFILE, "limits": {"in_flight": 0}}, ["'limits.in_flight'", "0"]),
        ({**PROFILE, "limits": {"request_deadline_s": -1}}, ["'limits.request_deadline_s'", "-1"]),
        ({**PROFILE, "limits": {"request_deadline_s": float("nan")}}, ["'limits.request_deadline_s'", "nan"]),
        ({**PROFILE, "limits": {"notebook_deadline_s": float("inf")}}, ["'limits.notebook_deadline_s'", "inf"]),
        ({**PROFILE, "limits": None}, ["'limits'", "None"]),
        ({**PROFILE, "groups": {"g.h": "mustt"}}, ["'groups.g.h.policy'", "'mustt'", "no_worse"]),
        ({**PROFILE, "groups": {"g.h": 3}}, ["'groups.g.h'", "3"]),
        ({**PROFILE, "excused": {"g.h": "  "}}, ["'excused'", "without a reason"]),
        ({**PROFILE, "target": {"model": "m", "base_url": "gpu-box:8000/v1"}}, ["'target.base_url'", "gpu-box:8000/v1", "http://"]),
        ({**PROFILE, "target": {"model": "m", "base_url": "http://gpu-box:port/v1"}}, ["'target.base_url'", "gpu-box:port"]),
        ({**PROFILE, "target": {"model": "m", "default_suite": "fast"}}, ["'target.default_suite'", "'fast'", "smoke"]),
        ({**PROFILE, "groups": {"g.h": {"policy": "proven_no_worse"}}}, ["'groups.g.h'", "margin"]),
        ({**PROFILE, "groups": {"g.h": {"policy": "must", "margin": 0.1}}}, ["'groups.g.h'", "margin"]),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_its_key(data: dict[str, object], words: list[str]) -> None:
    with pytest.raises(BadInput) as caught:
        build(Profile, data, "p.yaml")
    message = str(caught.value)
    assert message.startswith("p.yaml: ") and "\n" not in message
    assert [word for word in words if word not in message] == []


def test_other_mistakes_are_counted_and_long_values_cut() -> None:
    with pytest.raises(BadInput, match=r"\(and 2 more\)$") as caught:
        build(Case, {**CASE, "id": "x" * 500 + "!", "xa": 1, "xb": 2}, "c.yaml")
    assert len(str(caught.value)) < 300


def test_yaml_nested_beyond_reading_is_bad_input() -> None:
    with pytest.raises(BadInput, match="p.yaml: is nested deeper than can be read"):
        parse_yaml("[" * 5000 + "]" * 5000, "p.yaml")


@pytest.mark.parametrize("edit", [lambda b: b"\xef\xbb\xbf" + b, lambda b: b.replace(b"\n", b"\r\n"), lambda b: b"\xef\xbb\xbf" + b.replace(b"\n", b"\r\n")])  # fmt: skip
def test_what_windows_editors_write_is_read(tmp_path: Path, edit: Callable[[bytes], bytes]) -> None:
    plain = "目标: {名: 值}\nb: |\n  one\n  two\n".encode()
    (tmp_path / "a.yaml").write_bytes(edit(plain))
    assert read_yaml(tmp_path / "a.yaml") == {"目标": {"名": "值"}, "b": "one\ntwo\n"}


@pytest.mark.parametrize(("encoding", "line"), [("gb18030", 2), ("utf-16", 1), ("latin-1", 2)])
def test_a_file_of_another_encoding_is_refused_by_line(tmp_path: Path, encoding: str, line: int) -> None:
    (tmp_path / "a.yaml").write_bytes(
        ("a: 1\nb: " + ("订单" if encoding == "gb18030" else "é ñ") + "\n").encode(encoding)
    )
    with pytest.raises(BadInput) as refused:
        read_yaml(tmp_path / "a.yaml")
    assert str(refused.value).startswith(f"{tmp_path / 'a.yaml'}, line {line}: is not UTF-8; save it as UTF-8")
