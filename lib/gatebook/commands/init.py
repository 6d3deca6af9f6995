"""Probe a server, and write a profile for it."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from shlex import quote

from gatebook.collect.client import Lane, LoopLag, normal_base_url
from gatebook.collect.gauges import glance
from gatebook.collect.offers import Learned, learn, problem
from gatebook.collect.session import BRIEFLY, HELLO
from gatebook.commands.introduction import Introduction
from gatebook.config import project
from gatebook.config.cases import load_cases
from gatebook.config.files import build, parse_yaml, replace_text
from gatebook.config.profile import Target, profile_from
from gatebook.config.secrets import refuse_secrets
from gatebook.config.sending import scrubber, secrets, untelling
from gatebook.engines import HOST_PATHS, SETTINGS_PATHS, Probes, credentials_refused, recognise
from gatebook.errors import BadInput, CannotMeasure
from gatebook.opening import refuse_languages
from gatebook.record.exchange import Exchange
from gatebook.record.identity import Identity, identify
from gatebook.record.replies import parse

READY_S = 60.0
NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)


def begin() -> str:
    """Write the profile of the embedded model and say what to type next. Raises BadInput."""
    file = _file("smollm2")
    if file.exists():
        raise BadInput(f"{file}: exists already; edit it, or name a server with --base-url")
    text = (project.PACKAGE / "params" / "smollm2.yaml").read_text(encoding="utf-8")
    _write(file, "".join(text.splitlines(keepends=True)[1:]))
    return f"{file}: the embedded model, to try Gatebook with\nnext: gatebook run --profile {quote(str(file))} --suite smoke"


def _file(name: str) -> Path:
    """Return the file of a profile, in the current folder where there is no project."""
    return (project.find() or Path.cwd()) / "params" / f"{name}.yaml"


def _write(file: Path, profile: str) -> None:
    for part in ("params/cases", "outputs"):
        (file.parents[1] / part).mkdir(parents=True, exist_ok=True)
    replace_text(file, project.schema_line("profile", "../") + profile)


def introduce(
    base_url: str, name: str | None, model: str | None, api_key_env: str | None,
    adapters: bool = False, languages: str | None = None,
) -> str:  # fmt: skip
    """Write `params/<name>.yaml` and say what to type next; with `adapters` one more for each that the server lists, by its
    own name. Raises BadInput, CannotMeasure when nobody answers; then nothing is written."""
    url = normal_base_url(base_url)
    if name is not None and not NAME.fullmatch(name):
        said = "letters, digits, dots, dashes and underscores only, such as gpu-box"
        raise BadInput(f"--name has value {name!r}: {said}")
    refuse_secrets({"target": {"api_key_env": api_key_env, "model": model}}, "command line")
    cases = load_cases(*project.folders("params/cases"))
    spoken = None if languages is None else [name.strip() for name in languages.split(",")]
    target = build(Target, {"model": model or "unknown", "api_key_env": api_key_env, "base_url": url}, "command line")
    if scrubber(target).holds(url):
        raise BadInput(f"--base-url holds what environment variable {' or '.join(secrets(target))} holds; leave it out")
    asked = {"name": name or "new", "target": target.model_dump(), "groups": {}, "languages": spoken}
    refuse_languages(profile_from(asked, "command line", "new"), "full", cases)
    exchanges = asyncio.run(_probe(target, url))
    models, found = identify(exchanges, target.model).models, _adapters(exchanges, url) if adapters else []
    chosen = _choose(tuple(m for m in models if m not in found), exchanges[0], model, url)
    files = [(chosen, _file(name or _slug(chosen))), *((m, _file(_slug(m))) for m in found)]
    if twice := [file for file, count in Counter(file for _, file in files).items() if count > 1]:
        both = " and ".join(m for m, file in files if file == twice[0])
        todo = "choose another --name, or name an adapter otherwise"
        raise BadInput(f"{twice[0]}: would be the profile of {both}; {todo}")
    there = [str(file) for _, file in files if file.exists()]
    if len(there) == len(files):
        raise BadInput(f"{', '.join(there)}: exists already; choose another --name or edit it")
    lines = [f"{file}: exists already, left as it is" for file in there]
    lines += filter(None, [untelling(target)])
    made = [(file, *_introduced(target, m, file, exchanges, spoken)) for m, file in files if not file.exists()]
    for file, text, told in made:
        read = profile_from(parse_yaml(text, str(file)), str(file), file.stem)  # what we write must be what we read
        refuse_languages(read, "full", cases)
        _write(file, text)
        lines += told
    return "\n".join(lines)


def _introduced(
    target: Target, model: str, file: Path, probes: list[Exchange], spoken: list[str] | None
) -> tuple[str, list[str]]:
    """Return the profile of one model of the server, and the lines to print. Raises CannotMeasure when it does not answer."""
    target, url = target.model_copy(update={"model": model}), str(target.base_url)
    hello, learned = asyncio.run(_learn(target, url, identify(probes, model).models))
    target = target.model_copy(update=learned.thinks.settings)
    identity = identify([*probes, hello], model)
    text = Introduction(target, identity, learned, glance(target, url), spoken).profile(file.stem)
    return text, _summary(file, identity, model, learned, probes)


def _adapters(probes: list[Exchange], url: str) -> list[str]:
    """Return the served models whose cards name a parent. Raises BadInput where there is none, or a parent is not served."""
    models = identify(probes, "").models
    parents = {m: parent for m in models if (parent := identify(probes, m).parent)}
    if not parents:
        todo = "load one (vLLM: --enable-lora --lora-modules NAME=PATH), or leave --adapters out"
        raise BadInput(f"--adapters: {url}/models lists no adapter, no card has a `parent`; {todo}")
    if lone := [m for m, parent in parents.items() if parent not in models]:
        todo = "list it too, or write the adapter's profile with --model and without --adapters"
        raise BadInput(f"--adapters: {url}/models lists {lone[0]!r} without its parent {parents[lone[0]]!r}; {todo}")
    return list(parents)


async def _probe(target: Target, url: str) -> list[Exchange]:
    """Ask /v1/models, then what the recognised engine answers, else every known path."""

    async def get(path: str, key: str, retries: int) -> Exchange:
        return await lane.ask(kind="probe", key=key, body=None, path=path, **BRIEFLY | {"retries": retries})

    async with Lane(target, url, LoopLag()) as lane:
        first = await get("models", "probe/models", retries=2)
        if first.status is None or credentials_refused(first.status, first.detail):
            said = "is the server up, and is --api-key-env the variable with its key?"
            raise CannotMeasure(f"{url}: {first.detail}; {said}")
        engine = recognise(Probes({"models": parse(first.text or "")}, target.model, first.headers))
        paths = (*engine.paths, *engine.settings_paths) if engine.name != "unknown" else (*HOST_PATHS, *SETTINGS_PATHS)
        return [first, *[await get(path, f"probe/{path}", retries=0) for path in paths]]


async def _learn(target: Target, url: str, models: tuple[str, ...]) -> tuple[Exchange, Learned]:
    """Ask one token, then what the server offers. Raises CannotMeasure when it does not answer."""
    async with Lane(target, url, LoopLag()) as lane:
        body = {"model": target.model, **HELLO, "max_tokens": 1}
        hello = await lane.ask(kind="ready", key="ready/0", body=body, deadline_s=READY_S, retries=10)
        if hello.fault is not None:
            refused = credentials_refused(hello.status, hello.detail)
            said = "its key is refused" if refused else "it does not answer a chat"
            raise CannotMeasure(f"{url}, model {target.model!r}: {said}: {hello.detail}")
        learned = await learn(lane, target.model, models)
    if _broke_off(plain := learned.exchanges[0]):
        said = f"a plain greeting, which all else is compared with: {plain.detail}"
        raise CannotMeasure(f"{url}, model {target.model!r}: {said}; nothing was written; run `gatebook init` again")
    return hello, learned


def _broke_off(done: Exchange) -> bool:
    """Return whether there is neither an answer nor a refusal: the server is busy, or down."""
    return done.fault is not None and done.fault != "status"


def _choose(models: tuple[str, ...], asked: Exchange, model: str | None, url: str) -> str:
    """Choose the model to gate. Raises BadInput, with what happened at /v1/models where that is the reason."""
    if model is not None:
        return model
    if len(models) == 1:
        return models[0]
    if not models:
        raise BadInput(f"{url}/models: {problem(asked)}; name the served model with --model")
    raise BadInput(f"{url} serves {', '.join(models)}; name one with --model")


def _summary(file: Path, identity: Identity, chosen: str, learned: Learned, probes: Iterable[Exchange]) -> list[str]:
    """Return the lines to print: what was learned and what to type next."""
    engine = f"{identity.engine} {identity.version or ''}".strip()
    lines = [f"{file}: {chosen} on {engine}, {identity.context_tokens or 'an untold number of'} tokens of context"]
    missing = [f"{feature} ({said})" for feature, said in learned.offers.items() if said is not True]
    lines += [f"not offered, so not asked: {'; '.join(missing)}"] if missing else []
    lines += [str(learned.thinks)] if learned.thinks.where else []
    if learned.told_as and not identity.is_alias(chosen, learned.told_as):
        todo = "where that is the same model, add it to target.aliases; till then every answer fails"
        lines.append(f"its replies say model {learned.told_as!r}: {todo}")
    if broke := [e for e in learned.exchanges if _broke_off(e)]:
        todo = "what they asked for counts as offered; if the server was busy, run `gatebook init` again"
        lines.append(f"{len(broke)} of {len(learned.exchanges)} requests have no answer ({broke[0].detail}): {todo}")
    for done in (e for e in probes if e.status is not None and e.status >= 500):
        todo = "so what it tells is not compared; mend it and run `gatebook init` again"
        lines.append(f"/{done.path.removeprefix('/')} fails ({done.detail}), {todo}")
    return [*lines, f"next: gatebook run --profile {quote(str(file))} --suite smoke"]


def _slug(model: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", Path(model).name.lower()).strip("-") or "profile"
