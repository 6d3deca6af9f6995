"""Signals and kills at random moments: nothing red passes, nothing is lost, nothing is asked twice.

`make test` tries a few moments and `make chaos` a hundred of each; the moments follow from SEED and the number of the try.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import psutil
import pytest
from gatebook.config.selection import Shard

from tests.conftest import PATIENT, ROOT, Project, small_project
from tests.faults.proxy import Fault, FaultProxy

COUNT = int(os.environ.get("CHAOS", "1"))
SEED = os.environ.get("CHAOS_SEED", "1")
AT_A_TIME = 2
pytestmark = pytest.mark.timeout(300 + 300 * COUNT)
DIGEST = "sha256:" + "a" * 64
IMAGE = f"registry.example/served@{DIGEST}"
SET_E = "set -e; {}; echo DEPLOYED"
COMMANDS = {
    "passed": SET_E.format("gatebook passed outputs/latest --suite smoke"),
    "verify": SET_E.format("gatebook verify outputs/latest"),
    "deploy/verdict": SET_E.format("deploy/verdict"),
    "deploy/staging": "deploy/staging deploy",
}
OTHERS = {
    "report": SET_E.format("gatebook report outputs/latest"),
    "compare": SET_E.format("gatebook compare outputs/other outputs/latest"),
    "accept": SET_E.format("gatebook accept outputs/latest --reason x"),
    "archive": SET_E.format("rm -rf public; gatebook archive outputs/latest --to public"),
    "history list": SET_E.format("gatebook history list"),
    "run --plan": SET_E.format("gatebook run --plan --profile $PROFILE --base-url $BASE_URL"),
    "judge": SET_E.format(
        "rm -rf outputs/judged; gatebook judge outputs/latest --profile $PROFILE --out outputs/judged"
    ),
    "merge": SET_E.format("rm -rf outputs/merged; gatebook merge outputs/shard-* --out outputs/merged"),
    "fleet": SET_E.format("rm -rf outputs/fleet; gatebook fleet params/fleet.yaml"),
}
"""Commands that deploy nothing: a signal that reaches them is no success either."""
HOW = {
    "SIGINT": (signal.SIGINT, False),
    "SIGTERM": (signal.SIGTERM, False),
    "SIGHUP": (signal.SIGHUP, False),
    "SIGINT inherited as ignored": (signal.SIGINT, True),
}
DOCKER = f"""#!/bin/sh
echo "$@" >> "$DOCKER_CALLS"
case "$*" in
    *--format*) if grep -q "^run " "$DOCKER_CALLS"; then echo "{IMAGE}"; fi ;;
    "container inspect"*) grep -q "^run " "$DOCKER_CALLS" ;;
esac
"""


@dataclass
class Checkout:
    """A small project with the scripts of deploy/, and the bundle of one run in outputs/latest and under the pipeline's number."""

    project: Project
    base_url: str

    def start(self, name: str, ignored: bool = False) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "-c", (COMMANDS | OTHERS)[name]], cwd=self.project.root, env=self.environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=_ignore if ignored else None,
        )  # fmt: skip

    def restore(self) -> None:
        """The judged bundle in outputs/latest again."""
        outputs = self.project.root / "outputs"
        shutil.rmtree(outputs / "latest", ignore_errors=True)
        shutil.copytree(outputs / "77" / "smoke" / "latest", outputs / "latest")

    @property
    def calls(self) -> Path:
        """What Docker was asked."""
        return self.project.root / "docker-calls"

    @property
    def environment(self) -> dict[str, str]:
        root = self.project.root
        return {
            **self.project.environment, "PATH": f"{root / 'standin'}:{root / '.venv' / 'bin'}:{os.environ['PATH']}",
            "CI_PIPELINE_ID": "77", "TIERS": "smoke", "PROFILE": "params/small.yaml", "IMAGE_UNDER_TEST": IMAGE, "BASE_URL": self.base_url,
            "GATE_SUITE": "smoke", "STAGING_URL": self.base_url, "DOCKER_CALLS": str(self.calls),
        }  # fmt: skip


def _ignore() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _checkout(folder: Path, base_url: str, code: int) -> Checkout:
    project = small_project(folder)
    project.choose("model-served", "canary-list")
    project.edit_profile(limits={**PATIENT, "transport_retries": 0})
    done = project.ask(base_url, revision=DIGEST)
    assert done.code == code, done
    outputs = project.root / "outputs"
    shutil.copytree(outputs / "latest", outputs / "77" / "smoke" / "latest")
    shutil.copytree(ROOT / "deploy", project.root / "deploy")
    scripts = {
        "standin/docker": DOCKER,
        ".venv/bin/gatebook": f'#!/bin/sh\nexec {sys.executable} -m gatebook "$@"\n',
    }
    for name, text in scripts.items():
        path = project.root / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
        path.chmod(0o755)
    return Checkout(project, base_url)


@pytest.fixture(scope="module")
def green_checkout(server: str, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return _checkout(tmp_path_factory.mktemp("green"), server, 0)


@pytest.fixture(scope="module")
def others_checkout(green_checkout: Checkout) -> Checkout:
    """What the other commands read too: shards of a run, and a fleet of one."""
    project, url = green_checkout.project, green_checkout.base_url
    for number in (1, 2):
        done = project.ask(url, revision=DIGEST, shard=Shard(number, 2))
        assert done.code == 0, done
        done.run.rename(project.root / "outputs" / f"shard-{number}")
    one = {"name": "one", "profile": "params/small.yaml", "base_url": url, "revision": DIGEST}
    fleet = {"suite": "smoke", "store": "outputs/fleet", "deployments": [one]}
    (project.root / "params" / "fleet.yaml").write_text(json.dumps(fleet))
    first = project.gatebook("fleet", "params/fleet.yaml", timeout=280)
    assert first.code == 3, first
    (night,) = (project.root / "outputs" / "fleet").glob("20*")
    accepted = project.gatebook("fleet", "accept", night, "--reason", "first")
    assert accepted.code == 0, accepted
    return green_checkout


@pytest.fixture(scope="module")
def red_checkout(server: str, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    with FaultProxy(server.removesuffix("/v1"), [Fault("garbage")]) as proxy:
        return _checkout(tmp_path_factory.mktemp("red"), proxy.base_url, 1)


@pytest.mark.parametrize("name", COMMANDS)
def test_without_a_signal_green_deploys_and_red_does_not(
    green_checkout: Checkout, red_checkout: Checkout, name: str
) -> None:
    for checkout, code in ((green_checkout, 0), (red_checkout, 1)):
        checkout.restore()
        process = checkout.start(name)
        out, err = process.communicate(timeout=280)
        assert (process.returncode, "DEPLOYED" in out) == (code, code == 0), out + err


@pytest.fixture(scope="module")
def lasts(red_checkout: Checkout) -> Callable[[str], float]:
    """How many seconds a command takes that nobody disturbs."""

    @cache
    def measured(name: str) -> float:
        red_checkout.restore()
        began, undisturbed = time.monotonic(), red_checkout.start(name)
        said = undisturbed.communicate(timeout=280)
        assert undisturbed.returncode == 1, said
        return time.monotonic() - began

    return measured


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", COMMANDS)
def test_no_signal_at_any_moment_makes_red_pass(
    red_checkout: Checkout, lasts: Callable[[str], float], name: str, how: str
) -> None:
    took = lasts(name)
    red_checkout.restore()  # an interrupted deploy/verdict leaves none, and what is missing is red by itself

    def interrupted(number: int) -> tuple[str, str]:
        chance = random.Random(f"{SEED}/{name}/{how}/{number}")
        process = red_checkout.start(name, ignored=HOW[how][1])
        time.sleep(chance.uniform(0, took))
        whole = (
            chance.random() < 0.5
        )  # as a terminal does it; else the innermost process alone, as one that is singled out
        reached = _send(process, HOW[how][0], whole)
        out, err = process.communicate(timeout=280)
        assert "DEPLOYED" not in out and process.returncode != 0, (number, process.returncode, out, err)
        return ("after its end" if not reached else "all of it" if whole else "innermost"), str(process.returncode)

    with ThreadPoolExecutor(1 if name == "deploy/verdict" else AT_A_TIME) as pool:  # it writes outputs/latest
        found = Counter(pool.map(interrupted, range(COUNT)))
    assert not red_checkout.calls.exists(), "Docker was asked for a red bundle"
    _tell(f"{name}, {how}", found)


@pytest.mark.parametrize("name", OTHERS)
def test_no_command_that_was_interrupted_succeeds(others_checkout: Checkout, red_checkout: Checkout, name: str) -> None:
    outputs = others_checkout.project.root / "outputs"
    others_checkout.restore()
    shutil.copytree(
        red_checkout.project.root / "outputs" / "77" / "smoke" / "latest", outputs / "other", dirs_exist_ok=True
    )
    began, undisturbed = time.monotonic(), others_checkout.start(name)
    out, err = undisturbed.communicate(timeout=280)
    took = time.monotonic() - began
    assert (undisturbed.returncode, "DEPLOYED" in out) == (0, True), out + err
    found = Counter[str]()
    for how, number in product(HOW, range(COUNT)):
        chance = random.Random(f"{SEED}/{name}/{how}/{number}")
        process = others_checkout.start(name, ignored=HOW[how][1])
        time.sleep(took * chance.uniform(0, 0.5))  # long before its end
        whole = name == "fleet" or chance.random() < 0.5  # a worker of a fleet that is singled out is replaced
        heeded = _heeds(process)
        reached = _send(process, HOW[how][0], whole)
        out, err = process.communicate(timeout=280)
        if reached:
            assert "DEPLOYED" not in out and process.returncode != 0, (how, number, process.returncode, out, err)
        if heeded:  # before its first line Python itself answers SIGINT
            assert "Traceback" not in err, err
        found[str(process.returncode)] += 1
    _tell(name, found)


def _send(process: subprocess.Popen[str], number: int, whole: bool) -> bool:
    """False when nothing was left to reach, or nothing that heard it: the shell of a command that had ended or not begun, and a
    command that had not come to heed a signal that it inherited as ignored."""
    if process.poll() is not None:
        return False
    try:
        inner = psutil.Process(process.pid).children(recursive=True)
        heard = any(not _does(one.pid, "(?:Ign|Blk)", number) for one in (inner if whole else inner[-1:]))
        if whole:
            os.killpg(process.pid, number)
        else:
            (inner[-1] if inner else process).send_signal(number)
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False
    return heard


def _heeds(process: subprocess.Popen[str]) -> bool:
    """Whether the command of this shell has run its first line."""
    with suppress(psutil.Error):
        return any(_does(one.pid, "Cgt", signal.SIGTERM) for one in psutil.Process(process.pid).children())
    return False


def _does(pid: int, what: str, number: int) -> bool:
    """Whether a process catches (Cgt), ignores (Ign) or blocks (Blk) a signal; True of all where it is gone."""
    with suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        masks = [int(mask, 16) for mask in re.findall(rf"^Sig{what}:\s*(\w+)", status, re.MULTILINE)]
        return any(mask >> (number - 1) & 1 for mask in masks)
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_an_image_that_was_not_judged_does_not_stay_on_staging(green_checkout: Checkout, number: int) -> None:
    """Stopped while its smoke suite is asked, by a signal to all of it."""
    green_checkout.restore()
    green_checkout.calls.unlink(missing_ok=True)
    process = green_checkout.start("deploy/staging")
    deadline = time.monotonic() + 120
    while "\nrun " not in (green_checkout.calls.read_text() if green_checkout.calls.exists() else ""):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    time.sleep(0.5)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=280)
    served = green_checkout.calls.read_text().partition("\nrun ")[2]
    assert process.returncode not in (0, None) and "DEPLOYED" not in out, out + err
    assert "is not green on staging" in err and "rm --force gatebook-staging" in served, (served, err)
    assert "ROLLED BACK" in out, out + err


@pytest.mark.parametrize(("wait_s", "most"), [(0.0, None), (0.0, 1), (0.4, None), (0.4, 1)])
def test_a_kernel_that_is_killed_ends_the_replay(green_checkout: Checkout, wait_s: float, most: int | None) -> None:
    """nbval itself waits its whole deadline for it."""
    green_checkout.restore()
    process = green_checkout.start("verify")
    deadline = time.monotonic() + 120
    while not (kernels := _kernels(process.pid)):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    time.sleep(wait_s)
    for kernel in kernels[:most]:
        kernel.kill()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 75 and "DEPLOYED" not in out, out + err
    assert "nbval could not replay (status 70)" in out and "kernel" in out, out + err


def _kernels(parent: int) -> list[psutil.Process]:
    """The kernels of a command, and the process that forks them."""
    found = []
    for child in psutil.Process(parent).children(recursive=True):
        with suppress(psutil.Error):
            if child.name() in ("gatebook forks", "gatebook kernel"):
                found.append(child)
    return found


def of_four(project: Project) -> Project:
    project.choose("model-served", "max-tokens-5", "fresh-answers", "canary-water")
    project.edit_profile(limits=PATIENT)
    return project


@pytest.fixture(scope="module")
def whole(server: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[float, dict[str, str]]:
    """How many seconds a run takes that nobody disturbs, and its outcomes."""
    project = of_four(small_project(tmp_path_factory.mktemp("whole")))
    began = time.monotonic()
    with FaultProxy(server.removesuffix("/v1"), []) as proxy:
        done = project.run(proxy.base_url)
    assert done.code == 0, done
    return time.monotonic() - began, _outcomes(done.verdict)


@pytest.fixture
def slow(project: Project, server: str) -> Iterator[FaultProxy]:
    of_four(project)
    with FaultProxy(server.removesuffix("/v1"), []) as proxy:
        yield proxy


def test_a_run_killed_at_any_moment_goes_on_with_nothing_lost_and_nothing_asked_twice(
    project: Project, slow: FaultProxy, whole: tuple[float, dict[str, str]]
) -> None:
    (took, outcomes), found = whole, Counter[str]()
    for number in range(COUNT + 1):
        shutil.rmtree(project.root / "outputs", ignore_errors=True)
        asked = len(slow.requests)
        process = _run(project, slow)
        time.sleep(random.Random(f"{SEED}/{number}").uniform(0, took))
        ended = process.poll() is not None
        process.kill()
        process.communicate()
        runs = [file.parent for file in (project.root / "outputs").glob("20*/manifest.json")]
        if not runs:
            found["before there was a run"] += 1
            assert not list((project.root / "outputs").glob("20*")), "half a plan"
            continue
        before = {file.name: file.read_bytes() for file in runs[0].glob("*.exchanges.jsonl")}
        sealed = (runs[0] / "SHA256SUMS").exists()
        done = project.gatebook("run", "--resume", runs[0])
        assert done.code == 0, (number, done)
        for name, record in before.items():
            assert (runs[0] / name).read_bytes().startswith(record[: record.rfind(b"\n") + 1]), (number, name)
        users = Counter(body["user"] for _, _, body in slow.requests[asked:] if body and "user" in body)
        assert {u: users[u] for u in _users(before) if users[u] != 1} == {}, (
            number,
            "a recorded request was asked again",
        )
        verdict = json.loads((runs[0] / "verdict.json").read_text())
        assert _outcomes(verdict) == outcomes, number
        assert project.gatebook("verify", runs[0]).code == 0 if number % 10 == 0 else True
        found["after its end" if ended else "sealed" if sealed else f"{len(_users(before))} requests recorded"] += 1
        _tell("run, SIGKILL", found)


def test_a_kernel_killed_at_any_moment_ends_in_a_verdict_with_pages(
    project: Project, slow: FaultProxy, whole: tuple[float, dict[str, str]]
) -> None:
    took, found = whole[0], Counter[str]()
    for number in range(COUNT + 1):
        shutil.rmtree(project.root / "outputs", ignore_errors=True)
        process = _run(project, slow)
        time.sleep(random.Random(f"{SEED}/kernel/{number}").uniform(0, took))
        kernels: list[psutil.Process] = []
        while not kernels and process.poll() is None:
            kernels = _kernels(process.pid)
        if kernels:
            random.Random(number).choice(kernels).kill()
        err = process.communicate(timeout=280)[1]
        assert process.returncode in (0, 75) and "Traceback" not in err, (number, process.returncode, err)
        [run] = [file.parent for file in (project.root / "outputs").glob("20*/manifest.json")]
        for name in ("verdict.json", "index.html", "01_health.html", "90_verdict.html", "SHA256SUMS"):
            assert (run / name).exists(), (number, name, err)
        verdict = json.loads((run / "verdict.json").read_text())
        assert verdict["exit_code"] == process.returncode, number
        if process.returncode:
            assert "its kernel died" in verdict["reason"], (number, verdict["reason"])
            assert project.gatebook("run", "--resume", run).code == 0, number
        found[verdict["reason"] if process.returncode else "not needed any more"] += 1
        _tell("run, its kernel killed", found)


def test_an_interrupted_run_that_has_failed_is_a_failure(project: Project, server: str) -> None:
    """A `must` of 01 has failed when the signal comes; what was not asked does not take that back."""
    project.edit_profile(limits=PATIENT)
    with FaultProxy(server.removesuffix("/v1"), [Fault("garbage"), Fault("slow", arg=2.0)]) as proxy:
        process = _run(project, proxy)
        _until(project, lambda run: b"canary-water/ask" in (run / "01_health.exchanges.jsonl").read_bytes())
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=120)[1]
    [run] = [file.parent for file in (project.root / "outputs").glob("20*/manifest.json")]
    verdict = json.loads((run / "verdict.json").read_text())
    assert (process.returncode, verdict["verdict"], "Traceback" in err) == (1, "FAIL", False), (verdict["reason"], err)


def test_a_second_signal_ends_a_run_at_once_and_it_can_be_resumed(project: Project, server: str) -> None:
    project.choose("model-served", "max-tokens-5", "canary-water")
    project.edit_profile(limits=PATIENT)
    with FaultProxy(server.removesuffix("/v1"), [Fault("slow", arg=1.0)]) as proxy:
        process = _run(project, proxy)
        run = _until(project, lambda run: (run / "01_health.exchanges.jsonl").read_bytes().count(b"\n") > 3)
        process.send_signal(signal.SIGTERM)
        time.sleep(1.2)
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=60)[1]
        if process.returncode == 130:
            assert "interrupted again, stopped at once" in err, err
        else:  # a quick machine has written its verdict by then, and may be about to leave
            assert process.returncode in (75, -signal.SIGINT), (process.returncode, err)
        assert "Traceback" not in err
        proxy.calm()
        assert project.gatebook("run", "--resume", run).code == 0


def test_a_run_that_is_running_is_neither_resumed_nor_reported_and_takes_no_harm(project: Project, server: str) -> None:
    project.choose("model-served", "max-tokens-5", "canary-water")
    project.edit_profile(limits=PATIENT)
    with FaultProxy(server.removesuffix("/v1"), [Fault("slow", arg=1.0)]) as proxy:
        process = _run(project, proxy)
        run = _until(project, lambda run: (run / "01_health.exchanges.jsonl").exists())
        for command in (("run", "--resume"), ("report",)):
            done = project.gatebook(*command, run)
            assert done.code == 2, done
            assert "is in use by gatebook run of " in done.err and f"process {process.pid} on " in done.err, done
        proxy.calm()
        process.communicate(timeout=240)
    assert process.returncode == 0
    assert not list((project.root / "outputs").glob(".*.lock"))
    assert project.gatebook("passed", run, "--suite", "smoke").code == 0


def test_a_run_in_the_background_of_a_script_heeds_sigint(project: Project, slow: FaultProxy) -> None:
    process = _run(project, slow, preexec_fn=_ignore)
    _until(project, lambda run: (run / "01_health.exchanges.jsonl").exists())
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=120)[1]
    assert (process.returncode, "Traceback" in err) == (75, False), err


def _run(project: Project, proxy: FaultProxy, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        project.command("run", "--profile", project.profile, "--base-url", proxy.base_url),
        cwd=project.root, env=project.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **more,
    )  # fmt: skip


def _until(project: Project, ready: Any) -> Path:
    ends = time.monotonic() + 120
    while time.monotonic() < ends:
        for file in (project.root / "outputs").glob("20*/01_health.exchanges.jsonl"):
            if ready(file.parent):
                return file.parent
        time.sleep(0.05)
    raise AssertionError("the run does not get there")


def _users(records: dict[str, bytes]) -> set[str]:
    lines = [line for record in records.values() for line in record[: record.rfind(b"\n") + 1].splitlines()]
    bodies = [json.loads(line)["exchange"].get("body") or {} for line in lines]
    return {body["user"] for body in bodies if "user" in body}


def _outcomes(verdict: dict[str, Any]) -> dict[str, str]:
    return {f["id"]: f["outcome"] for f in verdict["findings"]}


def _tell(what: str, found: Counter[Any]) -> None:
    print(
        f"\n{what}: {sum(found.values())} tries: " + "; ".join(f"{n} {key}" for key, n in found.most_common()),
        flush=True,
    )
