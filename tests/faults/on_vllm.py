"""The second half of the fault lab: a real vLLM with one thing about it changed, and the real `gatebook run`.

A baseline is accepted once on each healthy deployment, with the profile that the real `gatebook init` wrote for it, and no
edits. The cause must be the verdict's first line.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import httpx
from gatebook.collect.embedded import MODEL

from tests.conftest import ROOT, Done, Project, checkout
from tests.engines import adapters, install
from tests.engines.others import nginx
from tests.engines.serving import Running, vllm_process
from tests.faults.catalogue import LLAMA_TEMPLATE, Kind
from tests.faults.lab import PATIENCE_S, Result, judged, results

Suite = Literal["smoke", "integration"]
KILLED_AFTER = 40
"""Chats that the server answered before its engine core dies."""
GONE_S = 60
"""From the death of the engine core to the verdict, on a busy machine; before, it took ten minutes."""
CORE = "VLLM::EngineCore"
ADAPTER = "tuned"
LORA = ("--enable-lora", "--max-lora-rank", str(adapters.RANK), "--max-loras", "3", "--lora-target-modules", "qkv_proj", "--lora-modules")  # fmt: skip
"""What follows is NAME=FOLDER, two at most. The CPU backend of vLLM 0.32.0 adds the adapter in its last place to a request for the base
that is computed beside one for an adapter (index -1), so that place stays empty; and it is slow in every module that may be adapted."""
LORA_ENVIRONMENT = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
KEY_VARIABLE = "OPENAI_API_KEY"


@dataclass(frozen=True)
class Server:
    """How vLLM is started."""

    arguments: tuple[str, ...] = ()
    weights: str = "base"
    """A variant of tests/engines/weights.py."""
    dev: bool = False
    """VLLM_SERVER_DEV_MODE: it tells its settings."""
    template: str = ""
    """Of --chat-template, written to a file."""
    adapter: adapters.Kind | None = field(default=None, repr=False)
    """Served as ADAPTER, and gated, beside its base; it may be loaded and unloaded while the server runs."""

    thinks: bool = field(default=False, repr=False)
    """Its profile is given THINKING, and watches SAYS_LITTLE."""

    @property
    def model(self) -> str:
        """What is gated."""
        return ADAPTER if self.adapter else MODEL


REASONING = (
    "--reasoning-parser",
    "qwen3",
    "--reasoning-config",
    json.dumps({"reasoning_end_str": "<|im_start|>assistant</think>"}),
)
"""`thinking_token_budget` ends thoughts by words that open an answer: SmolLM2 does not think by itself."""
THINKING_TEMPLATE = (install.HERE / "thinking.jinja").read_text(encoding="utf-8")
"""Opens a block of thoughts as Qwen3's does; where `enable_thinking` is false, it is the model's own."""
THINKING: dict[str, Any] = {"thinking": "parsed", "thinking_tokens": 16, "request": {"thinking_token_budget": 2}}
SAYS_LITTLE = ("health.canaries", "health.service")
"""A model of 135M parameters repeats itself, or stops early, after two tokens of thought."""
QUICK = ("--dtype", "float32")
"""vLLM's default for this model, bfloat16, is emulated on a CPU without AVX-512: a third of the speed. Rows are served so
unless they name a dtype; `own` and a twin serve the default."""
TOOLS_TEMPLATE = (
    "{% if tools %}<|im_start|>system\nCall one of {{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] or '' }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The model's own template says nothing of tools, so that they are not offered with it, whatever the parser."""
BEFORE = {
    "default": Server(),
    "own": Server(("--dtype", "auto")),
    "hermes": Server(("--enable-auto-tool-choice", "--tool-call-parser", "hermes")),
    "tools": Server(("--enable-auto-tool-choice", "--tool-call-parser", "hermes"), template=TOOLS_TEMPLATE),
    "dev": Server(dev=True),
    "adapter": Server(adapter="right"),
    "thinker": Server(REASONING, "thinker", template=THINKING_TEMPLATE, thinks=True),
}
"""Healthy deployments with a baseline of their own."""


@dataclass(frozen=True)
class VllmRow:
    """One change and what the gate must say of it."""

    id: str
    what: str
    named: str
    """Regular expression: words of the verdict's first line that name the cause."""
    server: Server = field(default_factory=Server)
    suite: Suite = "smoke"
    before: str = "default"
    kind: Kind = "fault"
    code: tuple[int, ...] = (1,)
    """Exit codes that are right."""
    arguments: tuple[str, ...] = ()
    """Of `gatebook run`, after the row's own; the last one counts."""
    first: bool = False
    """The first gate of a healthy server: no baseline yet."""
    kills: bool = False
    """The engine core is killed in the middle of the run."""
    noted: str = ""
    """Regular expression: what a note beside the verdict must say."""
    unloads: bool = field(default=False, repr=False)
    """The adapter is unloaded in the middle of the run."""
    beside: Server | None = field(default=None, repr=False)
    """A second replica: nginx asks both in turn, and the profile names both."""
    front: Literal["", "plain", "packed"] = field(default="", repr=False)
    """An nginx stands before it; `packed`: two, of which one packs and keeps streams and the other unpacks them."""

    @property
    def injected(self) -> str:
        """As it is written on a command line."""
        told = ["VLLM_SERVER_DEV_MODE=1"] if self.server.dev else []
        told += [f"weights {self.server.weights}"] if self.server.weights != "base" else []
        told += [" ".join(self.server.arguments)] if self.server.arguments else []
        told += [f"--lora-modules {ADAPTER}=adapter-{self.server.adapter}"] if self.server.adapter else []
        told += ["--chat-template [INST]"] if self.server.template == LLAMA_TEMPLATE else []
        told += ["--chat-template thinking.jinja"] if self.server.template == THINKING_TEMPLATE else []
        told += (
            [f"no {' '.join(BEFORE[self.before].arguments)}"]
            if self.before in ("tools", "hermes") and self.kind == "fault"
            else []
        )
        told += [f"beside {' '.join(self.beside.arguments) or self.beside.weights}"] if self.beside else []
        told += ["--chat-template [INST] beside"] if self.beside and self.beside.template else []
        told += ["nginx with gzip before it"] if self.front == "packed" else []
        told += [f"gatebook run {' '.join(self.arguments)}"] if self.arguments else []
        told += [f"kill -9 {CORE}"] if self.kills else []
        told += ["POST /v1/unload_lora_adapter"] if self.unloads else []
        return ", ".join(f"`{said}`" for said in told) or "nothing"


def _override(**config: float) -> Server:
    return Server(("--override-generation-config", json.dumps(config)))


def _backend(name: str) -> Server:
    return Server(("--structured-outputs-config", json.dumps({"backend": name})))


def _healthy(id: str, what: str, server: Server, suite: Suite = "smoke") -> VllmRow:
    return VllmRow(id, what, "", server, suite, kind="harmless", code=(0,))


STRUCTURED = ("--only", "02_structured_output")
SAMPLING = "sampling defaults changed"
TOOLS_REFUSED = '"auto" tool choice requires'
TEMPLATE = "chat template( or tokenizer)? changed"
WEIGHTS = "weights or precision changed"

TWO = "two different servers answer at this address: .*replica \\S+ differs from \\S+ in "

VLLM_ROWS = [
    VllmRow("V01", "default temperature 2.0: clients get gibberish", SAMPLING, _override(temperature=2.0)),
    VllmRow("V01-file", "the same from the model's generation_config.json", SAMPLING, Server(weights="hot")),
    VllmRow("V02", "a repetition penalty by default", SAMPLING, _override(repetition_penalty=1.5)),
    VllmRow("V03", "[INST] template on a ChatML model", TEMPLATE, Server(template=LLAMA_TEMPLATE)),
    VllmRow("V04", "no chat template: every chat is a 400", "HTTP 400", Server(weights="no_template")),
    VllmRow("V05", "half the context", "context limit changed|4,?096 tokens served", Server(("--max-model-len", "4096"))),
    VllmRow("V06", "one layer's weights are zero", WEIGHTS, Server(weights="zeroed")),
    VllmRow("V07", "1 % noise on all weights", WEIGHTS, Server(weights="noise_1")),
    VllmRow("V07-5", "5 % noise on all weights", WEIGHTS, Server(weights="noise_5")),
    VllmRow("V08", "rope base of another model", WEIGHTS, Server(weights="rope")),
    VllmRow("V09", "the tokenizer's template changed", TEMPLATE, Server(weights="template")),
    VllmRow("V10-outlines", "another backend: outlines loses keywords and refuses json_object", "constraint enforcement changed|does not support json_object", _backend("outlines"), "integration", arguments=STRUCTURED),
    VllmRow("V11", "a reasoning parser: answers hide in another field", "reasoning field", Server(("--reasoning-parser", "deepseek_r1"), "thinking_tokens")),
    VllmRow("V12", "the tool parser is lost", TOOLS_REFUSED, before="tools"),
    VllmRow("V12-own", "the tool parser is lost, under a template that knows no tools", TOOLS_REFUSED, before="hermes"),
    VllmRow("V13", "prefix caching is off", "prefix.caching", Server(("--no-enable-prefix-caching",))),
    VllmRow("V14", "one sequence at a time, told in development mode", "max_num_seqs", Server(("--max-num-seqs", "1"), dev=True), before="dev"),
    VllmRow("V14-batched", "256 batched tokens, told in development mode", "max_num_batched_tokens", Server(("--max-num-batched-tokens", "256"), dev=True), before="dev"),
    VllmRow("V15", "a key is wanted that the gate has not", "key (was|is) (refused|wanted|missing)|HTTP 401", Server(("--api-key", "wanted-by-nobody-else")), code=(75,)),
    VllmRow("V16", "served under another name", f"'?{MODEL}'? is not served", Server(("--served-model-name", "another-name"))),
    VllmRow("V16-asked", "a model is asked for that is not there", "'?other'? is not served", arguments=("--model", "other")),
    VllmRow("V17", "the engine core dies in the middle of a run", "in flight", kills=True),
    VllmRow("LORA-zero", "an adapter that adds nothing, as one whose weights match no module", f"{ADAPTER} answers as its base {MODEL}", Server(adapter="zero"), before="adapter"),
    VllmRow("LORA-modules", "an adapter for modules that are not adapted (vllm#55193)", f"{ADAPTER} answers as its base {MODEL}", Server(("--lora-target-modules", "down_proj"), adapter="right"), before="adapter"),
    VllmRow("LORA-other", "another adapter under the right name", WEIGHTS, Server(adapter="other"), before="adapter"),
    VllmRow("LORA-gone", "the adapter is unloaded in the middle of a run", f"{ADAPTER}'? is not served any more", Server(adapter="right"), before="adapter", unloads=True),
    VllmRow("V20", "the reasoning parser of a model that thinks is lost", "parses no thoughts|reasoning_config is not configured", Server((), "thinker", template=THINKING_TEMPLATE), before="thinker"),
    VllmRow("V20-off", "the template opens no thoughts any more: the parser takes answers for them", "answer is in the reasoning field", Server(REASONING, "thinker"), before="thinker"),
    VllmRow("V18", "one of two replicas has 5 % noise on its weights", TWO + "weights or precision", beside=Server(weights="noise_5")),
    VllmRow("V18-template", "one of two replicas has another template", TWO + "chat template", beside=Server(template=LLAMA_TEMPLATE)),
    VllmRow("V18-hot", "one of two replicas has temperature 2.0 by default", TWO + "sampling defaults", beside=_override(temperature=2.0)),
    VllmRow("V19", "nginx packs streams, and keeps them until they are whole", "arrives in one piece: something in front buffers it", front="packed", noted="answers come through nginx"),
]  # fmt: skip

VLLM_HARMLESS = [
    VllmRow("VH01", "first gate of a healthy server, started by its defaults but for the dtype", "no baseline", BEFORE["default"], "integration", "default", "harmless", (3,), first=True),
    VllmRow("VH01-own", "first gate of a healthy server, started by its defaults", "no baseline", BEFORE["own"], "integration", "own", "harmless", (3,), first=True),
    VllmRow("VH01-tools", "first gate of a healthy server with the hermes parser", "no baseline", BEFORE["hermes"], "integration", "hermes", "harmless", (3,), first=True),
    VllmRow("V10", "another backend: guidance refuses keywords that were ignored", "", _backend("guidance"), "integration", kind="harmless", code=(0,), arguments=STRUCTURED, noted="refused"),
    _healthy("VH02", "restarted", Server()),
    _healthy("VH03", "bfloat16, the model's own", Server(("--dtype", "auto"))),
    _healthy("VH04", "float16", Server(("--dtype", "float16"))),
    _healthy("VH05", "one sequence at a time", Server(("--max-num-seqs", "1"))),
    _healthy("VH06", "the same weights at another path", Server(weights="same")),
    _healthy("VH07", "a second served name", Server(("--served-model-name", MODEL, "second-name"))),
    VllmRow("LORA-first", "first gate of a healthy adapter", "no baseline", BEFORE["adapter"], "smoke", "adapter", "harmless", (3,), first=True),
    VllmRow("LORA-right", "the same adapter, the server started anew", "", BEFORE["adapter"], before="adapter", kind="harmless", code=(0,)),
    VllmRow("THINK-first", "first gate of a healthy server that thinks", "no baseline", BEFORE["thinker"], "smoke", "thinker", "harmless", (3,), first=True),
    VllmRow("THINK-again", "the same server, started anew", "", BEFORE["thinker"], before="thinker", kind="harmless", code=(0,)),
    VllmRow("VH08", "two equal replicas behind nginx", "", kind="harmless", code=(0,), beside=Server(), noted="answers come through nginx"),
    VllmRow("VH09", "nginx that passes streams on", "", kind="harmless", code=(0,), front="plain", noted="answers come through nginx"),
    _healthy("VH07-alias", "a second served name, first in replies", Server(("--served-model-name", "second-name", MODEL))),
]  # fmt: skip

VLLM = [*VLLM_ROWS, *VLLM_HARMLESS]


def row_digest(row: VllmRow) -> str:
    """Changes with the row, the engine's pins and its weights."""
    of_adapters = ("adapters.py",) if row.server.adapter else ()
    made = [install.HERE / name for name in ("vllm.txt", "weights.py", "serving.py", *of_adapters)]
    said = f"{row!r}{row.server.adapter, row.unloads}" if of_adapters else f"{row!r}{row.beside or ''}{row.front}"
    return hashlib.sha256(said.encode() + b"".join(p.read_bytes() for p in made)).hexdigest()[:12]


def vllm_results(now: str | None = None) -> dict[str, Result]:
    """As `results`, for the rows here."""
    return results(now, {row.id: row_digest(row) for row in VLLM})


@dataclass
class Introduced(Project):
    """A copy of the whole project with the profile that `gatebook init` writes."""

    key: str = ""
    """That the server wants."""

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, **({KEY_VARIABLE: self.key} if self.key else {})}

    @property
    def profile(self) -> Path:
        return self.root / "params" / "vllm.yaml"

    def ask(self, base_url: str, suite: Suite, *arguments: str) -> Done:
        where = ("--profile", self.profile, "--base-url", base_url, "--suite", suite)
        return self.gatebook("run", *where, *arguments, timeout=PATIENCE_S)


def introduced(folder: Path, base_url: str, model: str = MODEL, key: str = "") -> Introduced:
    """A project under `folder` that has met this server. Raises RuntimeError when `init` did not."""
    root = folder / "project"
    for part in ("notebooks", "params"):
        shutil.copytree(ROOT / part, root / part)
    project = Introduced(checkout(root), key)
    with_key = ("--api-key-env", KEY_VARIABLE) if key else ()
    if (said := project.gatebook("init", "--base-url", base_url, "--name", "vllm", "--model", model, *with_key)).code:
        raise RuntimeError(f"gatebook init: {said}")
    return project


class VllmLab:
    """One project with its baseline for each healthy deployment, and a server for each row."""

    def __init__(self, folder: Path, rows: Iterable[VllmRow], jobs: int = 1) -> None:
        """`jobs` rows run side by side and share the machine's processors."""
        self.folder, self._threads = folder, max((os.cpu_count() or 1) // jobs, 1)
        self._refused: dict[str, str] = {}
        wanted = {before: {row.suite for row in rows if row.before == before} for before in BEFORE}
        self._suites: dict[str, Suite] = {
            b: "integration" if "integration" in s else "smoke" for b, s in wanted.items()
        }

    def run(self, row: VllmRow) -> Result:
        """The gate's answer to one row. Raises RuntimeError when the row itself could not be made."""
        base = self.base(row.before)
        if row.first:
            done, seconds = self._first(row.before)
            return _first_line(row, done, seconds)
        with tempfile.TemporaryDirectory(prefix=f"{row.id}-", dir=self.folder) as scratch:
            project = Introduced(Path(scratch) / "project")
            shutil.copytree(base.root, project.root, ignore=shutil.ignore_patterns("outputs"))
            strike = kill_core if row.kills else unload if row.unloads else None
            with (
                self.behind(row, project) as running,
                striker(running, strike) if strike else nullcontext(()) as struck,
            ):
                started = time.monotonic()
                done = project.ask(running.base_url, row.suite, *row.arguments)
                ended = time.monotonic()
            if done.code != 2 and not (done.folder / "latest" / "verdict.json").exists():
                raise RuntimeError(f"{row.id}: the run left no verdict; {done}")
            if strike and not struck:
                raise RuntimeError(f"{row.id}: the run ended before anything could be broken; {done}")
            result = _first_line(row, done, ended - started)
            late = row.kills and ended - struck[0] > GONE_S
            return replace(result, caught=result.caught and not late, struck=len(struck))

    def base(self, before: str) -> Introduced:
        """The project of a healthy deployment, with its baseline; made once."""
        if before in self._refused:
            raise RuntimeError(self._refused[before])
        try:
            return self._base(before, self._suites[before])
        except RuntimeError as error:
            self._refused[before] = str(error)
            raise

    def _base(self, before: str, suite: Suite) -> Introduced:
        folder = self.folder / f"vllm-{before}-{suite}"
        made = Introduced(folder / "project")
        if not (folder / "ready.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            with self.deployment(BEFORE[before]) as running:
                made = introduced(folder, running.base_url, BEFORE[before].model)
                if BEFORE[before].thinks:
                    made.edit_profile(target=THINKING, groups=dict.fromkeys(SAYS_LITTLE, "watch"))
                started = time.monotonic()
                done = made.ask(running.base_url, suite)
            seconds = time.monotonic() - started
            if done.code == 2:
                raise RuntimeError(f"the healthy deployment {before!r} was not asked: {done.err.strip()}")
            if made.gatebook("accept", done.run, "--reason", "the healthy vLLM of the fault lab").code:
                reason = done.verdict["reason"]
                raise RuntimeError(f"the healthy deployment {before!r} was not accepted: exit {done.code}: {reason}")
            (folder / "ready.json").write_text(json.dumps({"code": done.code, "seconds": seconds}))
        return made

    @contextmanager
    def behind(self, row: VllmRow, project: Introduced) -> Iterator[Running]:
        """The row's server, with its replica and the front that it has."""
        with ExitStack() as stack:
            some = [self.deployment(server) for server in (row.server, row.beside) if server is not None]
            found = [stack.enter_context(one) for one in some]
            if row.beside:
                project.edit_profile(target={"replicas": [one.base_url for one in found]})
            if row.beside or row.front:
                url = stack.enter_context(nginx(*(one.base_url for one in found), packed=row.front == "packed"))
                yield replace(found[0], base_url=url)
            else:
                yield found[0]

    @contextmanager
    def deployment(self, server: Server) -> Iterator[Running]:
        arguments = [*server.arguments, *(() if "--dtype" in server.arguments else QUICK)]
        if server.template:
            file = self.folder / f"{hashlib.sha256(server.template.encode()).hexdigest()[:8]}.jinja"
            file.write_text(server.template)
            arguments += ["--chat-template", str(file)]
        if server.adapter:
            arguments = [*LORA, f"{ADAPTER}={adapters.adapter(server.adapter, self.folder)}", *arguments]
        env = {"OMP_NUM_THREADS": str(self._threads), **({"VLLM_SERVER_DEV_MODE": "1"} if server.dev else {})}
        env |= LORA_ENVIRONMENT if server.adapter else {}
        with vllm_process(*arguments, env=env, weights=server.weights) as running:
            yield running

    def _first(self, before: str) -> tuple[Done, float]:
        """The run that became the baseline."""
        project = self.base(before)
        told = json.loads((project.root.parent / "ready.json").read_text())
        return Done(told["code"], "", "", project.root / "outputs"), told["seconds"]


def _first_line(row: VllmRow, done: Done, seconds: float) -> Result:
    """As the first half judges, but named is only what the verdict's first line names."""
    result = replace(judged(row, done, seconds, 0), digest=row_digest(row))
    if done.code == 2:
        return result
    reason = done.verdict["reason"]
    named = bool(row.named) and re.search(row.named, reason, re.DOTALL) is not None
    if not re.search(row.noted, "\n".join(done.verdict["notes"])):
        result = replace(result, caught=False)
    reasons = list(dict.fromkeys([reason, *result.reasons])) if reason else result.reasons
    return replace(result, named=named or result.named, first=named, reasons=reasons)


def killer(running: Running) -> AbstractContextManager[list[float]]:
    """Kills the engine core once the server has answered some chats."""
    return striker(running, kill_core)


@contextmanager
def striker(running: Running, strike: Callable[[Running], bool]) -> Iterator[list[float]]:
    """Breaks something, once, when the server has answered some chats; yields when it did (monotonic seconds)."""
    struck: list[float] = []
    over = threading.Event()

    def watch() -> None:
        start = _answered(running.log)
        while not over.wait(0.1):
            if _answered(running.log) - start >= KILLED_AFTER:
                if strike(running):
                    struck.append(time.monotonic())
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield struck
    finally:
        over.set()
        thread.join()


def kill_core(running: Running) -> bool:
    """Whether there was an engine core to kill."""
    cores = running.members(CORE)
    for pid in cores:
        os.kill(pid, signal.SIGKILL)
    return bool(cores)


def unload(running: Running) -> bool:
    """Whether the server unloaded the adapter."""
    return httpx.post(
        f"{running.base_url}/unload_lora_adapter", json={"lora_name": ADAPTER}, timeout=60, trust_env=False
    ).is_success


def _answered(log: Path) -> int:
    return log.read_text(errors="replace").count("POST /v1/chat/completions HTTP/1.1")
