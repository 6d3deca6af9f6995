"""One process that tries inputs: `SEED/NUMBER` comes in on a line, what became of it goes out on one.

python -m tests.fuzz.worker PROJECT BUNDLE
"""

from __future__ import annotations

import io
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from gatebook import __main__ as entry
from gatebook import cli
from gatebook.commands import replay
from gatebook.commands.verify import verify
from gatebook.config.cases import Case
from gatebook.errors import GatebookError
from gatebook.record.exchange import Exchange
from gatebook.record.manifest import Manifest
from gatebook.report.pages import verification_page
from gatebook.report.terminal import show_verification
from gatebook.verdict.baseline import Baseline
from typer.main import get_command

from tests.fuzz import inputs

PROTECT_BYTES = 4 << 30
"""For the machine's sake; what counts is the peak that is told."""
NO_EVIDENCE = {
    "run",
    "created",
    "asked_by",
    "job_url",
    "machine",
    "versions",
    "commit",
    "schema_version",
    "against",
    "yes_load",
}
"""What of a manifest nobody can tell from an edited one without a seal, or what the run was told besides."""
CODES = (0, 1, 2, 3, 75)


class Trouble(Exception):
    """What the input has shown."""


def command(*arguments: str | Path) -> tuple[int, str]:
    """The real command in this process: (exit code, what it printed). Raises Trouble for a traceback or another code."""
    said = io.StringIO()
    sys.argv = ["gatebook", *map(str, arguments)]
    code: Any = 0
    with redirect_stdout(said), redirect_stderr(said):
        try:
            entry.main()
        except SystemExit as done:
            code = done.code or 0
    text = said.getvalue()
    if code not in CODES or "Traceback (most recent call last)" in text or "our own fault" in text:
        raise Trouble(f"{arguments[0]}: exit {code}: {text[-1500:]}")
    return int(code), text


def evidence(bundle: Path, records: bool) -> Any:
    """What a verdict rests on, as Gatebook reads it; None where it cannot be read."""
    try:
        manifest = Manifest.model_validate_json((bundle / "manifest.json").read_bytes()).model_dump(exclude=NO_EVIDENCE)
        cases = [Case.model_validate(case).model_dump() for case in json.loads((bundle / "cases.json").read_bytes())]
        baseline = Baseline.model_validate_json((bundle / "baseline.json").read_bytes()).content
        said = {}
        for notebook in manifest["expected"] if records else ():
            rows = (bundle / f"{notebook}.exchanges.jsonl").read_text(encoding="utf-8").splitlines()
            said[notebook] = [Exchange.model_validate(json.loads(row)["exchange"]).model_dump() for row in rows]
        return manifest, cases, baseline, said
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def bytes_of(bundle: Path) -> dict[str, bytes]:
    return {str(p.relative_to(bundle)): p.read_bytes() for p in inputs.files(bundle)}


def of_bundle(dice: random.Random, project: Path, base: Path, folder: Path) -> str:
    made = folder / "run"
    resealed, chained = inputs.bundle_input(dice, base, made)
    same = bytes_of(made) == bytes_of(base)
    manifest = json.loads((base / "manifest.json").read_bytes())
    code, said = command(
        "passed", made, "--suite", manifest["suite"], "--profile", project / "params" / "small.yaml", "--cases", project / "params" / "cases",
        "--base-url", manifest["base_url"], "--revision", manifest["profile"]["target"]["revision"], "--model", manifest["profile"]["target"]["model"],
    )  # fmt: skip
    known = "refused"
    if code == 0:
        if "passed, PASS: " not in said.splitlines()[-1]:
            raise Trouble(f"passed: exit 0 without its line: {said[-500:]}")
        if not resealed and not same:
            raise Trouble("passed: exit 0 for a bundle that its checksums do not fit")
        if evidence(made, False) != evidence(base, False) or (
            not chained and evidence(made, True) != evidence(base, True)
        ):
            raise Trouble("passed: exit 0 for other evidence")
        known = "the same evidence" if evidence(made, True) == evidence(base, True) else "a record chained anew"
    elif same and not list(made.rglob("*/x")) and code != 0:
        known = "untouched"
    try:
        found = verify(made, replay=False)
        with redirect_stdout(io.StringIO()):
            show_verification(found)
        verification_page(found)
    except GatebookError:
        pass
    _only_our_code(made, project)
    command("report", made)
    if (folder.parent / "x").exists() or (folder / "x").exists():
        raise Trouble("report: wrote outside of the bundle")
    return known


def _only_our_code(made: Path, project: Path) -> None:
    """What would be executed is our code, word for word."""
    for file in sorted((project / "notebooks").glob("*.ipynb")):
        if not (made / file.name).is_file():  # a pipe, which no run folder may have
            continue
        try:
            code = replay.ours_of(file.stem, replay.cells_of(made / file.name), [project / "notebooks"])
        except ValueError:
            continue
        if isinstance(code, list) and [c.source for c in code] != [c.source for c in replay.cells_of(file)]:
            raise Trouble(f"verify: would execute another {file.name}")


def of_profile(dice: random.Random, project: Path, base: Path, folder: Path) -> str:
    file = folder / "fuzzed.yaml"
    file.write_bytes(inputs.yaml_input(dice, (project / "params" / "small.yaml").read_bytes()))
    code, _ = command("run", "--profile", file, "--base-url", "http://127.0.0.1:9/v1", "--suite", "smoke", "--plan")
    if code not in (0, 2):
        raise Trouble(f"run --plan: exit {code}")
    return "planned" if code == 0 else "refused"


def of_cases(dice: random.Random, project: Path, base: Path, folder: Path) -> str:
    file = folder / "fuzzed.yaml"
    file.write_bytes(inputs.yaml_input(dice, (project / "params" / "cases" / "small.yaml").read_bytes()))
    code, _ = command("cases", "check", file, "--allow-missing")
    if code not in (0, 1, 2):
        raise Trouble(f"cases check: exit {code}")
    return "refused" if code == 2 else "read"


KINDS = {"bundle": of_bundle, "profile": of_profile, "cases": of_cases}


def _peak_bytes() -> int:
    """Of this process alone: `ru_maxrss` begins with what the process that started it held, a test suite with torch in it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


def main() -> None:
    project, base = map(Path, sys.argv[1:])
    resource.setrlimit(resource.RLIMIT_DATA, (PROTECT_BYTES, PROTECT_BYTES))
    os.chdir(project)
    cli.app = get_command(cli.app)  # type: ignore[assignment]  # typer builds it anew each time, 50 ms
    for line in sys.stdin:
        dice = random.Random(line.strip())
        kind = dice.choices(list(KINDS), (8, 1, 1))[0]
        folder = Path(tempfile.mkdtemp(prefix="gatebook-fuzz-"))
        told = {"kind": kind, "trouble": None, "became": None}
        try:
            (folder / "at").mkdir()
            told["became"] = KINDS[kind](dice, project, base, folder / "at")
        except Trouble as trouble:
            told["trouble"] = str(trouble)
        except Exception:
            told["trouble"] = traceback.format_exc()[-3000:]
        shutil.rmtree(folder, ignore_errors=True)
        told["peak_bytes"] = _peak_bytes()
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
