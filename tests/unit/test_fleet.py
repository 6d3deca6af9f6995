"""A fleet file, its plan, its verdict and what is told of it; where the evidence goes, and what a worker does with a bad store."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import fsspec
import pytest
import yaml
from fsspec.implementations.memory import MemoryFileSystem
from gatebook.checks import stats
from gatebook.errors import BadInput
from gatebook.fleet.conduct import _Room, jobs_of
from gatebook.fleet.outcome import FleetVerdict, Row, fold, worst
from gatebook.fleet.plan import Plan, check_same, load_fleet, refuse_own_secrets, resolve
from gatebook.fleet.reports import junit, metrics, page, planned
from gatebook.fleet.store import LeaseLost, Place, Store, StoreFailed, fetched
from gatebook.fleet.work import Job, work
from gatebook.record.manifest import Manifest

from benchmarks.fleet import red_nights
from tests.conftest import Project

ONE = {"name": "a", "profile": "params/small.yaml", "base_url": "http://gpu-box:8000/v1"}
TWO = {**ONE, "name": "b", "base_url": "http://gpu-box:8001/v1"}


def written(project: Project, **data: Any) -> Path:
    file = project.root / "params" / "fleet.yaml"
    file.write_text(yaml.safe_dump({"suite": "smoke", "deployments": [ONE, TWO], **data}), encoding="utf-8")
    return file


def plan_of(project: Project, **data: Any) -> Plan:
    file = written(project, **data)
    with project.inside():
        loaded = load_fleet(file)
        return Plan(run="run", created="2026-11-29T00:00:00+00:00", fleet=loaded, profiles=resolve(loaded, str(file)))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"deployment": []}, "unknown key 'deployment' (value []); did you mean 'deployments'?"),
        ({"deployments": [{**ONE, "modle": "x"}]}, "did you mean 'model'?"),
        ({"deployments": [ONE, ONE]}, "the name 'a' stands twice"),
        ({"deployments": []}, "key 'deployments' has value []"),
        ({"deployments": "none.csv"}, "none.csv: cannot be read"),
        ({"deployments": [{**ONE, "name": "../a"}]}, "names a file"),
        ({"deployments": [{**ONE, "headers": {"X-Key": "sk 1"}}]}, "must be the NAME of an environment variable"),
        ({"deployments": [{**ONE, "baseline_of": "c"}]}, "must be another deployment with a baseline of its own"),
        ({"deployments": [{**ONE, "profile": "params/none.yaml"}]}, "none.yaml: no such file"),
        ({"shards": 0}, "key 'shards' has value 0"),
        ({"suite": "all"}, "key 'suite' has value 'all'"),
        ({"hosts": {"elsewhere": 4}}, "no deployment names a base_url on this host"),
        ({"store": "s3://key:word@bucket/x"}, "looks like a secret"),
        ({"store": "nowhere://x"}, "nowhere"),
    ],
)
def test_a_wrong_fleet_file_is_one_line(project: Project, data: dict[str, Any], said: str) -> None:
    file = written(project, **data)
    with project.inside(), pytest.raises(BadInput, match=re.escape(said)) as raised:
        loaded = load_fleet(file)
        resolve(loaded, str(file))
        Store(loaded.store)
    assert "\n" not in str(raised.value)


def test_deployments_stand_in_a_csv_as_well(project: Project) -> None:
    table = (
        "name,profile,base_url,label.region,header.X-Team,model\na,params/small.yaml,http://gpu-box:8000/v1,eu,TEAM,\n"
    )
    (project.root / "params" / "all.csv").write_text(table, encoding="utf-8")
    [one] = load_fleet(written(project, deployments="all.csv")).deployments
    assert one.model_dump(exclude_defaults=True) == {**ONE, "labels": {"region": "eu"}, "headers": {"X-Team": "TEAM"}}
    (project.root / "params" / "all.csv").write_text(table + "b,params/small.yaml\n", encoding="utf-8")
    with pytest.raises(BadInput, match="line 3: does not have as many cells"):
        load_fleet(written(project, deployments="all.csv"))


def test_each_deployment_has_its_own_name_and_baseline_and_a_twin_its_twin_s(project: Project) -> None:
    found = plan_of(project, deployments=[ONE, {**TWO, "baseline_of": "a", "headers": {"X-Team": "TEAM"}}]).profiles
    assert [(data["name"], data["target"]["baseline"]) for data in found.values()] == [("a", "a"), ("b", "a")]
    assert found["b"]["target"]["headers"] == {"X-Team": "env:TEAM"} and found["b"]["target"]["server"] == "external"


def rows(**words: str) -> dict[str, Row]:
    return {name: Row(deployment=name, verdict=word, reason=f"because {name}") for name, word in words.items()}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "word", "code"),
    [
        ({"a": "PASS", "b": "PASS"}, "PASS", 0),
        ({"a": "PASS", "b": "INCONCLUSIVE"}, "INCONCLUSIVE", 3),
        ({"a": "INCONCLUSIVE", "b": "ERROR"}, "ERROR", 75),
        ({"a": "ERROR", "b": "FAIL"}, "FAIL", 1),
        ({"a": "PASS"}, "ERROR", 75),
        ({}, "ERROR", 75),
    ],
)
def test_the_worst_deployment_decides_and_one_without_a_row_is_no_pass(
    project: Project, found: dict[str, str], word: str, code: int
) -> None:
    verdict = fold(plan_of(project), rows(**found), None)
    assert (verdict.verdict, verdict.exit_code, len(verdict.deployments)) == (word, code, 2)
    assert worst([]) == "ERROR"
    red = {
        suite.get("name")
        for suite in ET.fromstring(junit(verdict).encode())
        if suite.find(".//failure") is not None or suite.find(".//error") is not None
    }
    assert red == {row.deployment for row in verdict.deployments if row.verdict != "PASS"}


def test_what_is_not_as_it_was_accepted_is_told(project: Project) -> None:
    plan = plan_of(project)
    before = fold(plan, rows(a="PASS", b="PASS"), None)
    old = before.model_copy(update={"deployments": [*before.deployments, rows(c="PASS")["c"]]})
    now = fold(plan, rows(a="PASS", b="FAIL"), FleetVerdict.model_validate_json(old.model_dump_json()))
    assert now.changes == ["c: is gone", "b, verdict: was PASS, is FAIL"]


def test_what_a_server_said_is_text_on_the_page(project: Project) -> None:
    hostile = '<script>alert(1)</script>"\x1b[31m'
    found = rows(a="FAIL", b="PASS")
    found["a"] = found["a"].model_copy(
        update={"reason": hostile, "model": hostile, "notebooks": {"01_health": "FAIL"}, "bundle": "deployments/a"}
    )
    plan = plan_of(project, deployments=[{**ONE, "labels": {"region": hostile[:-5]}}, TWO])
    verdict = fold(plan, found, None)
    html = page(verdict)
    assert (
        "<script>alert" not in html
        and "\x1b" not in html + junit(verdict)
        and 'href="deployments/a/01_health.html"' in html
    )
    assert "\n".join(line for line in metrics(verdict).splitlines() if line.count('"') % 2) == ""


def test_an_endpoint_and_a_host_have_room_for_so_many_requests(project: Project) -> None:
    project.edit_profile(limits={"in_flight": 4})
    plan = plan_of(project, shards=5, hosts={"gpu-box": 6})
    room, (first, *others), twins = _Room(plan), jobs_of(plan, "a", "x"), jobs_of(plan, "b", "x")
    assert {job.profile["limits"]["in_flight"] for job in [first, *others]} == {1}
    room.take(first)
    assert [room.fits(job) for job in others] == [False] * 4, "the first shard is timed, so it asks alone"
    assert not room.fits(twins[0]), "4 more on a host with room for 6"
    assert room.fits(twins[1])
    room.take(first, -1)
    for job in others:
        assert room.fits(job)
        room.take(job)
    assert not room.fits(first)


def test_a_plan_says_what_the_fleet_sees_less(project: Project) -> None:
    project.write_cases(
        [
            {
                "id": f"case-{number}", "notebook": "01_health", "group": "fleet.few", "suites": ["smoke"], "why": "one of many",
                "messages": [{"role": "user", "content": f"Say {number}."}], "expect": [{"contains_any": ["a"]}], "good": ["a"], "bad": ["b"],
            }
            for number in range(20)
        ]
    )  # fmt: skip
    project.edit_profile(groups={"fleet.few": "no_worse"})
    many = [{**ONE, "name": f"d{number}"} for number in range(1000)]
    file = written(project, deployments=many)
    with project.inside():
        told = planned(load_fleet(file), str(file))
    alone, among = (stats.smallest_visible_drop(20, 1, stats.ALPHA / n) for n in (1, 1000))
    assert re.search(rf"fleet\.few +20 +{alone} cases +{among} cases", told) and "among 1000" in told
    assert told.splitlines()[-1].startswith("fleet fleet: 1000 deployments, suite smoke")


def test_a_thousand_healthy_deployments_are_quiet_together_and_not_one_by_one() -> None:
    alone, together = (red_nights(1000, among=among, nights=200) for among in (1, 1000))
    assert together <= 0.05 < alone
    assert Manifest.model_construct(look=None, among=1000).level_share == pytest.approx(1 / 1000)


def job_in(url: str) -> Job:
    return Job(url, "a", {"target": {"model": "m", "base_url": "http://127.0.0.1:9/v1"}}, "smoke", 1)


class Full(MemoryFileSystem):
    """A store that takes no write."""

    protocol = "full"

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")


def test_a_store_that_refuses_is_the_error_of_its_deployment() -> None:
    fsspec.register_implementation("full", Full, clobber=True)
    row = work(job_in("full://bucket/run"))
    assert row.verdict == "ERROR" and "refuses work/a/lease: No space left on device" in row.reason
    assert row.bundle is None


@pytest.fixture
def store() -> Store:
    MemoryFileSystem.store.clear()
    return Store("memory://bucket/run")


def begun(place: Place, lines: int) -> Path:
    run = place.folder / "2026-run"
    (run / "texts").mkdir(parents=True, exist_ok=True)
    (run / "texts" / "ab.txt").write_text("long")
    for name in ("cases.json", "manifest.json"):
        (run / name).write_text(json.dumps({"run": "2026-run"}))
    (run / "01.exchanges.jsonl").write_text("".join(f"{n}\n" for n in range(lines)) + "torn")
    return run


def test_what_was_shipped_is_there_for_the_next_worker_and_the_first_one_stops(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Place(store, "a", "deployments/a"), Place(store, "a", "deployments/a")
    with first:
        begun(first, 60)
        first.tick()  # 50 exchanges are shipped at once
        begun(first, 70)
        first.tick()  # 10 are not
        with second:
            assert second.taken == 1 and second.run is not None
            assert (second.run / "01.exchanges.jsonl").read_text() == "".join(f"{n}\n" for n in range(60))
            assert (second.run / "texts" / "ab.txt").read_text() == "long"
            monkeypatch.setattr("gatebook.fleet.store.SHIP_S", 0.0)
            second.tick()
            with pytest.raises(LeaseLost):
                first.tick()
            (second.run / "SHA256SUMS").write_text("sealed")
            second.keep(second.run)
    assert store.names("work") == [] and "deployments/a/SHA256SUMS" in store.names("")
    with fetched(f"{store.url}/deployments/a") as copy:
        assert (copy / "01.exchanges.jsonl").read_text().startswith("0\n1\n")


def test_a_name_that_leads_out_of_a_bundle_is_refused(store: Store, tmp_path: Path) -> None:
    MemoryFileSystem.store["/bucket/run/deployments/a/../../x"] = MemoryFileSystem.store.get("/none") or _file(b"x")
    with pytest.raises(StoreFailed, match="is no name of a file"):
        store.get("deployments/a", tmp_path / "a")
    assert not (tmp_path / "x").exists()


def _file(data: bytes) -> Any:
    from fsspec.implementations.memory import MemoryFile

    return MemoryFile(data=data)


@pytest.mark.parametrize("name", ["../../elsewhere", "/elsewhere", ".."])
def test_a_run_whose_name_leads_elsewhere_is_not_restored(tmp_path: Path, name: str) -> None:
    store = Store(str(tmp_path / "store"))
    store.write("deployments/a/manifest.json", json.dumps({"run": name}).encode())
    with pytest.raises(StoreFailed, match="is no name of a run"), Place(store, "a", "deployments/a"):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_key_in_the_plan_is_bad_input(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM_KEY", "team-key-7f3a9c21")
    keyed = {**ONE, "api_key_env": "TEAM_KEY"}
    for leak in ({"revision": "v1-team-key-7f3a9c21"}, {"labels": {"owner": "team-key-7f3a9c21"}}):
        plan = plan_of(project, deployments=[TWO, {**keyed, **leak}])
        with pytest.raises(BadInput, match="fleet.yaml holds what environment variable TEAM_KEY holds"):
            refuse_own_secrets(plan, "fleet.yaml")
    refuse_own_secrets(plan_of(project, deployments=[TWO, keyed]), "fleet.yaml")
    monkeypatch.delenv("TEAM_KEY")
    refuse_own_secrets(plan, "fleet.yaml")  # the workers have it, and it is not known here


def test_a_fleet_run_is_resumed_with_the_file_that_it_was_begun_with(project: Project) -> None:
    plan, file = plan_of(project), project.root / "params" / "fleet.yaml"
    with project.inside():
        check_same(plan, load_fleet(file), str(file))
        plan.profiles["b"]["groups"] = {"health.canaries": "watch"}
        plan.profiles["a"]["target"]["base_url"] = "http://elsewhere:8000/v1"
        with pytest.raises(
            BadInput, match="is not what .*fleet.yaml says, and nothing was asked: deployment 'a', deployment 'b';"
        ):
            check_same(plan, load_fleet(file), str(file))
