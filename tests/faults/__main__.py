"""The fault lab's command: what the gate catches, what it says, how often it cries wolf. Writes docs/fault-score.md.

python -m tests.faults --all            everything, as `make faults` does; what is done already is not done again
python -m tests.faults --only F01,F63   rows of the catalogue (`--list` shows them)
python -m tests.faults --mutants        wrong and harmless answers, check by check; needs no server
python -m tests.faults --quiet 30       the healthy server against itself
python -m tests.faults --rates 3        faults that come and go
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed

from tests.faults import mutation, quiet, rates, score
from tests.faults.catalogue import ALL, Row
from tests.faults.lab import OUTPUTS, RESULTS, Lab, Result, keep, results, state


def main() -> int:
    args = _arguments()
    if args.list:
        for row in ALL:
            print(f"{row.id:14} {row.what}: {row.injected}")
        return 0
    rows = _chosen(args.only)
    rows = [row for row in rows if row.fast] if args.fast else rows
    if not rows:
        sys.exit(f"--only {args.only}: no such row; see --list")
    parts = args.mutants or args.quiet or args.rates
    bad = 0
    if args.all or args.mutants:
        mutation.measure()
    if args.all or args.only or args.fast or not parts:
        bad = run_rows(rows, args.jobs, args.again)
    if args.all or args.rates:
        rates.measure(args.rates or 3)
    if args.all or args.quiet:
        bad += quiet.measure(args.quiet or 30)
    print(score.write())
    return 1 if bad else 0


def _chosen(only: str) -> list[Row]:
    """Rows by id, or all of a number, in the order in which they are named; without names all."""
    found = [row for name in only.split(",") for row in ALL if name in ("", row.id, row.id.split("-")[0])]
    return list({row.id: row for row in found}.values())


def run_rows(rows: list[Row], jobs: int, again: bool) -> int:
    """How many rows were not caught, not named or not green where they should be."""
    now = state()
    have = {} if again else results(now)
    todo = [row for row in rows if row.id not in have]
    print(f"{len(rows)} rows, {len(rows) - len(todo)} of them done before; {jobs} at a time", flush=True)
    if todo:
        with Lab(OUTPUTS / now, rows) as lab:
            lab.base_project()
            with ThreadPoolExecutor(jobs) as pool:
                running = {pool.submit(lab.run, row): row for row in todo}
                for number, future in enumerate(as_completed(running), 1):
                    row = running[future]
                    try:
                        have[row.id] = result = future.result()
                    except Exception as error:  # the other rows go on
                        print(f"{number}/{len(todo)} {row.id}: could not be made: {error}", flush=True)
                        continue
                    keep(result, RESULTS)
                    print(f"{number}/{len(todo)} {_line(row, result)}", flush=True)
    return sum(row.id not in have or not _good(row, have[row.id]) for row in rows)


def _good(row: Row, result: Result) -> bool:
    return result.caught and (result.named or not row.named)


def _line(row: Row, result: Result) -> str:
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
    parser.add_argument("--quiet", type=int, nargs="?", const=30, metavar="RUNS")
    parser.add_argument("--rates", type=int, nargs="?", const=3, metavar="RUNS", help="runs a fault and rate")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--list", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
