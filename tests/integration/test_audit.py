"""The real command: two live servers compared, a waiver through the whole run, the archive of both, and what verify says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from tests.conftest import Project
from tests.faults.proxy import FaultProxy

CASE = "canary-water"


def test_two_live_servers_a_waiver_and_the_archive(project: Project, server: str, tmp_path: Path) -> None:
    data = yaml.safe_load(project.profile.read_text())
    data["waivers"] = [{"case": CASE, "owner": "li", "reason": "engine 1.9 mends it", "expires": "2999-12-31"}]
    data["limits"] |= {"request_deadline_s": 30, "ready_deadline_s": 30}
    project.profile.write_text(yaml.safe_dump(data, allow_unicode=True))
    page, compare = tmp_path / "compare.html", ("compare", "--profile", project.profile, "--only", CASE)
    with FaultProxy(server.removesuffix("/v1"), ["empty"]) as proxy:
        done = project.gatebook(
            *compare, server, proxy.base_url, "--revision", "v1", "--revision", "v2", "--html", page
        )
    assert done.code == 1, done
    last = done.out.splitlines()[-1]
    assert last.startswith("WORSE  health.contract: 1 newly failing, 0 fixed of 1 pairs; every case of it must pass")
    assert CASE in page.read_text() and f"newly failing: {CASE}  (health.contract)" in done.out, done

    runs = sorted(p.parent for p in done.folder.glob("20*/manifest.json"))
    verdicts = [json.loads((run / "verdict.json").read_text()) for run in runs]
    assert [v["served"]["revision"] for v in verdicts] == ["v1", "v2"], "two runs are kept as evidence"
    assert [(v["verdict"], v["waivers"][0]["state"]) for v in verdicts] == [
        ("PASS", "stale"),
        ("PASS", "in use"),
    ]
    assert all(json.loads((run / "manifest.json").read_text())["asked_by"] for run in runs)

    again = project.gatebook("compare", runs[0], runs[1])
    assert again.code == 1, again
    back = project.gatebook("compare", runs[1], runs[0])
    assert back.code == 0 and back.out.splitlines()[-1].startswith("BETTER"), back

    told = tmp_path / "verify.html"
    verified = project.gatebook("verify", runs[1], "--html", told)
    assert verified.code == 0, verified
    assert f"waiver in use: {CASE}" in verified.out and verified.out.splitlines()[-1].startswith(
        "reproduced, PASS PARTIAL"
    )
    seal = re.search(r"seal +([0-9a-f]{64})", verified.out)
    assert seal and seal[1] in told.read_text()

    public = tmp_path / "public"
    archived = project.gatebook("archive", done.folder, "--to", public)
    assert archived.code == 0 and archived.out.splitlines()[-1].endswith("index.html: 2 runs"), archived
    assert project.gatebook("compare", *sorted((public / "runs").iterdir())).code == 1
    with (runs[1] / "verdict.json").open("a") as file:
        file.write(" ")
    damaged = project.gatebook("compare", runs[0], runs[1])
    assert damaged.code == 75 and "only intact runs are compared" in damaged.err


def test_what_cannot_be_compared_asks_nothing(project: Project, tmp_path: Path) -> None:
    url = "http://127.0.0.1:9/v1"
    for arguments, said in (
        ((url, url), "--profile is missing"),
        ((url, tmp_path), "two run folders or two URLs"),
        ((tmp_path, tmp_path), "not a run folder"),
        ((tmp_path, tmp_path, "--suite", "smoke"), "take no other option"),
    ):
        done = project.gatebook("compare", *arguments)
        assert done.code == 2 and said in done.err, done
    assert not (project.root / "outputs").exists()
