"""`make fleet-demo`: four deployments of the embedded model, one of them behind a gateway that drops `response_format`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from gatebook.collect.server import embedded_server

from tests.faults.proxy import FaultProxy

FILE = Path("outputs/fleet-demo.yaml")


def main() -> None:
    """Exits as `gatebook fleet` does: 1, by the degraded one."""
    FILE.parent.mkdir(exist_ok=True)
    with (
        embedded_server(FILE.with_suffix(".eu.log"), threads=1, prompt_threads=1) as eu,
        embedded_server(FILE.with_suffix(".us.log"), threads=1, prompt_threads=1) as us,
        FaultProxy(us, ["strip_format"]) as gateway,
    ):
        fleet = {
            "suite": "smoke",
            "hosts": {"127.0.0.1": 2},
            "deployments": [
                _deployment("smollm2", eu, "eu", "production"),
                _deployment("smollm2-us", us, "us", "production"),
                _deployment("smollm2-eu-canary", eu, "eu", "canary"),
                _deployment("smollm2-us-canary", gateway.base_url, "us", "canary"),
            ],
        }
        FILE.write_text(yaml.safe_dump(fleet, sort_keys=False), encoding="utf-8")
        command = [sys.executable, "-m", "gatebook", "fleet", str(FILE)]
        raise SystemExit(subprocess.run(command).returncode)


def _deployment(name: str, base_url: str, region: str, stage: str) -> dict[str, Any]:
    """Judged by the shipped baseline of the embedded model."""
    twin = {} if name == "smollm2" else {"baseline_of": "smollm2"}
    labels = {"region": region, "stage": stage}
    return {"name": name, "profile": "params/smollm2.yaml", "base_url": base_url, **twin, "labels": labels}


if __name__ == "__main__":
    main()
