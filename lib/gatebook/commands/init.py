"""Getting to know a server: probe it, and write a profile for it."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import yaml
from pydantic import BaseModel

from gatebook.checks import CHECKS, stats
from gatebook.checks.evidence import Evidence
from gatebook.collect.client import Lane, LoopLag, normal_base_url
from gatebook.collect.gauges import glance, on_this_machine
from gatebook.collect.nvml import readings
from gatebook.collect.offers import Learned, learn, problem
from gatebook.collect.scheduler import HELLO, PROBE_DEADLINE_S
from gatebook.config import project
from gatebook.config.cases import Case, cap, in_suite, load_cases
from gatebook.config.files import build, replace_text
from gatebook.config.policies import Latency, LoadSettings
from gatebook.config.profile import SUITES, PolicyName, Profile, Target, load_profile
from gatebook.config.secrets import refuse_secrets
from gatebook.engines import HOST_PATHS, SETTINGS_PATHS, Probes, Said, Value, credentials_refused, recognise
from gatebook.errors import BadInput, CannotMeasure
from gatebook.record.exchange import Exchange
from gatebook.record.gauges import KV_CACHE, PREEMPTED, TOTAL, WAITING, Gauge
from gatebook.record.identity import Identity, identify, shown
from gatebook.record.replies import parse
from gatebook.verdict.findings import contract_group

IDENTITY_CHECKS = ("model_listed", "engine_told", "context_limit")
GPU_MEMORY = "load.gpu_memory"
LOAD_LIMITS = ("kv_cache_usage_limit", "queue_limit", "preemptions_limit")
UNTOLD = "the server does not tell it"
GAUGES = {"kv_cache_usage": KV_CACHE, "queue": WAITING, "preemptions": PREEMPTED}
"""Check -> the gauges of /metrics, of which it needs one."""
ROOM = 4
"""Times the first greeting's latency: a limit that a noisy day does not break. What users need is a person's to set."""
DEADLINES = ("request_deadline_s", "notebook_deadline_s", "run_deadline_s")
SERVICE = frozenset({
    "health.identity", "health.production", "health.service", "health.canaries", "health.greeting", "health.latency",
    "health.conversations", "structured.latency", "latency.schema",
    "structured.enforced", "fingerprint.tokens", "fingerprint.logprobs", "fingerprint.defaults",
    "boundaries.media", "boundaries.length", "boundaries.hostile", "latency.chat", "latency.prompt",
    "load.order", "load.flips", "load.steps", "load.goodput", "load.gpu_memory", "load.kv_cache",
})  # fmt: skip
"""Groups in which the service is judged and not what the model knows."""
SPEED = frozenset({"health.latency", "latency.chat", "latency.prompt", "latency.schema", "load.steps", "load.goodput"})
"""Groups that hold absolute limits of time."""
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
    chosen = _choose(identify(exchanges, target.model), exchanges[0], model, url)
    file = project.root() / "params" / f"{name or _slug(chosen)}.yaml"
    if file.exists():
        raise BadInput(f"{file}: exists already; choose another --name or edit it")
    target = target.model_copy(update={"model": chosen})
    hello, learned = asyncio.run(_learn(target, url, identify(exchanges, chosen).models))
    identity = identify([*exchanges, hello], chosen)
    gauges = glance(target, url)
    replace_text(file, _text(target, identity, url, learned, gauges))
    load_profile(file)  # what we write must be what we read
    return "\n".join(_told(file, identity, chosen, learned, exchanges))


def _told(file: Path, identity: Identity, chosen: str, learned: Learned, probes: Iterable[Exchange]) -> list[str]:
    """What was learned and what to type next."""
    engine = f"{identity.engine} {identity.version or ''}".strip()
    lines = [f"{file}: {chosen} on {engine}, {identity.context_tokens or 'an untold number of'} tokens of context"]
    missing = [f"{feature} ({said})" for feature, said in learned.offers.items() if said is not True]
    lines += [f"not offered, so not asked: {'; '.join(missing)}"] if missing else []
    if learned.told_as and not identity.is_alias(chosen, learned.told_as):
        lines.append(
            f"its replies say model {learned.told_as!r}: where that is the same model, add it to target.aliases; till then every answer fails"
        )
    lines += [
        f"/{done.path.removeprefix('/')} fails ({done.detail}), so what it tells is not compared; mend it and run `gatebook init` again"
        for done in probes
        if done.status is not None and done.status >= 500
    ]
    return [*lines, f"next: gatebook run --profile {file} --suite smoke"]


async def _probe(target: Target, url: str) -> list[Exchange]:
    """/v1/models first; then, of an engine that its cards tell, only what that engine answers."""
    async with Lane(target, url, LoopLag()) as lane:
        first = await lane.ask(
            kind="probe", key="probe/models", body=None, path="models", deadline_s=PROBE_DEADLINE_S, retries=2
        )
        if first.status is None or credentials_refused(first.status, first.detail):
            raise CannotMeasure(
                f"{url}: {first.detail}; is the server up, and is --api-key-env the variable with its key?"
            )
        engine = recognise(Probes({"models": parse(first.text or "")}, target.model, first.headers))
        paths = (*engine.paths, *engine.settings_paths) if engine.name != "unknown" else (*HOST_PATHS, *SETTINGS_PATHS)
        others = [
            await lane.ask(kind="probe", key=f"probe/{p}", body=None, path=p, deadline_s=PROBE_DEADLINE_S, retries=0)
            for p in paths
        ]
    return [first, *others]


async def _learn(target: Target, url: str, models: tuple[str, ...]) -> tuple[Exchange, Learned]:
    """One token first. Raises CannotMeasure when that is not answered."""
    async with Lane(target, url, LoopLag()) as lane:
        body = {"model": target.model, **HELLO, "max_tokens": 1}
        hello = await lane.ask(kind="ready", key="ready/0", body=body, deadline_s=READY_S, retries=10)
        if hello.fault is not None:
            said = (
                "its key is refused" if credentials_refused(hello.status, hello.detail) else "it does not answer a chat"
            )
            raise CannotMeasure(f"{url}, model {target.model!r}: {said}: {hello.detail}")
        return hello, await learn(lane, target.model, models)


def _choose(identity: Identity, asked: Exchange, model: str | None, url: str) -> str:
    """The model to gate. Raises BadInput, which says what happened at /v1/models where that is the reason."""
    if model is not None:
        return model
    if len(identity.models) == 1:
        return identity.models[0]
    if not identity.models:
        raise BadInput(f"{url}/models: {problem(asked)}; name the served model with --model")
    raise BadInput(f"{url} serves {', '.join(identity.models)}; name one with --model")


def _text(target: Target, identity: Identity, url: str, learned: Learned, gauges: list[Gauge]) -> str:
    cases = load_cases(project.cases_dir())
    told = (*identity.settings, *shown(gauges))
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
        *(f"  {key}: {value:g}" for key, value in _limits(template, told, learned, cases).items()),
        "groups:                          # must | no_worse | proven_no_worse (with a margin) | watch",
        *(
            f"  {group}: {policy}"
            for group, policy in _policies(template, groups, cases, _is_slow(template, learned)).items()
        ),
    ]
    lines += [
        "latency:                         # docs/latency.md: which rule blocks, by how much; the caps are yours to set"
    ]
    lines += _section(_slower(template.latency, learned))
    lines += ["load:                            # docs/load.md: requests in flight, goodput, documents read at once"]
    lines += _section(_fitting(template.load, identity.context_tokens))
    lines += ["production:                      # what it says of itself now; make it what production is started with"]
    lines += [f"  {item}: {_yaml(value)}" for item, value in _production(told).items()]
    lines += [f"  {name}: {getattr(template.production, name)}" for name in LOAD_LIMITS]
    lines += [
        "offers:                          # what it did when it was asked for it; a text says why it is not offered"
    ]
    lines += [f"  {feature}: {_yaml(said)}" for feature, said in learned.offers.items()]
    excused = _excused(target, identity, url, cases, told, gauges)
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


def _limits(template: Profile, told: tuple[Said, ...], learned: Learned, cases: list[Case]) -> dict[str, float]:
    """The production profile's: no more in flight than the server takes, no less time for a greeting than it needs now,
    and deadlines in which it ends the longest answer that is asked for."""
    limits: dict[str, float] = template.limits.model_dump(exclude_none=True)
    if learned.itl_ms is not None:
        longest = max(cap(ask.options) for case in cases if not case.negative for ask in case.requests())
        slowest = max(ROOM, 2 * limits["in_flight"]) * longest * learned.itl_ms / 1000  # as if nothing were batched
        times = max(slowest / limits["request_deadline_s"], 1)
        limits |= {key: round(limits[key] * times) for key in DEADLINES}
    if isinstance(seats := _production(told).get("max_num_seqs"), int):
        limits["in_flight"] = min(limits["in_flight"], max(seats, 1))
    for key, measured in (("ttft_ms", learned.ttft_ms), ("total_ms", learned.greeting_ms)):
        if measured is not None:
            limits[key] = max(limits[key], round(ROOM * measured, -1))
    return limits


def _slower(template: Latency, learned: Learned) -> Latency:
    """The production profile's latency, its caps no lower than this server needs now with room to spare."""
    measured = {"ttft_ms": learned.ttft_ms, "itl_ms": learned.itl_ms, "total_ms": learned.greeting_ms}
    caps = {}
    for group, known in template.caps.items():
        told = known.model_dump()
        low = {
            k: round(ROOM * v, -1) for k, v in measured.items() if v is not None and told.get(k) and told[k] < ROOM * v
        }
        caps[group] = known.model_copy(update=low)
    return template.model_copy(update={"caps": caps})


def _production(told: tuple[Said, ...]) -> dict[str, Value]:
    """The first that the server says of every item."""
    return {said.item: said.value for said in reversed(told)}


def _yaml(value: Value) -> str:
    return json.dumps(value)


def _is_slow(template: Profile, learned: Learned) -> bool:
    """Whether production's limits leave it no room: then they are measured here and say nothing of what users need."""
    pairs = ((learned.ttft_ms, template.limits.ttft_ms), (learned.greeting_ms, template.limits.total_ms))
    return any(measured is not None and ROOM * measured > limit for measured, limit in pairs)


def _policies(template: Profile, groups: Iterable[str], cases: list[Case], slow: bool) -> dict[str, PolicyName]:
    """`must` for what every healthy server does, whatever it serves; what a model has to know is compared with the first
    accepted run. A group that is too small ever to be shown worse is watched, and so is the speed of a slow server."""
    found: dict[str, PolicyName] = {}
    for group in groups:
        known = template.groups.get(group)
        policy: PolicyName = known.policy if known else "watch"
        needs_skill = policy == "must" and not group.endswith(".contract") and group not in SERVICE
        found[group] = "no_worse" if needs_skill or policy == "proven_no_worse" else policy
        if slow and group in SPEED:
            found[group] = "watch"
    for suite in SUITES:
        sizes = Counter(case.group for case in cases if in_suite(case, suite))
        family = sum(found[group] == "no_worse" for group in sizes)
        for group, size in sizes.items():
            if found[group] == "no_worse" and stats.smallest_visible_drop(size, family) is None:
                found[group] = "watch"
    return found


def _excused(
    target: Target, identity: Identity, url: str, cases: list[Case], told: tuple[Said, ...], gauges: list[Gauge]
) -> dict[str, str]:
    """The identity cases that this server says nothing about, each with the check's own reason."""
    profile = Profile(target=target, groups={})
    found = {}
    for case in cases:
        for check in (name for expectation in case.expect for name in expectation if name in IDENTITY_CHECKS):
            result = CHECKS[check].run(Evidence(case, [], identity, profile), {})
            if result.outcome == "not_measured":
                found[case.id] = result.reason.replace(": ", ", ")
        items = [item for e in case.expect for check, item in e.items() if check == "like_production"]
        if items and items[0] not in _production(told):
            found[case.id] = UNTOLD
    seen = {gauge.name for gauge in gauges if gauge.value is not None}
    for case in cases:
        names = next((GAUGES[check] for e in case.expect for check in e if check in GAUGES), None)
        if names and not seen & {*names}:
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
    with closing(readings(None)) as found:
        seen = any(gauge.name == TOTAL for gauge in next(found))
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
