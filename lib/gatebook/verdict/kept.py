"""What a notebook found, kept beside its record so that it is computed once."""

from __future__ import annotations

import hashlib
from contextlib import suppress

from gatebook.checks.finding import Finding
from gatebook.config.files import replace_text
from gatebook.errors import BrokenRecord
from gatebook.record.exchange import Recorded
from gatebook.record.folder import sha256_of
from gatebook.record.run import HISTORY, Run
from gatebook.verdict.findings import NO_RUN_WRITES, judge_notebook


class KeptFindings(Recorded):
    """`NN_name.findings.json`: what a notebook found, written beside its record so that it is computed once."""

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
        if (kept := kept_file(run, notebook)).evidence == _evidence(run, notebook):
            return kept.findings
    return judge_notebook(run, notebook)


def kept_file(run: Run, notebook: str) -> KeptFindings:
    """What the notebook wrote, whatever it is of. Raises OSError, ValueError."""
    (kept,) = run.once(run.findings_file(notebook), lambda path: [KeptFindings.model_validate_json(path.read_bytes())])
    return kept


def _evidence(run: Run, notebook: str) -> str:
    told = hashlib.sha256()
    before = run.notebooks[: run.notebooks.index(notebook) + 1]
    records = [file for name in before for file in run.record_files(name)]
    plan = [run.path / name for name in ("manifest.json", "cases.json", "baseline.json", HISTORY)]
    for file in (*plan, *records, run.gauges_file(notebook), run.similarity_file(notebook)):
        told.update(f"{file.name} {sha256_of(file) if file.exists() else None}\n".encode())
    return told.hexdigest()
