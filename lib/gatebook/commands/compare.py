"""`gatebook compare`: two recorded runs, or two live servers that are asked the same suite one after the other."""

from __future__ import annotations

from pathlib import Path

from gatebook.config.profile import Profile, Suite, is_url, with_target
from gatebook.entering import open_intact, read_verdict
from gatebook.errors import BadInput, BrokenRecord
from gatebook.stopping import stopped
from gatebook.verdict.comparing import Judged
from gatebook.verdict.judging import judge


def are_urls(first: str, second: str) -> bool:
    """Return whether both sides are servers. Raises BadInput when only one is."""
    which = [is_url(side) for side in (first, second)]
    if which[0] != which[1]:
        todo = "name two run folders or two URLs; a live server is asked first: gatebook run"
        raise BadInput(f"{first} and {second}: {todo}")
    return which[0]


def recorded(first: str, second: str) -> tuple[Judged, Judged]:
    """Open two intact runs, each judged again from its own record. Raises BadInput, BrokenRecord."""
    sides = _judged(first), _judged(second)
    if sides[0].run.manifest.run == sides[1].run.manifest.run:
        raise BadInput(f"{second}: is the same run as {first}; a run compared with itself shows nothing")
    return sides


def _judged(name: str) -> Judged:
    run = open_intact(Path(name), "only intact runs are compared")
    try:
        troubles = read_verdict(run).troubles
    except BadInput:
        raise BrokenRecord(f"{name}: verdict.json cannot be read; only finished runs are compared") from None
    return Judged(run, judge(run, troubles=troubles))


def live(
    profile: Profile, urls: tuple[str, str], suite: Suite | None, only: list[str] | None, out: Path | None,
    model: list[str] | None, revision: list[str] | None, yes_load: bool,
) -> tuple[Judged, Judged]:  # fmt: skip
    """Ask both servers the same suite; two runs are kept as evidence. Raises BadInput before anything is asked."""
    from gatebook import runner

    said = zip(urls, two("model", model), two("revision", revision), strict=True)
    targets = [with_target(profile, base_url=url, model=name, revision=deployed) for url, name, deployed in said]
    sides = []
    for target in targets:
        suite = suite or target.target.default_suite
        sides.append(Judged(*runner.run_profile(target, suite, only, out, watch=True, yes_load=yes_load)))
        if stopped():
            raise KeyboardInterrupt  # its run has its own verdict, and the comparison has none
    return sides[0], sides[1]


def two(name: str, values: list[str] | None) -> tuple[str | None, str | None]:
    """Return an option's value for each side; given once, it is that of both. Raises BadInput."""
    found = values or []
    if len(found) > 2:
        raise BadInput(f"--{name} is given {len(found)} times; once for both sides, or twice in their order")
    return (found[0], found[-1]) if found else (None, None)
