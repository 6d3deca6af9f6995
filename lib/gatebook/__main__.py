"""The `gatebook` command: handle signals before anything else is imported."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper

from gatebook import stopping
from gatebook.errors import ExitCode


def main() -> None:
    """Run a command: an error of ours is one line on stderr and its exit code; 0 never follows a signal."""
    code = 0
    try:
        stopping.heed()
        stopping.collect_seldom()
        with stopping.held():  # half an import may never be tried again, or swallow the interrupt
            from gatebook.cli import command

        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="replace")  # an answer in Chinese on a terminal of Latin-1 stops nothing
        code = command()
        sys.stdout.flush()
        stopping.finish()
    except KeyboardInterrupt:
        stopping.finish()
        print("gatebook: interrupted", file=sys.stderr)
        code = stopping.exit_code(0) or 130  # nobody heeded signals, and Python raised it by itself
    except BrokenPipeError:  # `gatebook ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python would try to write the rest
        print("gatebook: nobody reads what is printed", file=sys.stderr)
        code = code or ExitCode.ERROR
    raise SystemExit(stopping.exit_code(code))


if __name__ == "__main__":
    main()
