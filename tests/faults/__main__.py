"""The fault lab's command: what the gate catches, what it says, how often it cries wolf. Writes docs/fault-score.md.

python -m tests.faults --all            everything, as `make faults` does; what is done already is not done again
python -m tests.faults --only F01,F63   rows of the catalogue (`--list` shows them)
python -m tests.faults --mutants        wrong and harmless answers, check by check; needs no server
python -m tests.faults --quiet 30       the healthy server against itself
python -m tests.faults --engine vllm    the half on a real vLLM; with --quiet 60 that server against itself
python -m tests.faults --rates 3        faults that come and go
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from tests.engines import install
from tests.faults import mutation, quiet, rates, score
from tests.faults.catalogue import ALL, Row
from tests.faults.lab import OUTPUTS, RESULTS, Lab, Result, keep, results, state
from tests.faults.on_vllm import VLLM, VllmLab, VllmRow, vllm_results
from tests.faults.quiet import LLAMA
from tests.faults.quiet import VLLM as VLLM_NAME

AnyRow = Row | VllmRow
RowType = TypeVar("RowType", Row, VllmRow)
ALL_ROWS: list[AnyRow] = [*ALL, *VLLM]
ENGINES = (LLAMA, VLLM_NAME)


def main() -> int:
    args = _arguments()
    engines = (args.engine,) if args.engine else ENGINES
    if args.list:
        for row in ALL_ROWS:
            print(f"{row.id:14} {row.what}: {row.injected}")
        return 0
    rows = [row for row in _chosen(args.only) if _engine(row) in engines]
    rows = [row for row in rows if isinstance(row, Row) and row.fast] if args.fast else rows
    if not rows:
        sys.exit(f"--only {args.only}: no such row; see --list")
    parts = args.mutants or args.quiet or args.rates
    bad = 0
    if args.all or args.mutants:
        mutation.measure()
    if args.all or args.only or args.fast or not parts:
        bad += run_rows([row for row in rows if isinstance(row, Row)], args.jobs, args.again)
        bad += run_on_vllm([row for row in rows if isinstance(row, VllmRow)], args.jobs, args.again)
    if (args.all and LLAMA in engines) or args.rates:
        rates.measure(args.rates or 3)
    for engine in engines if args.all or (args.quiet and args.engine) else (LLAMA,) if args.quiet else ():
        try:
            bad += quiet.measure(args.quiet or quiet.RUNS_OF[engine], engine)
        except install.CannotHave as error:
            print(f"NOT RUN: {error}", flush=True)
            bad += 1
    print(score.write())
    return 1 if bad else 0


def _engine(row: AnyRow) -> str:
    return VLLM_NAME if isinstance(row, VllmRow) else LLAMA


def _chosen(only: str) -> list[AnyRow]:
    """Rows by id, or all of a number, in the order in which they are named; without names all."""
    found = [row for name in only.split(",") for row in ALL_ROWS if name in ("", row.id, row.id.split("-")[0])]
    return list({row.id: row for row in found}.values())


def run_rows(rows: list[Row], jobs: int, again: bool) -> int:
    """How many rows were not caught, not named or not green where they should be."""
    now = state()
    have = {} if again else results(now)
    todo = [row for row in rows if row.id not in have]
    if rows:
        print(f"{len(rows)} rows, {len(rows) - len(todo)} of them done before; {jobs} at a time", flush=True)
    if todo:
        with Lab(OUTPUTS / now, rows) as lab:
            if any(not row.own_project for row in rows):
                lab.base_project()
            have |= _made(todo, lab.run, jobs)
    return sum(row.id not in have or not _good(row, have[row.id]) for row in rows)


def run_on_vllm(rows: list[VllmRow], jobs: int, again: bool) -> int:
    """The same for the rows on vLLM."""
    now = state()
    have = {} if again else vllm_results(now)
    todo = [row for row in rows if row.id not in have]
    if rows:
        print(f"{len(rows)} rows on vLLM, {len(rows) - len(todo)} of them done before; {jobs} at a time", flush=True)
    if todo:
        try:
            install.prepared(VLLM_NAME)
        except install.CannotHave as error:
            print(f"NOT RUN: {error}", flush=True)
            return len(rows)
        lab = VllmLab(OUTPUTS / now, rows, jobs)
        lab.folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(jobs) as pool:
            bases = [pool.submit(lab.base, before) for before in {row.before: None for row in todo}]
        for base in bases:
            if error := base.exception():  # the rows of the other deployments go on
                print(error, flush=True)
        have |= _made(todo, lab.run, jobs)
    return sum(row.id not in have or not _good(row, have[row.id]) for row in rows)


def _made(todo: list[RowType], run: Callable[[RowType], Result], jobs: int) -> dict[str, Result]:
    """Each row's result, kept as soon as it is there."""
    have = {}
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(run, row): row for row in todo}
        for number, future in enumerate(as_completed(running), 1):
            row = running[future]
            try:
                have[row.id] = result = future.result()
            except Exception as error:  # the other rows go on
                print(f"{number}/{len(todo)} {row.id}: could not be made: {error}", flush=True)
                continue
            keep(result, RESULTS)
            print(f"{number}/{len(todo)} {_line(row, result)}", flush=True)
    return have


def _good(row: AnyRow, result: Result) -> bool:
    """Caught and named; on vLLM by the first line."""
    return result.caught and ((result.first if isinstance(row, VllmRow) else result.named) or not row.named)


def _line(row: AnyRow, result: Result) -> str:
    word = (
        "ok"
        if _good(row, result)
        else "NOT NAMED"
        if result.caught
        else "NOT CAUGHT"
        if row.kind == "fault"
        else "WRONG"
    )
    reason = result.reasons[0] if result.reasons else "green"
    return f"{row.id} {word}: {result.verdict} in {result.seconds:.0f} s: {reason[:160]}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", choices=ENGINES, help="only this half; default: both, `--quiet` on llama.cpp")
    parser.add_argument("--only", default="", metavar="ID,...", help="rows by id, or by the number before the hyphen")
    parser.add_argument("--fast", action="store_true", help="one row a class of failure")
    parser.add_argument(
        "--jobs",
        type=int,
        default=max((os.cpu_count() or 2) // 2, 1),
        help="rows at a time, each with a server of its own",
    )
    parser.add_argument("--again", action="store_true", help="also what is done already")
    parser.add_argument("--mutants", action="store_true")
    parser.add_argument("--quiet", type=int, nargs="?", const=30, metavar="RUNS", help="of one engine")
    parser.add_argument("--rates", type=int, nargs="?", const=3, metavar="RUNS", help="runs a fault and rate")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--list", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
