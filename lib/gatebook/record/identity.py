"""Who answers: engine, version, served models, limits and settings, read from the recorded probes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from gatebook.config.cases import Ask, Case
from gatebook.config.profile import Profile
from gatebook.engines import Engine, Probes, by_name, recognise, settings_kept
from gatebook.engines.engine import Said, items, obj
from gatebook.engines.vllm import CACHE_CONFIG, CACHE_LABELS
from gatebook.record.exchange import Exchange
from gatebook.record.gauges import Gauge, gpus
from gatebook.record.replies import parse

UNLIKE_PARENT = "unlike_parent"
"""The check for which the parent of a served adapter is asked too."""
SOURCES = {"nvml": "NVML", "metrics": "DCGM"}


@dataclass(frozen=True)
class Identity:
    """What the server says of itself; None and empty where it says nothing."""

    engine: str = "unknown"
    version: str | None = None
    models: tuple[str, ...] = ()
    context_tokens: int | None = None
    sampling: dict[str, Any] = field(default_factory=dict)
    """Default sampling parameters, where the engine tells them."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """What /v1/models says of the weights; a path (`root`) is none."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further settings that say what is served: the backend of structured output, the reasoning parser."""
    tools: bool | None = None
    """Whether the chat template knows tools, where the engine tells it (llama.cpp)."""
    health: int | None = None
    """Status of /health. 200 is not evidence that anything is generated."""
    settings: tuple[Said, ...] = ()
    """How it was started, where it tells it."""
    system_fingerprint: str | None = None
    """All values of the plain replies that open notebooks: version and a hash of the configuration (vLLM), the build (llama.cpp)."""
    probes: Probes = field(default_factory=lambda: Probes({}, ""), compare=False, repr=False)

    @property
    def parent(self) -> str | None:
        """The model that the asked one adapts (LoRA), as its card says."""
        return self.probes.parent

    @property
    def dialect(self) -> Engine:
        """What is known of the engine."""
        return by_name(self.engine)

    def is_alias(self, asked: str, told: str) -> bool:
        """Whether a reply under the name `told` is the asked model's own."""
        return self.dialect.is_alias(asked, told, self.probes)


def identify(exchanges: list[Exchange], model: str) -> Identity:
    """Tell the engine apart by what it answers to GETs, and read what it says there (`gatebook.engines`)."""
    asked = [e for e in exchanges if e.kind == "probe"]
    bodies = {e.path: None for e in asked} | {e.path: parse(e.text) for e in asked if e.status == 200 and e.text}
    headers = {k: v for e in exchanges if e.path == "models" or e.kind == "ready" for k, v in e.headers.items()}
    probes = Probes(bodies, model, headers)
    engine = recognise(probes)
    opened = [obj(parse(e.text)) for e in exchanges if e.kind == "ready" and e.status == 200 and e.text]
    fingerprints = {str(value) for body in opened if (value := body.get("system_fingerprint"))}
    return Identity(
        engine=engine.name,
        version=engine.version(probes),
        models=tuple(str(card["id"]) for card in probes.cards if "id" in card),
        context_tokens=engine.context_tokens(probes),
        sampling=engine.sampling(probes),
        metadata=engine.metadata(probes),
        options=engine.options(probes),
        tools=engine.knows_tools(probes),
        health=next((e.status for e in reversed(asked) if e.path == "/health"), None),
        settings=tuple(engine.settings(probes)),
        system_fingerprint=", ".join(sorted(fingerprints)) or None,
        probes=probes,
    )


def asked_of_parent(cases: list[Case], profile: Profile) -> Iterator[tuple[Case, Ask]]:
    """The requests to the parent of an adapter: the first of each case that a case with UNLIKE_PARENT looks over, under the
    id of the one that looks; the ask has the id of the other."""
    for looking in (c for c in cases if any(UNLIKE_PARENT in item for item in c.expect)):
        for case in (c for c in cases if c.group == looking.over and not profile.not_offered(*c.needs)):
            names = {"id": looking.id, "group": looking.group}
            yield case.model_copy(update=names), case.requests()[0].model_copy(update={"name": case.id})


def kept(text: str) -> str:
    """The settings that are compared, from a server's description of itself; nothing else is recorded."""
    body = parse(text)
    return json.dumps(settings_kept(body)) if isinstance(body, dict) else ""


def shown(gauges: Iterable[Gauge]) -> tuple[Said, ...]:
    """What the gauges tell of the card and of the engine's cache."""
    rows = list(gauges)
    found: list[Said] = []
    for gpu in gpus(rows):
        source = f"{SOURCES.get(gpu.source, gpu.source)}, GPU {gpu.id}"
        if gpu.name:
            found.append(Said("gpu", gpu.name, source))
        if gpu.total_mib:
            found.append(Said("gpu_memory_gb", round(gpu.total_mib / 1024, 2), source))
    labels = next((row.labels for row in rows if row.name == CACHE_CONFIG), {})
    return (*found, *items(f"/metrics {CACHE_CONFIG}", CACHE_LABELS, labels))
