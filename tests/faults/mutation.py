"""How many wrong answers a check lets through, and how many harmless ones it refuses: no server needed.

Seeds are the cases' own good answers; variations are wrong or harmless by construction (mutators.py, envelopes.py). A case's
own bad answers with white space around them count as wrong too: where only one check of the case is at fault, it must say so.
"""

from __future__ import annotations

import inspect
import json
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from types import SimpleNamespace
from typing import Any

from gatebook.checks import CHECKS
from gatebook.checks.contract import violations
from gatebook.checks.evidence import Reply
from gatebook.checks.registry import ABSENT, parameters
from gatebook.config.cases import Case, load_cases
from gatebook.verdict.examples import PROFILE, example_evidence

from tests.conftest import ROOT
from tests.faults import envelopes
from tests.faults.lab import OUTPUTS, state
from tests.faults.mutators import HARMLESS, WRONG, Mutator

TABLE = OUTPUTS / "mutants.json"
SHOWN = 3


@dataclass
class Score:
    """One check: wrong variations tried and refused, harmless ones tried and refused."""

    wrong: int = 0
    killed: int = 0
    harmless: int = 0
    alarms: int = 0
    survivors: list[str] = field(default_factory=list)
    false_alarms: list[str] = field(default_factory=list)

    def wrong_one(self, refused: bool, told: str) -> None:
        self.wrong, self.killed = self.wrong + 1, self.killed + refused
        if not refused:
            self.survivors.append(told)

    def harmless_one(self, refused: bool, told: str) -> None:
        self.harmless, self.alarms = self.harmless + 1, self.alarms + refused
        if refused:
            self.false_alarms.append(told)


def measure() -> dict[str, Score]:
    """Try everything, keep the table, and say what survived."""
    started = time.monotonic()
    found = scores(load_cases(ROOT / "params" / "cases"))
    OUTPUTS.mkdir(parents=True, exist_ok=True)
    TABLE.write_text(
        json.dumps({"state": state(), "scores": {k: asdict(v) for k, v in found.items()}}, ensure_ascii=False)
    )
    for name, score in sorted(found.items()):
        print(
            f"{name:18} kills {score.killed} of {score.wrong}, refuses {score.alarms} of {score.harmless} harmless",
            flush=True,
        )
        for told in (*score.survivors[:SHOWN], *score.false_alarms[:SHOWN]):
            print(f"    {told[:200]!r}")
    print(f"mutants: {time.monotonic() - started:.0f} s")
    return found


def scores(cases: list[Case]) -> dict[str, Score]:
    found: dict[str, Score] = defaultdict(Score)
    for case in cases:
        for name, raw in ((n, r) for item in case.expect for n, r in item.items() if CHECKS[n].judges_text):
            _check(case, name, raw, found[name])
        for number, good in enumerate(case.good[:1]):
            _contract(case, good, found["contract"], random.Random(f"{case.id}/{number}"))
    return dict(found)


def _check(case: Case, name: str, raw: object, score: Score) -> None:
    given = parameters(case, name, raw)
    params = _params(name, given)

    def passes(text: str) -> bool:
        return CHECKS[name].run(example_evidence(case, text), given).outcome == "pass"

    for number, good in enumerate(case.good):
        dice = random.Random(f"{case.id}/{name}/{number}")
        for told, text in _variations(WRONG.get(name, []), case, params, good, dice):
            score.wrong_one(not passes(text), f"{case.id} {told}: {text}")
        for told, text in _variations(HARMLESS.get(name, []), case, params, good, dice):
            score.harmless_one(not passes(text), f"{case.id} {told}: {text}")
    for bad in case.bad:
        if not passes(bad):  # this check is one that refuses it
            for text in (f"\n{bad}\n", f"{bad}  "):
                score.wrong_one(not passes(text), f"{case.id} bad: {text}")


def _params(name: str, given: dict[str, Any]) -> Any:
    """What mutators see: the value of a check that takes one, else every keyword with its default."""
    _, *wanted = inspect.signature(CHECKS[name].function).parameters.values()
    if wanted and wanted[0].kind is not inspect.Parameter.KEYWORD_ONLY:
        return given[wanted[0].name]
    defaults = {one.name: None if one.default is ABSENT else one.default for one in wanted}
    return SimpleNamespace(**{**defaults, **given})


def _variations(
    mutators: list[Mutator], case: Case, params: object, good: str, dice: random.Random
) -> Iterator[tuple[str, str]]:
    for mutator in mutators:
        for text in mutator(case, params, good, dice):
            if text != good:
                yield mutator.__name__, text


def _contract(case: Case, good: str, score: Score, dice: random.Random) -> None:
    [reply, *_] = example_evidence(case, good).replies
    document = json.loads(reply.exchange.text or "")
    if document["choices"][0]["finish_reason"] != "stop":
        return
    for name, edit in envelopes.WRONG.items():
        text = json.dumps(envelopes.edited(document, edit, dice))
        score.wrong_one(_broken(reply, text), f"{case.id} {name}: {text}")
    for name, edit in envelopes.HARMLESS.items():
        text = json.dumps(envelopes.edited(document, edit, dice))
        score.harmless_one(_broken(reply, text), f"{case.id} {name}: {text}")


def _broken(reply: Reply, text: str) -> bool:
    exchange = reply.exchange.model_copy(update={"text": text})
    return any(violations(Reply(reply.ask, exchange), PROFILE.target.model, {}))


def measured() -> tuple[str, dict[str, Score]]:
    """The state that it was measured in, and the table; empty when it never was."""
    if not TABLE.exists():
        return "", {}
    data = json.loads(TABLE.read_text())
    return data["state"], {name: Score(**score) for name, score in data["scores"].items()}
