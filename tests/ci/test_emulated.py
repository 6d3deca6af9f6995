"""The pipeline, really run: gitlab-ci-local's shell executor, real runs of a real server, a stand-in for Docker and its registry."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ci.emulated import IMAGE, PIPELINE_ID, Pipeline, need_emulator, new_pipeline

pytestmark = pytest.mark.timeout(2400)  # a minute each on a quiet machine, many times that beside others
OLD = f"{IMAGE}@sha256:{'0' * 64}"
UNDER_TEST, STAGING, BEFORE = "gatebook-under-test", "gatebook-staging", "gatebook-staging-before"


@pytest.fixture
def pipeline(tmp_path: Path, server: str) -> Iterator[Pipeline]:
    need_emulator()
    made = new_pipeline(tmp_path, server)
    yield made
    made.remove_containers()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (
            {"CI_PIPELINE_SOURCE": "merge_request_event", "CI_COMMIT_BRANCH": ""},
            "check build-image unit integration scenario verdict",
        ),
        ({}, "check build-image unit integration scenario verdict pages deploy-staging? rollback-staging?"),
        ({"CI_PIPELINE_SOURCE": "schedule"}, "check build-image unit nightly verdict pages"),
        (
            {"CI_COMMIT_TAG": "v1", "CI_COMMIT_BRANCH": ""},
            "check build-image unit integration scenario verdict deploy-staging? rollback-staging?",
        ),
        ({"CI_COMMIT_BRANCH": "idea"}, "check build-image unit integration verdict"),
        ({"GPU_TAG": ""}, "check unit integration scenario verdict pages"),
    ],
    ids=["merge-request", "main", "schedule", "tag", "branch", "no-gpu"],
)
def test_each_kind_of_pipeline_has_its_jobs(pipeline: Pipeline, variables: dict[str, str], expected: str) -> None:
    found = [f"{name}{'?' * (when == 'manual')}" for name, when in pipeline.jobs(**variables).items()]
    assert found == expected.split(), "a ? marks what a person starts"


def test_green_deploys_the_judged_digest_and_staging_undoes_what_is_not_green(pipeline: Pipeline) -> None:
    _runs_already(pipeline, OLD)
    done = pipeline.run("--needs", "verdict")
    assert done.code == 0, done
    judged = _image(pipeline)
    bundle = pipeline.artifact("verdict", "outputs/latest")
    verdict = json.loads((bundle / "verdict.json").read_text())
    assert (verdict["verdict"], verdict["suite"]) == ("PASS", "scenario")
    assert verdict["served"]["revision"] == judged.partition("@")[2]
    assert pipeline.containers == {STAGING: OLD}, "the server under test is gone and staging is untouched"
    built = [call for call in pipeline.calls if call[0] == "build"]
    assert len(built) == 1, "built once"
    assert {c[-1] for c in pipeline.calls if c[0] == "run" and UNDER_TEST in c} == {judged}

    pipeline.faults((STAGING, judged, "unavailable"))
    done = pipeline.run("deploy-staging")
    assert done.code != 0, done
    assert f"ROLLED BACK to {OLD}" in done.out
    assert pipeline.containers == {STAGING: OLD}
    assert _verdict(pipeline.artifact("deploy-staging", "outputs/latest")) == "ERROR", "what staging said is kept"
    assert _verdict(pipeline.artifact("deploy-staging", "outputs/rollback/latest")) == "PASS"

    pipeline.faults()
    done = pipeline.run("deploy-staging")
    assert done.code == 0, done
    assert f"DEPLOYED {judged}" in done.out
    assert pipeline.containers == {STAGING: judged, BEFORE: OLD}

    done = pipeline.run("rollback-staging")
    assert done.code == 0, done
    assert pipeline.containers == {STAGING: OLD}


def test_a_faulty_server_stops_the_pipeline_and_no_one_can_deploy_it(pipeline: Pipeline) -> None:
    pipeline.faults((UNDER_TEST, "", "garbage"))
    done = pipeline.run("--needs", "verdict")
    assert done.code != 0, done
    assert "FAIL  unit" in done.out, done
    assert "integration starting" not in done.out
    assert pipeline.containers == {}, "the server under test is gone after a red suite too"

    # The emulator does not start a `when: always` job whose needs were skipped, as GitLab does: started by hand.
    done = pipeline.run("verdict")
    assert done.code != 0, done
    shown = pipeline.artifact("verdict", "outputs/latest")
    report = ET.parse(shown / "junit.xml").getroot()
    attached = [e.text or "" for e in report.iter("system-out") if "[[ATTACHMENT|" in (e.text or "")]
    assert attached, "failing prompts are attached"
    for text in attached:
        path = text.partition("[[ATTACHMENT|")[2].partition("]]")[0]
        assert pipeline.artifact("verdict", path).is_file(), path
    assert re.search(r"^gatebook_exit_code\{[^}]*\} 1(\.0)?$", (shown / "metrics.txt").read_text(), re.MULTILINE)

    done = pipeline.run("deploy-staging")
    assert done.code != 0, done
    assert pipeline.containers == {}, "asked by hand, it refuses all the same"


def test_a_killed_job_leaves_its_evidence_and_a_retry_goes_on_with_it(pipeline: Pipeline) -> None:
    assert pipeline.run("--needs", "build-image").code == 0
    pipeline.faults((UNDER_TEST, "", "slow,arg=2"))
    process = subprocess.Popen(
        pipeline.command("unit"), cwd=pipeline.root, env=pipeline.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )  # fmt: skip
    _kill_gatebook(pipeline, exchanges=4)
    out = process.communicate(timeout=1400)[0]
    assert process.returncode != 0, out
    assert "could not measure" in out
    assert pipeline.containers == {}, "the server under test is gone"
    tier = f"outputs/{PIPELINE_ID}/smoke"
    evidence = _lines(pipeline.artifact("unit", f"{tier}/latest"))
    assert len(evidence) >= 4
    assert not pipeline.artifact("unit", f"{tier}/latest/SHA256SUMS").exists(), "and is no verdict"

    pipeline.faults()
    done = pipeline.run("unit")
    assert done.code == 0, done
    runs = list(pipeline.artifact("unit", tier).glob("20*"))
    assert len(runs) == 1, "the same run, from the cache"
    assert _lines(runs[0])[: len(evidence) - 1] == evidence[:-1]
    assert _verdict(pipeline.artifact("unit", f"{tier}/latest")) == "PASS"


def _runs_already(pipeline: Pipeline, image: str) -> None:
    """Staging as the deployment before this one left it."""
    registry = pipeline.root.parent / "docker" / "registry.json"
    registry.write_text(json.dumps({image: image.partition("@")[2]}))
    pipeline.docker(
        "run", "--detach", "--name", STAGING, "--publish", f"{pipeline.variables['STAGING_ADDRESS']}:8000", image
    )


def _image(pipeline: Pipeline) -> str:
    known = json.loads((pipeline.root.parent / "docker" / "registry.json").read_text())
    return next(ref for ref in known if "@" in ref and ref != OLD)


def _verdict(run: Path) -> str:
    return str(json.loads((run / "verdict.json").read_text())["verdict"])


def _lines(run: Path) -> list[str]:
    return (run / "01_health.exchanges.jsonl").read_text().splitlines()


def _kill_gatebook(pipeline: Pipeline, exchanges: int) -> None:
    """SIGKILL to `gatebook run`, as the kernel does when memory is short, once it has recorded something."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        time.sleep(0.1)
        for record in pipeline.root.glob(".gitlab-ci-local/builds/unit*/outputs/*/smoke/20*/01_health.exchanges.jsonl"):
            if record.read_bytes().count(b"\n") < exchanges:
                continue
            here = record.parents[4]
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    words, at = (folder / "cmdline").read_bytes().split(b"\0"), (folder / "cwd").readlink()
                except OSError:
                    continue  # ended meanwhile
                if at == here and b"gatebook" in words:
                    os.kill(int(folder.name), signal.SIGKILL)
                    return
    raise AssertionError("no gatebook run was found")
