"""`gatebook compare`: two recorded runs, or two live servers that are asked the same suite one after the other."""

from __future__ import annotations

from pathlib import Path

from gatebook.config.profile import Profile, Suite, is_url, with_target
from gatebook.errors import BadInput, BrokenRecord
from gatebook.record.run import Run
from gatebook.stopping import stopped
from gatebook.verdict.comparing import Judged
from gatebook.verdict.judging import judge
from gatebook.verdict.verdict import Verdict


def two(name: str, values: list[str] | None) -> tuple[str | None, str | None]:
    """An option that is given once for both sides, or twice, first side first. Raises BadInput."""
    found = values or []
    if len(found) > 2:
        raise BadInput(f"--{name} is given {len(found)} times; once for both sides, or twice in their order")
    return (found[0], found[-1]) if found else (None, None)


def recorded(first: str, second: str) -> tuple[Judged, Judged]:
    """Two run folders, each intact and judged again from its own record. Raises BadInput, BrokenRecord."""
    sides = _opened(first), _opened(second)
    if sides[0].run.manifest.run == sides[1].run.manifest.run:
        raise BadInput(f"{second}: is the same run as {first}; a run compared with itself shows nothing")
    return sides


def live(
    profile: Profile, urls: tuple[str, str], suite: Suite, only: list[str] | None, out: Path | None,
    models: tuple[str | None, str | None], revisions: tuple[str | None, str | None], watch: bool,
) -> tuple[Judged, Judged]:  # fmt: skip
    """Ask both servers the same suite; two runs are kept as evidence. Raises BadInput before anything is asked."""
    from gatebook import runner

    def asked(target: Profile) -> Judged:
        found = Judged(*runner.run_profile(target, suite, only, out, watch))
        if stopped():
            raise KeyboardInterrupt  # its run has its own verdict, and the comparison has none
        return found

    targets = [
        with_target(profile, base_url=url, model=model, revision=revision)
        for url, model, revision in zip(urls, models, revisions, strict=True)
    ]
    return asked(targets[0]), asked(targets[1])


def are_urls(first: str, second: str) -> bool:
    """Whether both sides are servers. Raises BadInput when only one is."""
    which = [is_url(side) for side in (first, second)]
    if which[0] != which[1]:
        raise BadInput(
            f"{first} and {second}: name two run folders or two URLs; a live server is asked first: gatebook run"
        )
    return which[0]


def _opened(name: str) -> Judged:
    path = Path(name).resolve()
    run = Run(path)
    if damage := run.damage():
        raise BrokenRecord(f"{name}: {damage[0]}; only intact runs are compared")
    try:
        troubles = Verdict.model_validate_json((path / "verdict.json").read_bytes()).troubles
    except (OSError, ValueError):
        raise BrokenRecord(f"{name}: verdict.json cannot be read; only finished runs are compared") from None
    return Judged(run, judge(run, troubles=troubles))
