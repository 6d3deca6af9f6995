"""Nothing but PASS is green: every way to fail, against the real command, a real server and real faults on the wire."""

from __future__ import annotations

import json
import re
import resource
import signal
import socket
import subprocess
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import yaml
from gatebook.commands.verify import verify

from tests.conftest import IMPATIENT, PATIENT, Done, Project, shipped_cases
from tests.faults.proxy import Fault, FaultProxy
from tests.faults.scripted import ScriptedServer


def test_a_healthy_server_is_green(green: Done) -> None:
    assert green.code == green.verdict["exit_code"] == 0
    assert green.verdict["verdict"] == "PASS"
    assert green.out.splitlines()[-1].startswith("PASS")


def test_without_kernels_it_is_the_same(project: Project, green: Done, server: str) -> None:
    """What most tests here ask: the same files, cells, verdict and words as the command, but for times."""
    asked = project.ask(server)
    assert asked.code == 0, asked
    assert _words(asked.out) == _words(green.out)
    assert _outcomes(asked.verdict) == _outcomes(green.verdict)
    assert {p.name for p in asked.run.iterdir()} == {p.name for p in green.run.iterdir()}
    assert _cells(asked.run) == _cells(green.run)
    assert verify(asked.run, replay=False).reproduced


def test_slicing_the_stream_between_bytes_is_no_fault(project: Project, server: str) -> None:
    project.edit_profile(limits=PATIENT)
    with FaultProxy(server.removesuffix("/v1"), ["truncated_unicode"]) as proxy:
        assert project.ask(proxy.base_url).code == 0
    assert proxy.faulted > 0


QUICK = ("max-tokens-5", "canary-water")
"""Plain and streamed, cut and whole: five requests with the first one."""
FAULTS = [
    # fault, exit code, what the reasons must name; the cases that see it, where two do not
    (Fault("unauthorized"), 75, "key was refused"),
    (Fault("no_model"), 1, "is not served", "model-served"),
    (Fault("busy"), 75, "HTTP 429"),
    (Fault("unavailable"), 75, "HTTP 503"),
    (Fault("hang"), 75, "no complete reply within"),
    (Fault("hang", after=3), 1, "no complete reply within"),
    (Fault("stall", only="streams"), 1, "no complete reply within"),
    (Fault("cut", only="streams"), 1, "broke off in the middle"),
    (Fault("no_end", only="streams"), 1, "without [DONE]"),
    (Fault("no_done", only="streams"), 1, "without [DONE]"),
    (Fault("finish_missing"), 1, "no finish_reason"),
    (Fault("error_event", only="streams"), 1, "carries an error"),
    (Fault("empty"), 1, "content is empty"),
    (Fault("null"), 1, "content is null"),
    (Fault("blank"), 1, "content is blank"),
    (Fault("no_choices"), 1, "no choices"),
    (Fault("bad_json"), 1, "not valid JSON"),
    (Fault("html"), 1, "not valid JSON"),
    (Fault("garbage"), 1, "'!' is"),
    (Fault("loop"), 1, "repeated"),
    (Fault("soup"), 1, "scripts are mixed"),
    (Fault("mojibake"), 1, "mojibake"),
    (Fault("fffd"), 1, "U+FFFD"),
    (Fault("special"), 1, "special token"),
    (Fault("think"), 1, "thinking block"),
    (Fault("reasoning"), 1, "reasoning field"),
    (Fault("strip_format"), 1, "structured.enforced", "02"),
    (Fault("drop_system"), 1, "a message is dropped", "token-counts"),
    (Fault("usage_zero"), 1, "usage counts no tokens"),
    (Fault("finish"), 1, "finish_reason is 'stop', expected 'length'"),
    (Fault("cache"), 1, "cache", "fresh-answers"),
    (Fault("stale"), 1, "answered from a cache", "fresh-answers"),
    (Fault("swap_model"), 1, "answered by model"),
    (Fault("dup", only="streams"), 1, "the stream says", "stream-equals-plain-english"),
    (Fault("server_error", after=3), 1, "HTTP 500"),
    (Fault("die", after=3), 1, "the server had answered before"),
]


@pytest.mark.parametrize("row", FAULTS, ids=lambda row: f"{row[0].name}-{row[0].after}")
def test_a_fault_on_the_wire_is_not_green_and_is_named(project: Project, server: str, row: tuple) -> None:
    fault, code, reason, *only = row
    project.edit_profile(limits={"request_deadline_s": 4 if fault.name in ("hang", "stall") else 60})
    project.edit_profile(limits=IMPATIENT if code == 75 else {})
    with FaultProxy(server.removesuffix("/v1"), [fault]) as proxy:
        done = project.ask(proxy.base_url, *(only or QUICK))
    assert proxy.faulted > 0, f"the fault was never made: {done.reasons or done}"
    assert done.code == code, done
    assert reason in done.reasons, done.reasons


def test_a_server_that_is_down_is_an_error(project: Project) -> None:
    project.edit_profile(limits=IMPATIENT)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        done = project.run(f"http://127.0.0.1:{closed.getsockname()[1]}/v1", "--only", "01")
    assert done.code == 75, done
    assert "cannot connect" in done.reasons


def test_a_server_that_dies_in_mid_run_is_red_within_seconds_and_what_was_in_flight_is_named(project: Project) -> None:
    """As vLLM does it: what is in flight gets HTTP 500, and soon nobody listens. Nothing waits for ready_deadline_s."""
    project.edit_profile(
        target={"server": "external", "context_tokens": None},
        limits={"in_flight": 2, "request_deadline_s": 60, "ready_deadline_s": 300, "transport_retries": 2},
    )
    with ScriptedServer("smollm2-135m-instruct", answer_s=0.3, dies_at=5) as server:
        done = project.ask(f"{server.url}/v1")
    assert done.code == 1, done
    named = re.search(r"the server is gone: .*?; in flight: ([\w-]+), ([\w-]+)", done.verdict["reason"])
    fails = {f["case"] for f in done.verdict["findings"] if f["outcome"] == "fail" and "; in flight: " in f["reason"]}
    assert named and {named[1], named[2]} <= fails, done.verdict["reasons"]
    records = sorted(done.run.glob("*.exchanges.jsonl"))
    said = [[json.loads(line)["exchange"] for line in path.read_text().splitlines()] for path in records]
    readies = [[len(e["attempts"]) for e in record if e["kind"] == "ready"] for record in said]
    assert len(readies) == 2 and readies == [[1]] * len(readies), readies
    sent, stopped = (
        datetime.fromisoformat(e["at"]) for e in (said[0][0], next(e for e in said[0] if e["kind"] == "stop"))
    )
    assert stopped - sent < timedelta(seconds=60), "no deadline was waited for"


def test_our_own_deadline_is_nobodys_fault(project: Project, server: str) -> None:
    """The run's time is up long before the last case: nothing of it fails, and it is not green, whatever is excused."""
    project.edit_profile(
        limits={"run_deadline_s": 30, "request_deadline_s": 20, "ready_deadline_s": 20},
        excused={"structured.*": "takes too long", "health.*": "takes too long"},
    )
    with FaultProxy(server.removesuffix("/v1"), [Fault("slow", arg=1.5)]) as proxy:
        done = project.run(proxy.base_url)
    assert done.code == 3, done
    assert "limits.run_deadline_s of 30 s has less left than one request may take" in done.verdict["reason"]
    assert {f["outcome"] for f in done.verdict["findings"]} <= {"pass", "not_measured"}
    assert done.verdict["excused"] == []


def test_watching_everything_does_not_make_a_dead_server_green(project: Project, server: str) -> None:
    groups = dict.fromkeys(yaml.safe_load(project.profile.read_text())["groups"], "watch")
    project.edit_profile(groups=groups, limits=IMPATIENT)
    assert project.ask("http://127.0.0.1:9/v1").code == 75
    project.edit_profile(limits=PATIENT)
    with FaultProxy(server.removesuffix("/v1"), [Fault("die", after=4)]) as proxy:
        assert project.ask(proxy.base_url).code not in (0, 2)


BROKEN = {
    "01_health": ("raise SystemExit(0)", "SystemExit"),
    "02_structured_output": ("import os\nos._exit(0)", "kernel died"),
    "03_multilingual": ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "kernel died"),
    "05_fingerprint": ("1 / 0", "ZeroDivisionError"),
    "07_boundaries": ("pass  # nothing is asked", "never asked or lost"),
}
"""Notebook -> what its cell does instead of asking, and how that is told."""


def test_a_notebook_that_does_not_do_its_work_is_an_error(project: Project, server: str) -> None:
    """Five in one run; each has a verdict of its own, by its own findings and troubles alone."""
    case = shipped_cases()["max-tokens-5"].model_dump(mode="json", exclude_defaults=True)
    project.write_cases(
        [{**case, "id": f"c{n}", "notebook": notebook, "suites": ["smoke"]} for n, notebook in enumerate(BROKEN)]
    )
    for notebook, (source, _) in BROKEN.items():
        path = project.root / "notebooks" / f"{notebook}.ipynb"
        read = json.loads(path.read_text())
        next(c for c in read["cells"] if "collect" in c["metadata"].get("tags", []))["source"] = source
        path.write_text(json.dumps(read))
    done = project.run(server)
    assert done.code == 75, done
    for notebook, (_, reason) in BROKEN.items():
        alone = json.loads((done.run / f"{notebook}.verdict.json").read_text())
        assert (alone["verdict"], alone["exit_code"]) == ("ERROR", 75), notebook
        told = " ".join([*alone["reasons"], *(f["reason"] for f in alone["findings"])])
        assert reason in told, (notebook, told)
        assert {f["outcome"] for f in done.verdict["findings"] if f["notebook"] == notebook} == {"error"}, notebook


def test_what_breaks_after_the_record_is_complete_is_told_by_the_last_notebook_too(
    project: Project, server: str
) -> None:
    """Every answer is there and right; only the runner knows that a cell of 01 broke."""
    path = project.root / "notebooks" / "01_health.ipynb"
    notebook = json.loads(path.read_text())
    next(c for c in notebook["cells"] if c["id"] == "time")["source"] = "1 / 0"
    path.write_text(json.dumps(notebook))
    project.choose("model-served", "max-tokens-5")
    project.edit_profile(limits=PATIENT)
    done = project.run(server)
    assert done.code == 75 and "ZeroDivisionError" in done.reasons, done
    told = (done.run / "90_verdict.ipynb").read_text()
    assert "VERDICT      ERROR" in told and "VERDICT      PASS" not in told


def test_an_interrupted_run_leaves_its_evidence_and_goes_on(project: Project, server: str) -> None:
    project.choose("max-tokens-5", "canary-water")
    project.edit_profile(limits=PATIENT)
    with FaultProxy(server.removesuffix("/v1"), [Fault("slow", arg=1.0)]) as proxy:
        process = _start(project, proxy.base_url)
        _wait_for(project, lines=9)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1].decode()
        assert process.returncode == 75 and "Traceback" not in said, said
        run = next(p.parent for p in (project.root / "outputs").glob("20*/manifest.json"))
        assert json.loads((run / "verdict.json").read_text())["verdict"] in ("ERROR", "FAIL")
        assert project.gatebook("run", "--resume", run).code == 0


def test_a_killed_run_resumes_without_asking_twice(project: Project, server: str) -> None:
    project.choose("model-served", "max-tokens-5", "fresh-answers", "canary-water")
    project.edit_profile(limits=PATIENT)
    with FaultProxy(server.removesuffix("/v1"), [Fault("slow", arg=0.3)]) as proxy:
        process = _start(project, proxy.base_url)
        record = _wait_for(project, lines=10)
        process.kill()
        process.communicate()
        before = record.read_text().splitlines()
        told = project.gatebook("report", record.parent)
        assert (told.code, "the run did not finish; go on with: gatebook run --resume" in told.out) == (75, True), told
        assert "did not finish" in (record.parent / "index.html").read_text()
        done = project.gatebook("run", "--resume", record.parent)
        users = [
            body["user"]
            for method, path, body in proxy.requests
            if method == "POST" and body and not body["user"].startswith("x")
        ]
    assert done.code == 0, done
    after = record.read_text().splitlines()
    assert after[: len(before) - 1] == before[:-1], "what was recorded is still there"
    recorded = {
        json.loads(line)["exchange"]["body"]["user"] for line in before if json.loads(line)["exchange"].get("body")
    }
    assert all(users.count(user) == 1 for user in recorded), "a recorded request was asked again"
    seal = (record.parent / "SHA256SUMS").read_bytes()
    told = project.gatebook("report", record.parent)
    assert told.code == 0 and told.out.splitlines()[-1].startswith("PASS"), told
    assert (record.parent / "SHA256SUMS").read_bytes() == seal, "what is finished is told and not written again"
    (record.parent / "index.html").write_text("edited")
    assert project.gatebook("report", record.parent).code == 75
    fresh = project.ask(server)
    assert _outcomes(
        done.verdict if done.run == record.parent else json.loads((record.parent / "verdict.json").read_text())
    ) == _outcomes(fresh.verdict)


def test_a_torn_last_line_is_recovered(project: Project, green: Done) -> None:
    done = green
    record = done.run / "02_structured_output.exchanges.jsonl"
    (done.run / "SHA256SUMS").unlink()
    lines = record.read_bytes().splitlines(keepends=True)
    record.write_bytes(b"".join(lines[:-1]) + lines[-1][:40])
    again = project.gatebook("run", "--resume", done.run)
    assert again.code == 0, again
    assert len(record.read_bytes().splitlines()) >= len(lines)
    assert lines[-1][:40] in record.with_name(record.name + ".torn").read_bytes()


def test_the_copy_under_the_fixed_name_can_be_resumed_and_is_not_lost(project: Project, server: str) -> None:
    project.edit_profile(limits={"ready_deadline_s": 20})
    with FaultProxy(server.removesuffix("/v1"), [Fault("unavailable")]) as proxy:
        down = project.ask(proxy.base_url, "model-served", "max-tokens-5")
        assert down.code == 75, down
        proxy.calm()
        latest = project.root / "outputs" / "latest"
        before = (latest / "01_health.exchanges.jsonl").read_bytes()
        again = project.gatebook("run", "--resume", latest)
    assert again.code == 0, again
    assert (latest / "01_health.exchanges.jsonl").read_bytes().startswith(before)


def test_an_edited_record_is_noticed_on_resume(project: Project, server: str) -> None:
    project.choose("model-served", "max-tokens-5")
    done = project.ask(server)
    record = done.run / "01_health.exchanges.jsonl"
    (done.run / "SHA256SUMS").unlink()
    record.write_text(
        record.read_text().replace('"status":200', '"status":201', 1).replace('"status": 200', '"status": 201', 1)
    )
    again = project.gatebook("run", "--resume", done.run)
    assert again.code == 75, again
    assert "edited or damaged" in again.reasons


def test_a_full_disk_is_an_error(project: Project, server: str) -> None:
    """RLIMIT_FSIZE stands for the full disk: the write of the record fails in the same place."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    done = subprocess.run(
        project.command("run", "--profile", project.profile, "--base-url", server),
        cwd=project.root, env=project.environment, preexec_fn=limit, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 75, done.stdout + done.stderr
    assert "cannot write" in done.stdout + done.stderr


def test_expected_cases_without_a_record_are_an_error(project: Project, green: Done) -> None:
    (green.run / "02_structured_output.exchanges.jsonl").write_bytes(b"")
    found = {step.what.split(":")[0]: step.wrong for step in verify(green.run, replay=False).steps}
    assert "02_structured_output.exchanges.jsonl was changed" in (found["checksums"] or "")
    assert "the record says ERROR" in (found["verdicts"] or ""), found
    judged = project.root / "outputs" / "again"
    again = project.gatebook("judge", green.run, "--profile", project.profile, "--out", judged)
    assert again.code == 75 and "only an intact run is judged again" in again.err and not judged.exists(), again


@pytest.mark.parametrize("cases", [[], None], ids=["empty-list", "empty-file"])
def test_a_case_file_without_cases_is_bad_input(
    project: Project, server: str, cases: list[dict[str, str]] | None
) -> None:
    (project.root / "params" / "cases" / "small.yaml").write_text("" if cases is None else "[]")
    done = project.run(server)
    assert done.code == 2, done
    assert "holds no cases" in done.err


@pytest.mark.parametrize("arguments", [("--only", "typo"), ("--suite", "demo"), ("--only", "01,nothing")])
def test_a_selection_that_matches_nothing_is_bad_input(
    project: Project, server: str, arguments: tuple[str, ...]
) -> None:
    done = project.run(server, *arguments)
    assert done.code == 2, done
    assert not (project.root / "outputs").exists(), "nothing was made"


def _start(project: Project, base_url: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        project.command("run", "--profile", project.profile, "--base-url", base_url),
        cwd=project.root, env=project.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def _wait_for(project: Project, lines: int) -> Path:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        for record in (project.root / "outputs").glob("20*/01_health.exchanges.jsonl"):
            if record.read_bytes().count(b"\n") >= lines:
                return record
        time.sleep(0.05)
    raise AssertionError(f"no {lines} exchanges after 90 s: {project.root}")


def _words(out: str) -> list[str]:
    """Without what differs from run to run."""
    return [re.sub(r"\d[\d.,]*|outputs/\S+", "#", line).split() for line in out.splitlines()]  # type: ignore[misc]


def _cells(run: Path) -> list[str]:
    """What the checked cells of the notebooks left."""
    cells = [c for p in sorted(run.glob("*.ipynb")) for c in json.loads(p.read_text())["cells"]]
    checked = [c for c in cells if "nbval-check-output" in c["metadata"].get("tags", [])]
    return [re.sub(r"20\S+-small-\w+|\d+(\.\d+)?", "#", str(output)) for cell in checked for output in cell["outputs"]]


def _outcomes(verdict: dict) -> dict[str, str]:
    return {f["id"]: f["outcome"] for f in verdict["findings"]}
