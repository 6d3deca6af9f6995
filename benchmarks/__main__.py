"""One entry: `python -m benchmarks {accuracy,overhead,demo,embedded,noise,prompts,latency,compare-load,gauges,archive,replicas,sampling,vllm,power,ratio,scale,shards,rivals,fleet}`."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import (
    accuracy,
    archive,
    compare_load,
    demo,
    embedded,
    fleet,
    gauges,
    latency,
    noise,
    overhead,
    power,
    prompts,
    ratio,
    replicas,
    rivals,
    sampling,
    scale,
    shards,
    vllm,
)
from benchmarks.report import machine, print_table, write_json

COMMANDS = {
    "accuracy": accuracy,
    "overhead": overhead,
    "demo": demo,
    "embedded": embedded,
    "noise": noise,
    "prompts": prompts,
    "latency": latency,
    "compare-load": compare_load,
    "gauges": gauges,
    "archive": archive,
    "replicas": replicas,
    "sampling": sampling,
    "vllm": vllm,
    "power": power,
    "ratio": ratio,
    "scale": scale,
    "shards": shards,
    "rivals": rivals,
    "fleet": fleet,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Gatebook measured: one table each.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, module in COMMANDS.items():
        command = commands.add_parser(name, help=(module.__doc__ or "").splitlines()[0])
        command.add_argument("--out", type=Path, help="write the table as JSON too")
        module.arguments(command)
    args = parser.parse_args()
    before = machine()
    rows = COMMANDS[args.command].run(args)
    print_table(before, rows)
    if args.out:
        write_json(args.out, args.command, before, rows)


if __name__ == "__main__":
    main()
