"""The archive: a static site of all kept runs, with filters, trends and the difference of any two. No server, no CDN.

Every bundle is copied whole, so that the folder stands alone and each run can be verified from it. What is told of a run is
made from its bundle when it is taken in, with its verdict computed again; a bundle that does not fit its checksums or its
verdict is shown as damaged.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from gatebook.config.files import read_file, replace_text
from gatebook.errors import BadInput, CannotMeasure, GatebookError, first_line, os_reason
from gatebook.record.run import MAX_JSON_MIB, SCRATCH, SUMS, Run, run_folder_of
from gatebook.record.samples import streamed_times
from gatebook.report.conversation import Turn, conversation
from gatebook.report.pages import TEMPLATES, render
from gatebook.report.standing import CaseStanding, recorded, standings
from gatebook.report.text import excerpt, visible
from gatebook.verdict.comparing import NOT_RULES
from gatebook.verdict.judging import judge
from gatebook.verdict.verdict import Verdict

FORMAT = 1
"""Of the files in data/: another one is made anew."""
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,150}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.+Z-]{5,30}")
DAMAGED, UNFINISHED = "DAMAGED", "UNFINISHED"


@dataclass(frozen=True)
class Kept:
    """One bundle of the archive."""

    key: str
    """Its folder in runs/: the run's name, with the seal behind it where another bundle has the name."""
    summary: dict[str, Any]


def archive(source: Path, to: Path) -> list[str]:
    """Take in the bundles of `source` (a folder of runs, or one run) and write the site. Says what was done, a line each.

    A bundle that is there already is not touched. One that was sealed again is kept beside the older one. Raises BadInput.
    """
    runs, data = to / "runs", to / "data"
    if to.resolve() == source.resolve() or ((to / "index.html").exists() and not (to / "runs.js").exists()):
        raise BadInput(f"{to}: holds something else already; name a folder of its own, such as public/archive")
    if inside := run_folder_of(to):
        raise BadInput(f"{to}: lies in the run folder {inside}, which is sealed; name a folder outside of it")
    found = _bundles(source)
    try:
        runs.mkdir(parents=True, exist_ok=True)
        data.mkdir(exist_ok=True)
        said = [line for folder in found if (line := _take_in(folder, runs))]
        kept = [_kept(folder, data) for folder in sorted(runs.iterdir()) if not folder.name.startswith(".")]
        if not kept:
            raise BadInput(f"{source}: holds no run (a folder with manifest.json); make one with gatebook run")
        kept.sort(key=lambda k: (k.summary["created"], k.key), reverse=True)
        _write_site(to, kept)
    except OSError as error:
        raise CannotMeasure(f"{error.filename or to}: {os_reason(error)}; free space or name another --to") from None
    bad = [
        f"{k.summary['state']}: {k.key}: {k.summary['reason']}"
        for k in kept
        if k.summary["state"] in (DAMAGED, UNFINISHED)
    ]
    return [*said, *bad, f"{to / 'index.html'}: {len(kept)} runs"]


def _bundles(source: Path) -> list[Path]:
    if (source / "manifest.json").is_file():
        return [source]
    if not source.is_dir():
        raise BadInput(f"{source}: no such folder; name the one with the runs, such as outputs/")
    return sorted(p.parent for p in source.glob("*/manifest.json") if not p.parent.name.startswith("."))


def _take_in(folder: Path, runs: Path) -> str:
    """Copy a bundle unless it is there; empty when there was nothing to do."""
    name, seal = _name(folder), _seal(folder)
    for key in (name, f"{name}~{(seal or 'unsealed')[:8]}"):
        kept = runs / key
        if not kept.exists():
            _copy(folder, kept)
            return f"added {key}"
        if _seal(kept) is None:
            _copy(folder, kept)
            return f"brought up to date: {key}"
        if _seal(kept) == seal:
            damage = _damage(folder)
            if not _damage(kept):
                return f"{folder} is damaged ({damage}); the archive keeps the intact {key}" if damage else ""
            if damage:
                return ""
            _copy(folder, kept)
            return f"mended from the intact {folder}: {key}"
    return ""


def _name(folder: Path) -> str:
    """The run's own name, which `latest` does not have; the folder's where the manifest says none that is safe in a path."""
    said = _manifest(folder).get("run")
    if isinstance(said, str) and SAFE_NAME.fullmatch(said):
        return said
    return folder.name if SAFE_NAME.fullmatch(folder.name) else hashlib.sha256(folder.name.encode()).hexdigest()[:12]


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        said = json.loads(read_file(folder / "manifest.json", MAX_JSON_MIB))
    except (OSError, ValueError, RecursionError, GatebookError):
        return {}
    return said if isinstance(said, dict) else {}


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
    """A whole copy or none; links are left out, since they would publish what they point to."""

    def left_out(where: str, names: list[str]) -> list[str]:
        return [name for name in names if name in SCRATCH or (Path(where) / name).is_symlink()]

    fresh = kept.parent / f".new-{secrets.token_hex(4)}"
    try:
        shutil.copytree(folder, fresh, ignore=left_out)
        shutil.rmtree(kept, ignore_errors=True)
        fresh.rename(kept)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _kept(folder: Path, data: Path) -> Kept:
    """What is told of a bundle; its damage is looked for each time, the rest is made once for each seal."""
    seal, damage, key = _seal(folder), _damage(folder), folder.name
    if seal is None or damage:
        return Kept(key, _broken(folder, UNFINISHED if seal is None else DAMAGED, damage))
    if summary := _told_before(data, key, seal):
        return Kept(key, summary)
    try:
        run = Run(folder)
        recorded = Verdict.model_validate_json((folder / "verdict.json").read_bytes())
        verdict = judge(run, troubles=recorded.troubles)
        if (verdict.verdict, verdict.partial) != (recorded.verdict, recorded.partial):
            said = f"verdict.json says {recorded.verdict}, the record says {verdict.verdict}: {verdict.reason}"
            return Kept(key, _broken(folder, DAMAGED, said))
        summary, cases = portrait(run, verdict)
    except (GatebookError, ValueError) as error:
        return Kept(key, _broken(folder, DAMAGED, first_line(error)))
    summary |= {"key": key, "state": verdict.verdict}
    _write_data(data / f"{key}.js", "run", {"summary": summary, "cases": cases}, key)
    replace_text(data / f"{key}.json", json.dumps({"format": FORMAT, "seal": seal, "summary": summary}))
    return Kept(key, summary)


def _broken(folder: Path, state: str, why: str) -> dict[str, Any]:
    """A row without a verdict: nothing of what such a bundle says is repeated but its name and when it says it was made."""
    created = str(_manifest(folder).get("created"))
    made = created if TIME.fullmatch(created) else ""
    return {"key": folder.name, "run": folder.name, "created": made, "state": state, "reason": visible(why)}


def _told_before(data: Path, key: str, seal: str) -> dict[str, Any] | None:
    try:
        told = json.loads((data / f"{key}.json").read_bytes())
        same = (told["format"], told["seal"]) == (FORMAT, seal) and (data / f"{key}.js").exists()
        return dict(told["summary"]) if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_data(file: Path, call: str, value: Any, key: str) -> None:
    """JSON as one string literal of a script, since a page from disk may load scripts and nothing else."""
    safe = json.dumps(json.dumps(value, ensure_ascii=False, separators=(",", ":")), ensure_ascii=False)
    for character in "<\u2028\u2029":
        safe = safe.replace(character, f"\\u{ord(character):04x}")
    replace_text(file, f"gatebook.{call}({json.dumps(key)}, {safe});\n")


def _write_site(to: Path, kept: list[Kept]) -> None:
    told = {k.key for k in kept if k.summary["state"] not in (DAMAGED, UNFINISHED)}
    for file in (to / "data").iterdir():
        if file.suffix in (".js", ".json") and file.name.removesuffix(file.suffix) not in told:
            file.unlink()
    summaries = [k.summary for k in kept]
    _write_data(to / "runs.js", "runs", summaries, "all")
    css = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in ("style.css", "archive.css"))
    replace_text(to / "archive.css", css)
    shutil.copyfile(TEMPLATES / "archive.js", to / "archive.js")
    choices = {
        name: sorted({str(s[name]) for s in summaries if s.get(name)})
        for name in ("state", "profile", "revision", "suite")
    }
    replace_text(to / "index.html", render("archive.html.j2", runs=summaries, choices=choices))


TEXT_CHARS = 2000
REASON_CHARS = 600
MEMORY_CHECK = "gpu_memory"


def portrait(run: Run, verdict: Verdict) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(one row of the list, every case with what was said). Every text is made visible; rates are counts, latencies in ms."""
    manifest, served = run.manifest, verdict.served
    stands = [c for notebook in run.notebooks for c in standings(run, verdict, notebook) if c.case]
    summary = {
        "run": verdict.run, "created": manifest.created, "reason": _short(verdict.reason), "partial": verdict.partial,
        "profile": verdict.profile, "suite": verdict.suite, "model": served.model, "revision": served.revision or "",
        "base_url": served.base_url, "engine": f"{served.engine} {served.version or ''}".strip(), "commit": manifest.commit or "",
        "asked_by": manifest.asked_by or "", "judged_from": manifest.judged_from or "",
        "passed": sum(c.outcome == "pass" for c in stands), "cases": len(stands),
        "groups": {g.group: [g.passed, g.cases] for g in verdict.groups},
        "waived": sum(len(w.cases) for w in verdict.waivers),
        **_latencies(run), "memory_gb": _memory_gb(verdict),
    }  # fmt: skip
    made = {name: visible(value) if isinstance(value, str) else value for name, value in summary.items()}
    return made, [_case(c) for c in stands]


def _latencies(run: Run) -> dict[str, float | None]:
    """Medians over all streamed answers of the run."""
    times = streamed_times(e for notebook in run.notebooks for e in recorded(run, notebook))
    return {name: round(median(values), 2) if values else None for name, values in times.items()}


def _memory_gb(verdict: Verdict) -> float | None:
    """The highest peak that a check measured."""
    values = [f.measured for f in verdict.findings if f.check == MEMORY_CHECK]
    return max((v for v in values if isinstance(v, int | float)), default=None)


def _case(stands: CaseStanding) -> dict[str, Any]:
    assert stands.case is not None
    rules = stands.case.model_dump(mode="json", exclude=NOT_RULES)
    return {
        "id": stands.id, "notebook": stands.notebook, "group": stands.group, "why": _short(stands.case.why),
        "outcome": stands.outcome, "reason": _short(stands.reason), "asked": stands.case.prompt_hash,
        "expected": hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()[:12],
        "requests": [
            {
                "name": visible(request.name), "facts": visible(" · ".join(request.facts)),
                "prompt": [_turn(t) for t in request.turns if t.kind == "prompt"],
                "answer": [_turn(t) for t in request.turns if t.kind != "prompt"],
            }
            for request in conversation(stands, TEXT_CHARS)
        ],
    }  # fmt: skip


def _turn(turn: Turn) -> dict[str, Any]:
    return {"who": visible(turn.who), "text": visible(turn.text), "more": turn.more, "lang": turn.lang}


def _short(text: str) -> str:
    short, more = excerpt(text, REASON_CHARS)
    return visible(f"{short} …" if more else short)
