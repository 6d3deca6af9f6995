"""The profile's `production:` block beside what the server says of itself, item by item."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from gatebook.checks.finding import Outcome
from gatebook.config.policies import ITEMS, Item, Production
from gatebook.engines import Said, Value
from gatebook.record.gauges import Gauge
from gatebook.record.identity import Identity, shown

SAME_MEMORY = 0.08
"""A 24 GB card tells 22.5 to 24 GiB, by whether error correction is on."""
SHORT = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "float": "float32"}


@dataclass(frozen=True)
class Compared:
    """One item."""

    item: Item
    production: Value | None
    said: tuple[Said, ...]
    outcome: Outcome
    reason: str


def compare(production: Production, identity: Identity, gauges: Iterable[Gauge]) -> list[Compared]:
    """Every item that can be compared, in the order of ITEMS."""
    told = (*identity.settings, *shown(gauges))
    return [_compare(item, getattr(production, item), tuple(s for s in told if s.item == item)) for item in ITEMS]


def _compare(item: Item, wanted: Value | None, said: tuple[Said, ...]) -> Compared:
    heard = "; ".join(f"{s.value} by {s.source}" for s in said)
    if wanted is None:
        reason = f"the profile does not state production.{item} ({f'the server says {heard}' if said else 'the server does not tell it'}); state it, or excuse this case by name"
        return Compared(item, None, said, "not_measured", reason)
    if not said:
        reason = f"unknown: production has {item} {wanted}, and the server does not tell its own; compare it by hand and excuse this case by name"
        return Compared(item, wanted, said, "not_measured", reason)
    if wrong := next((s for s in said if not same(item, wanted, s.value)), None):
        reason = f"{item} is {wrong.value} by {wrong.source}, and production has {wanted}: start the server as production is started, or correct production.{item}"
        return Compared(item, wanted, said, "fail", reason)
    return Compared(item, wanted, said, "pass", f"{item} is {heard}, as in production")


def same(item: Item, wanted: Value, value: Value) -> bool:
    """Whether two values of an item mean the same."""
    if item == "gpu_memory_gb":
        return isinstance(value, int | float) and abs(float(value) - float(wanted)) <= SAME_MEMORY * float(wanted)
    if item == "gpu":
        return _card(wanted) == _card(value)
    if item in ("dtype", "kv_cache_dtype"):
        return _dtype(wanted) == _dtype(value)
    if item == "cuda_visible_devices":
        return str(wanted).replace(" ", "") == str(value).replace(" ", "")
    return wanted == value and isinstance(wanted, bool) == isinstance(value, bool)


def _card(name: Value) -> str:
    return re.sub(r"nvidia|geforce|[^a-z0-9]", "", str(name).lower())


def _dtype(name: Value) -> str:
    plain = str(name).lower().removeprefix("torch.")
    return SHORT.get(plain, plain)
