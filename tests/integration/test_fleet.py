"""A fleet: many deployments in one verdict, on a real Dask cluster of processes; nothing but all of them passing is green."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from gatebook.record.history import History, database_url
from gatebook.record.run import Run
from gatebook.record.shelf import held

from tests.conftest import ROOT, Done, Project, small_project
from tests.documents import commands, exit_code
from tests.faults.many import ManyServers
from tests.forging import drop, edit, seal
from tests.integration.test_latency import CASE, CHAT, LATENCY, SAMPLES
from tests.postgresql import new_database

pytest.importorskip("distributed", reason="requirements-fleet.txt is not installed")
MODEL = "smollm2-135m-instruct"
COUNTRIES = ("France", "Italy", "Japan", "Spain", "England")
TEN = [f"d{number}" for number in range(10)]
KEY = "sk-9f2c7a41d0b8e6355c17"
CLUSTER = """
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address='127.0.0.1:0', memory_limit=0) as cluster:
        print(cluster.scheduler_address, flush=True)
        input()
"""
SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=tests/20261129/us-east-1/s3/aws4_request, Signature=0"}
"""Nobody checks it, but without one no object is given out."""
S3 = httpx.Client(headers=SIGNED, trust_env=False)
"""One for all requests: each has certificates to read otherwise."""
pytestmark = pytest.mark.timeout(1200)


def capitals(count: int) -> list[dict[str, Any]]:
    """Cases of a compared group that the scripted server answers well."""
    return [
        {
            "id": f"capital-{number}", "notebook": "03_multilingual", "group": "fleet.capitals", "suites": ["smoke"],
            "why": "a fact that each of its models knows",
            "messages": [{"role": "user", "content": f"{number}: What is the capital of {COUNTRIES[number % 5]}?"}],
            "expect": [{"contains_any": ["It is "]}], "good": ["It is Rome."], "bad": ["Hello!"],
        }
        for number in range(count)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def many() -> Iterator[ManyServers]:
    with ManyServers(MODEL) as server:
        yield server


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = small_project(tmp_path_factory.mktemp("fleet"))
    made.write_cases(capitals(8))
    made.edit_profile(limits={"ready_deadline_s": 5, "transport_retries": 0}, groups={"fleet.capitals": "no_worse"})
    return made


@contextmanager
def process(*command: str | Path, **more: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that ends with the block, in a session of its own."""
    with subprocess.Popen([*map(str, command)], text=True, start_new_session=True, **more) as made:
        try:
            yield made
        finally:
            made.kill()


@contextmanager
def dask_cluster(project: Project, folder: Path) -> Iterator[psutil.Process]:
    """A Dask cluster of two worker processes, which have a key that nobody else has."""
    script = folder / "cluster.py"
    script.write_text(CLUSTER, encoding="utf-8")
    env = {**project.environment, "FLEET_KEY": KEY}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with process(sys.executable, script, cwd=project.root, env=env, **pipes) as made:
        assert made.stdout
        found = psutil.Process(made.pid)
        found.address = made.stdout.readline().strip()  # type: ignore[attr-defined]
        yield found


@pytest.fixture(scope="module")
def cluster(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[psutil.Process]:
    with dask_cluster(project, tmp_path_factory.mktemp("cluster")) as made:
        yield made


def fleet_file(project: Project, many: ManyServers, names: list[str], name: str = "fleet", **more: Any) -> Path:
    deployments = [
        {"name": one, "profile": "params/small.yaml", "base_url": many.base_url(one), "labels": {"region": one[-1]}}
        for one in names
    ]
    file = project.root / "params" / f"{name}.yaml"
    data = {"suite": "smoke", "store": "outputs/fleet", "deployments": deployments, **more}
    file.write_text(yaml.safe_dump(data), encoding="utf-8")
    return file


def fleet(project: Project, *arguments: str | Path, env: dict[str, str] | None = None) -> Done:
    return project.gatebook("fleet", *arguments, env=env, timeout=900)


def newest(project: Project) -> Path:
    return max((project.root / "outputs" / "fleet").glob("20*"), key=lambda path: path.stat().st_mtime_ns)


def said(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "verdict.json").read_text(encoding="utf-8"))
    return found


def words(folder: Path) -> dict[str, str]:
    return {row["deployment"]: row["verdict"] for row in said(folder)["deployments"]}


def until(true: Callable[[], Any], every_s: float = 0.02) -> Any:
    """What it returns once that is something. Fails where it never is."""
    deadline = time.monotonic() + 300
    while not (found := true()):
        assert time.monotonic() < deadline, "waited for what never came"
        time.sleep(every_s)
    return found


def questions(many: ManyServers, name: str) -> Counter[str]:
    return Counter(text for text in many.asked[name] if "capital" in text)


@pytest.fixture(scope="module")
def two_nights(project: Project, many: ManyServers) -> tuple[Done, Done, Done, Path]:
    """First night, accept, second night of ten deployments, on processes of this machine, as fleet.md has them typed; and the
    second run's folder."""
    file, done = fleet_file(project, many, TEN), []
    for line in (line for line in commands(ROOT / "docs" / "fleet.md") if "gatebook fleet" in line):
        names = {"params/fleet.yaml": str(file), "outputs/fleet/RUN": str(newest(project)) if done[1:] else ""}
        done.append(fleet(project, *(names.get(word, word) for word in shlex.split(line, comments=True)[2:])))
        assert done[-1].code == exit_code(line), (line, done[-1])
    plan, first, taken, second, resumed = done
    assert "10 deployments" in plan.out and "all 10 deployments pass" in resumed.out, (plan, resumed)
    return first, taken, second, newest(project)


def test_first_night_accept_second_night(two_nights: tuple[Done, Done, Done, Path]) -> None:
    first, taken, second, folder = two_nights
    assert first.code == 3 and "next: gatebook fleet accept" in first.out, first
    assert taken.code == 0 and "10 of 10 deployments accepted, 0 refused" in taken.out, taken
    assert second.code == 0 and second.out.splitlines()[-1].startswith("PASS  all 10 deployments pass"), second
    assert words(folder) == dict.fromkeys(TEN, "PASS") and said(folder)["accepted"]
    assert "d3, verdict: was INCONCLUSIVE, is PASS" in said(folder)["changes"]


def test_what_is_told_of_a_fleet(two_nights: tuple[Done, Done, Done, Path]) -> None:
    folder = two_nights[-1]
    suites = ET.parse(folder / "junit.xml").getroot()
    assert [suite.get("name") for suite in suites] == TEN and not [*suites.iter("failure"), *suites.iter("error")]
    sample = 'gatebook_fleet_verdict{label_region="3",fleet="fleet",suite="smoke",deployment="d3",verdict="PASS"} 1'
    assert sample in (folder / "metrics.txt").read_text(encoding="utf-8")
    page = (folder / "index.html").read_text(encoding="utf-8")
    for link in ("deployments/d3/index.html", "deployments/d3/03_multilingual.html"):
        assert f'href="{link}"' in page and (folder / link).is_file()


@pytest.fixture(scope="module")
def known(project: Project, many: ManyServers) -> list[str]:
    """Deployments whose baselines were accepted."""
    names = [f"e{number}" for number in range(10)]
    done = project.ask(many.base_url(names[0]))
    assert done.code == 3, done
    project.accept(done.run)
    for name in names:
        shutil.copy(
            project.root / "params" / "baselines" / "small.json", project.root / "params" / "baselines" / f"{name}.json"
        )
    return names


def test_one_wrong_one_broken_one_down_and_the_others_go_on(
    project: Project, many: ManyServers, cluster: Any, known: list[str]
) -> None:
    """Each by its own cause; keys come from the workers' environment alone, and no host has more in flight than its cap."""
    many.wrong, many.broken = {"e1"}, {"e2"}
    many.most.clear()
    many.slow = 0.05
    file = fleet_file(project, many, known[:4], "mixed", hosts={"127.0.0.1": 1})
    data = yaml.safe_load(file.read_text())
    data["deployments"][0]["api_key_env"] = "FLEET_KEY"
    data["deployments"][3]["base_url"] = "http://127.0.0.1:9/v1"
    file.write_text(yaml.safe_dump(data))
    done = fleet(project, file, "--scheduler", cluster.address)
    assert done.code == 1 and done.out.splitlines()[-1].startswith("FAIL  1 of 4 deployments are FAIL: e1; e1: "), done
    folder = newest(project)
    assert words(folder) == {"e0": "PASS", "e1": "FAIL", "e2": "ERROR", "e3": "ERROR"}
    reasons = {row["deployment"]: row["reason"] for row in said(folder)["deployments"]}
    assert "shown worse" in reasons["e1"] and "HTTP 500" in reasons["e2"] and "cannot connect" in reasons["e3"]
    red = {s.get("name") for s in ET.parse(folder / "junit.xml").getroot() if [*s.iter("failure"), *s.iter("error")]}
    assert red == {"e1", "e2", "e3"}
    assert many.keys["e0"] >= {f"Bearer {KEY}"} and not [k for n in known[1:] for k in many.keys[n] if k]
    assert not [p for p in folder.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]
    assert many.most[""] == 1, "hosts: {127.0.0.1: 1}"
    alone = project.gatebook("passed", folder / "deployments" / "e0", "--suite", "smoke")
    assert alone.code == 2 and "was judged as one of 4 deployments" in alone.err, alone
    refused = fleet(project, "accept", folder, "--reason", "no")
    assert refused.code == 3 and "e1: not accepted: " in refused.out and "1 of 4 deployments accepted" in refused.out
    many.wrong, many.broken, many.slow = set(), set(), 0.0


def test_resume_judges_what_is_kept_again(project: Project, many: ManyServers, cluster: Any, known: list[str]) -> None:
    """Neither a verdict that was edited and sealed anew, nor a plan without what fails, nor the bundle of a neighbour is green."""
    many.wrong = {"e5", "e6"}
    done = fleet(project, fleet_file(project, many, known[5:9], "kept"), "--scheduler", cluster.address)
    many.wrong = set()
    folder = newest(project)
    assert done.code == 1 and words(folder) == {"e5": "FAIL", "e6": "FAIL", "e7": "PASS", "e8": "PASS"}, done
    fails = [
        f["id"].partition(".")[0] for f in said(folder / "deployments" / "e5")["findings"] if f["outcome"] == "fail"
    ]
    drop(folder / "deployments" / "e5", *fails[2:])
    forged = said(folder / "deployments" / "e5")
    assert forged["verdict"] == "PASS", ("the forgery holds by itself", fails, forged["reasons"])
    red, other = folder / "deployments" / "e6", folder / "deployments" / "e7"
    edit(red / "verdict.json", lambda verdict: verdict.update(verdict="PASS", exit_code=0, reason="all is well"))
    Run(red).seal()
    its = json.loads((other / "manifest.json").read_text(encoding="utf-8"))["profile"]
    shutil.rmtree(other)
    shutil.copytree(folder / "deployments" / "e8", other)
    edit(other / "manifest.json", lambda manifest: manifest.update(profile=its))
    seal(other)
    many.asked.clear()
    done = fleet(project, "--resume", folder, "--scheduler", cluster.address)
    assert done.code == 75 and words(folder) == {"e5": "ERROR", "e6": "ERROR", "e7": "ERROR", "e8": "PASS"}, done
    reasons = {row["deployment"]: row["reason"] for row in said(folder)["deployments"]}
    assert "deployments/e5: was not judged by what this checkout says: case " in reasons["e5"], reasons["e5"]
    assert "not the evidence of the verdict that it states" in reasons["e6"]
    assert f"deployments/e7: was asked at {many.base_url('e8')}, and e7 is at {many.base_url('e7')}" in reasons["e7"]
    assert not many.asked, "what is kept is not asked again"
    fewer = fleet_file(project, many, known[5:8], "kept")
    refused = fleet(project, fewer, "--resume", folder)
    assert refused.code == 2 and "nothing was asked: deployment 'e8', key 'deployments'" in refused.err, refused


def test_shards_of_a_deployment_are_one_run(
    project: Project, many: ManyServers, cluster: Any, known: list[str]
) -> None:
    whole = project.ask(many.base_url("e5")).verdict
    many.asked["e5"].clear()
    many.most.clear()
    many.slow = 0.05
    file = fleet_file(project, many, ["e5"], "sharded", shards=3)
    done = fleet(project, file, "--scheduler", cluster.address)
    many.slow = 0.0
    folder = newest(project)
    assert done.code == 0, said(folder)["deployments"]
    merged = said(folder / "deployments" / "e5")
    assert merged["verdict"] == "PASS" and not merged["partial"]
    assert {f["id"]: f["outcome"] for f in merged["findings"]} == {f["id"]: f["outcome"] for f in whole["findings"]}
    assert len(questions(many, "e5")) == 8 and set(questions(many, "e5").values()) == {1}
    assert many.most["e5"] == 1, "its profile says in_flight: 1"
    assert len([*folder.glob("shards/*/verdict.json")]) == 3


def hold(run: Path, seconds: float) -> None:
    """Hold the lock of a run."""
    with held(run, "the run of a worker that is gone", tries=100):
        time.sleep(seconds)


def kill_the_worker(cluster: psutil.Process) -> None:
    """SIGKILL to the worker whose child asks."""
    os.kill(until(lambda: _asking(cluster)), signal.SIGKILL)


def _asking(cluster: psutil.Process) -> int:
    """The process whose forker has a child that is `gatebook run`; 0 for none."""
    for child in cluster.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if child.name() == "gatebook run":
                return child.parents()[1].pid
    return 0


def test_a_killed_worker_costs_nothing(project: Project, many: ManyServers, cluster: Any, known: list[str]) -> None:
    """Its deployment goes on elsewhere: on a store of files only what was in flight is asked again."""
    many.asked["e6"].clear()
    file = fleet_file(project, many, ["e6"], "killed")
    many.slow = 0.5
    arguments = project.command("fleet", file, "--scheduler", cluster.address)
    with process(*arguments, cwd=project.root, env=project.environment, stdout=subprocess.PIPE) as run:
        until(lambda: len(questions(many, "e6")) >= 4 or run.poll() is not None)
        kill_the_worker(cluster)
        out, _ = run.communicate()
    many.slow = 0.0
    assert run.returncode == 0, out
    assert said(newest(project))["deployments"][0]["moved_on"] == 1
    asked = questions(many, "e6")
    assert len(asked) == 8 and sum(asked.values()) <= 9


def test_a_fleet_whose_scheduler_is_gone_is_resumed(project: Project, many: ManyServers, known: list[str]) -> None:
    """It was in the process of the command, which gets SIGKILL."""
    many.asked["e7"].clear()
    many.asked["e8"].clear()
    file = fleet_file(project, many, ["e7", "e8"], "lost", workers=1)
    many.slow = 0.5
    with process(*project.command("fleet", file), cwd=project.root, env=project.environment) as run:
        until(lambda: len(questions(many, "e7")) >= 1 or run.poll() is not None)
        second = fleet(project, "--resume", newest(project))
        assert second.code == 2 and "is in use by gatebook fleet of " in second.err, second
        assert f"(process {run.pid} on " in second.err, second
        until(lambda: len(questions(many, "e8")) >= 4 or run.poll() is not None)
        run.send_signal(signal.SIGKILL)
    many.slow = 0.0
    folder = newest(project)
    assert not (folder / "verdict.json").exists()
    [left] = (file.parent for file in folder.glob("work/e8/20*/manifest.json"))
    ends_late = threading.Thread(target=hold, args=(left, 3.0))  # as its child does on a busy machine
    ends_late.start()
    done = fleet(project, "--resume", folder)
    ends_late.join()
    assert done.code == 0 and words(folder) == {"e7": "PASS", "e8": "PASS"}, done
    assert set(questions(many, "e7").values()) == {1} and sum(questions(many, "e8").values()) <= 9


def test_a_lost_scheduler_is_an_error_that_says_how_to_go_on(
    project: Project, many: ManyServers, cluster: Any, known: list[str], tmp_path: Path
) -> None:
    many.asked["e3"].clear()
    file = fleet_file(project, many, ["e3"], "away")
    with dask_cluster(project, tmp_path) as other:
        command = project.command("fleet", file, "--scheduler", other.address)  # type: ignore[attr-defined]
        many.slow = 0.5
        with process(*command, cwd=project.root, env=project.environment, stdout=subprocess.PIPE) as run:
            until(lambda: len(questions(many, "e3")) >= 4 or run.poll() is not None)
            other.kill()
            out, _ = run.communicate()
    many.slow = 0.0
    folder = newest(project)
    assert run.returncode == 75 and f"gatebook fleet --resume {folder}" in said(folder)["reason"], out
    done = fleet(project, "--resume", folder, "--scheduler", cluster.address)
    assert done.code == 0 and len(questions(many, "e3")) == 8, done


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """(URL of a server that speaks S3, the environment of who uses it), with the bucket `gates`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (tmp_path_factory.mktemp("s3") / "log").open("w")
    command = [sys.executable, "-m", "moto.server", "--port", str(port)]
    with process(*command, stdout=log, stderr=log):
        url = f"http://127.0.0.1:{port}"
        until(lambda: _answers(url))
        assert S3.put(f"{url}/gates").status_code == 200
        names = ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")
        yield url, {**{f"AWS_{n}": "tests" for n in names}, "AWS_ENDPOINT_URL": url, "AWS_DEFAULT_REGION": "us-east-1"}
    log.close()


def _answers(url: str) -> bool:
    try:
        return S3.get(url).status_code > 0
    except httpx.TransportError:
        return False


def shipped(url: str) -> set[str]:
    """Numbers of the cases of which the store has an exchange in a segment of a journal."""
    listed = S3.get(f"{url}/gates", params={"list-type": "2"}).text
    segments = [key for key in re.findall(r"<Key>(.*?)</Key>", listed) if ".exchanges.jsonl/" in key]
    return {n for key in segments for n in re.findall(r'"case": "capital-(\d+)"', S3.get(f"{url}/gates/{key}").text)}


def test_a_killed_worker_s_run_goes_on_from_an_object_store_and_its_bundle_verifies_there(
    project: Project, many: ManyServers, s3: tuple[str, dict[str, str]], known: list[str]
) -> None:
    url, env = s3
    many.asked["e4"].clear()
    many.slow = 1.0
    file = fleet_file(project, many, ["e4"], "s3", store="s3://gates/nights", workers=2)
    with process(
        *project.command("fleet", file), cwd=project.root, env=project.environment | env, stdout=subprocess.PIPE
    ) as run:
        until(lambda: shipped(url) or run.poll() is not None, every_s=0.2)
        kill_the_worker(psutil.Process(run.pid))
        kept = shipped(url)
        out, _ = run.communicate()
    many.slow = 0.0
    assert run.returncode == 0 and out.splitlines()[-1].startswith("PASS  "), out
    twice = {text.split(":")[0] for text, count in questions(many, "e4").items() if count > 1}
    assert kept and not kept & twice and len(questions(many, "e4")) == 8
    bundle = f"{out.split()[-1].removesuffix('/index.html')}/deployments/e4"
    done = project.gatebook("verify", bundle, env=env)
    assert done.code == 0 and done.out.splitlines()[-1].startswith("reproduced, PASS"), done
    object_ = f"{url}/{bundle.removeprefix('s3://')}/03_multilingual.exchanges.jsonl"
    forged = S3.get(object_).content.replace(b'"status": 200', b'"status": 201', 1)
    assert S3.put(object_, content=forged).is_success
    assert project.gatebook("verify", bundle, env=env).code == 75


class Forwarding(BaseHTTPRequestHandler):
    """Passes S3 requests on, but for writes under a name that the store refuses."""

    protocol_version = "HTTP/1.1"
    upstream, refused = "", ""

    def forward(self) -> None:
        data = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.command == "PUT" and self.refused and self.refused in self.path:
            status, kind, body = (
                403,
                "application/xml",
                b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>",
            )
        else:
            headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "content-length", "expect")}
            reply = S3.request(self.command, self.upstream + self.path, content=data, headers=headers)
            status, kind, body = reply.status_code, reply.headers.get("content-type", ""), reply.content
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = forward

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def test_a_store_that_refuses_a_bundle_costs_that_deployment_alone(
    project: Project, many: ManyServers, s3: tuple[str, dict[str, str]], known: list[str]
) -> None:
    Forwarding.upstream, Forwarding.refused = s3[0], "/deployments/e5/"
    many.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Forwarding) as front:
        threading.Thread(target=front.serve_forever, daemon=True).start()
        env = s3[1] | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{front.server_port}"}
        file = fleet_file(project, many, known[5:7], "refusing", store="s3://gates/refusing", workers=1)
        done = fleet(project, file, env=env)
        assert done.code == 75 and re.search(r"e5 .* ERROR .*the store .* refuses deployments/e5", done.out), done
        assert re.search(r"e6 .* PASS ", done.out), done
        Forwarding.refused = ""
        run = done.out.split()[-1].removesuffix("/index.html")
        done = fleet(project, "--resume", run, env=env)
        front.shutdown()
    assert done.code == 0 and done.out.splitlines()[-1].startswith("PASS  all 2 deployments pass"), done
    assert set(questions(many, "e6").values()) == {1}, "what passed is not asked again"


def test_all_workers_write_one_history(tmp_path: Path, many: ManyServers, postgresql: str) -> None:
    """One row a deployment and group, in a PostgreSQL server that is shared."""
    project = small_project(tmp_path)
    timed = {**CASE, "notebook": "01_health", "expect": [{"latency_ttft": "profile"}, {"latency_total": "profile"}]}
    project.write_cases([timed])
    project.edit_profile(
        groups={CHAT: "must", "latency.contract": "must"}, latency=LATENCY, limits={"ready_deadline_s": 5}
    )
    url, names = new_database(postgresql, "fleet"), [f"f{number}" for number in range(4)]
    many.slow = 0.005
    done = fleet(project, fleet_file(project, many, names, "historic"), env={"GATEBOOK_HISTORY_URL": url})
    many.slow = 0.0
    assert done.code == 3 and done.out.count("no baseline yet") >= 4, done
    rows = History(database_url(url)).rows()
    assert sorted((row.profile, row.group, row.n) for row in rows) == [(name, CHAT, SAMPLES - 2) for name in names]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--scheduler", "tcp://127.0.0.1:9"], "--scheduler tcp://127.0.0.1:9: cannot be reached"),
        ([], "key 'store' has value 'params/small.yaml/fleet'"),
    ],
)
def test_what_stops_a_fleet_before_it_asks(project: Project, many: ManyServers, options: list[str], said: str) -> None:
    many.asked["e7"].clear()
    file = fleet_file(project, many, ["e7"], "stopped", **({} if options else {"store": "params/small.yaml/fleet"}))
    done = fleet(project, file, *options)
    assert (done.code, len(done.err.strip().splitlines())) == (2, 1) and said in done.err, done
    assert not many.asked["e7"]
