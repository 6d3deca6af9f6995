"""Profiles: what they default to, and that no secret gets past them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gatebook.config.dresses import is_telling
from gatebook.config.profile import Target, load_profile, profile_from, with_target
from gatebook.config.sending import api_key, extra_headers, secrets, untelling
from gatebook.errors import BadInput
from hypothesis import given
from hypothesis import strategies as st

SECRET = "s3cr3tvalue0123456789"


def target(**fields: Any) -> dict[str, Any]:
    return {"target": {"model": "m", **fields}, "groups": {"g.h": "must"}}


SECRETS: list[tuple[str, dict[str, Any]]] = [
    ("OpenAI key where the variable's name belongs", target(api_key_env=f"sk-{SECRET}")),
    ("project key where the variable's name belongs", target(api_key_env=f"sk-proj-{SECRET}")),
    ("key of no known form where the variable's name belongs", target(api_key_env=f"4f-{SECRET}")),
    ("api_key", target(api_key=SECRET)),
    ("apiKey", target(apiKey=SECRET)),
    ("key", target(key=f"sk-{SECRET}")),
    ("token at the top", {**target(), "token": SECRET}),
    ("password", target(password=SECRET)),
    ("password that YAML reads as a number", target(password=8812345678123)),
    ("token nested in a dict", target(headers={"a": {"token": SECRET}})),
    ("key nested in a list", target(headers=[{"x": f"sk-{SECRET}"}])),
    ("Authorization: Bearer", target(headers={"Authorization": f"Bearer {SECRET}"})),
    ("authorization: bearer", target(headers={"authorization": f"bearer {SECRET}"})),
    ("Proxy-Authorization: Basic", target(headers={"Proxy-Authorization": "Basic dXNlcjpzM2NyM3R2YWx1ZTAxMjM0NTY3ODk="})),
    ("Bearer under another header", target(headers={"X-Upstream": f"Bearer {SECRET}"})),
    ("x-api-key", target(headers={"x-api-key": SECRET})),
    ("X-Auth-Token", target(headers={"X-Auth-Token": SECRET})),
    ("header with a number", target(headers={"X-Auth-Token": 8812345678123})),
    ("Hugging Face token as a header", target(headers={"X-Up": f"hf_{SECRET}"})),
    ("GitLab token as a header", target(headers={"X-Up": f"glpat-{SECRET}"})),
    ("JSON web token as a header", target(headers={"X-Up": f"eyJhbGciOi.eyJzdWIiOi.{SECRET}"})),
    ("user and password in the URL", target(base_url=f"https://user:{SECRET}@gpu-box:8000/v1")),
    ("password alone in the URL", target(base_url=f"https://:{SECRET}@gpu-box:8000/v1")),
    ("key as the URL's query", target(base_url=f"https://gpu-box:8000/v1?api_key={SECRET}")),
    ("password in the metrics URL", target(metrics_url=f"http://user:{SECRET}@gpu-box/metrics")),
    ("key in an excuse", {**target(), "excused": {"g.h": f"sk-{SECRET}"}}),
]  # fmt: skip


@pytest.mark.parametrize("data", [data for _, data in SECRETS], ids=[name for name, _ in SECRETS])
def test_a_secret_is_refused_and_never_repeated(data: dict[str, Any]) -> None:
    with pytest.raises(BadInput) as caught:
        profile_from(data, "p.yaml", "p")
    message = str(caught.value)
    assert message.startswith("p.yaml: ") and "\n" not in message
    assert SECRET not in message and "8812345678123" not in message and "dXNlcj" not in message


ORDINARY: list[tuple[str, dict[str, Any]]] = [
    ("model of an organisation", target(model="Qwen/Qwen3-4B-Instruct-2507")),
    ("model with a colon", target(model="qwen3:4b-instruct-q4_K_M")),
    ("model path", target(model="/models/hf_models/skywork-13b")),
    ("image digest", target(revision="sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")),
    ("commit", target(revision="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b")),
    ("image", target(revision="registry.example.com:5000/team/vllm-openai:v0.11.0@sha256:9f86d081884c7d65")),
    ("URL with a port", target(base_url="http://10.0.0.5:8000/v1")),
    ("URL with IPv6", target(base_url="http://[::1]:8000/v1")),
    ("variable's name", target(api_key_env="VLLM_API_KEY")),
    ("header from the environment", target(headers={"Authorization": "env:GATEWAY_AUTHORIZATION"})),
    ("header that is no key", target(headers={"X-Team": "search", "User-Agent": "gatebook/0.1"})),
    ("group named for a first token", {**target(), "groups": {"load.first_token": "watch"}}),
    ("case named for a token", {**target(), "excused": {"ttft-first-token": "no GPU on this machine"}}),
    ("excuse in plain words", {**target(), "excused": {"g.h": "Basic support is all that this engine has"}}),
]  # fmt: skip


@pytest.mark.parametrize("data", [data for _, data in ORDINARY], ids=[name for name, _ in ORDINARY])
def test_ordinary_values_raise_no_false_alarm(data: dict[str, Any]) -> None:
    profile_from(data, "p.yaml", "p")


@given(st.from_regex(r"[a-f0-9]{40}|sha256:[a-f0-9]{64}|v[0-9]\.[0-9]{1,2}\.[0-9]-[a-z]{3,8}", fullmatch=True))
def test_no_digest_or_version_looks_like_a_secret(revision: str) -> None:
    assert profile_from(target(revision=revision), "p.yaml", "p").target.revision == revision


@pytest.mark.parametrize("field", ["model", "revision", "base_url"])
def test_a_secret_on_the_command_line_is_refused(field: str) -> None:
    profile = profile_from(target(), "p.yaml", "p")
    value = f"http://user:{SECRET}@box/v1" if field == "base_url" else f"sk-{SECRET}"
    with pytest.raises(BadInput) as caught:
        with_target(profile, **{field: value})
    assert "command line" in str(caught.value) and SECRET not in str(caught.value)


def test_the_command_line_replaces_only_what_it_names() -> None:
    before = profile_from(target(server="embedded", revision="r1", baseline="b"), "p.yaml", "p")
    after = with_target(before, base_url="http://box:1/v1/", model=None, revision=None)
    assert (after.target.server, after.target.base_url) == ("external", "http://box:1/v1")
    assert (after.target.model, after.target.revision, after.baseline_name) == ("m", "r1", "b")


def test_a_profile_is_named_by_its_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("target: {model: m}\ngroups: {a.b: must, a.c: {policy: proven_no_worse, margin: 0.05}}\n")
    profile = load_profile(file)
    assert (profile.name, profile.baseline_name, profile.target.default_suite) == ("mine", "mine", "full")
    assert profile.policy("a.b").policy == "must" and profile.policy("a.c").margin == 0.05
    assert profile.policy("a.d").policy == "watch", "newer than the profile"


@pytest.mark.parametrize("text", ["", "- a\n", "just words\n", "3\n"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(text)
    with pytest.raises(BadInput, match=r"p\.yaml: a profile is a mapping"):
        load_profile(file)


def test_the_key_comes_from_the_named_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "common")
    monkeypatch.setenv("MINE", "own")
    monkeypatch.delenv("MISSING", raising=False)
    own, common, embedded, missing = (
        profile_from(target(**fields), "p", "p").target
        for fields in ({"api_key_env": "MINE"}, {}, {"server": "embedded"}, {"api_key_env": "MISSING"})
    )
    assert (api_key(own), api_key(common), api_key(embedded)) == ("own", "common", None)
    with pytest.raises(BadInput, match="environment variable MISSING .* is not set"):
        api_key(missing)


def test_headers_are_filled_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY", f"Bearer {SECRET}")
    monkeypatch.delenv("MISSING", raising=False)
    filled = profile_from(target(headers={"Authorization": "env:GATEWAY", "X-Team": "a"}), "p", "p").target
    assert extra_headers(filled) == {"Authorization": f"Bearer {SECRET}", "X-Team": "a"}
    with pytest.raises(BadInput, match=r"environment variable MISSING \(target.headers.X\) is not set"):
        extra_headers(profile_from(target(headers={"X": "env:MISSING"}), "p", "p").target)


@pytest.mark.parametrize("spoiled", ["two\nlines", "trail\n", "one two", " padded", "clé", "zero​width", "tab\t"])
def test_a_key_that_no_header_can_carry_is_refused_and_never_repeated(
    monkeypatch: pytest.MonkeyPatch, spoiled: str
) -> None:
    for name in ("MINE", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, spoiled)
    for fields, variable in (({"api_key_env": "MINE"}, "MINE"), ({}, "OPENAI_API_KEY")):
        with pytest.raises(BadInput, match=f"environment variable {variable} cannot be sent") as caught:
            api_key(profile_from(target(**fields), "p", "p").target)
        assert spoiled.strip() not in str(caught.value)
    monkeypatch.setenv("MINE", "Bearer two\nlines")
    with pytest.raises(BadInput, match="environment variable MINE cannot be sent"):
        extra_headers(profile_from(target(headers={"X": "env:MINE"}), "p", "p").target)


@pytest.mark.parametrize(
    "headers", [{"X-Team": "a\nb"}, {"X Team": "a"}, {"": "a"}, {"X": ""}, {"X\n": "a"}, {"X": "é"}]
)
def test_a_header_that_cannot_be_sent_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(BadInput, match=r"p\.yaml: key 'target.headers' .* cannot be sent"):
        profile_from(target(headers=headers), "p.yaml", "p")


@pytest.mark.parametrize("revision", ["", " ", "sha256:1 ", "\tsha256:1", "sha256:1\n"])
def test_a_revision_that_names_nothing_is_refused(revision: str) -> None:
    with pytest.raises(BadInput, match="command line: key 'revision' has value .* empty or has blanks"):
        with_target(profile_from(target(), "p", "p"), revision=revision)


@pytest.mark.parametrize("name", ["*", "*.*", "?*", "", "[!.]*"])
def test_an_excuse_for_everything_is_refused(name: str) -> None:
    data = {**target(), "excused": {name: "because"}}
    with pytest.raises(BadInput, match="would excuse everything and leave no gate"):
        profile_from(data, "p", "p")


@pytest.mark.parametrize(
    "key", ["1", "vllm", "EMPTY", "none", "dummy", "sk-1234", "sk-no-key-required", "token-abc123", "no_key_needed", "xxxxxxxxxxxx", "sk-xxxxxxxxxxxxxxxx", "your-api-key-here", "-------------"]
)  # fmt: skip
def test_a_short_key_or_a_placeholder_is_in_replies_by_chance(key: str) -> None:
    assert not is_telling(key)


@pytest.mark.parametrize(
    "key", ["sk-proj-8fK2mQ91xZ", "hf_AbCdEfGhIjKl", "0f8e2c77a1b94d3e", "vllm-9f31c2", "correcthorsebattery", "sk-very-secret-0123456789"]
)  # fmt: skip
def test_a_key_of_its_own_is_searched_for(key: str) -> None:
    assert is_telling(key)


def test_the_line_names_the_variables_and_not_what_they_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Target(model="m", api_key_env="MY_KEY", headers={"X-Team": "env:TEAM", "X-Plain": "vllm"})
    monkeypatch.setenv("MY_KEY", "EMPTY")
    monkeypatch.setenv("TEAM", "b7e151628aed2a6a")
    assert secrets(asked) == {"MY_KEY": "EMPTY", "TEAM": "b7e151628aed2a6a"}
    said = untelling(asked)
    assert said and said.startswith("MY_KEY:") and "EMPTY" not in said and "TEAM" not in said
    monkeypatch.setenv("MY_KEY", "3243f6a8885a308d")
    assert untelling(asked) is None
