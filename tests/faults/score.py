"""Writes docs/fault-score.md from the results that the lab has kept."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterable, Sequence

from tests.conftest import ROOT
from tests.faults import mutation, quiet, rates
from tests.faults.catalogue import FALSE_GREENS, HARMLESS, ROWS, UNREPRODUCED, Row
from tests.faults.lab import Result, results
from tests.faults.on_vllm import VLLM_HARMLESS, VLLM_ROWS, VllmRow, vllm_results

PAGE = ROOT / "docs" / "fault-score.md"
INTRO = """# What the gate catches, and when it keeps quiet

Written by `make faults` (`python -m tests.faults --all`); every number is measured by it, with SmolLM2-135M on llama.cpp and on vLLM.
Each row is a failure that users of vLLM, SGLang or llama.cpp have reported. It is made by a real server with another setting, or by
a proxy before a healthy one that spoils answers as they stream by, and the real `gatebook run` is asked. The tables themselves are
`tests/faults/catalogue.py` and `tests/faults/on_vllm.py`; `python -m tests.faults.proxy --list` shows what the proxy can do.

"""
VLLM_INTRO = """vLLM 0.32.0 on a CPU (docs/engines.md), the baseline accepted once on each healthy deployment with the profile that `gatebook init`
wrote. Here "named" means by the verdict's first line, and the time is that of the whole run."""


def write() -> str:
    """Write the page and return its summary."""
    have, on_vllm = results(), vllm_results()
    summary = [*_summary(have), *_vllm_summary(on_vllm)]
    parts = [INTRO, _state([*have.values(), *on_vllm.values()]), "\n".join(f"* {line}" for line in summary), ""]
    parts += ["## Faults on llama.cpp and on the wire", "", _rows(ROWS, have, "fault"), "", _uncaught(ROWS, have)]
    parts += ["## Faults of a real vLLM", "", VLLM_INTRO, "", _rows(VLLM_ROWS, on_vllm, "fault"), ""]
    parts += [_uncaught(VLLM_ROWS, on_vllm), "What must not be red there:", ""]
    parts += [_rows(VLLM_HARMLESS, on_vllm, "difference"), "", "## Not reproduced here", ""]
    parts += [f"* {name}: {why}." for name, why in UNREPRODUCED.items()]
    parts += [
        "",
        "## Where other tools are green",
        "",
        "Measured with promptfoo 0.121.20, inspect_ai 0.3.285, deepeval 4.3.1, lm_eval 0.4.13 and pytest-rerunfailures 16.7. The same situations, given to Gatebook:",
        "",
    ]
    parts += [
        _rows(FALSE_GREENS, have, "situation"),
        "",
        "## Harmless differences that must stay green on llama.cpp",
        "",
        _harmless(have),
    ]
    parts += [
        "",
        "## Faults that come and go",
        "",
        _rates(),
        "",
        "## Quiet",
        "",
        _quiet(),
        "",
        "## Wrong and harmless answers, check by check",
        "",
        _mutants(),
        "",
    ]
    PAGE.write_text("\n".join(parts))
    return "\n".join([*summary, f"written: {PAGE.relative_to(ROOT)}"])


def _summary(have: dict[str, Result]) -> list[str]:
    run = [row for row in ROWS if row.id in have]
    caught = sum(have[row.id].caught for row in run)
    named = sum(have[row.id].caught and have[row.id].named for row in run)
    first = sum(have[row.id].caught and have[row.id].first for row in run)
    green = [row for row in FALSE_GREENS if row.id in have]
    quiet_rows = [row for row in HARMLESS if row.id in have]
    lines = [
        f"caught: {caught} of {len(run)} faults injected ({len({r.id.split('-')[0] for r in run})} kinds); {len(ROWS) - len(run)} rows not run",
        f"named: {named} of {len(run)} by a printed reason that names the cause, {first} by the first one",
        f"false greens of other tools: {sum(have[r.id].caught for r in green)} of {len(green)} are not green here",
        f"harmless differences: {sum(have[r.id].caught for r in quiet_rows)} of {len(quiet_rows)} stay green",
    ]
    return lines + ([quiet.told(done)] if (done := quiet.measured()) else ["quiet: not measured yet"])


def _vllm_summary(have: dict[str, Result]) -> list[str]:
    run = [row for row in VLLM_ROWS if row.id in have]
    first = sum(have[row.id].caught and have[row.id].first for row in run)
    harmless = [row for row in VLLM_HARMLESS if row.id in have]
    lines = [
        f"vLLM: caught: {sum(have[r.id].caught for r in run)} of {len(run)}, {first} named by the verdict's first line; {len(VLLM_ROWS) - len(run)} rows not run",
        f"vLLM: harmless differences and first gates: {sum(have[r.id].caught for r in harmless)} of {len(harmless)} as they must be; {len(VLLM_HARMLESS) - len(harmless)} not run",
    ]
    return lines + ([quiet.told(done)] if (done := quiet.measured(quiet.VLLM)) else ["quiet on vLLM: not measured yet"])


def _state(found: Iterable[Result]) -> str:
    states = sorted({result.state for result in found})
    days = sorted({result.at[:10] for result in found})
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    return f"Measured {' to '.join(dict.fromkeys((days[0], days[-1]))) if days else 'never'} at commit {commit or 'unknown'} (state of the product {', '.join(states)}), Python {platform.python_version()}.\n"


def _table(head: list[str], lines: Iterable[list[str]]) -> str:
    clean = [[" ".join(cell.replace("|", "\\|").split()) for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *clean])


def _rows(rows: Sequence[Row | VllmRow], have: dict[str, Result], what: str) -> str:
    lines = []
    for row in rows:
        result = have.get(row.id)
        cells = (
            ["not run"] * 5
            if result is None
            else [
                result.verdict if result.caught else f"NOT CAUGHT ({result.verdict})",
                "; ".join(result.caught_by),
                _reason(row, result),
                "yes" if result.first else "below" if result.named else "no" if row.named else "",
                f"{result.seconds:.0f}",
            ]
        )
        lines.append([row.id, row.what, row.injected.replace("\\|", "|"), *cells])
    return _table(
        ["id", what, "injected", "verdict", "caught by (notebook, check)", "reason shown", "named", "s"], lines
    )


def _reason(row: Row | VllmRow, result: Result, width: int = 220) -> str:
    """The first reason, or the one that names the cause, kept short around the cause."""
    import re

    if not result.reasons:
        return ""
    reason = next((r for r in result.reasons if row.named and re.search(row.named, r, re.DOTALL)), result.reasons[0])
    found = re.search(row.named, reason, re.DOTALL) if row.named else None
    start = max(found.start() - width // 2, 0) if found and found.end() > width else 0
    text = ("…" if start else "") + reason[start : start + width] + ("…" if len(reason) > start + width else "")
    return "`" + text.replace("`", "'").replace("\n", " ") + "`"


def _uncaught(rows: Sequence[Row | VllmRow], have: dict[str, Result]) -> str:
    missed = [row for row in rows if row.id in have and not (have[row.id].caught and have[row.id].named)]
    return "" if not missed else "Not caught, or not named: " + ", ".join(row.id for row in missed) + ".\n"


def _harmless(have: dict[str, Result]) -> str:
    lines = [
        [row.id, row.what, row.injected, have[row.id].verdict, f"{have[row.id].seconds:.0f}"]
        for row in HARMLESS
        if row.id in have
    ]
    return _table(["id", "difference", "injected", "verdict", "s"], lines)


def _rates() -> str:
    done = rates.measured()
    if not done:
        return "Not measured yet: `python -m tests.faults --rates 3`."
    head = [
        "fault",
        "strikes",
        "requests it can touch in the smoke suite",
        "computed: at least one struck",
        "measured: not green (95 % Wilson)",
        "seeds",
    ]
    return (
        f"{rates.__doc__.split(chr(10), 2)[2].strip() if rates.__doc__ else ''} State {done[-1].state}.\n\n"
        + _table(head, rates.table(done))
    )


def _quiet() -> str:
    how = {
        quiet.LLAMA: "Cold and warm servers, one and two requests in flight",
        quiet.VLLM: "The server started anew before every fifth run, eight requests in flight",
    }
    lines = []
    for engine, said in how.items():
        done = quiet.measured(engine)
        command = f"`python -m tests.faults --quiet {len(done) or quiet.RUNS_OF[engine]} --engine {engine}`"
        lines.append(
            f"{quiet.told(done)}. {said}; state {done[-1].state}, {done[0].at} to {done[-1].at}. {command}"
            if done
            else f"Not measured yet on {engine}: {command}."
        )
    return "\n\n".join(lines)


def _mutants() -> str:
    state, found = mutation.measured()
    if not found:
        return "Not measured yet: `python -m tests.faults --mutants`."
    lines = [
        [
            f"`{name}`",
            str(s.wrong),
            f"{s.killed / s.wrong:.1%}" if s.wrong else "",
            str(s.harmless),
            f"{s.alarms / s.harmless:.1%}" if s.harmless else "",
        ]
        for name, s in sorted(found.items())
    ]
    wrong, killed = sum(s.wrong for s in found.values()), sum(s.killed for s in found.values())
    harmless, alarms = sum(s.harmless for s in found.values()), sum(s.alarms for s in found.values())
    lines.append(["all", str(wrong), f"{killed / wrong:.1%}", str(harmless), f"{alarms / harmless:.1%}"])
    return (
        f"{mutation.__doc__.split(chr(10), 2)[2].strip() if mutation.__doc__ else ''} `python -m tests.faults --mutants`, state {state}.\n\n"
        + _table(["check", "wrong answers", "refused", "harmless answers", "refused"], lines)
    )
