"""The shape of an engine: everything in which inference servers differ, with what most of them do as the default."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gatebook.config.policies import Item

Json = dict[str, Any]
Value = str | int | float | bool
Request = tuple[str, Json]
"""A path, as `Lane.ask` takes it, and a body without the model."""
Score = tuple[int, float]
"""A token's id and its log probability in nats."""
Place = tuple[str, str]
"""A GET and a key of what it answers."""
TOKENIZE = "/tokenize"
"""POST on the host that tells the tokens of a text: vLLM, SGLang and llama.cpp have it under one path."""


@dataclass(frozen=True)
class Said:
    """One setting as the server tells it, and where it does."""

    item: Item
    value: Value
    source: str


@dataclass(frozen=True)
class Probes:
    """What a server said of itself: the parsed bodies of its good answers to GETs, by path."""

    bodies: Mapping[str, Any]
    model: str
    """The model that the profile asks for."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of /v1/models and of the chat that opens a notebook, as far as they are recorded."""

    def at(self, path: str, *keys: str) -> Json:
        """The object at a path, or the one at these keys in it; {} where there is none."""
        return obj(self.bodies.get(path), *keys)

    @property
    def cards(self) -> list[Json]:
        """The entries of /v1/models."""
        data = self.at("models").get("data")
        return [card for card in data if isinstance(card, dict)] if isinstance(data, list) else []

    @property
    def card(self) -> Json:
        """The entry of the asked model."""
        return named(self.cards, self.model)

    @property
    def parent(self) -> str | None:
        """The model that the asked one adapts (LoRA), as its card says; None where it is no adapter."""
        told = self.card.get("parent")
        return told if isinstance(told, str) and told not in ("", self.model) else None

    @property
    def max_model_len(self) -> int | None:
        """From the asked model's card, else from its parent's: vLLM writes none on an adapter's."""
        cards = (self.card, named(self.cards, self.parent) if self.parent else {})
        return next((n for card in cards if (n := whole_number(card.get("max_model_len"))) is not None), None)


class Engine:
    """One kind of server; the defaults are those of an unknown OpenAI-compatible one."""

    name = "unknown"
    paths: tuple[str, ...] = ()
    """GETs on the host by which it is known, and which tell its version."""
    settings_paths: tuple[str, ...] = ()
    """GETs on the host that tell how it was started."""
    owner: str | None = None
    """`owned_by` of its cards; a gateway passes cards on."""
    signs: tuple[Place, ...] = ()
    """Where it says what no other engine says."""
    versions: tuple[Place, ...] = ()
    keeps_connections = False
    """Whether a connection may be used again after a streamed reply."""
    answers_any_name: bool | None = None
    """Whether it answers a model name that it does not serve; None where that is not known."""
    takes_memory_at_start = False
    """What the card holds under load then says nothing of the load."""
    kv_cache: tuple[str, ...] = ()
    """Gauges of the share of the KV cache in use, 0 to 1."""
    waiting: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    gauges_settle_s = 0.0
    """How long its gauges may go on showing the last request after it is done."""
    preempted: tuple[str, ...] = ()
    """Counters of requests that lost their place."""
    ttft_histograms: tuple[str, ...] = ()
    """In seconds, as the two below; empty where its /metrics have none."""
    itl_histograms: tuple[str, ...] = ()
    total_histograms: tuple[str, ...] = ()
    refusals: re.Pattern[str] | None = None
    """Its words for "cannot" where it sends them with another status than a clean 4xx."""
    credentials: re.Pattern[str] | None = None
    """Its words for a key that it does not take, with whatever status."""
    logprob_options: Json = {}
    """Request options that make it name tokens by their ids."""
    whole_prompt: Json = {}
    """Request options by which a prompt is computed whole: what continues a cached one gets other numbers."""

    def rendering(self, messages: list[Json]) -> Request | None:
        """The request for the tokens of a conversation up to its answer; None where `scoring` needs none."""
        return None

    def scoring(self, messages: list[Json], prompt: list[int], answer: list[int]) -> Request | None:
        """The request for the log probability of each token of a given answer."""
        return None

    def scores(self, reply: Json) -> list[Score]:
        """Read a reply to `scoring`: at least the answer's tokens, at the end. A malformed reply raises whatever it causes."""
        return []

    def recognises(self, probes: Probes) -> bool:
        """Whether these are replies of this engine."""
        owned = self.owner is not None and any(card.get("owned_by") == self.owner for card in probes.cards)
        return owned or any(key in probes.at(path) for path, key in self.signs)

    def version(self, probes: Probes) -> str | None:
        return next((str(told) for path, key in self.versions if (told := probes.at(path).get(key))), None)

    def context_tokens(self, probes: Probes) -> int | None:
        """The context limit of the asked model."""
        return probes.max_model_len

    def sampling(self, probes: Probes) -> Json:
        """Default sampling parameters, where it tells them."""
        return {}

    def knows_tools(self, probes: Probes) -> bool | None:
        """Whether the chat template knows tools, where it tells."""
        return None

    def metadata(self, probes: Probes) -> Json:
        """What its card says of the weights, without paths, owners, times and permissions."""
        return {}

    def options(self, probes: Probes) -> Json:
        """Further settings that say what is served, by name; shown when they move."""
        return {}

    def settings(self, probes: Probes) -> Iterator[Said]:
        """How it was started, where it tells."""
        yield from items("/v1/models", {"max_model_len": "max_model_len"}, {"max_model_len": probes.max_model_len})

    def settings_kept(self, body: Json) -> Json:
        """Of a body of `settings_paths`, what may be recorded."""
        return {}

    def is_alias(self, asked: str, told: str, probes: Probes) -> bool:
        """Whether a reply under the name `told` is the asked model's."""
        return same_model(asked, told, probes.cards)


def named(cards: list[Json], name: str) -> Json:
    """The card of a model; {} where it is not listed."""
    return next((card for card in cards if card.get("id") == name), {})


def same_model(asked: str, told: str, cards: list[Json]) -> bool:
    """The name itself, the name with a date (hosted services), or another name of the same card (vLLM lists every
    `--served-model-name` and answers with the first): both listed with one `root` and no `parent`."""
    if told == asked or re.fullmatch(re.escape(asked) + r"-\d{4}[\d-]*", told):
        return True
    both = [named(cards, name) for name in (asked, told)]
    roots = {card.get("root") for card in both}
    return len(roots) == 1 and all(roots) and not any(card.get("parent") for card in both)


def tokenizing(text: str) -> Json:
    """The body for TOKENIZE: vLLM and SGLang read `prompt`, llama.cpp `content`; each ignores the other's fields."""
    return {"prompt": text, "content": text, "add_special_tokens": False, "add_special": False}


def items(source: str, known: Mapping[str, Item], values: Json) -> Iterator[Said]:
    """The settings in an object, by its own keys."""
    for key, item in known.items():
        value: Any = values.get(key)
        if plain(value) and value not in ("", "None"):
            yield Said(item, {"True": True, "False": False}.get(str(value), value), f"{source} {key}")


def plain(value: Any) -> bool:
    """Whether a value is a text, a number or a truth."""
    return isinstance(value, str | int | float | bool)


def obj(value: Any, *keys: str) -> Json:
    """The object, or the one at these keys in it; {} for anything else."""
    for key in keys:
        value = obj(value).get(key)
    return value if isinstance(value, dict) else {}


def whole_number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
