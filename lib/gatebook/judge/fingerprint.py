"""What is served, in values that do not change while the deployment does not; and the name of what moved."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from gatebook.judge.finding import Finding
from gatebook.record.answer import read_answer
from gatebook.record.identity import Identity
from gatebook.record.run import Run

Fingerprint = dict[str, Any]
PART = {
    "model": "served model",
    "engine": "engine",
    "version": "engine version",
    "context_tokens": "context limit",
    "metadata": "weights or precision",
    "sampling": "sampling defaults",
    "tokens": "chat template or tokenizer",
    "keyword": "constraint enforcement",
}


class Change(BaseModel):
    """One value that is not what it was when the baseline was accepted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    part: str
    """What moved, in the field's words."""
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.part} changed: {self.name} was {self.was}, is {self.now}"


def fingerprint(run: Run, identity: Identity, findings: list[Finding]) -> Fingerprint:
    """Flat name -> value. What the server does not tell is left out, not empty."""
    values: Fingerprint = {
        "model": run.manifest.profile.target.model,
        "engine": identity.engine,
        "version": identity.version,
        "context_tokens": identity.context_tokens,
    }
    values |= {f"metadata.{k}": v for k, v in sorted(identity.metadata.items()) if isinstance(v, str | int | float)}
    values |= {f"sampling.{k}": _rounded(v) for k, v in sorted(identity.sampling.items())}
    for notebook in run.notebooks:
        counted = {c.id for c in run.expected(notebook) if any("prompt_tokens" in e for e in c.expect)}
        for exchange in run.exchanges(notebook) if counted else []:
            if exchange.case in counted and exchange.status == 200:
                values[f"tokens.{exchange.case}.{exchange.ask}"] = read_answer(exchange).tokens("prompt_tokens")
    values |= {f"keyword.{f.case}": f.measured for f in findings if f.check == "keyword" and f.measured is not None}
    return {name: value for name, value in values.items() if value is not None}


def changes(old: Fingerprint, new: Fingerprint) -> list[Change]:
    """What differs, by names that both know. A keyword that becomes enforced is no loss and no change of what is served;
    one that was not enforced may look enforced by luck, so only the loss counts."""
    found = []
    for name in sorted(old.keys() & new.keys()):
        part = name.split(".")[0]
        if old[name] != new[name] and not (part == "keyword" and old[name] != "enforced"):
            found.append(Change(name=name, part=PART[part], was=old[name], now=new[name]))
    return found


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
