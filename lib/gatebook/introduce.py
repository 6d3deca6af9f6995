"""Getting to know a server: probe it, and write a profile for it."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from gatebook.ask.client import Lane, LoopLag, normal_base_url
from gatebook.ask.collect import HELLO, PROBE_DEADLINE_S, PROBES
from gatebook.errors import BadInput, CannotMeasure
from gatebook.judge.checks import CHECKS
from gatebook.judge.evidence import Evidence
from gatebook.judge.findings import contract_group
from gatebook.plan import project
from gatebook.plan.cases import load_cases
from gatebook.plan.settings import Profile, Target, load_profile
from gatebook.plan.strict import build
from gatebook.record.exchange import Exchange
from gatebook.record.identity import Identity, identify

IDENTITY_CHECKS = ("model_listed", "engine_told", "context_limit")
READY_S = 60.0


def introduce(base_url: str, name: str | None, model: str | None, api_key_env: str | None) -> str:
    """Write `params/<name>.yaml` and say what to type next. Raises BadInput, CannotMeasure when nobody answers."""
    url = normal_base_url(base_url)
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
            for p in PROBES[1:]
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
    excused = _excused(target, identity)
    lines += ["excused:", *(f"  {case}: {why}" for case, why in excused.items())] if excused else ["excused: {}"]
    return "\n".join(lines) + "\n"


def _policy(template: Profile, group: str) -> str:
    """What the production profile says; a baseline does not exist yet, so nothing there is proven."""
    found = template.groups.get(group)
    return found.policy if found and found.policy != "proven_no_worse" else "no_worse" if found else "watch"


def _excused(target: Target, identity: Identity) -> dict[str, str]:
    """The identity cases that this server says nothing about, each with the check's own reason."""
    profile = Profile(target=target, groups={})
    found = {}
    for case in load_cases(project.cases_dir()):
        for check in (name for expectation in case.expect for name in expectation if name in IDENTITY_CHECKS):
            result = CHECKS[check].run(Evidence(case, [], identity, profile), True)
            if result.outcome == "not_measured":
                found[case.id] = result.reason.replace(": ", ", ")
    return found


def _slug(model: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", Path(model).name.lower()).strip("-") or "profile"
