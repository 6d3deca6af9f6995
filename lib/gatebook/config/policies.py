"""The blocks of a profile: how latency is judged, what load must be borne, how production is started, waivers, what is offered."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from datetime import date
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field

from gatebook.config.files import Strict, demand

Metric = Literal["ttft", "itl", "total"]
METRICS: tuple[Metric, ...] = get_args(Metric)
"""Time to first token, mean time between tokens of an answer, time to last token."""
Rule = Literal["absolute", "p90", "day", "against"]
RULES: tuple[Rule, ...] = get_args(Rule)
LEAST_SAMPLES = 29
"""The fewest of which the largest is an upper 95 % bound of the P90: 0.9^29 < 0.05 <= 0.9^28."""


class Caps(Strict):
    """Limits in ms of one group: the absolute rule's, and those that a slow week cannot raise the other rules past."""

    ttft_ms: float | None = Field(default=None, gt=0)
    itl_ms: float | None = Field(default=None, gt=0)
    total_ms: float | None = Field(default=None, gt=0)
    cold_ms: float = Field(default=10_000, gt=0)
    """Slowest of the warm-up requests, to its last token."""

    def of(self, metric: Metric) -> float | None:
        return {"ttft": self.ttft_ms, "itl": self.itl_ms, "total": self.total_ms}[metric]


_Rules = Annotated[
    list[Rule], Field(min_length=1), BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
]


class Blocks(Strict):
    """The rules that block, for each metric; the others are shown."""

    ttft: _Rules = ["p90", "day"]
    itl: _Rules = ["p90", "day"]
    total: _Rules = ["p90", "day"]

    def of(self, metric: Metric) -> list[Rule]:
        return {"ttft": self.ttft, "itl": self.itl, "total": self.total}[metric]


class Latency(Strict):
    """How the timed groups are judged (docs/decisions/latency-rules.md has the measured error of every rule)."""

    blocks: Blocks = Field(default_factory=Blocks)
    factor: float = Field(default=1.3, gt=1)
    """The slowdown that must not pass: times the P90 of the window; what the other rules must be able to exclude."""
    least: float = Field(default=1.1, gt=1)
    """A slowdown up to this never blocks, however surely it is shown."""
    level: float = Field(default=0.005, gt=0, lt=0.5)
    """Chance that a healthy deployment fails, shared by all blocking rules of all metrics and groups."""
    miss: float = Field(default=0.25, gt=0, lt=0.5)
    """Chance that a slowdown by exactly `factor` passes one test of the day rule or of the second target."""
    min_days: int = Field(default=3, ge=2)
    """Days of history below which the day rule says nothing."""
    warm_up: int = Field(default=2, ge=0)
    """First requests of each group that are reported apart and judged by cold_ms alone."""
    lag_ms: float = Field(default=5, gt=0)
    """A sample does not count when our own event loop was later than this and than a twentieth of its time."""
    caps: dict[str, Caps] = Field(default_factory=dict)
    """Group -> its limits."""

    def mistakes(self) -> Iterator[str]:
        if self.least >= self.factor:
            yield "key 'least' must be smaller than 'factor': what never blocks cannot be what must not pass"

    def caps_of(self, group: str) -> Caps:
        return self.caps.get(group, Caps())


class Golden(Strict):
    """How golden answers are judged whose log probabilities are compared with the baseline's (docs/power.md)."""

    margin_nats: float = Field(default=0.005, gt=0)
    """A mean loss a token up to this never blocks, however surely it is shown."""


PLACE = "{word}"
"""Where messages and options of a load case take the request's own word."""
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
_WORD = re.compile(rf"(?<![A-Z])[{_LETTERS}]{{8}}(?![A-Z])")
_AtOnce = Annotated[int, Field(ge=1, le=256)]
Level = _AtOnce | Literal["step", "peak", "long_prompts"]
"""Requests in flight, or what the profile's `load` says: every step, the largest one, long_prompts.at_once."""


MOST_REQUESTS = 10_000
"""Of a case under load, and of all of a profile's steps."""


class Load(Strict):
    """The case's requests are asked so many at a time, with those of its group at the same level and with nothing else beside them."""

    at_once: list[Level] = Field(min_length=1)
    """One level after the other. `step` makes a case of each of the profile's load.steps, `long_prompts` a case of each prompt."""
    requests: int | None = Field(default=None, ge=1, le=10_000)
    """At each level, the asks in turn. Without it every ask once; at `step` the profile's load.requests."""

    def mistakes(self) -> Iterator[str]:
        if len(self.at_once) > 1 and {"step", "long_prompts"} & {*self.at_once}:
            yield "`step` and `long_prompts` make cases of their own and stand alone in at_once"
        if len({*self.at_once}) < len(self.at_once):
            yield "each level stands once in at_once"
        if (count := len(self.at_once) * (self.requests or 1)) > MOST_REQUESTS:
            yield f"{count:,} requests in all; {MOST_REQUESTS:,} at most"


class Goodput(Strict):
    """Which answers count as good, and how many of them must be."""

    at_once: int | None = Field(default=None, ge=1)
    """The step that is judged; without it the largest."""
    ttft_ms: float = Field(default=2000, gt=0)
    """To the first token, from the first attempt on."""
    itl_ms: float = Field(default=100, gt=0)
    """Mean time between the tokens of an answer."""
    share: float = Field(default=0.9, gt=0, le=1)
    """Of the answers within both."""


class LongPrompts(Strict):
    """Several documents are read at the same time."""

    at_once: int = Field(default=2, ge=1, le=64)
    tokens: int | None = Field(default=None, ge=700)
    """Prompt length of each, in the server's own tokens, in place of the case's; the needles alone take 600."""


_ASCENDING = demand(lambda steps: steps == sorted(set(steps)), "must ascend, each step once, such as [1, 2, 4, 8]")


class LoadSettings(Strict):
    """What the server must bear, and when its numbers are not to be believed."""

    steps: Annotated[list[_AtOnce], Field(min_length=1), _ASCENDING] = [1, 2, 4, 8]
    """Requests in flight, ascending: a closed loop at each."""
    requests: int = Field(default=10, ge=2, le=10_000)
    """At each step; at least twice the step are asked, so that every lane asks twice. A P90 needs 10."""
    goodput: Goodput = Field(default_factory=Goodput)
    knee_gain: float = Field(default=0.1, gt=0, le=1)
    """The knee is the last step up to which every doubling gains this share of throughput."""
    max_flips: int | None = Field(default=None, ge=0)
    """Decisions that may change under load: 0 on an engine that is deterministic. Without it only the exact McNemar test blocks."""
    long_prompts: LongPrompts = Field(default_factory=LongPrompts)
    client_lag_ms: float = Field(default=20, gt=0)
    """P90 over the requests of the largest delay of our own event loop; past it a step is not measured."""
    client_cpu_share: float = Field(default=0.8, gt=0, le=1)
    """Median share of one core that our own process used; past it a step is not measured."""

    def mistakes(self) -> Iterator[str]:
        if (count := sum(max(self.requests, 2 * step) for step in self.steps)) > MOST_REQUESTS:
            yield f"{count:,} requests in all steps; {MOST_REQUESTS:,} at most"
        if self.goodput.at_once is not None and self.goodput.at_once not in self.steps:
            yield f"key 'goodput.at_once' has value {self.goodput.at_once}, which is none of the steps {self.steps}"

    @property
    def judged_step(self) -> int:
        return self.goodput.at_once or self.steps[-1]

    @property
    def peak(self) -> int:
        return self.steps[-1]


def level_of(ask: str) -> int:
    """Return how many requests were in flight when this one of a load case was asked, from its name."""
    return int(ask.partition("-")[0])


def word(run: str, key: str) -> str:
    """Return eight consonants that no other request of any run has and no text holds by chance."""
    digest = hashlib.sha256(f"{run}/{key}".encode()).hexdigest()
    return "".join(random.Random(digest).choices(_LETTERS, k=8))


def words_in(value: Any) -> list[str]:
    """Return the words in a text, or in the texts of a request, each once."""
    return list(dict.fromkeys(_WORD.findall(value if isinstance(value, str) else str(value))))


Item = Literal[
    "max_model_len", "max_num_batched_tokens", "max_num_seqs", "prefix_caching", "dtype", "kv_cache_dtype",
    "gpu", "gpu_memory_gb", "cuda_visible_devices",
]  # fmt: skip
ITEMS: tuple[Item, ...] = get_args(Item)
"""What is compared with what the server says of itself, named as vLLM names its settings."""


_IS_URL = demand(re.compile("https?://").match, "must be a URL such as http://gpu-box:9400/metrics")


class Production(Strict):
    """How production is started. What is not stated here is not compared, and its case says so."""

    gpu: str | None = None
    """The card's name as NVML tells it; `NVIDIA`, `GeForce`, spaces and case make no difference."""
    gpu_memory_gb: float | None = Field(default=None, gt=0)
    """Of one card, in GiB, as vendors count it; 8 % less is the same card (error correction takes 6 %)."""
    gpu_memory_limit_gb: float | None = Field(default=None, gt=0)
    """The most that a card may hold at the peak, in GiB."""
    gpu_metrics_url: Annotated[str, _IS_URL] | None = None
    """Prometheus endpoint of a DCGM exporter on the server's machine, for a runner that does not see the GPU."""
    nvml: Literal["auto", "always", "never"] = "auto"
    """Whether this machine's GPUs are the server's. `auto`: when the base URL names this machine; a tunnel needs `never`, a container `always`."""
    max_model_len: int | None = Field(default=None, ge=1)
    """Tokens of context; llama.cpp's `n_ctx` of a slot."""
    max_num_batched_tokens: int | None = Field(default=None, ge=1)
    """Tokens of one forward step; SGLang's `chunked_prefill_size`."""
    max_num_seqs: int | None = Field(default=None, ge=1)
    """Requests at a time; SGLang's `max_running_requests`, llama.cpp's slots."""
    prefix_caching: bool | None = None
    dtype: str | None = None
    """Of the weights, such as bfloat16; llama.cpp's file type, such as Q4_1."""
    kv_cache_dtype: str | None = None
    cuda_visible_devices: str | None = None
    """As the server's environment has it: indices or UUIDs; also which of a machine's GPUs are looked at."""
    kv_cache_usage_limit: float | None = Field(default=None, gt=0, le=1)
    """The largest share of the KV cache that may be in use under load."""
    queue_limit: int | None = Field(default=None, ge=0)
    """Requests that may wait inside the server at a time."""
    preemptions_limit: int | None = Field(default=None, ge=0)
    """Requests that may be preempted (vLLM) or retracted (SGLang) in one load."""


def _day(value: Any) -> Any:
    try:
        return date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("must be a day such as 2027-01-31") from None


_IS_TOLD = demand(str.strip, "is blank; a waiver says who answers for it and why")
_Told = Annotated[str, Field(min_length=1), _IS_TOLD, AfterValidator(str.strip)]
_NAMES_SOMETHING = demand(
    lambda name: any(map(str.isalnum, name)),
    "a waiver names a case or a group; one that excuses everything would leave no gate",
)


class Waiver(Strict):
    """One entry of a profile's `waivers`."""

    case: Annotated[str, _NAMES_SOMETHING]
    """Case id or group; `*` stands for anything in it."""
    owner: _Told
    """Who answers for it."""
    reason: _Told
    expires: Annotated[date, BeforeValidator(_day)]
    """The last day (UTC) on which a run may be excused by it."""

    def names(self, *names: str) -> bool:
        """Whether it names one of these: a case's id, its group."""
        return any(fnmatchcase(name, self.case) for name in names)


Feature = Literal[
    "tools", "tools_accepted", "tool_choice", "parallel_tools", "json_schema", "json_object", "logprobs", "n", "stop",
    "seed", "default_sampling", "stream_usage", "stream_done", "text_parts", "tool_history", "second_system",
    "max_completion_tokens", "refuses_media", "refuses_malformed", "refuses_parameters", "lists_models",
    "system_fingerprint", "unknown_model",
]  # fmt: skip
"""Parts of the chat API that real servers leave out, refuse or ignore.

`tools` with `tool_choice: auto` or left out, read by the model; `tools_accepted` not refused, whatever becomes of them; `tool_choice` with a named function, `parallel_tools` two calls in one reply; `n`
several choices; `default_sampling`: without parameters answers are drawn, not greedy; `stream_usage` a usage chunk where
`include_usage` asks for it; `stream_done` a last `[DONE]`; `text_parts` content as a list of texts; `tool_history` earlier
`tool_calls` and `tool` messages; `system_fingerprint` one value in all replies of one server; `refuses_*`: an image, a malformed body, a parameter out of range gets a clean 4xx;
`unknown_model`: a model name that it does not serve gets one, or an answer.
"""

Offer = Literal[True] | str
"""True, or in words what the server did when it was asked for it."""
