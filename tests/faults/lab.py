"""The fault lab: the real `gatebook run` against each row of the catalogue, and what it said.

A row gets a copy of one small project, whose baseline was accepted once from the healthy server; rows that need another
healthy deployment accept a baseline of their own. Results are kept by the state of the product, so that a lab that was cut
short goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from gatebook.collect.server import embedded_server
from gatebook.config.cases import Case

from tests.conftest import ROOT, Done, Project, shipped_cases, small_project
from tests.faults.catalogue import ALL, Row
from tests.faults.degraded import degraded_server
from tests.faults.proxy import FaultProxy

OUTPUTS = ROOT / "outputs" / "faults"
RESULTS = OUTPUTS / "results.jsonl"
SHOWN = 6
"""Reasons that the command prints."""
LIMITS = {"request_deadline_s": 180, "ready_deadline_s": 20, "transport_retries": 2}
PATIENCE_S = 1500
Gate = Callable[..., Done]
POLICIES = {"context.needles": "must"}
"""Groups of which the lab asks too few cases to be compared."""


@dataclass(frozen=True)
class Result:
    """What the gate said to one row."""

    row: str
    digest: str
    """Of the row: a changed row is run again."""
    state: str
    """Of the product: see `state`."""
    code: int
    verdict: str
    reasons: list[str]
    """As the command prints them."""
    caught_by: list[str]
    """`notebook: check`, in the order of the verdict."""
    caught: bool
    named: bool
    """Whether a printed reason names the cause."""
    first: bool
    """Whether the first one does."""
    seconds: float
    struck: int
    """Requests that the proxy spoiled."""
    at: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()))


class Judgeable(Protocol):
    """What `judged` needs of a row."""

    @property
    def id(self) -> str: ...

    @property
    def named(self) -> str: ...

    @property
    def code(self) -> tuple[int, ...]: ...


def state() -> str:
    """12 digits that change with the library, the notebooks, the cases and the proxy."""
    digest = hashlib.sha256()
    wanted = [p for part in ("lib/gatebook", "notebooks", "params") for p in (ROOT / part).rglob("*") if p.is_file()]
    wanted += [p for p in (ROOT / "tests" / "faults").glob("*.py") if p.stem in ("call", "faults", "fields", "proxy")]
    for path in sorted(p for p in wanted if p.suffix in (".py", ".yaml", ".ipynb")):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def digest(row: object) -> str:
    return hashlib.sha256(repr(row).encode()).hexdigest()[:12]


def kept(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def keep(result: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(asdict(result), ensure_ascii=False) + "\n")


def results(now: str | None = None, digests: Mapping[str, str] | None = None) -> dict[str, Result]:
    """The newest result of each row as it stands in the catalogue; of the state `now` only, where one is named."""
    digests = {row.id: digest(row) for row in ALL} if digests is None else digests
    found = [Result(**data) for data in kept(RESULTS)]
    return {r.row: r for r in found if r.digest == digests.get(r.row) and now in (None, r.state)}


class Lab:
    """A healthy server for each thread, one project with its baseline, and the folder where all of it lies."""

    def __init__(self, folder: Path, rows: Iterable[Row], gate: Gate | None = None, url: str | None = None) -> None:
        """`gate` stands for `gatebook run`: (project, base URL, options); `url`: of a healthy server that is there already."""
        self.folder, self._gate, self._url = folder, gate or ask, url
        self._shipped = [*shipped_cases().values()]
        self._asked = list(dict.fromkeys(c.id for row in rows if not row.own_project for c in self._cases(row)))
        self._stack, self._local, self._lock = ExitStack(), threading.local(), threading.Lock()

    def __enter__(self) -> Lab:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, row: Row) -> Result:
        """The gate's answer to one row. Raises RuntimeError when the row itself could not be made."""
        with tempfile.TemporaryDirectory(prefix=f"{row.id}-", dir=self.folder) as scratch:
            project = self._project(row, Path(scratch))
            started = time.monotonic()
            with self._deployment(row.server) as upstream, FaultProxy(upstream, row.faults) as proxy:
                done = self._gate(project, proxy.base_url, "--only", ",".join(row.asks), *row.arguments)
            seconds = time.monotonic() - started
            if done.code != 2 and not (done.folder / "latest" / "verdict.json").exists():
                raise RuntimeError(f"{row.id}: the run left no verdict; {done}")
            if row.faults and not proxy.faulted:
                raise RuntimeError(f"{row.id}: the fault was never made; {done}")
            return judged(row, done, seconds, proxy.faulted)

    def base_project(self) -> Project:
        """The shared project: all cases of the rows, and the baseline of the healthy server."""
        with self._lock:
            root = self.folder / "base"
            made = Project(root / "project")
            ready = root / "ready.json"
            if not (ready.exists() and {*self._asked} <= {*json.loads(ready.read_text())}):
                shutil.rmtree(root, ignore_errors=True)
                root.mkdir(parents=True)
                made = self._new_project(root, self._asked, {})
                accept(made, self.healthy(), self._gate)
                ready.write_text(json.dumps(self._asked))
            return made

    def healthy(self) -> str:
        """This thread's healthy server, started when it is first wanted."""
        if self._url:
            return self._url
        if not hasattr(self._local, "url"):
            log = self.folder / f"healthy-{threading.get_ident()}.log"
            self._local.url = self._stack.enter_context(embedded_server(log))
        return str(self._local.url)

    def _project(self, row: Row, scratch: Path) -> Project:
        if row.own_project:
            project = self._new_project(scratch, [case.id for case in self._cases(row)], row.groups)
            project.edit_profile(limits=LIMITS | dict(row.limits))
            self._accept_before(row, project)
            project.edit_profile(**{section: dict(values) for section, values in row.profile.items()})
            return project
        base = self.base_project()
        project = Project(scratch / "project")
        shutil.copytree(base.root, project.root, ignore=shutil.ignore_patterns("outputs"))
        project.edit_profile(limits=LIMITS | dict(row.limits), **{k: dict(v) for k, v in row.profile.items()})
        return project

    def _accept_before(self, row: Row, project: Project) -> None:
        settings = row.before if isinstance(row.before, Mapping) else {}
        faults = () if isinstance(row.before, Mapping) else row.before or ()
        with self._deployment(settings) as upstream, FaultProxy(upstream, faults) as proxy:
            accept(project, proxy.base_url, self._gate)

    @contextmanager
    def _deployment(self, settings: Mapping[str, Any]) -> Iterator[str]:
        if settings:
            with degraded_server(settings, self.folder) as url:
                yield url
        else:
            yield self.healthy()

    def _new_project(self, folder: Path, cases: list[str], groups: Mapping[str, str]) -> Project:
        project = small_project(folder)
        shipped = {case.id: case for case in self._shipped}
        wanted = [shipped[i].model_dump(mode="json", exclude_defaults=True) | {"suites": ["smoke"]} for i in cases]
        project.write_cases(wanted)
        project.edit_profile(groups=POLICIES | dict(groups), limits=LIMITS)
        return project

    def _cases(self, row: Row) -> list[Case]:
        """What the row asks: a case by its id, of a group or notebook what the demo asks."""
        found = []
        for name in row.asks:
            own = [c for c in self._shipped if c.id == name]
            own = own or [
                c for c in self._shipped if name in (c.group, c.notebook[:2]) and {"demo", "smoke"} & {*c.suites}
            ]
            if not own:
                raise ValueError(f"{row.id}: no case or group {name!r}")
            found += own
        return found


def ask(project: Project, base_url: str, *arguments: str) -> Done:
    """`gatebook run`, with patience for a busy machine."""
    where = ("--profile", project.profile, "--base-url", base_url)
    return project.gatebook("run", *where, *arguments, timeout=PATIENCE_S)


def accept(project: Project, base_url: str, gate: Gate = ask) -> None:
    """Accepts a run of a healthy deployment. Raises RuntimeError when it is not green."""
    done = gate(project, base_url)
    if done.code not in (0, 3):
        why = "" if done.code == 2 else done.reasons
        raise RuntimeError(f"the healthy deployment is not green: {done}\n{why}")
    said = project.gatebook("accept", done.run, "--reason", "the healthy server of the fault lab")
    if said.code:
        raise RuntimeError(f"the healthy run was not accepted: {said}\n{done.reasons}")


def judged(row: Judgeable, done: Done, seconds: float, struck: int) -> Result:
    """The row's result, from what the command left behind."""
    if done.code == 2:
        return _refused(row, done, seconds)
    verdict = done.verdict
    shown = [
        f"{change['part']} changed: {change['name']} was {change['was']}, is {change['now']}"
        for change in verdict["changes"]
    ]
    reasons = [*verdict["reasons"][:SHOWN], *(s for s in shown if not any(s[:60] in r for r in verdict["reasons"]))]
    named = [bool(row.named) and re.search(row.named, reason, re.DOTALL) is not None for reason in reasons]
    return Result(
        row=row.id, digest=digest(row), state=state(), code=done.code, verdict=verdict["verdict"], reasons=reasons,
        caught_by=_caught_by(verdict), caught=done.code in row.code, named=any(named), first=bool(named and named[0]),
        seconds=round(seconds, 1), struck=struck,
    )  # fmt: skip


def _refused(row: Judgeable, done: Done, seconds: float) -> Result:
    """Bad input: nothing was asked, so there is no verdict."""
    said = [line.strip(" │") for line in done.err.splitlines() if line.strip(" │╭╮╰╯─")][-1:]
    named = any(re.search(row.named, line) for line in said)
    return Result(
        row.id,
        digest(row),
        state(),
        2,
        "bad input",
        said,
        ["command line"],
        2 in row.code,
        named,
        named,
        round(seconds, 1),
        0,
    )


def _caught_by(verdict: dict[str, Any]) -> list[str]:
    red = {group["group"] for group in verdict["groups"] if group["word"] != "PASS"}
    found = [
        f"{f['notebook'][:2]} {f['check']}" for f in verdict["findings"] if f["outcome"] != "pass" and f["group"] in red
    ]
    changed = ["05 against the baseline"] if any("changed:" in reason for reason in verdict["reasons"]) else []
    return list(dict.fromkeys([*changed, *found]))[:4]
