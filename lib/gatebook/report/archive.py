"""The archive: a static site of all kept runs, with filters, trends and the difference of any two. No server, no CDN.

Every bundle is copied whole, so that the folder stands alone and each run can be verified from it. What is shown of a run
is made from its bundle when it is taken in, with its verdict computed again; a bundle that does not fit its checksums or
its verdict is shown as damaged.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from gatebook.config.cases import Case
from gatebook.config.files import read_file, replace_own
from gatebook.config.rows import changed
from gatebook.errors import BadInput, BrokenRecord, CannotMeasure, GatebookError, first_line, os_reason
from gatebook.record.folder import MAX_JSON_MIB, run_folder_of
from gatebook.record.run import SCRATCH, SUMS, Run
from gatebook.record.samples import streamed_times
from gatebook.report.conversation import conversation
from gatebook.report.figures import MARK, SAID, bare, publish
from gatebook.report.standing import CaseStanding, recorded, standings
from gatebook.report.text import SITE, TEMPLATES, render, shorten, visible
from gatebook.verdict.comparing import NOT_RULES
from gatebook.verdict.judging import judge
from gatebook.verdict.verdict import Verdict

FORMAT = 2
"""Of the files in data/: another one is made anew."""
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,150}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.+Z-]{5,30}")
TEXT_CHARS, REASON_CHARS = 2000, 600
MEMORY_CHECK = "gpu_memory"


def archive(source: Path, to: Path, texts: bool = True) -> list[str]:
    """Take in the bundles of `source` (a folder of runs, or one run) and write the site. Says what was done, a line each.

    A bundle that is there already is not touched. One that was sealed again is kept beside the older one. Without `texts`
    no bundle is copied: of each run verdict and figures are published. Raises BadInput.
    """
    runs, data = to / "runs", to / "data"
    if to.resolve() == source.resolve() or ((to / "index.html").exists() and not (to / "runs.js").exists()):
        raise BadInput(f"{to}: holds something else already; name a folder of its own, such as public/archive")
    if inside := run_folder_of(to):
        raise BadInput(f"{to}: lies in the run folder {inside}, which is sealed; name a folder outside of it")
    if texts and (to / MARK).exists():
        raise BadInput(f"{to}: holds figures only; add --no-texts, or name another folder")
    if not texts and any(runs.glob("*/manifest.json")):
        raise BadInput(f"{to}: holds runs with their texts; leave out --no-texts, or name another folder")
    if link := next((folder for folder in (runs, data) if folder.is_symlink()), None):
        raise BadInput(f"{link}: is a link, and a site is a folder of its own; move it away, or name another --to")
    found = _bundles(source)
    try:
        runs.mkdir(parents=True, exist_ok=True)
        data.mkdir(exist_ok=True)
        if texts:
            done, refused = _taken_in(found, runs)
            folders = [folder for folder in sorted(runs.iterdir()) if not folder.name.startswith(".")]
            kept = [_row(folder, data, folder.name, texts) for folder in folders]
            kept += [row for row in refused if row["key"] not in {one["key"] for one in kept}]
        else:
            replace_own(to / MARK, SAID)
            done, kept = _figures(found, data)
        if not kept:
            raise BadInput(f"{source}: holds no run (a folder with manifest.json); make one with gatebook run")
        kept.sort(key=lambda run: (run["created"], run["key"]), reverse=True)
        _write_site(to, kept, texts)
    except OSError as error:
        raise CannotMeasure(f"{error.filename or to}: {os_reason(error)}; free space or name another --to") from None
    bad = [f"{run['state']}: {run['key']}: {run['reason']}" for run in kept if "profile" not in run]
    return [*done, *bad, f"{to / 'index.html'}: {len(kept)} runs"]


def _bundles(source: Path) -> list[Path]:
    if (source / "manifest.json").is_file():
        return [source]
    if not source.is_dir():
        raise BadInput(f"{source}: no such folder; name the one with the runs, such as outputs/")
    return sorted(p.parent for p in source.glob("*/manifest.json") if not p.parent.name.startswith("."))


def _taken_in(found: list[Path], runs: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """(what was done, the rows of bundles that are not copied): one that cannot be read is no reason to leave out the others."""
    done, refused = [], []
    for folder in found:
        try:
            done.append(_take_in(folder, runs))
        except (BadInput, BrokenRecord) as error:
            done.append(f"not taken in: {folder}")
            refused.append(_no_evidence(folder, _name(folder), "DAMAGED", str(error), texts=True))
    return [line for line in done if line], refused


def _take_in(folder: Path, runs: Path) -> str:
    """Copy a bundle unless it is there; empty when there was nothing to do. Raises BadInput, BrokenRecord."""
    name, seal = _name(folder), _seal(folder)
    for key in (name, f"{name}~{(seal or 'unsealed')[:8]}"):
        kept = runs / key
        own = _seal(kept) if kept.exists() else None
        if own is None:
            said = f"brought up to date: {key}" if kept.exists() else f"added {key}"
        elif own != seal:
            continue
        else:
            damage, harmed = _damage(folder), _damage(kept)
            if not harmed and damage:
                return f"{folder} is damaged ({damage}); the archive keeps the intact {key}"
            if damage or not harmed:
                return ""
            said = f"mended from the intact {folder}: {key}"
        _copy(folder, kept)
        return said
    return ""


def _name(folder: Path) -> str:
    """The run's own name, which `latest` does not have; the folder's where the manifest says none that is safe in a path."""
    for name in (_manifest(folder).get("run"), folder.name):
        if isinstance(name, str) and SAFE_NAME.fullmatch(name):
            return name
    return hashlib.sha256(folder.name.encode()).hexdigest()[:12]


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(read_file(folder / "manifest.json", MAX_JSON_MIB)))
    except (OSError, ValueError, TypeError, RecursionError, GatebookError):
        return {}


def _seal(folder: Path) -> str | None:
    """SHA-256 of SHA256SUMS: two bundles with the same one are the same, if they are intact."""
    file = folder / SUMS
    return hashlib.sha256(read_file(file, MAX_JSON_MIB)).hexdigest() if file.is_file() else None


def _damage(folder: Path) -> str:
    try:
        return next(iter(Run(folder).damage()), "")
    except GatebookError as error:
        return str(error).replace(f"{folder}", folder.name)


def _copy(folder: Path, kept: Path) -> None:
    """Copy the whole bundle or nothing; links are left out, since they would publish what they point to."""

    def left_out(where: str, names: list[str]) -> list[str]:
        for path in (Path(where) / name for name in names):
            if not (path.is_symlink() or path.is_file() or path.is_dir()):
                raise BrokenRecord(f"{path}: is no file; a bundle holds plain files and folders only")
        return [name for name in names if name in SCRATCH or (Path(where) / name).is_symlink()]

    fresh = kept.parent / f".new-{secrets.token_hex(4)}"
    try:
        shutil.copytree(folder, fresh, ignore=left_out)
        shutil.rmtree(kept, ignore_errors=True)
        fresh.rename(kept)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _row(folder: Path, data: Path, key: str, texts: bool) -> dict[str, Any]:
    """One row of the list. Damage is looked for each time; the rest, and what the browser reads of the run, is made once for each seal.

    Of a bundle without a verdict nothing is repeated but its name and when it says it was made; without `texts` not even why.
    """
    seal, why = _seal(folder), _damage(folder)
    if seal and not why:
        try:
            if known := _known(data / key, seal):
                return known
            run = Run(folder)
            summary, cases, verdict = _judged(run, texts)
        except (GatebookError, ValueError) as error:
            why = first_line(error)
        else:
            if not texts:
                publish(run, verdict, data.parent / "runs" / key)
            summary["key"] = key
            _write_data(data / f"{key}.js", "run", {"summary": summary, "cases": cases}, key)
            replace_own(data / f"{key}.json", json.dumps({"format": FORMAT, "seal": seal, "summary": summary}))
            return summary
    return _no_evidence(folder, key, "DAMAGED" if seal else "UNFINISHED", why, texts)


def _no_evidence(folder: Path, key: str, state: str, why: str, texts: bool) -> dict[str, Any]:
    """The row of a bundle without a verdict."""
    created = str(_manifest(folder).get("created"))
    return {
        "key": key,
        "run": key,
        "created": created if TIME.fullmatch(created) else "",
        "state": state,
        "reason": visible(why) if texts else "no evidence of a verdict; gatebook verify says why",
    }


def _figures(found: list[Path], data: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """(what was done, one row a run): of new bundles the figures are published, and of those that are there, they stay."""
    done, bad = [], []
    for folder in found:
        name = _name(folder)
        try:
            seal = _seal(folder) or ""
        except GatebookError as error:
            bad.append(_no_evidence(folder, name, "DAMAGED", str(error), texts=False))
            continue
        keys = (name, f"{name}~{seal[:8]}")
        if any(_known(data / key, seal) for key in keys) and not _damage(folder):
            continue
        key = next((key for key in keys if not (data / f"{key}.json").exists()), keys[1])
        row = _row(folder, data, key, texts=False)
        if "profile" in row:
            done.append(f"added {key}")
        else:
            bad.append(row)
    kept = [dict(json.loads(file.read_bytes())["summary"]) for file in sorted(data.glob("*.json"))]
    return done, [*kept, *bad]


def _known(file: Path, seal: str) -> dict[str, Any] | None:
    """Return the row that was made for this seal before, if any."""
    try:
        made = json.loads(Path(f"{file}.json").read_bytes())
        same = (made["format"], made["seal"]) == (FORMAT, seal) and Path(f"{file}.js").exists()
        return dict(made["summary"]) if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _judged(run: Run, texts: bool = True) -> tuple[dict[str, Any], list[dict[str, Any]], Verdict]:
    """(one row of the list, every case with what was said, the verdict), all judged again; rates are counts, latencies
    medians in ms. Without `texts` reasons are cut to figures, and nothing was said.

    Raises ValueError where the record does not carry verdict.json.
    """
    said = Verdict.model_validate_json((run.path / "verdict.json").read_bytes())
    verdict = judge(run, troubles=said.troubles)
    if (verdict.verdict, verdict.partial) != (said.verdict, said.partial):
        raise ValueError(f"verdict.json says {said.verdict}, the record says {verdict.verdict}: {verdict.reason}")
    full, verdict = verdict, verdict if texts else bare(verdict)
    manifest, served = run.manifest, verdict.served
    times = streamed_times(recorded(run))
    memory = [f.measured for f in verdict.findings if f.check == MEMORY_CHECK and isinstance(f.measured, int | float)]
    cases = [_case(c, c.case, run.asked(c.id), texts) for c in standings(run, verdict) if c.case]
    summary = {
        **verdict.model_dump(include={"run", "partial", "effort", "profile", "suite"}), **manifest.model_dump(include={"created", "commit", "asked_by", "judged_from"}),
        **served.model_dump(include={"model", "revision", "base_url"}), "engine": f"{served.engine} {served.version or ''}".strip(),
        "state": verdict.verdict, "reason": shorten(verdict.reason, REASON_CHARS),
        "passed": sum(c["outcome"] == "pass" for c in cases), "cases": len(cases),
        "groups": {g.group: [g.passed, g.cases] for g in verdict.groups}, "waived": sum(len(w.cases) for w in verdict.waivers),
        **{name: round(median(values), 2) if values else None for name, values in times.items()}, "memory_gb": max(memory, default=None),
        **({} if texts else {"texts": False}),
    }  # fmt: skip
    return changed(summary, visible), changed(cases, visible), full


def _case(stands: CaseStanding, case: Case, asked: str, texts: bool) -> dict[str, Any]:
    rules = json.dumps(case.model_dump(mode="json", exclude=NOT_RULES), sort_keys=True)
    return {
        "id": stands.id,
        "notebook": stands.notebook,
        "group": stands.group,
        "why": shorten(case.why, REASON_CHARS) if texts else "",
        "outcome": stands.outcome,
        "reason": shorten(stands.reason, REASON_CHARS),
        "asked": asked,
        "expected": hashlib.sha256(rules.encode()).hexdigest()[:12],
        "requests": [asdict(request) for request in conversation(stands, TEXT_CHARS)] if texts else [],
    }


def _write_data(file: Path, call: str, value: Any, key: str) -> None:
    """JSON as one string literal of a script, since a page from disk may load scripts and nothing else."""
    safe = json.dumps(json.dumps(value, ensure_ascii=False, separators=(",", ":")), ensure_ascii=False)
    for character in "<\u2028\u2029":
        safe = safe.replace(character, f"\\u{ord(character):04x}")
    replace_own(file, f"gatebook.{call}({json.dumps(key)}, {safe});\n")


def _write_site(to: Path, kept: list[dict[str, Any]], texts: bool) -> None:
    whole = {run["key"] for run in kept if "profile" in run}
    for file in (to / "data").iterdir():
        if file.suffix in (".js", ".json") and file.stem not in whole:
            file.unlink()
    _write_data(to / "runs.js", "runs", kept, "all")
    for file in (TEMPLATES / "style.css", SITE / "archive.css", SITE / "archive.js"):
        replace_own(to / file.name, file.read_text(encoding="utf-8"))
    replace_own(to / "index.html", render("archive.html.j2", runs=kept, texts=texts))
