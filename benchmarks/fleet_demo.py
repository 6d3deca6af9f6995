"""`make fleet-demo`: four deployments of the embedded model, one of them behind a gateway that drops `response_format`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml
from gatebook.collect.server import embedded_server

from tests.faults.proxy import FaultProxy

FILE = Path("outputs/fleet-demo.yaml")


def main() -> None:
    """Exits as `gatebook fleet` does: 1, by the degraded one."""
    FILE.parent.mkdir(exist_ok=True)
    with embedded_server(FILE.with_suffix(".log")) as url, FaultProxy(url, ["strip_format"]) as gateway:
        one = {"profile": "params/smollm2.yaml", "base_url": url}
        fleet = {
            "suite": "smoke",
            "hosts": {"127.0.0.1": 1},  # one small server answers for all of them
            "deployments": [
                {**one, "name": "smollm2", "labels": {"region": "eu", "stage": "production"}},
                {**one, "name": "smollm2-us", "baseline_of": "smollm2", "labels": {"region": "us", "stage": "production"}},
                {**one, "name": "smollm2-eu-canary", "baseline_of": "smollm2", "labels": {"region": "eu", "stage": "canary"}},
                {
                    **one, "name": "smollm2-us-canary", "baseline_of": "smollm2", "base_url": gateway.base_url,
                    "labels": {"region": "us", "stage": "canary"},
                },
            ],
        }  # fmt: skip
        FILE.write_text(yaml.safe_dump(fleet, sort_keys=False), encoding="utf-8")
        command = [sys.executable, "-m", "gatebook.cli", "fleet", str(FILE)]
        raise SystemExit(subprocess.run(command).returncode)


if __name__ == "__main__":
    main()
