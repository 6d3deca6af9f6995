"""Getting to know a server: probe it, and write a profile for it."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import yaml
from pydantic import BaseModel

from gatebook.ask.client import Lane, LoopLag, normal_base_url
from gatebook.ask.collect import HELLO, PROBE_DEADLINE_S, PROBES
from gatebook.ask.gauges import now_ms, on_this_machine
from gatebook.ask.nvml import Nvml
from gatebook.errors import BadInput, CannotMeasure
from gatebook.judge.checks import CHECKS
from gatebook.judge.evidence import Evidence
from gatebook.judge.findings import contract_group
from gatebook.plan import project
from gatebook.plan.cases import Case, load_cases
from gatebook.plan.load import LoadSettings
from gatebook.plan.secrets import refuse_secrets
from gatebook.plan.settings import Profile, Target, load_profile
from gatebook.plan.strict import build
from gatebook.record.exchange import Exchange
from gatebook.record.gauges import TOTAL
from gatebook.record.identity import Identity, identify
from gatebook.record.served import SETTINGS_PATHS, Value

IDENTITY_CHECKS = ("model_listed", "engine_told", "context_limit")
GPU_MEMORY = "load.gpu_memory"
LOAD_LIMITS = ("kv_cache_usage_limit", "queue_limit", "preemptions_limit")
UNTOLD = "the server does not tell it"
READY_S = 60.0
NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
CHARS_A_TOKEN = 4
"""More than any tokenizer here needs, so that a document this long in characters is surely too long."""
LONG_SHARE = 0.85
"""Of the context, for a document: room for the question and the answer, and for counting by another tokenizer."""


def introduce(base_url: str, name: str | None, model: str | None, api_key_env: str | None) -> str:
    """Write `params/<name>.yaml` and say what to type next. Raises BadInput, CannotMeasure when nobody answers."""
    url = normal_base_url(base_url)
    if name is not None and not NAME.fullmatch(name):
        raise BadInput(
            f"--name has value {name!r}: letters, digits, dots, dashes and underscores only, such as gpu-box"
        )
    refuse_secrets({"target": {"api_key_env": api_key_env, "model": model}}, "command line")
    target = build(Target, {"model": model or "unknown", "api_key_env": api_key_env, "base_url": url}, "command line")
    exchanges = asyncio.run(_probe(target, url))
    identity = identify(exchanges, target.model)
    chosen = _choose(identity, model, url)
    identity = identify(exchanges, chosen)
    hello = asyncio.run(_hello(target.model_copy(update={"model": chosen}), url))
    if hello.fault is not None:
        raise CannotMeasure(f"{url} lists {chosen!r} but does not answer a chat: {hello.detail}")
    file = project.root() / "params" / f"{name or _slug(chosen)}.yaml"
    if file.exists():
        raise BadInput(f"{file}: exists already; choose another --name or edit it")
    text = _text(target.model_copy(update={"model": chosen}), identity, url)
    file.write_text(text, encoding="utf-8")
    load_profile(file)  # what we write must be what we read
    engine = f"{identity.engine} {identity.version or ''}".strip()
    return f"{file}: {chosen} on {engine}, {identity.context_tokens or 'an untold number of'} tokens of context\nnext: gatebook run --profile {file}"


async def _probe(target: Target, url: str) -> list[Exchange]:
    async with Lane(target, url, LoopLag()) as lane:
        first = await lane.ask(
            kind="probe", key="probe/models", body=None, path="models", deadline_s=PROBE_DEADLINE_S, retries=2
        )
        if first.status is None or first.status in (401, 403):
            raise CannotMeasure(
                f"{url}: {first.detail}; is the server up, and is --api-key-env the variable with its key?"
            )
        others = [
            await lane.ask(kind="probe", key=f"probe/{p}", body=None, path=p, deadline_s=PROBE_DEADLINE_S, retries=0)
            for p in (*PROBES[1:], *SETTINGS_PATHS)
        ]
    return [first, *others]


async def _hello(target: Target, url: str) -> Exchange:
    async with Lane(target, url, LoopLag()) as lane:
        body = {"model": target.model, **HELLO, "max_tokens": 1}
        return await lane.ask(kind="ready", key="ready/0", body=body, deadline_s=READY_S, retries=10)


def _choose(identity: Identity, model: str | None, url: str) -> str:
    if model is not None:
        if identity.models and model not in identity.models:
            raise BadInput(f"--model has value {model!r}: {url} serves {', '.join(identity.models)}")
        return model
    if len(identity.models) == 1:
        return identity.models[0]
    if not identity.models:
        raise BadInput(f"{url} lists no models; name the served one with --model")
    raise BadInput(f"{url} serves {', '.join(identity.models)}; name one with --model")


def _text(target: Target, identity: Identity, url: str) -> str:
    cases = load_cases(project.cases_dir())
    groups = dict.fromkeys(g for case in cases for g in (contract_group(case.group), case.group))
    template = load_profile(project.root() / "params" / "qwen3-4b.yaml")
    lines = [
        "# yaml-language-server: $schema=../docs/schema/profile.schema.json",
        f"# Written by `gatebook init` for {url}. Read it, set `revision`, and commit it.",
        "target:",
        "  server: external",
        f"  base_url: {url}",
        f"  model: {target.model!r}",
        "  revision: null                 # what is deployed: an image digest; or --revision in CI",
        f"  api_key_env: {target.api_key_env or 'null'}              # NAME of the variable with the key",
        f"  context_tokens: {identity.context_tokens or 'null'}",
        "limits:",
        *(f"  {key}: {value:g}" for key, value in template.limits.model_dump(exclude_none=True).items()),
        "groups:                          # must | no_worse | proven_no_worse (with a margin) | watch",
        *(f"  {group}: {_policy(template, group)}" for group in groups),
    ]
    lines += [
        "latency:                         # docs/latency.md: which rule blocks, by how much; the caps are yours to set"
    ]
    lines += _section(template.latency)
    lines += ["load:                            # docs/load.md: requests in flight, goodput, documents read at once"]
    lines += _section(_fitting(template.load, identity.context_tokens))
    lines += ["production:                      # what it says of itself now; make it what production is started with"]
    lines += [f"  {item}: {_yaml(value)}" for item, value in _production(identity).items()]
    lines += [f"  {name}: {getattr(template.production, name)}" for name in LOAD_LIMITS]
    excused = _excused(target, identity, url, cases)
    lines += ["excused:", *(f"  {case}: {why}" for case, why in excused.items())] if excused else ["excused: {}"]
    return "\n".join(lines) + "\n"


def _section(settings: BaseModel) -> list[str]:
    """What is not the default, a line a key."""
    told = settings.model_dump(mode="json", exclude_defaults=True)
    return [
        f"  {key}: {yaml.safe_dump(value, default_flow_style=True, width=1000).splitlines()[0]}"
        for key, value in told.items()
    ]


def _fitting(load: LoadSettings, context_tokens: int | None) -> LoadSettings:
    """The production profile's load, its long documents no longer than most of what this server reads."""
    long = load.long_prompts
    if long.tokens is None or context_tokens is None:
        return load
    tokens = max(700, min(long.tokens, int(context_tokens * LONG_SHARE)))
    return load.model_copy(update={"long_prompts": long.model_copy(update={"tokens": tokens})})


def _production(identity: Identity) -> dict[str, Value]:
    """The first that the server says of every item."""
    return {said.item: said.value for said in reversed(identity.settings)}


def _yaml(value: Value) -> str:
    return json.dumps(value)


def _policy(template: Profile, group: str) -> str:
    """What the production profile says; a baseline does not exist yet, so nothing there is proven."""
    found = template.groups.get(group)
    return found.policy if found and found.policy != "proven_no_worse" else "no_worse" if found else "watch"


def _excused(target: Target, identity: Identity, url: str, cases: list[Case]) -> dict[str, str]:
    """The identity cases that this server says nothing about, each with the check's own reason."""
    profile = Profile(target=target, groups={})
    found = {}
    for case in cases:
        for check in (name for expectation in case.expect for name in expectation if name in IDENTITY_CHECKS):
            result = CHECKS[check].run(Evidence(case, [], identity, profile), True)
            if result.outcome == "not_measured":
                found[case.id] = result.reason.replace(": ", ", ")
        items = [item for e in case.expect for check, item in e.items() if check == "like_production"]
        if items and items[0] not in _production(identity):
            found[case.id] = UNTOLD
    if any(case.group == GPU_MEMORY for case in cases) and (unseen := _gpu_unseen(url)):
        found[GPU_MEMORY] = unseen
    return found | _too_long(cases, identity.context_tokens)


def _gpu_unseen(url: str) -> str | None:
    """Why the memory of the server's GPU cannot be read from here, if so."""
    if not on_this_machine(url):
        return (
            "the server is on another machine; name a DCGM exporter in production.gpu_metrics_url and delete this line"
        )
    nvml = Nvml(None, now_ms)
    seen = any(gauge.name == TOTAL for gauge in nvml.open())
    nvml.close()
    return None if seen else "no GPU is visible on this machine; delete this line where one is"


def _too_long(cases: list[Case], context_tokens: int | None) -> dict[str, str]:
    """Cases whose document is longer than the context, by the shortest pattern that names none of the others."""
    if context_tokens is None:
        return {}
    least = {c.id: c.document.tokens or (c.document.chars or 0) // CHARS_A_TOKEN for c in cases if c.document}
    beyond = {case for case, tokens in least.items() if tokens >= context_tokens}
    others = {case.id for case in cases} - beyond
    patterns = {}
    for case in sorted(beyond):
        parts = case.split("-")
        heads = ["-".join(parts[:n]) + "-" for n in range(1, len(parts))]
        head = next((h for h in heads if not any(other.startswith(h) for other in others)), None)
        patterns[f"{head}*" if head else case] = f"it serves {context_tokens:,} tokens"
    return patterns


def _slug(model: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", Path(model).name.lower()).strip("-") or "profile"
