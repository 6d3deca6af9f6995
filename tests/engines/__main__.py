"""Real engines by hand.

python -m tests.engines prepare vllm               install it and make its weights; quick when it is there
python -m tests.engines serve vllm [ARGUMENT...]   run it until Ctrl-C; prints its base URL, then nothing
python -m tests.engines serve vllm --weights rope  other weights (`list` names them)
python -m tests.engines smoke [NAME...]            init, run, accept, run on the other engines and gateways
python -m tests.engines list
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from contextlib import suppress

from tests.engines.install import ENGINES, CannotHave, prepared, weights
from tests.engines.others import FRONTS, smoke
from tests.engines.serving import NotStarted, vllm_process
from tests.engines.weights import VARIANTS


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.engines", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare", help="install engines, and make the weights")
    prepare.add_argument("engines", nargs="+", choices=ENGINES)
    serve = commands.add_parser("serve", help="run vLLM until Ctrl-C; what follows is vLLM's")
    serve.add_argument("engine", choices=("vllm",))
    serve.add_argument("--weights", default="base", choices=("base", *VARIANTS))
    serve.add_argument("--port", type=int, default=0, help="a free one when left out")
    tried = commands.add_parser("smoke", help="init, run, accept, run on other engines; all that install in minutes")
    tried.add_argument("names", nargs="*", metavar="NAME", help=", ".join(FRONTS))
    commands.add_parser("list", help="engines and weights")
    args, rest = parser.parse_known_args()
    if rest and args.command != "serve":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        if args.command == "smoke":
            return 1 if smoke(_known(parser, args.names)) else 0
        {"prepare": _prepare, "serve": _serve, "list": _list}[args.command](args, rest)
    except (CannotHave, NotStarted) as error:
        print(f"engines: {error}", file=sys.stderr)
        return 1
    return 0


def _known(parser: argparse.ArgumentParser, names: list[str]) -> list[str]:
    if unknown := [name for name in names if name not in FRONTS]:
        parser.error(f"smoke: no {', '.join(unknown)}; there are {', '.join(FRONTS)}")
    return names


def _prepare(args: argparse.Namespace, _: list[str]) -> None:
    for name in args.engines:
        started = time.monotonic()
        prepared(name)
        weights()
        print(f"{name} is ready ({time.monotonic() - started:.0f} s)", flush=True)


def _serve(args: argparse.Namespace, rest: list[str]) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), vllm_process(*rest, weights=args.weights, port=args.port) as running:
        print(running.base_url, flush=True)
        print(f"ready in {running.started_s:.0f} s, log {running.log}; Ctrl-C ends it", file=sys.stderr, flush=True)
        code = running.process.wait()
        raise NotStarted(f"the server ended with status {code} (log: {running.log})")


def _list(*_: object) -> None:
    for front in FRONTS.values():
        print(f"smoke {front.name:16} {front.told}")
    for engine in ENGINES.values():
        print(f"{engine.name:18} {engine.told}: {'ready' if engine.ready else 'not installed'}")
    for name, make in {"base": None, **VARIANTS}.items():
        said = (make.__doc__ or "").strip() if make else "The packaged GGUF made dense, in bfloat16."
        print(f"weights {name:10} {said}")


if __name__ == "__main__":
    sys.exit(main())
