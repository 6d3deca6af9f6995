"""What a notebook found, written beside its record, so that nobody who folds a run computes it again."""

from __future__ import annotations

import hashlib
from contextlib import suppress

from pydantic import BaseModel, ConfigDict

from gatebook.checks.finding import Finding
from gatebook.config.files import replace_text
from gatebook.errors import BrokenRecord
from gatebook.record.folder import sha256_of
from gatebook.record.run import HISTORY, Run
from gatebook.verdict.findings import NO_RUN_WRITES, judge_notebook


class KeptFindings(BaseModel):
    """`NN_name.findings.json`: what a notebook found, so that nobody who folds a run computes it again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    evidence: str
    """SHA-256 over the files that the findings follow from; of others they say nothing."""
    findings: list[Finding]


def keep_findings(run: Run, notebook: str) -> None:
    """Judge a notebook and write its findings; what cannot be judged leaves none, and raises where the verdict is made."""
    file = run.findings_file(notebook)
    file.unlink(missing_ok=True)
    with suppress(BrokenRecord, *NO_RUN_WRITES):
        kept = KeptFindings(evidence=_evidence(run, notebook), findings=judge_notebook(run, notebook))
        replace_text(file, kept.model_dump_json(indent=1))


def kept_findings(run: Run, notebook: str) -> list[Finding]:
    """The findings that the notebook wrote, where they are of these files; else they are computed. Raises BrokenRecord."""
    with suppress(OSError, ValueError):
        (kept,) = run.once(
            run.findings_file(notebook), lambda path: [KeptFindings.model_validate_json(path.read_bytes())]
        )
        if kept.evidence == _evidence(run, notebook):
            return kept.findings
    return judge_notebook(run, notebook)


def kept_file(run: Run, notebook: str) -> KeptFindings:
    """What the notebook wrote, whatever it is of. Raises OSError, ValueError."""
    return KeptFindings.model_validate_json(run.findings_file(notebook).read_bytes())


def _evidence(run: Run, notebook: str) -> str:
    told = hashlib.sha256()
    before = run.notebooks[: run.notebooks.index(notebook) + 1]
    records = [file for name in before for file in run.record_files(name)]
    plan = [run.path / name for name in ("manifest.json", "cases.json", "baseline.json", HISTORY)]
    for file in (*plan, *records, run.gauges_file(notebook), run.similarity_file(notebook)):
        told.update(f"{file.name} {sha256_of(file) if file.exists() else None}\n".encode())
    return told.hexdigest()
