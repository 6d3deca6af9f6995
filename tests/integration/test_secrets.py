"""A hostile server that says the key it was sent, in every dress: no artifact of the real command holds it."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from gatebook.collect.client import normal_base_url
from gatebook.collect.server import endpoint
from gatebook.config.profile import Target, profile_from, with_target
from gatebook.errors import BadInput

from tests.conftest import Project, shipped_cases
from tests.faults.echoing import DRESSES, PLACES, EchoingServer
from tests.faults.proxy import Fault, FaultProxy
from tests.faults.scripted import ScriptedServer

MODEL = "smollm2-135m-instruct"
KEYS = {"hex": "b7e151628aed2a6abf7158809cf4f3c7", "signs": "Zq7\"kf\\w2/Xb=9+Lm&3<v>c'Tr%8dPo"}
PART = 10
"""Characters of a key that are a leak by themselves."""


def undressed(text: str) -> Iterator[str]:
    """The text in every way in which somebody may read it, by other means than the scrubber's."""
    for _ in range(3):
        yield text
        yield html.unescape(text)
        yield unquote(text)
        yield unquote(unquote(text))
        yield re.sub(r"\\+[uU]?x?(?:000000|00)?([0-9a-fA-F]{2})", lambda m: chr(int(m[1], 16)), text)
        text = re.sub(r'\\(["\\/\'])', r"\1", text)
    for pattern, base in ((r"\b\d{2,3}\b[, ]*", 10), (r"\\([0-7]{3})", 8)):
        for run in re.finditer(f"(?:{pattern}){{{PART},}}", text):
            yield "".join(chr(min(int(number, base), 255)) for number in re.findall(r"\d+", run[0]))
    for squeezed in (text.replace(":", ""), re.sub(r"0x|[-,= ]", "", text)):
        for run in re.findall(r"(?:[0-9a-fA-F]{2}){10,}", squeezed):
            for digits in (run, run[1:-1]):
                yield bytes.fromhex(digits).decode("latin-1").replace("\0", "")
    text = re.sub(r"\\n|\n", "", text)
    for run in re.findall(r"[A-Za-z0-9+/_\-]{14,}", text):
        plain = run.replace("-", "+").replace("_", "/")
        for skip in range(4):
            whole = unpacked(plain[skip:])
            yield whole.replace("\0", "")
            yield from (unpacked(inner) for inner in re.findall(r"[A-Za-z0-9+/]{14,}", whole))
    for run in re.findall(r"[A-Z2-7]{17,}", text):
        for skip in range(8):
            whole = run[skip : len(run) - (len(run) - skip) % 8]
            yield base64.b32decode(whole).decode("latin-1")


def unpacked(text: str) -> str:
    return base64.b64decode(text[: len(text) - len(text) % 4]).decode("latin-1")


def leaks(text: str, key: str) -> list[str]:
    parts = [key[at : at + PART].lower() for at in range(len(key) - PART + 1)]
    return [part for reading in undressed(text) for part in parts if part in reading.lower()][:3]


def joined(file: Path) -> str:
    """What the replies of a record say when their chunks are read one after the other."""
    said = []
    for line in file.read_text(encoding="utf-8").splitlines():
        events = [json.loads(d) for _, d in json.loads(line)["exchange"].get("events") or [] if d.startswith("{")]
        deltas = [(c["index"], c["delta"]) for e in events for c in e.get("choices", [])]
        for index in (0, 1):
            for names in (("content",), ("reasoning_content", "reasoning")):
                said.append("".join(str(d.get(n) or "") for i, d in deltas if i == index for n in names))
            calls = [call["function"] for i, d in deltas if i == index for call in d.get("tool_calls") or []]
            said.append("".join(call.get("arguments", "") for call in calls))
    return "\n".join(said)


@pytest.mark.parametrize("dress", DRESSES)
def test_the_search_of_this_test_finds_a_key_in_every_dress(dress: str) -> None:
    for key in KEYS.values():
        assert leaks(f"so: {DRESSES[dress](key)}.", key), dress


def test_no_artifact_of_a_run_with_an_echoing_server_holds_the_key(project: Project) -> None:
    key = KEYS["signs"]
    streamed, plain = shipped_cases()["stream-equals-plain-english"], shipped_cases()["canary-water"]
    told = [
        c.model_dump(mode="json", exclude_defaults=True) for c in (streamed, plain, shipped_cases()["model-served"])
    ]
    more = [{**case, "id": f"{case['id']}-{n}", "suites": ["smoke"]} for case in told[:2] for n in range(12)]
    project.write_cases([*({**case, "suites": ["smoke"]} for case in told), *more])
    project.edit_profile(limits={"request_deadline_s": 20, "in_flight": 1, "transport_retries": 0})
    env = {"OPENAI_API_KEY": key}
    with EchoingServer(MODEL) as server:
        done = project.gatebook("run", "--profile", project.profile, "--base-url", f"{server.url}/v1", env=env)
        assert {place for place, _ in server.used} == {*PLACES} and {dress for _, dress in server.used} == {*DRESSES}
        assert done.code in (1, 75), done
        begun = project.gatebook("init", "--base-url", f"{server.url}/v1", "--name", "echo", "--model", MODEL, env=env)
    assert "Traceback" not in done.err + begun.err, done
    shown = project.gatebook("verify", done.run, "--reproduced", "--html", project.root / "verify.html")
    assert shown.code == 0, "what was written is the evidence"
    kept = project.gatebook("archive", project.root / "outputs", "--to", project.root / "public")
    table = project.gatebook("history", "export", project.root / "rows.csv")
    for one in (done, begun, kept, table, shown):
        assert not leaks(one.out + one.err, key), one
    files = [p for p in project.root.rglob("*") if p.is_file()]
    assert {".html", ".xml", ".ipynb", ".jsonl", ".json", ".txt", ".js"} <= {p.suffix for p in files}
    found = {
        p.relative_to(project.root).as_posix(): said
        for p in files
        if (said := leaks(p.read_bytes().decode("latin-1"), key))
    }
    assert not found
    records = [*project.root.rglob("*.exchanges.jsonl")]
    assert records and not any(leaks(joined(file), key) for file in records)
    assert any("[redacted]" in file.read_text(encoding="utf-8") for file in records)


URLS = [
    "http://user:hunter2hunter2@127.0.0.1:9/v1", "http://127.0.0.1:9/v1?api_key=hunter2hunter2", "http://hunter2hunter2@127.0.0.1:9/v1",
    "http://127.0.0.1:9/v1?x=1&subscription-key=hunter2hunter2", "http://127.0.0.1:9/v1?q=hunter2hunter2", "http://127.0.0.1:9/v1#hunter2hunter2",
    "http:user:hunter2hunter2@127.0.0.1:9/v1", "user:hunter2hunter2@127.0.0.1:9/v1",
]  # fmt: skip


@pytest.mark.parametrize("url", URLS[:2])
def test_a_url_with_a_secret_is_refused_from_wherever_it_comes(project: Project, url: str) -> None:
    bare = yaml.safe_load(project.profile.read_text())
    bare["target"].update(server="external", base_url=None)
    own = project.root / "params" / "bare.yaml"
    own.write_text(yaml.safe_dump(bare))
    named = project.root / "params" / "named.yaml"
    named.write_text(yaml.safe_dump({**bare, "target": {**bare["target"], "base_url": url}}))
    ways = [
        project.gatebook("run", "--profile", own, env={"OPENAI_BASE_URL": url}),
        project.gatebook("run", "--profile", own, "--base-url", url),
        project.gatebook("run", "--profile", named),
        project.gatebook("run", "--profile", own, "--base-url", "http://127.0.0.1:9/v1", "--against", named),
        project.gatebook("init", "--base-url", url),
    ]
    for done in ways:
        assert done.code == 2 and "hunter2" not in done.out + done.err and len(done.err.splitlines()) == 1, done
    assert not [*project.root.glob("outputs/20*")]


@pytest.mark.parametrize("url", URLS)
def test_no_message_repeats_a_url_with_a_secret(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    data = {"target": {"model": "m"}, "groups": {}}
    for refuse in (
        lambda: endpoint(Target(model="m"), None),
        lambda: endpoint(Target(model="m"), url),
        lambda: normal_base_url(url),
        lambda: endpoint(with_target(profile_from(data, "p", "p"), base_url=url).target, None),
        lambda: endpoint(profile_from({**data, "target": {"model": "m", "base_url": url}}, "p", "p").target, None),
    ):
        with pytest.raises(BadInput) as caught:
            refuse()
        assert "hunter2" not in str(caught.value)
    for section in ({"target": {"model": "m", "metrics_url": URLS[0]}}, {"production": {"gpu_metrics_url": URLS[1]}}):
        with pytest.raises(BadInput, match="holds what looks like a secret") as caught:
            profile_from({**data, **section}, "p", "p")
        assert "hunter2" not in str(caught.value)


def test_a_plan_that_holds_the_key_asks_nothing(project: Project) -> None:
    key = KEYS["hex"]
    case = shipped_cases()["canary-water"].model_dump(mode="json", exclude_defaults=True)
    project.write_cases(
        [{**case, "suites": ["smoke"], "messages": [{"role": "user", "content": f"What is {key.upper().lower()}?"}]}]
    )
    done = project.run("http://127.0.0.1:9/v1", env={"OPENAI_API_KEY": key})
    assert done.code == 2 and "OPENAI_API_KEY" in done.err and key not in done.err, done
    assert not [*project.root.glob("outputs/20*")]


@pytest.mark.parametrize("own", ["OPENAI_API_KEY", "A_HEADER"])
def test_a_url_whose_path_is_a_secret_is_refused_from_wherever_it_comes(project: Project, own: str) -> None:
    key, url, bare = KEYS["hex"], "http://127.0.0.1:9/v1", yaml.safe_load(project.profile.read_text())
    secret = f"http://127.0.0.1:9/t/{key}/v1"
    bare["target"].update(server="external", headers={"X-Tenant": "env:A_HEADER"} if own == "A_HEADER" else {})

    def profile(name: str, **target: Any) -> Path:
        file = project.root / "params" / f"{name}.yaml"
        file.write_text(yaml.safe_dump({**bare, "target": {**bare["target"], **target}}))
        return file

    plain = profile("plain", base_url=None)
    ways = [
        ("--profile", plain),
        ("--profile", plain, "--base-url", secret),
        ("--profile", profile("named", base_url=secret)),
        ("--profile", profile("replicas", base_url=url, replicas=[secret])),
        ("--profile", profile("metrics", base_url=url, metrics_url=f"http://127.0.0.1:9/{key}/metrics")),
        ("--profile", profile("here", base_url=url), "--against", profile("there", base_url=secret)),
    ]
    for number, way in enumerate(ways):
        done = project.gatebook("run", *way, env={own: key, **({} if number else {"OPENAI_BASE_URL": secret})})
        assert done.code == 2 and own in done.err and key not in done.out + done.err, (way, done)
    begun = project.gatebook("init", "--base-url", secret, "--name", "told", env={"OPENAI_API_KEY": key})
    assert begun.code == 2 and key not in begun.out + begun.err, begun
    assert not [*project.root.glob("outputs/20*")] and not (project.root / "params" / "told.yaml").exists()


def test_a_short_key_is_sent_and_written_by_nobody(project: Project, server: str) -> None:
    project.choose("canary-water")
    project.edit_profile(limits={"ready_deadline_s": 30})
    done = project.run(server, env={"OPENAI_API_KEY": "EMPTY"})
    assert done.code == 0, done
    assert (
        done.err.count("OPENAI_API_KEY: a short or common word as key; it is sent, and replies are not searched for it")
        == 1
    )
    assert not [p for p in project.root.rglob("*.jsonl") if b"EMPTY" in p.read_bytes()]


def test_what_two_targets_say_holds_neither_key(project: Project) -> None:
    """One gateway stands before both, and knows both keys; the job's URL holds one too."""
    [timed] = [case for name, case in shipped_cases().items() if name == "latency-chat"]
    project.write_cases([timed.model_dump(mode="json", exclude_defaults=True) | {"suites": ["smoke"], "samples": 4}])
    keys = {"TEAM_KEY": "q7Zt4LmX92vKpR8sWd3n", "OTHER_KEY": "b2Yw8NcT61hGfQ5eUa9k"}
    with (
        ScriptedServer(MODEL, answer_s=0.01) as server,
        FaultProxy(server.url, [Fault("say", arg=" ".join(keys.values()))]) as first,
        FaultProxy(server.url, [Fault("say", arg=" ".join(keys.values()))]) as second,
    ):
        project.edit_profile(target={"server": "external", "base_url": first.base_url, "api_key_env": "TEAM_KEY"})
        said = yaml.safe_load(project.profile.read_text())
        other = project.root / "params" / "other.yaml"
        target = said["target"] | {"base_url": second.base_url, "api_key_env": "OTHER_KEY"}
        other.write_text(yaml.safe_dump(said | {"name": "other", "target": target}))
        job = f"https://ci.example/jobs/{keys['TEAM_KEY']}/1"
        done = project.gatebook("run", "--profile", project.profile, "--against", other, env=keys | {"CI_JOB_URL": job})
    masked = joined(done.run / "08_load.exchanges.jsonl").count("[redacted] [redacted]")
    assert masked == 8, (masked, done)
    files = [file for file in done.run.rglob("*") if file.is_file()]
    for key in keys.values():
        assert [file.name for file in files if key.encode() in file.read_bytes()] == [], done
        assert key not in done.out + done.err
