"""What somebody can do to a bundle who knows how it is made: edit it, chain the record anew, judge it, seal it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gatebook.record.journal import SCHEMA, _digest
from gatebook.record.run import Run
from gatebook.verdict.judging import judge
from gatebook.verdict.kept import keep_findings


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    """Change a JSON file; what `change` returns is written, or what it was given."""
    data = json.loads(path.read_bytes())
    made = change(data)
    path.write_text(json.dumps(data if made is None else made, ensure_ascii=False), encoding="utf-8")


def chain(bundle: Path, change: Callable[[dict[str, Any]], bool] = lambda exchange: True) -> None:
    """Write every record anew, from what cases.json is now; `change` edits an exchange and says whether it stays."""
    anchor = hashlib.sha256((bundle / "cases.json").read_bytes()).hexdigest()
    for record in bundle.glob("*.exchanges.jsonl"):
        previous, lines = anchor, []
        kept = [e for e in (json.loads(line)["exchange"] for line in record.read_text().splitlines()) if change(e)]
        for number, exchange in enumerate(kept):
            digest = _digest(previous, exchange)
            lines.append({"v": SCHEMA, "seq": number, "prev": previous, "exchange": exchange, "hash": digest})
            previous = digest
        record.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def seal(bundle: Path) -> None:
    """Judge what stands there now, write the verdicts that follow, and the checksums."""
    run = Run(bundle)
    run.write("verdict.json", judge(run, troubles=[]).model_dump_json(indent=1))
    for notebook in run.notebooks:
        keep_findings(run, notebook)
        run.write(f"{notebook}.verdict.json", judge(run, notebook, []).model_dump_json(indent=1))
    run.seal()


def watch_everything(bundle: Path) -> None:
    """Every policy becomes one that never blocks."""

    def change(manifest: Any) -> None:
        for group in manifest["profile"]["groups"].values():
            group.update(policy="watch", margin=None)

    edit(bundle / "manifest.json", change)
    seal(bundle)


def drop(bundle: Path, *cases: str) -> None:
    """These cases were never there: not in the plan, not in the record."""

    def unplan(manifest: Any) -> None:
        manifest["expected"] = {
            n: left for n, ids in manifest["expected"].items() if (left := [i for i in ids if i not in cases])
        }

    edit(bundle / "manifest.json", unplan)
    edit(bundle / "cases.json", lambda found: [case for case in found if case["id"] not in cases])
    chain(bundle, lambda exchange: exchange["key"].split("/")[0] not in cases)
    seal(bundle)


def waive(bundle: Path, case: str) -> None:
    """A person answers for the failing case, who never did."""
    waiver = {"case": case, "owner": "nobody", "reason": "none", "expires": "2999-12-31"}
    edit(bundle / "manifest.json", lambda manifest: manifest["profile"]["waivers"].append(waiver))
    seal(bundle)


def answer(bundle: Path, good: Path, *cases: str) -> None:
    """The failing case's exchanges become those of a run in which it passed."""
    better = {
        exchange["key"]: exchange
        for record in good.glob("*.exchanges.jsonl")
        for exchange in (json.loads(line)["exchange"] for line in record.read_text().splitlines())
    }

    def change(exchange: dict[str, Any]) -> bool:
        key = exchange["key"]
        if key.split("/")[0] in cases:
            exchange.clear()
            exchange.update(better[key])
        return True

    chain(bundle, change)
    seal(bundle)
