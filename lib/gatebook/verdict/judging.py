"""From a run folder to its verdict: the pure half of the story, used by the notebooks, the runner and verify alike."""

from __future__ import annotations

from gatebook.checks.contract import clock_behind_s
from gatebook.checks.finding import Finding
from gatebook.errors import BrokenRecord
from gatebook.record.run import Run
from gatebook.verdict.baseline import Baseline, read_baseline
from gatebook.verdict.findings import judge_notebook, judge_run, run_identity
from gatebook.verdict.fingerprint import fingerprint
from gatebook.verdict.policy import Judged, compared_groups, decide
from gatebook.verdict.verdict import Served, Verdict

NO_RUN_WRITES = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, OSError)
"""What a record whose chain and fields are right still raises where its values are not: a time that is none, JSON without end."""


def judge(run: Run, notebook: str | None = None, troubles: list[str] | None = None) -> Verdict:
    """The verdict of a run, or of one of its notebooks. Raises BrokenRecord, and nothing else whatever the folder holds.

    A notebook alone is judged as if the compared groups of the others showed nothing (p = 1), which is the strictest
    Holm step; the run's verdict has them all.
    """
    try:
        return _judged(run, notebook, troubles or [])
    except NO_RUN_WRITES as error:
        said = " ".join(str(error).split())[:200]
        raise BrokenRecord(
            f"{run.path}: cannot be judged ({type(error).__name__}: {said}): it holds what no run writes; if one did, please report it"
        ) from error


def _judged(run: Run, notebook: str | None, troubles: list[str]) -> Verdict:
    findings: list[Finding] = judge_notebook(run, notebook) if notebook else judge_run(run)
    manifest, target, identity = run.manifest, run.manifest.profile.target, run_identity(run)
    if notebook:
        manifest = manifest.model_copy(update={"expected": {notebook: manifest.expected[notebook]}})
    served = Served(
        base_url=manifest.base_url, model=target.model, revision=target.revision,
        engine=identity.engine, version=identity.version, context_tokens=identity.context_tokens,
    )  # fmt: skip
    print_of = fingerprint(run, identity, findings)
    family = compared_groups(
        manifest.profile, (run.cases[i].group for ids in run.manifest.expected.values() for i in ids)
    )
    alone = notebook is not None
    behind_s = clock_behind_s(e for name in manifest.expected for e in run.exchanges(name))
    return decide(
        Judged(manifest, run.cases, findings, served, print_of, run_baseline(run), troubles, family, alone, behind_s)
    )


def run_baseline(run: Run) -> Baseline | None:
    """The baseline that was copied into the run when it was planned."""
    path = run.path / "baseline.json"
    return read_baseline(path.read_bytes() if path.exists() else None, str(path))
