"""Gatebook's embedded server with llama.cpp parameters changed, so that they can be compared.

Run as `python -m benchmarks.llama_server --port N --threads N --set n_ubatch=128 --set cpuparams.poll=0`.
"""

from __future__ import annotations

import argparse
import ast
import sys
from functools import reduce
from typing import Any

import xllamacpp
from gatebook.collect import embedded


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    args, rest = parser.parse_known_args()
    start = xllamacpp.Server

    def changed(params: Any) -> Any:
        for setting in args.set:
            name, value = setting.split("=", 1)
            *path, last = name.split(".")
            owner = reduce(getattr, path, params)
            setattr(owner, last, type(getattr(owner, last))(ast.literal_eval(value)))
        return start(params)

    xllamacpp.Server = changed
    sys.argv[1:] = rest
    embedded.main()


if __name__ == "__main__":
    main()
