"""Accepting a fleet run: each deployment's run becomes its baseline where it can, and the rest is listed."""

from __future__ import annotations

from gatebook.commands.accept import accept as take
from gatebook.config.files import replace_text
from gatebook.errors import BadInput, GatebookError
from gatebook.fleet.conduct import accepted_file, reopen
from gatebook.fleet.outcome import FleetVerdict
from gatebook.fleet.store import Store, fetched


def accept_fleet(url: str, reason: str, by: str | None) -> tuple[list[str], int]:
    """(a line a deployment and one for the fleet, how many were refused). Every deployment that can be is accepted as
    `gatebook accept` does it, and the fleet's table becomes what later ones are compared with. Raises BadInput, BrokenRecord,
    and where nothing could be accepted."""
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
    """What a fleet run ended in. Raises BadInput where it has no verdict yet, or none that can be read."""
    data = store.read("verdict.json")
    try:
        if data is not None:
            return FleetVerdict.model_validate_json(data)
    except ValueError:
        pass
    raise BadInput(f"{store.url}: has no verdict yet; `gatebook fleet --resume {store.url}` finishes it")
