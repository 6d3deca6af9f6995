"""The profile that `gatebook init` writes: what it learned of a server, and the policies that follow."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gatebook.checks import CHECKS, stats
from gatebook.checks.evidence import Evidence
from gatebook.collect.gauges import on_this_machine
from gatebook.collect.nvml import readings
from gatebook.collect.offers import Learned
from gatebook.config import project
from gatebook.config.cases import Case, load_cases
from gatebook.config.files import to_yaml
from gatebook.config.policies import Latency, LoadSettings
from gatebook.config.profile import SUITES, PolicyName, Profile, Target, load_profile
from gatebook.config.selection import in_languages, in_suite
from gatebook.config.sending import cap, sent
from gatebook.engines import Value
from gatebook.record.gauges import KV_CACHE, PREEMPTED, TOTAL, WAITING, Gauge
from gatebook.record.identity import Identity, shown
from gatebook.verdict.findings import contract_group

IDENTITY_CHECKS = ("model_listed", "engine_told", "context_limit")
GPU_MEMORY, ADAPTER = "load.gpu_memory", "fingerprint.adapter"
UNTOLD = "the server does not tell it"
LOAD_LIMITS = ("kv_cache_usage_limit", "queue_limit", "preemptions_limit")
GAUGES = {"kv_cache_usage": KV_CACHE, "queue": WAITING, "preemptions": PREEMPTED}
"""Check -> the gauges of /metrics, of which it needs one."""
ROOM = 4
"""Times the first greeting's latency: a limit that a noisy day does not break. What users need is a person's to set."""
DEADLINES = ("request_deadline_s", "notebook_deadline_s", "run_deadline_s")
SERVICE = frozenset({
    "health.identity", "health.production", "health.service", "health.canaries", "health.greeting", "health.latency",
    "health.conversations", "structured.latency", "latency.schema",
    "structured.enforced", "fingerprint.tokens", "fingerprint.logprobs", ADAPTER, "fingerprint.defaults",
    "boundaries.media", "boundaries.length", "boundaries.hostile", "latency.chat", "latency.prompt",
    "load.order", "load.flips", "load.steps", "load.goodput", "load.gpu_memory", "load.kv_cache",
})  # fmt: skip
"""Groups in which the service is judged and not what the model knows."""
SPEED = frozenset({"health.latency", "latency.chat", "latency.prompt", "latency.schema", "load.steps", "load.goodput"})
"""Groups that hold absolute limits of time."""
CHARS_A_TOKEN = 4
"""More than any tokenizer here needs, so that a document this long in characters is surely too long."""
LONG_SHARE = 0.85
"""Of the context, for a document: room for the question and the answer, and for counting by another tokenizer."""
NOTES = {
    "languages": "the model's: cases that are tagged with others are not asked",
    "groups": "must | no_worse | proven_no_worse (with a margin) | watch",
    "latency": "docs/latency.md: which rule blocks, by how much; the caps are yours to set",
    "load": "docs/load.md: requests in flight, goodput, documents read at once",
    "production": "what it says of itself now; make it what production is started with",
    "offers": "what it did when it was asked for it; a text says why it is not offered",
}
"""Section of the profile -> what a person should know of it."""


@dataclass(frozen=True)
class Introduction:
    """What is known of a server, and the profile that fits it: that of production, as far as this server can keep it."""

    target: Target
    identity: Identity
    learned: Learned
    gauges: list[Gauge]
    languages: list[str] | None = None

    @cached_property
    def template(self) -> Profile:
        return load_profile(project.base() / "params" / "qwen3-4b.yaml")

    @cached_property
    def cases(self) -> list[Case]:
        return load_cases(*project.folders("params/cases"))

    @cached_property
    def production(self) -> dict[str, Value]:
        """The server's setting of every item; of several the first."""
        return {said.item: said.value for said in reversed((*self.identity.settings, *shown(self.gauges)))}

    @cached_property
    def least_ms(self) -> dict[str, float]:
        """The least latency in ms that a limit must allow this server."""
        told = self.learned
        measured = {"ttft_ms": told.ttft_ms, "itl_ms": told.itl_ms, "total_ms": told.greeting_ms}
        return {name: round(ROOM * ms, -1) for name, ms in measured.items() if ms is not None}

    @cached_property
    def room(self) -> int | None:
        """Tokens of context for a prompt, beside what is thought."""
        context = self.identity.context_tokens
        return None if context is None else max(context - self.target.room, 1)

    def profile(self, name: str) -> str:
        """Return the profile as YAML."""
        target = self.target.model_dump(include={"server", "base_url", "model", "revision", "api_key_env"})
        target |= self.target.model_dump(include={"request", "thinking", "thinking_tokens"}, exclude_defaults=True)
        latency, load = (part.model_dump(mode="json", exclude_defaults=True) for part in (self.latency(), self.load()))
        production = self.production | {key: getattr(self.template.production, key) for key in LOAD_LIMITS}
        sections: dict[str, Any] = {"languages": self.languages} if self.languages else {}
        sections |= {
            "limits": self.limits(), "groups": self.policies(), "latency": latency, "load": load, "production": production,
            "offers": self.learned.offers, "excused": self.excused(),
        }  # fmt: skip
        head = (
            f"# Written by `gatebook init` for {target['base_url']}. Read it, set `revision`, and commit it.\n"
            "# revision: what is deployed, an image digest, or --revision in CI; api_key_env: NAME of the variable with the key\n"
        ) + to_yaml({"name": name, "target": {**target, "context_tokens": self.identity.context_tokens}})
        notes = {section: f"# {note}\n" for section, note in NOTES.items()}
        return head + "".join(notes.get(section, "") + to_yaml({section: said}) for section, said in sections.items())

    def limits(self) -> dict[str, float]:
        """No more in flight than the server takes, no less time for a greeting than it needs now, and deadlines in which
        it ends the longest answer that is asked for."""
        limits: dict[str, float] = self.template.limits.model_dump(exclude_none=True)
        if self.learned.itl_ms is not None:
            asks = ((case, ask) for case in self.cases if not case.negative for ask in case.requests())
            longest = max(cap(sent(self.target, case, ask)) for case, ask in asks)
            answer_s = longest * self.learned.itl_ms / 1000
            slowest = max(ROOM, 2 * limits["in_flight"]) * answer_s  # as if nothing were batched
            times = max(slowest / limits["request_deadline_s"], 1)
            limits |= {key: round(limits[key] * times) for key in DEADLINES}
        if isinstance(seats := self.production.get("max_num_seqs"), int):
            limits["in_flight"] = min(limits["in_flight"], max(seats, 1))
        return limits | {key: max(limits[key], self.least_ms.get(key, 0)) for key in ("ttft_ms", "total_ms")}

    def latency(self) -> Latency:
        """Return caps no lower than this server needs now with room to spare."""
        caps = {}
        for group, known in self.template.latency.caps.items():
            low = {key: max(ms, self.least_ms.get(key, 0)) for key, ms in known.model_dump(exclude_none=True).items()}
            caps[group] = known.model_copy(update=low)
        return self.template.latency.model_copy(update={"caps": caps})

    def load(self) -> LoadSettings:
        """Return the load settings, with documents no longer than LONG_SHARE of the context."""
        load, long = self.template.load, self.template.load.long_prompts
        if long.tokens is None or self.room is None:
            return load
        tokens = max(700, min(long.tokens, int(self.room * LONG_SHARE)))
        return load.model_copy(update={"long_prompts": long.model_copy(update={"tokens": tokens})})

    def policies(self) -> dict[str, PolicyName]:
        """`must` for what every healthy server does, whatever it serves; what a model has to know is compared with the first
        accepted run. A group that is too small ever to be shown worse is watched, and so is the speed of a server to which
        production's limits leave no room: then they are measured here and say nothing of what users need."""
        production = self.template.limits.model_dump()
        slow = any(self.least_ms.get(key, 0) > production[key] for key in ("ttft_ms", "total_ms"))
        found: dict[str, PolicyName] = {}
        for group in dict.fromkeys(g for case in self.cases for g in (contract_group(case.group), case.group)):
            policy = self.template.policy(group).policy
            needs_skill = policy == "must" and not group.endswith(".contract") and group not in SERVICE
            found[group] = "no_worse" if needs_skill or policy == "proven_no_worse" else policy
            if slow and group in SPEED:
                found[group] = "watch"
        scored = {case.group for case in self.cases if case.scored}
        if self.identity.dialect.rendering([]) is None:  # it scores some golden answers, or none
            found |= dict.fromkeys(scored, "watch")
        for suite in SUITES:
            asked = in_languages((case for case in self.cases if in_suite(case, suite)), self.languages)
            sizes = Counter(case.group for case in asked)
            family = sum(found[group] == "no_worse" for group in sizes.keys() - scored)
            for group in sizes.keys() - scored:
                if found[group] == "no_worse" and stats.smallest_visible_drop(sizes[group], family) is None:
                    found[group] = "watch"
        return found

    def excused(self) -> dict[str, str]:
        """The cases about the server's identity and gauges of which it says nothing, each with the reason; GPU memory that
        cannot be seen from here; documents that are too long."""
        profile, seen = Profile(target=self.target, groups={}), {g.name for g in self.gauges if g.value is not None}
        found: dict[str, str] = {}
        for case, check, given in ((c, name, raw) for c in self.cases for e in c.expect for name, raw in e.items()):
            if check in IDENTITY_CHECKS:
                result = CHECKS[check].run(Evidence(case, [], self.identity, profile), {})
                if result.outcome == "not_measured":
                    found[case.id] = result.reason.replace(": ", ", ")
            untold = check == "like_production" and given not in self.production
            if untold or (check in GAUGES and not seen & {*GAUGES[check]}):
                found[case.id] = UNTOLD
        parent = self.identity.parent
        if parent and parent not in self.identity.models:
            said = f"{parent}, the parent of {self.target.model}, is not listed in /v1/models, so it cannot be asked"
            found[ADAPTER] = f"{said}; serve it too and delete this line"
        if any(case.group == GPU_MEMORY for case in self.cases) and (unseen := _gpu_unseen(str(self.target.base_url))):
            found[GPU_MEMORY] = unseen
        return found | too_long(self.cases, self.room, self.target.room)


def _gpu_unseen(url: str) -> str | None:
    """Return why the memory of the server's GPU cannot be read from here; None where it can."""
    if not on_this_machine(url):
        todo = "name a DCGM exporter in production.gpu_metrics_url and delete this line"
        return f"the server is on another machine; {todo}"
    with closing(readings(None)) as found:
        seen = any(gauge.name == TOTAL for gauge in next(found))
    return None if seen else "no GPU is visible on this machine; delete this line where one is"


def too_long(cases: list[Case], context_tokens: int | None, thoughts: int = 0) -> dict[str, str]:
    """Excuse cases whose document is longer than the context, by the shortest pattern that names no other case."""
    if context_tokens is None:
        return {}
    least = {c.id: c.document.tokens or (c.document.chars or 0) // CHARS_A_TOKEN for c in cases if c.document}
    beyond = {case for case, tokens in least.items() if tokens >= context_tokens}
    others, patterns = {case.id for case in cases} - beyond, {}
    why = f"it serves {context_tokens + thoughts:,} tokens{f', {thoughts:,} of them for thoughts' if thoughts else ''}"
    for case in sorted(beyond):
        parts = case.split("-")
        heads = ("-".join(parts[:n]) + "-" for n in range(1, len(parts)))
        head = next((h for h in heads if not any(other.startswith(h) for other in others)), None)
        patterns[f"{head}*" if head else case] = why
    return patterns
