"""A fleet run, top to bottom: plan -> jobs -> workers of a Dask cluster -> rows -> one verdict -> reports."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from gatebook import stopping
from gatebook.commands.accept import accept as take
from gatebook.config import project
from gatebook.config.files import replace_text
from gatebook.errors import BadInput, BrokenRecord, CannotMeasure, GatebookError, first_line, one_line
from gatebook.fleet.outcome import FleetVerdict, Row, fold, worst
from gatebook.fleet.plan import Fleet, Plan, profile_of, refuse_own_secrets, resolve
from gatebook.fleet.reports import checked, write_reports
from gatebook.fleet.store import INSTALL, Store, StoreFailed, fetched
from gatebook.fleet.work import Job, join, work
from gatebook.record.run import now
from gatebook.record.shelf import new_name

PLAN_FILE = "fleet.json"
CONNECT_S = 10
"""Until a scheduler counts as unreachable, and as lost."""
AHEAD = 2
"""Jobs handed over for each worker, so that none waits for the next one."""
FEWEST_AHEAD = 16


def begin(fleet: Fleet, where: str) -> tuple[Store, Plan]:
    """Return the store and the plan of a new fleet run. Raises BadInput where anything is wrong."""
    profiles = resolve(fleet, where)
    checked(fleet, profiles, where)
    plan = Plan(run=new_name(fleet.name), created=now(), fleet=fleet, profiles=profiles)
    refuse_own_secrets(plan, where)
    return Store(fleet.store) / plan.run, plan


def reopen(url: str) -> tuple[Store, Plan]:
    """Return the store and the plan of an existing fleet run. Raises BadInput, BrokenRecord."""
    store = Store(url)
    data = store.read(PLAN_FILE)
    if data is None:
        raise BadInput(
            f"{url}: is no fleet run (no {PLAN_FILE}); name one like outputs/fleet/2026-11-22T21-04-31Z-fleet-7f3a"
        )
    try:
        return store, Plan.model_validate_json(data)
    except ValidationError as error:
        raise BrokenRecord(f"{url}/{PLAN_FILE}: cannot be read: {error.errors()[0]['msg']}") from None


def gate_fleet(store: Store, plan: Plan, scheduler: str | None, watch: bool) -> FleetVerdict:
    """Ask what is not asked yet, and write the verdict and its reports into the store. Raises BadInput where the scheduler
    cannot be reached, StoreFailed where the store does not take the reports."""
    rows: dict[str, Row] = {}
    jobs = [job for one in plan.fleet.deployments for job in jobs_of(plan, one.name, store.url)]
    lost = None
    with _cluster(plan.fleet, len(jobs), scheduler) as client:
        try:
            store.write(PLAN_FILE, plan.model_dump_json(indent=1).encode())
        except StoreFailed as error:
            raise BadInput(f"key 'store' has value {plan.fleet.store!r}: {error}; nothing was asked") from None
        try:
            _conduct(client, plan, jobs, rows, _Progress(len(plan.profiles), watch))
        except _gone() as error:
            lost = f"the scheduler is lost ({first_line(error)}); go on with: gatebook fleet --resume {store.url}"
        except KeyboardInterrupt:
            print(f"gatebook: go on with: gatebook fleet --resume {store.url}", file=sys.stderr, flush=True)
            raise
    for one in plan.fleet.deployments if lost else ():
        rows.setdefault(one.name, Row(deployment=one.name, verdict="ERROR", reason=str(lost)))
    verdict = fold(plan, rows, accepted(plan.fleet.name))
    write_reports(store, verdict)
    return verdict


def jobs_of(plan: Plan, name: str, store: str) -> list[Job]:
    """Return the jobs of one deployment, one per shard, each with its part of the requests in flight."""
    fleet, data = plan.fleet, plan.profiles[name]
    weight = _in_flight(plan, name)
    at_once = max(1, min(fleet.shards - 1, weight))  # shards; the first, which has what is timed, asks alone
    limits = {**(data.get("limits") or {}), "in_flight": weight // at_once}
    asked = {**data, "limits": limits}
    shards = [f"{number}/{fleet.shards}" for number in range(1, fleet.shards + 1)] if fleet.shards > 1 else [None]
    return [Job(store, name, asked, fleet.suite, len(fleet.deployments), shard) for shard in shards]


def _in_flight(plan: Plan, name: str) -> int:
    """Requests that may be in flight to a deployment: its profile's, at most its host's."""
    profile = profile_of(plan, name)
    most = profile.in_flight(plan.fleet.suite)
    host = urlsplit(profile.target.base_url or "").hostname
    return min(most, plan.fleet.hosts.get(host, most)) if host else most


def accepted(fleet: str) -> FleetVerdict | None:
    """Return the fleet run that was accepted last. Raises BadInput where its file is damaged."""
    file = accepted_file(fleet)
    try:
        return FleetVerdict.model_validate_json(file.read_bytes()) if file.is_file() else None
    except ValidationError as error:
        raise BadInput(f"{file}: is no verdict of a fleet ({error.errors()[0]['msg']}); accept a run again") from None


def accepted_file(fleet: str) -> Path:
    return project.root() / "params" / "baselines" / f"{fleet}.fleet.json"


@contextmanager
def _cluster(fleet: Fleet, jobs: int, scheduler: str | None) -> Iterator[Any]:
    """Yield a client of the named cluster, else of local processes. Raises BadInput."""
    try:
        from distributed import Client
    except ImportError:
        raise BadInput(f"`gatebook fleet` needs Dask; {INSTALL}") from None
    for name in (name for name in logging.root.manager.loggerDict if name.startswith("distributed")):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what it would say is told in one line
    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=CONNECT_S)
        except (OSError, ValueError, TimeoutError) as error:
            said = f"--scheduler {scheduler}: cannot be reached ({first_line(error)}); nothing was asked"
            raise BadInput(f"{said}; start it with `dask scheduler`, or leave the option out") from None
        with client:
            yield client
        return
    cluster = None
    try:
        with stopping.held():
            cluster = _workers(min(jobs, fleet.workers or os.cpu_count() or 1))
        with Client(cluster, timeout=CONNECT_S) as client:
            yield client
    finally:
        with suppress(TimeoutError):  # on a busy machine; what is left of it ends with this process
            if cluster is not None:
                cluster.close()


def _workers(count: int) -> Any:
    """Start a cluster of local processes. They have two signals blocked: Ctrl-C and a lost terminal are for this process, which
    stops them. Raises CannotMeasure."""
    from distributed import LocalCluster

    signals = {signal.SIGINT, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        resource_tracker.ensure_running()  # it unblocks one
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        return LocalCluster(
            n_workers=count, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL,
            memory_limit=0,
        )  # fmt: skip
    except RuntimeError as error:
        raise CannotMeasure(f"the workers did not start ({first_line(error)}); nothing was asked") from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _cancelled() -> tuple[type[BaseException], ...]:
    """Return what Dask raises for a job whose scheduler is gone."""
    from concurrent.futures import CancelledError

    from distributed.client import FutureCancelledError

    return CancelledError, FutureCancelledError


def _gone() -> tuple[type[BaseException], ...]:
    """The same, and for a scheduler that cannot be reached any more, which is an OSError."""
    return *_cancelled(), OSError


class _Room:
    """What is in flight at each endpoint and host. One job of an endpoint is always let in, whatever it weighs."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._used = plan, Counter[str]()
        self._needs: dict[str, list[tuple[str, int, int]]] = {}

    def needs(self, job: Job) -> list[tuple[str, int, int]]:
        """(place, its room, what the job takes of it)."""
        if job.key not in self._needs:
            profile = profile_of(self._plan, job.deployment)
            most = _in_flight(self._plan, job.deployment)
            alone = job.shard is None or job.shard.startswith("1/")
            takes = most if alone else job.profile["limits"]["in_flight"]
            found = [(profile.target.base_url or f"embedded {job.deployment}", most, takes)]
            host = urlsplit(profile.target.base_url or "").hostname or ""
            if host in self._plan.fleet.hosts:
                found.append((f"host {host}", self._plan.fleet.hosts[host], takes))
            self._needs[job.key] = found
        return self._needs[job.key]

    def fits(self, job: Job) -> bool:
        """Whether the job's requests have room at its endpoint and its host."""
        return all(self._used[place] + takes <= room for place, room, takes in self.needs(job))

    def take(self, job: Job, sign: int = 1) -> None:
        """Take the room of a job, or with -1 give it back."""
        for place, _, takes in self.needs(job):
            self._used[place] += sign * takes


def _conduct(client: Any, plan: Plan, jobs: list[Job], rows: dict[str, Row], said: _Progress) -> None:
    """Hand out jobs as far as there is room, until each deployment has its row."""
    from distributed import wait

    room, todo = _Room(plan), deque(jobs)
    running: dict[Any, Job] = {}
    shards: dict[str, dict[str, Row]] = defaultdict(dict)
    while todo or running:
        most = max(FEWEST_AHEAD, AHEAD * sum(client.nthreads().values()))
        for _ in range(len(todo)):
            if len(running) >= most:
                break
            job = todo.popleft()
            if room.fits(job):
                room.take(job)
                running[client.submit(work, job, key=f"{plan.run}/{job.key}", pure=False)] = job
                said.begins(job.deployment)
            else:
                todo.append(job)
        for future in wait([*running], return_when="FIRST_COMPLETED").done:
            job = running.pop(future)
            row = _result(future, job)
            if job.shard is not None or plan.fleet.shards == 1:
                room.take(job, -1)
            if job.shard is not None:
                found = shards[job.deployment]
                found[job.shard] = row
                if len(found) < plan.fleet.shards:
                    continue
                if all(one.verdict != "ERROR" for one in found.values()):
                    whole, parts = replace(job, shard=None), jobs_of(plan, job.deployment, job.store)
                    key = f"{plan.run}/merge/{whole.key}"
                    running[client.submit(join, whole, parts, key=key, pure=False)] = whole
                    continue
                row = _of_shards(found)
            rows[job.deployment] = row
            said.ends(row)


def _result(future: Any, job: Job) -> Row:
    """Return the row of a job; ERROR where the worker could not make one."""
    from distributed import KilledWorker

    try:
        row: Row = future.result()
        return row
    except _cancelled():
        raise
    except KilledWorker:
        reason = "its workers were killed again and again"
    except Exception as error:
        reason = f"our own fault, please report it: {type(error).__name__}: {first_line(error)}"
    finally:
        future.release()
    return Row(deployment=job.deployment, verdict="ERROR", reason=one_line(reason))


def _of_shards(found: dict[str, Row]) -> Row:
    """Return the row of a deployment whose shards cannot be merged: the worst shard's, with its reason."""
    word = worst(row.verdict for row in found.values())
    shard, row = next((shard, row) for shard, row in found.items() if row.verdict == word)
    return row.model_copy(update={"reason": f"shard {shard}: {row.reason}", "bundle": None, "notebooks": {}})


class _Progress:
    """On one line a deployment: how many are done and not green, the slowest that is asked now, the time left."""

    def __init__(self, total: int, watch: bool) -> None:
        self._total, self._watch, self._done, self._red = total, watch, 0, 0
        self._began, self._asked = time.monotonic(), dict[str, float]()

    def begins(self, deployment: str) -> None:
        """A deployment, or a shard of it, was handed over."""
        self._asked.setdefault(deployment, time.monotonic())

    def ends(self, row: Row) -> None:
        """A deployment has its row."""
        self._done += 1
        self._red += row.verdict != "PASS"
        self._asked.pop(row.deployment, None)
        if not self._watch:
            return
        now_s = time.monotonic()
        left = (now_s - self._began) / self._done * (self._total - self._done)
        slowest = min(self._asked, key=self._asked.__getitem__, default="")
        waits = f", slowest {slowest} ({now_s - self._asked[slowest]:.0f} s)" if slowest else ""
        told = f"{self._done} of {self._total} done, {self._red} not green{waits}, about {left:.0f} s left"
        print(one_line(f"{told}; {row.deployment}: {row.verdict}"), file=sys.stderr, flush=True)


def accept_fleet(url: str, reason: str, by: str | None) -> tuple[list[str], int]:
    """Accept every deployment as `gatebook accept` does, and keep the fleet's table for comparison. Return one line per
    deployment and one for the fleet, and the number of refusals. Raises BrokenRecord; BadInput where nothing was accepted."""
    if not reason.strip():
        raise BadInput("--reason is empty; say why this run may be the measure of later ones")
    store, plan = reopen(url)
    verdict = read_verdict(store)
    twins = {one.name: one.baseline_of for one in plan.fleet.deployments if one.baseline_of}
    lines, taken, refused = list[str](), 0, list[str]()
    for row in verdict.deployments:
        if row.deployment in twins:
            lines.append(f"{row.deployment}: its measure is the baseline of {twins[row.deployment]}")
        elif row.bundle is None:
            refused.append(f"{row.deployment}: {row.verdict}, not accepted: {row.reason}")
        else:
            try:
                with fetched(f"{store.url}/{row.bundle}") as bundle:
                    lines.append(take(bundle, reason, None, by).splitlines()[0])
                taken += 1
            except GatebookError as error:
                refused.append(f"{row.deployment}: not accepted: {error}")
    if not taken:
        raise BadInput(f"{url}: nothing of it can be accepted; {refused[0] if refused else 'it has no deployment'}")
    file = accepted_file(verdict.fleet)
    replace_text(file, verdict.model_dump_json(indent=1) + "\n")
    told = f"{file}: {taken} of {len(verdict.deployments)} deployments accepted, {len(refused)} refused"
    return [*lines, *refused, told], len(refused)


def read_verdict(store: Store) -> FleetVerdict:
    """Return the verdict of a fleet run. Raises BadInput where it has none yet, or none that can be read."""
    data = store.read("verdict.json")
    try:
        if data is not None:
            return FleetVerdict.model_validate_json(data)
    except ValueError:
        pass
    raise BadInput(f"{store.url}: has no verdict yet; `gatebook fleet --resume {store.url}` finishes it")
