"""Forged bundles against the deploy scripts as shipped: what the checkout does not say is refused by name, and a seal is demanded."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import forging
from tests.conftest import ROOT, Done, Project, small_project
from tests.faults.proxy import FaultProxy

pytestmark = pytest.mark.timeout(900)
DIGEST = "sha256:" + "a" * 64
IMAGE = f"registry.example/group/project/served@{DIGEST}"
CASES = ("model-served", "canary-water", "greeting-nihao")
FAILING = ("canary-water", "greeting-nihao")


@dataclass
class Pipeline:
    """A project with the deploy scripts, as a job's checkout has them, and the bundles of its gate job."""

    project: Project
    url: str
    green: Path
    red: Path

    def script(self, name: str, *arguments: str, **variables: str) -> Done:
        root = self.project.root
        told = {
            "CI_PIPELINE_ID": "77", "TIERS": "smoke", "PROFILE": "params/small.yaml", "REVISION": DIGEST, "GATE_SUITE": "smoke",
            "STAGING_URL": "http://127.0.0.1:9/v1", "SUITE": "smoke",
        }  # fmt: skip
        environment = {**self.project.environment, **told, **variables}
        done = subprocess.run(
            [str(root / "deploy" / name), *arguments], cwd=root, env=environment, capture_output=True, text=True, timeout=400
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr, root / "outputs")

    def hand_over(self, bundle: Path) -> Path:
        """The bundle where deploy/verdict expects that of the tier."""
        there = self.project.root / "outputs" / "77" / "smoke" / "latest"
        shutil.rmtree(there, ignore_errors=True)
        return Path(shutil.copytree(bundle, there))


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory, server: str) -> Pipeline:
    project = small_project(tmp_path_factory.mktemp("forged"))
    project.choose(*CASES)
    project.edit_profile(limits={"request_deadline_s": 60, "ready_deadline_s": 30, "transport_retries": 0})
    shutil.copytree(ROOT / "deploy", project.root / "deploy")
    command = project.root / ".venv" / "bin" / "gatebook"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m gatebook "$@"\n')
    command.chmod(0o755)
    green = project.ask(server, revision=DIGEST)
    assert green.code == 0, green
    with FaultProxy(server.removesuffix("/v1"), ["empty"]) as proxy:
        red = project.ask(proxy.base_url, revision=DIGEST)
    assert red.code == 1, red
    return Pipeline(project, server, green.run, red.run)


FORGERIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "policies watch": (
        forging.watch_everything,
        "policy: the run has 'watch', the checkout 'must'",
    ),
    "failing cases dropped": (lambda bundle: forging.drop(bundle, *FAILING), "case canary-water: is not in the run"),
    "waivers written in": (
        lambda bundle: [forging.waive(bundle, case) for case in FAILING],
        "profile waivers.canary-water.owner: the run has 'nobody', the checkout nothing",
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_red_run_forged_green_is_refused_by_name(pipeline: Pipeline, tmp_path: Path, name: str) -> None:
    forge, said = FORGERIES[name]
    bundle = Path(shutil.copytree(pipeline.red, tmp_path / "forged"))
    forge(bundle)
    alone = pipeline.project.gatebook("passed", bundle, "--suite", "smoke", "--revision", DIGEST)
    assert alone.code == 0 and "passed, PASS:" in alone.out, f"the forgery is a good one: {alone}"
    _refused(pipeline, bundle, said)


def test_a_smaller_suite_than_the_checkouts_is_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(pipeline.green, tmp_path / "forged"))
    forging.drop(bundle, *FAILING)
    _refused(pipeline, bundle, "case canary-water: is not in the run; case greeting-nihao: is not in the run")


def _refused(pipeline: Pipeline, bundle: Path, said: str) -> None:
    """By deploy/verdict, and by deploy/staging, which never gets as far as Docker."""
    pipeline.hand_over(bundle)
    judged = pipeline.script("verdict")
    assert judged.code == 2 and said in judged.err and "run it again from this commit" in judged.err, judged
    assert "passed, PASS" not in judged.out
    deployed = pipeline.script("staging", "deploy", IMAGE_UNDER_TEST=IMAGE)
    assert deployed.code == 2 and said in deployed.err, deployed
    assert "deploying" not in deployed.out


def test_the_baseline_is_one_that_was_accepted_here(pipeline: Pipeline, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(pipeline.green, tmp_path / "forged"))
    asked = (
        "--suite",
        "smoke",
        "--profile",
        pipeline.project.profile,
        "--cases",
        pipeline.project.root / "params" / "cases",
    )
    kept = pipeline.project.root / "params" / "baselines" / "small.json"
    before = kept.read_text()
    try:
        assert pipeline.project.gatebook("passed", bundle, *asked).code == 0
        accepted = pipeline.project.gatebook("accept", bundle, "--reason", "healthy", "--by", "li")
        assert accepted.code == 0, accepted
        assert pipeline.project.gatebook("passed", bundle, *asked).code == 0, "compared with the one before, by the log"

        forging.edit(bundle / "baseline.json", lambda baseline: baseline["fingerprint"].clear())
        forging.seal(bundle)
        done = pipeline.project.gatebook("passed", bundle, *asked)
        assert done.code == 3 and done.out.splitlines()[-1].startswith("NOT PASSED, "), done
        assert "gatebook accept" in done.out

        kept.unlink()
        done = pipeline.project.gatebook("passed", pipeline.green, *asked)
        assert done.code == 3 and "nothing was accepted here; run `gatebook accept`" in done.out, done
    finally:
        kept.write_text(before)


def test_what_the_run_was_told_besides_is_said_and_can_be_demanded(pipeline: Pipeline) -> None:
    project, url = pipeline.project, f"{pipeline.url}"
    asked = ("passed", pipeline.green, "--suite", "smoke", "--profile", project.profile)
    done = project.gatebook(*asked, "--base-url", url, "--model", "smollm2-135m-instruct")
    assert done.code == 0, done
    assert f"the run's own base_url: {url} (in the profile: none)" in done.out
    assert f"the run's own revision: {DIGEST} (in the profile: q4_1-2025-02)" in done.out
    assert done.out.startswith("passed, PASS: ") and len(done.out.splitlines()) == 1, "the proof is the only line"
    for option, value in (("--base-url", "http://other:1/v1"), ("--model", "m2"), ("--header", "X-Tenant")):
        other = project.gatebook(*asked, option, value)
        assert other.code == 2 and "gate that one" in other.err, other
    assert "--cases goes with --profile" in project.gatebook(*asked[:4], "--cases", "params/cases").err


@pytest.fixture(scope="module")
def seal_key() -> dict[str, str]:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    made = subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519"], capture_output=True, text=True, check=True)
    return {"GATEBOOK_SEAL_KEY": made.stdout}


def test_an_edited_answer_is_told_by_the_seal_that_the_gate_has_left(
    pipeline: Pipeline, tmp_path: Path, seal_key: dict[str, str]
) -> None:
    sealed = seal_key
    gated = pipeline.script("gate", BASE_URL=pipeline.url, **sealed)
    assert gated.code == 0 and "sealed outputs/77/smoke/latest.sig" in gated.out, gated
    latest = pipeline.project.root / "outputs" / "77" / "smoke" / "latest"
    judged = pipeline.script("verdict", **sealed)
    assert judged.code == 0, judged
    assert "BEGIN PRIVATE KEY" not in "".join(p.read_text(errors="replace") for p in latest.rglob("*") if p.is_file())

    forged = Path(shutil.copytree(pipeline.red, tmp_path / "forged"))
    forging.answer(forged, pipeline.green, *FAILING)
    pipeline.hand_over(forged)
    judged = pipeline.script("verdict", **sealed)
    assert judged.code == 75 and "has no seal of this key" in judged.err, judged
    deployed = pipeline.script("staging", "deploy", IMAGE_UNDER_TEST=IMAGE, **sealed)
    assert deployed.code == 75 and "deploying" not in deployed.out, deployed

    open_ = pipeline.script("staging", "deploy", IMAGE_UNDER_TEST=IMAGE, DOCKER_HOST="tcp://127.0.0.1:9")
    assert "no GATEBOOK_SEAL_KEY: bundles are not sealed" in open_.err, "one line says what is not looked at"
    assert "passed, PASS:" in open_.out, "as docs/audit.md says, without a key nothing stops this forgery"


def test_an_older_green_bundle_with_todays_revision_is_told_by_the_seal_alone(
    pipeline: Pipeline, tmp_path: Path, seal_key: dict[str, str]
) -> None:
    """As docs/audit.md says: the chain begins at the cases and does not hold the revision."""
    today = "sha256:" + "b" * 64
    older = Path(shutil.copytree(pipeline.green, tmp_path / "older"))
    forging.edit(older / "manifest.json", lambda manifest: manifest["profile"]["target"].update(revision=today))
    forging.seal(older)
    pipeline.hand_over(older)
    refused = pipeline.script("verdict", REVISION=today, **seal_key)
    assert refused.code == 75 and "has no seal of this key" in refused.err, refused
    assert "passed, PASS:" in pipeline.script("verdict", REVISION=today).out


def begun(pipeline: Pipeline, number: str) -> Path:
    """The green run as a cache would bring it to that pipeline's gate, killed before 01 was recorded and anything sealed."""
    there = pipeline.project.root / "outputs" / number / "smoke" / pipeline.green.name
    shutil.rmtree(there.parent, ignore_errors=True)
    shutil.copytree(pipeline.green, there)
    (there / "SHA256SUMS").unlink()
    (there / "01_health.exchanges.jsonl").unlink()
    return there


LURES: dict[str, tuple[Callable[[Any, str], object], str]] = {
    "another server": (lambda m, url: m.update(base_url=url), "base_url: the run has "),
    "another variable": (
        lambda m, _: m["profile"]["target"].update(api_key_env="CI_JOB_TOKEN"),
        "profile target.api_key_env: the run has 'CI_JOB_TOKEN'",
    ),
    "a header": (lambda m, _: m["profile"]["target"].update(headers={"X-Other": "env:CI_JOB_TOKEN"}), "headers: the run has "),
    "a second server": (
        lambda m, url: m.update(against={"profile": "b", "target": m["profile"]["target"], "base_url": url}),
        "second target: the run has ",
    ),
    "a replica": (lambda m, url: m["profile"]["target"].update(replicas=[url]), "profile target.replicas: the run has "),
}  # fmt: skip


@pytest.mark.parametrize("name", LURES)
def test_a_cached_run_that_would_ask_elsewhere_or_with_other_keys_is_not_resumed(pipeline: Pipeline, name: str) -> None:
    change, said = LURES[name]
    folder = begun(pipeline, "79")
    with FaultProxy(pipeline.url.removesuffix("/v1"), []) as stranger:
        forging.edit(folder / "manifest.json", lambda manifest: change(manifest, f"{stranger.base_url}"))
        done = pipeline.script("gate", CI_PIPELINE_ID="79", BASE_URL=pipeline.url, CI_JOB_TOKEN="never-to-be-sent")
        assert not stranger.requests, "nothing is sent where the checkout does not say so"
    assert done.code == 2 and said in done.err and "nothing was" in done.err, done


def test_a_cached_run_goes_on_as_it_was_begun_and_with_a_key_only_where_it_was_sealed(
    pipeline: Pipeline, seal_key: dict[str, str]
) -> None:
    folder = begun(pipeline, "80")
    done = pipeline.script("gate", CI_PIPELINE_ID="80", BASE_URL=pipeline.url)
    assert done.code == 0 and [*folder.parent.glob("20*")] == [folder], done
    done = pipeline.script("gate", CI_PIPELINE_ID="80", BASE_URL=pipeline.url, **seal_key)
    assert done.code == 0 and "has no seal of this key" in done.err, done
    [new] = {path for path in folder.parent.glob("20*/")} - {folder}
    record = (new / "01_health.exchanges.jsonl").read_bytes()
    done = pipeline.script("gate", CI_PIPELINE_ID="80", BASE_URL=pipeline.url, **seal_key)
    assert (
        done.code == 0 and "has no seal" not in done.err and record == (new / "01_health.exchanges.jsonl").read_bytes()
    )


def test_no_process_of_the_gate_can_read_the_seal_key(pipeline: Pipeline) -> None:
    """Neither in its own environment nor in that with which the script began."""
    command = pipeline.project.root / ".venv" / "bin" / "gatebook"
    kept, seen = command.read_text(), pipeline.project.root / "outputs" / "seen"
    command.write_text(
        f"#!/bin/sh\ncat /proc/self/environ /proc/$PPID/environ /proc/$PPID/fd/9 >>{seen} 2>&1\nexit 75\n"
    )
    try:
        done = pipeline.script("gate", CI_PIPELINE_ID="78", BASE_URL=pipeline.url, GATEBOOK_SEAL_KEY="not to be seen")
    finally:
        command.write_text(kept)
    assert done.code == 75 and "no GATEBOOK_SEAL_KEY" not in done.err, done
    assert "CI_PIPELINE_ID" in seen.read_text() and "not to be seen" not in seen.read_text()


def test_a_deployment_without_a_digest_is_no_deployment(pipeline: Pipeline) -> None:
    pipeline.hand_over(pipeline.green)
    for image in ("registry.example/served@", "registry.example/served:latest", "registry.example/served@sha256:"):
        done = pipeline.script("verdict", IMAGE_UNDER_TEST=image)
        assert done.code == 2 and "names no digest" in done.err and "passed, PASS" not in done.out, done
