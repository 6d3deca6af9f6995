"""A fleet file: which deployments are gated together, by which profiles, and where the evidence goes."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field

from gatebook.config import project
from gatebook.config.files import FileName, Strict, build, demand, read_file, read_yaml
from gatebook.config.profile import Profile, Suite, Target, profile_from
from gatebook.config.secrets import refuse_secrets
from gatebook.config.selection import MOST_SHARDS
from gatebook.errors import BadInput, os_reason
from gatebook.opening import refuse_secrets_in
from gatebook.record.exchange import Recorded

MOST_DEPLOYMENTS = 20_000
CSV_MIB = 16
LABEL, HEADER = "label.", "header."
"""How the columns of a CSV begin that hold a label or the variable of a header."""
_VARIABLE = demand(str.isidentifier, "must be the NAME of an environment variable, such as TEAM_KEY, never its value")


class Deployment(Strict):
    """One deployment of a fleet: a profile, and what is another one than the profile says."""

    name: FileName
    """Its baseline, its history and its folder in the evidence are filed under it."""
    profile: str
    """The profile by which it is judged, from the project's folder."""
    base_url: str | None = None
    model: str | None = None
    revision: str | None = None
    api_key_env: Annotated[str, _VARIABLE] | None = None
    """Name of the variable that holds its key, in the environment of the workers."""
    headers: dict[str, Annotated[str, _VARIABLE]] = Field(default_factory=dict)
    """Extra request header -> name of the variable that holds its value, in the environment of the workers."""
    labels: dict[FileName, str] = Field(default_factory=dict)
    """What the page filters by and the metrics carry, such as region and gpu."""
    baseline_of: FileName | None = None
    """Another deployment of the fleet, whose accepted baseline is the measure of this one too."""


class Fleet(Strict):
    """One fleet file."""

    deployments: list[Deployment] = Field(min_length=1, max_length=MOST_DEPLOYMENTS)
    """The deployments, or the path of a CSV of them beside this file."""
    suite: Suite
    shards: int = Field(default=1, ge=1, le=MOST_SHARDS)
    """Parts of each deployment's cases, asked by different workers."""
    store: str = Field(default="outputs/fleet", min_length=1)
    """Where the evidence goes: a folder of the project, or a URL that fsspec knows, such as s3://bucket/gates."""
    workers: int | None = Field(default=None, ge=1, le=256)
    """Processes of the local cluster; default: one a core. A cluster that `--scheduler` names has its own."""
    hosts: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """Host of base URLs -> requests in flight at a time, over all its deployments and all workers."""
    name: FileName = "fleet"
    """What its runs and its accepted run are filed under; without it the file's name."""

    def mistakes(self) -> Iterator[str]:
        counts = Counter(one.name for one in self.deployments)
        if twice := next((name for name, count in counts.items() if count > 1), None):
            yield f"key 'deployments': the name {twice!r} stands twice; give each deployment its own"
        known = {one.name: one for one in self.deployments}
        for one in self.deployments:
            if one.baseline_of and (one.baseline_of not in known or known[one.baseline_of].baseline_of):
                yield f"deployment {one.name!r}, key 'baseline_of' has value {one.baseline_of!r}: must be another deployment with a baseline of its own"
        hosts = {urlsplit(one.base_url or "").hostname for one in self.deployments}
        if unknown := next((host for host in self.hosts if host not in hosts), None):
            yield f"key 'hosts.{unknown}': no deployment names a base_url on this host; correct or delete it"


class Plan(Recorded):
    """A fleet with every profile resolved: what a run of it begins with, and goes on with."""

    run: str
    created: str
    fleet: Fleet
    profiles: dict[str, dict[str, Any]]
    """Deployment -> its profile as a file says it, with what the fleet says of it. No secrets: names of variables only."""


def load_fleet(path: Path) -> Fleet:
    """Read a fleet file, and the CSV that it names. Raises BadInput with file, key, value and what to do."""
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise BadInput(f"{path}: a fleet is a mapping with suite and deployments; this is {type(data).__name__}")
    refuse_secrets(data, str(path))
    if isinstance(named := data.get("deployments"), str):
        data = {**data, "deployments": _rows(path.parent / named)}
    return build(Fleet, {"name": path.stem, **data}, str(path))


def _rows(path: Path) -> list[dict[str, Any]]:
    """The deployments of a CSV; an empty cell says nothing. Raises BadInput."""
    try:
        text = read_file(path, CSV_MIB).decode("utf-8-sig")
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({os_reason(error)}); `deployments` is a list or a CSV file") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path}: is not UTF-8; save it as UTF-8") from None
    reader, found = csv.DictReader(io.StringIO(text), strict=True), []
    try:
        for number, row in enumerate(reader, 2):
            if None in row or None in row.values():
                raise BadInput(f"{path}, line {number}: does not have as many cells as the first line; correct it")
            cells: dict[str, str] = {name: cell.strip() for name, cell in row.items() if cell.strip()}
            one: dict[str, Any] = {k: v for k, v in cells.items() if not k.startswith((LABEL, HEADER))}
            for key, prefix in (("labels", LABEL), ("headers", HEADER)):
                if inner := {k.removeprefix(prefix): v for k, v in cells.items() if k.startswith(prefix)}:
                    one[key] = inner
            found.append(one)
    except csv.Error as error:
        raise BadInput(f"{path}, line {reader.line_num}: is no CSV ({error}); correct this line") from None
    return found


def resolve(fleet: Fleet, where: str) -> dict[str, dict[str, Any]]:
    """Deployment -> its profile as a file would say it. Raises BadInput where one is wrong, or nobody says where it is."""
    read: dict[str, Any] = {}
    found = {}
    for one in fleet.deployments:
        file = project.from_root(Path(one.profile))
        data = read[one.profile] = read.get(one.profile) or read_yaml(file)
        said = f"{where}, deployment {one.name!r}"
        whole = _with(data, one) if isinstance(data, dict) and isinstance(data.get("target"), dict) else data
        profile = profile_from(whole, f"{said} ({one.profile})", one.name)
        if profile.target.server == "external" and profile.target.base_url is None:
            raise BadInput(f"{said}, key 'base_url' is missing: neither it nor {one.profile} says where it is; add it")
        found[one.name] = whole
    return found


def _with(data: dict[str, Any], one: Deployment) -> dict[str, Any]:
    """A profile's data with what the fleet says of a deployment, under its own name and beside its own baseline."""
    target = dict(data["target"])
    target |= one.model_dump(include={"base_url", "model", "revision", "api_key_env"}, exclude_none=True)
    if one.base_url:
        target["server"] = "external"
    if one.headers:
        target["headers"] = {**(target.get("headers") or {}), **{h: f"env:{name}" for h, name in one.headers.items()}}
    return {**data, "name": one.name, "target": {**target, "baseline": one.baseline_of or one.name}}


def profile_of(plan: Plan, name: str) -> Profile:
    """The profile of one deployment. Raises BadInput."""
    return profile_from(plan.profiles[name], f"fleet run {plan.run}, deployment {name!r}", name)


def check_same(plan: Plan, fleet: Fleet, where: str) -> None:
    """Check that a fleet run is that of this fleet file: a store may be anybody's. Raises BadInput, naming what differs."""
    ours = resolve(fleet, where)
    parts = ((name, getattr(plan.fleet, name), getattr(fleet, name)) for name in Fleet.model_fields)
    found = [f"key {name!r}" for name, its, said in parts if its != said]
    found += [
        f"deployment {name!r}"
        for name in plan.profiles.keys() | ours.keys()
        if plan.profiles.get(name) != ours.get(name)
    ]
    if found:
        todo = "resume it with the file and the profiles that it was begun with, or begin another"
        raise BadInput(
            f"{plan.run}: is not what {where} says, and nothing was asked: {', '.join(sorted(found)[:8])}; {todo}"
        )


def refuse_own_secrets(plan: Plan, where: str) -> None:
    """Raises BadInput where the plan, which is written down, holds a key that would be sent and that is known here."""
    told, keyed = {where: plan.model_dump_json()}, dict[tuple[str, ...], Target]()
    for name in plan.profiles:
        target = profile_of(plan, name).target
        keyed[target.api_key_env or "", *sorted(target.headers.values())] = target
    for names, target in keyed.items():
        variables = [
            name.removeprefix("env:") for name in names if name and (name.startswith("env:") or name == names[0])
        ]
        if all(name in os.environ for name in variables):
            refuse_secrets_in(told, target)
