"""The table of faults: real failures of LLM servers from public issue trackers, and how each is made here on a CPU.

A row says what is injected, which cases are asked, and which words of the shown reasons name the cause. A fault on the wire is
the proxy's; settings are those of a real llama.cpp server. `before` is what stands for the healthy deployment where the
embedded one cannot (a model that answers in Chinese, an adapter, vLLM).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.faults.proxy import Fault

Kind = Literal["fault", "harmless", "false green"]

TALK = ("greeting-nihao", "stream-equals-plain-english", "max-tokens-5", "canary-water", "canary-turns")
START = ("model-served", "token-counts", "fresh-answers", *TALK)
FINGERPRINT = (
    "fingerprint.tokens",
    "token-counts",
    "first-token-x",
    "first-token-capital",
    "first-token-code",
    "greedy-boat",
    "greedy-rain",
)
SAMPLES = (*FINGERPRINT, "fingerprint.defaults")
ENFORCED = ("structured.enforced",)
CONVERSATIONS = (
    "text-parts",
    "second-system-message",
    "tool-history-result",
    "max-completion-tokens",
    "several-choices",
    "greeting-nihao",
)
TWO_CALLS = Fault("call_tool", arg=['{"city": "Oslo"}', '{"city": "Rome"}'])
NEEDLES = ("needle-1k-single-50", "needle-1k-single-75", "needle-1k-single-100")
TEMPLATE = "{%% for m in messages %%}%s{%% endfor %%}"
PLAIN_TEMPLATE = TEMPLATE % "{{ m['content'] }}"
NO_PROMPT = TEMPLATE % "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
LLAMA_TEMPLATE = TEMPLATE % "[INST] {{ m['content'] }} [/INST]"
NO_SYSTEM = (
    TEMPLATE % "{% if m['role'] != 'system' %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endif %}"
    + "<|im_start|>assistant\n"
)
SHORT = {"request_deadline_s": 20, "ready_deadline_s": 5}
CHINESE = "您好，退款会在三个工作日之内退回到您原来的支付账户，请您放心，谢谢您的耐心等待。"


@dataclass(frozen=True)
class Row:
    """One fault and what the gate must say of it."""

    id: str
    """As in the list of faults, with a letter where it is made in several ways."""
    what: str
    named: str
    """Regular expression: words of the reasons that name the cause."""
    faults: tuple[Fault, ...] = ()
    server: Mapping[str, Any] = field(default_factory=dict)
    asks: tuple[str, ...] = START
    """Cases, groups or notebooks."""
    kind: Kind = "fault"
    code: tuple[int, ...] = (1,)
    """Exit codes that are right."""
    before: tuple[Fault, ...] | Mapping[str, Any] | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    profile: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Sections of the profile that are changed once the baseline is accepted."""
    arguments: tuple[str, ...] = ()
    """Of `gatebook run`, after the row's own; the last one counts."""
    fast: bool = False
    """Part of `make test`: one row a class of failure."""

    @property
    def own_project(self) -> bool:
        """Whether its baseline, policies or limits are its own."""
        return self.before is not None or bool(self.groups)

    @property
    def injected(self) -> str:
        """The settings and faults, as they are written on a command line."""
        told = [f"`{name}={_short(value)}`" for name, value in self.server.items()]
        told += [f"`{section}: {_short(dict(values))}`" for section, values in self.profile.items()]
        told += [f"`{' '.join(self.arguments)}`"] if self.arguments else []
        return ", ".join(told + [f"`{spell(fault)}`" for fault in self.faults]) or "nothing"


def spell(fault: Fault) -> str:
    """The fault as `--fault` takes it."""
    given = {name: getattr(fault, name) for name in fault.__dataclass_fields__ if name != "name"}
    default = Fault.__dataclass_fields__
    return ",".join([fault.name, *(f"{k}={_short(v)}" for k, v in given.items() if v != default[k].default)])


def _short(value: Any) -> str:
    text = str(value).replace("\n", "\\n").replace("|", "\\|")
    return text if len(text) < 48 else text[:45] + "..."


def wire(name: str, **more: Any) -> tuple[Fault, ...]:
    return (Fault(name, **more),)


NO_GAUGES = {"load.gpu_memory": "watch", "load.kv_cache": "watch"}
"""What a machine without a GPU and llama.cpp do not tell."""
AS_VLLM = (
    Fault("reply", path="/version", arg='{"version": "0.9.1"}'),
    Fault("reply", path="/v1/models", arg='{"data": [{"id": "smollm2-135m-instruct", "owned_by": "vllm", "max_model_len": 8192}]}'),
    Fault("missing", path="/props"),
)  # fmt: skip
"""A llama.cpp that says of itself what vLLM does."""
UNDER_LOAD = [
    Row("F52-load", "answers are swapped between users under load only", "wrong asker|without the word|wrong request", wire("previous", busy=1), asks=("08",), before=(), groups=NO_GAUGES),
    Row("F32-load", "a structured request spoils its neighbours", "'!' is", wire("garbage", beside="response_format"), asks=("08",), before=(), groups=NO_GAUGES),
] if (Path(__file__).parents[2] / "notebooks" / "08_load.ipynb").exists() else []  # fmt: skip
"""Needs requests in flight together."""

ROWS = [
    # --- broken or degenerate text
    Row("F01", "the answer is `!!!!!!!!` (NaN logits)", "'!' is", wire("garbage")),
    Row("F03", "fluent at first, then token soup", "scripts are mixed", wire("soup")),
    Row("F03-kv", "quantised KV cache, fluent text", "weights or precision changed", server={"cache_type_k": 2, "cache_type_v": 2}, asks=FINGERPRINT),
    Row("F04", "garbage from the third turn on", "canary-turns .*'!' is", wire("garbage", turns=4), fast=True),
    Row("F05", "empty content, one token, stop", "content is empty", wire("empty")),
    Row("F05-template", "template without roles: answers end at once or run on", "chat template", server={"chat_template": PLAIN_TEMPLATE}, asks=FINGERPRINT),
    Row("F07", "one sentence over and over", "repeated", wire("loop")),
    Row("F08", "runs over its end into the next turn", "special token", wire("special")),
    Row("F08-eos", "the end token is ignored by default", "ignore_eos was False, is True|ends? elsewhere|expected 'stop'", server={"sampling.ignore_eos": True}, asks=(*FINGERPRINT, "max-tokens-5")),
    Row("F10", "U+FFFD inside the text", "U\\+FFFD", wire("fffd")),
    Row("F10-streams", "U+FFFD in streams of Chinese only", "U\\+FFFD", wire("fffd", only="streams", match="聪明"), asks=(*START, "stream-equals-plain-chinese")),
    Row("F10-mojibake", "UTF-8 read as Latin-1", "mojibake", wire("mojibake")),
    Row("F11", "500 where max_tokens cuts a Chinese character", "max-tokens-7 .*HTTP 500", wire("server_error", match="灯塔"), asks=(*START, "max-tokens-7")),
    Row("F11-dies", "the process ends on such an answer", "max-tokens-7 .*(had answered before|stopped answering)", wire("die_on", arg="灯塔"), asks=("model-served", "greeting-nihao", "max-tokens-5", "max-tokens-7")),
    # --- contract: templates, reasoning, stopping, sampling
    Row("F12", "every chat is a 400: no chat template", "chat template", wire("bad_request"), code=(1, 75)),
    Row("F13", "[INST] template on a ChatML model", "chat template", server={"chat_template": LLAMA_TEMPLATE}, asks=FINGERPRINT),
    Row("F13-prompt", "template without the generation prompt", "chat template|role header", server={"chat_template": NO_PROMPT}, asks=FINGERPRINT),
    Row("F14", "a second BOS before every prompt", "chat template|tokenizer", server={"weights": "double_bos"}, asks=FINGERPRINT),
    Row("F15", "thinking block inside the content", "thinking block", wire("think")),
    Row("F15-plain", "thinking block in plain answers only", "thinking block", wire("think", only="plain")),
    Row("F16", "the answer stands in reasoning_content", "reasoning field", wire("reasoning")),
    Row("F16-vllm", "the answer stands in reasoning", "reasoning field", wire("reasoning", arg="reasoning")),
    Row("F17", "thinking eats all tokens", "reasoning field", wire("overthink")),
    Row("F18", "another default temperature, greedy answers alike", "sampling defaults changed", server={"sampling.temp": 2.0}, asks=SAMPLES, fast=True),
    Row("F18-penalty", "a repetition penalty by default", "sampling defaults changed", server={"sampling.penalty_repeat": 2.0}, asks=SAMPLES),
    Row("F18-forced", "every request is sampled at temperature 2", "sampling|differ already", wire("force_temp"), asks=FINGERPRINT),
    Row("F19", "seed is not honoured", "seed is not honoured", wire("drop_field", arg="seed"), asks=("seed", "greeting-nihao"), fast=True),
    Row("F20", "greedy answers vary (1 of 3 is sampled)", "sampling defaults|weights or precision|differ", wire("force_temp", rate=1 / 3, arg=1.0), asks=(*SAMPLES, "stream-equals-plain-english", "stream-equals-plain-chinese"), code=(1, 3)),
    Row("F21", "a low default of max_tokens", "though the request sets no limit|sampling defaults", server={"n_predict": 8}, asks=("no-limit-list", "no-limit-text", "greeting-nihao")),
    Row("F22", "finish_reason is always stop", "finish_reason is 'stop', expected 'length'", wire("finish")),
    Row("F22-missing", "finish_reason is missing", "no finish_reason", wire("finish_missing")),
    Row("F22-stop", "stop strings are ignored", "stop string", wire("ignore_stop"), asks=("stop-string", "greeting-nihao")),
    Row("F22-max", "max_tokens is ignored", "although max_tokens is|expected 'length'", wire("ignore_max_tokens")),
    Row("F23", "an invalid parameter is now a 500", "hostile-negative-temperature .*HTTP 500", wire("server_error", match='"temperature": -1'), asks=("hostile-negative-temperature", "wrong-temperature-text")),
    Row("F23-dead", "an empty conversation kills the engine", "HTTP 500", wire("poisoned", arg='"messages": []'), asks=("hostile-no-messages", "wrong-temperature-text")),
    Row("F25", "the system prompt is dropped", "a message is dropped|chat template", wire("drop_system")),
    Row("F25-template", "the template skips the system role", "a message is dropped|chat template", server={"chat_template": NO_SYSTEM}, asks=FINGERPRINT),
    Row("F26", "hidden text before every prompt", "chat template", wire("preamble", arg="You are a helpful assistant with tools."), asks=FINGERPRINT),
    Row("F26-tools", "hidden text where tools are offered", "chat template", wire("preamble", arg="You may call a tool.", has="tools"), asks=FINGERPRINT),
    # --- structured output and tools
    Row("F27", "response_format is ignored", "structured.enforced: .*(not JSON|schema|no JSON)", wire("strip_format"), asks=ENFORCED),
    Row("F28", "one keyword of JSON Schema is ignored", "constraint enforcement changed.*enum|keyword-enum", wire("strip_keyword", arg="enum"), asks=("structured.keywords",)),
    Row("F29", "an awkward schema is let through as free text", "enforced-(nonsense-escapes|nonsense-characters)", wire("strip_format", match="zorv"), asks=ENFORCED),
    Row("F31", "an odd schema kills the engine", "HTTP 500", wire("poisoned", arg="vrelk-04"), asks=ENFORCED),
    Row("F32", "a plain request after a structured one is noise", "plain request after it was answered with noise", wire("garbage", match="Say hello."), asks=ENFORCED),
    Row("F34", "JSON lands in the reasoning field", "reasoning field", wire("reasoning", has="response_format"), asks=ENFORCED),
    Row("F36", "quotes and newlines are dropped inside strings", "enforced-nonsense-escapes", wire("no_quotes"), asks=ENFORCED),
    Row("F38", "arguments of a tool call are cut", "arguments of get_weather", (Fault("call_tool", arg='{"city": "Paris"}'), Fault("drop_arguments")), asks=("tool-weather",), before=wire("call_tool", arg='{"city": "Paris"}'), groups={"structured.tools": "must"}),
    Row("F38-parser", "the call stands in the text: wrong parser", "tool", wire("say", arg='<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>', has="tools"), asks=("tool-weather",), before=wire("call_tool", arg='{"city": "Paris"}'), groups={"structured.tools": "must"}),
    Row("F39", "the stream ends without finish_reason and [DONE]", "without \\[DONE\\]|no finish_reason", wire("no_end")),
    Row("F39-done", "only [DONE] is missing", "without \\[DONE\\]", wire("no_done")),
    Row("F39-cut", "the connection breaks in the middle", "broke off in the middle", wire("cut", only="streams")),
    Row("F39-error", "an error event ends the stream", "carries an error", wire("error_event")),
    Row("F39-twice", "every delta is sent twice", "the stream says", wire("dup")),
    Row("F38-merged", "the second of two streamed calls is merged into the first", "1 calls where 2 are asked for|tool call", (TWO_CALLS, Fault("merge_calls")), asks=("two-calls-streamed",), before=(TWO_CALLS,), groups={"structured.parallel_tools": "must"}),
    Row("F38-lost", "the second of two streamed calls is lost", "1 calls where 2 are asked for|tool call", (TWO_CALLS, Fault("lose_call")), asks=("two-calls-streamed",), before=(TWO_CALLS,), groups={"structured.parallel_tools": "must"}),
    # --- conversations as clients send them
    Row("G10", "only the first part of a content is read", "a part of it is dropped|chat template", wire("first_part"), asks=CONVERSATIONS),
    Row("G10-printed", "a list of parts is printed into the prompt", "something else reaches the model|chat template", wire("print_parts"), asks=CONVERSATIONS),
    Row("G10-refused", "content as parts is a 500", "text-parts .*HTTP 500|HTTP 500", wire("server_error", match='"type": "text"'), asks=CONVERSATIONS),
    Row("G11", "tool messages in the history are refused", "tool-history-result .*HTTP 400|HTTP 400", wire("bad_request", match='"role": "tool"'), asks=CONVERSATIONS),
    Row("G11-dropped", "what a tool found never reaches the model", "a message is dropped|chat template", wire("drop_results"), asks=CONVERSATIONS),
    Row("G12", "a second system message is dropped", "a message is dropped|chat template", wire("one_system"), asks=CONVERSATIONS),
    Row("G13", "max_completion_tokens is ignored", "although max_tokens is 5|expected 'length'", wire("drop_field", arg="max_completion_tokens"), asks=CONVERSATIONS),
    Row("G14", "n is ignored", "2 choices asked", wire("drop_field", arg="n"), asks=CONVERSATIONS),
    Row("G15", "every answer under a schema takes four seconds longer", "a schema adds", wire("slow", arg=4, has="response_format"), asks=(*ENFORCED, "schema-time"), before=(), groups={"structured.latency": "must"}),
    # --- languages and long context
    Row("F40", "English answers to Chinese questions", "script of zh|reads as en", wire("english"), asks=("answer-zh-refund",), before=wire("say", arg=CHINESE), groups={"multilingual.language": "must"}),
    Row("F41", "a long prompt is cut in silence", "cut silently|truncated silently", wire("truncate_long", arg=1200), asks=("length-over",)),
    Row("F41-needle", "only the end of a document is read", "cut silently", wire("truncate", arg=2500), asks=NEEDLES),
    Row("F42", "the context is divided by the slots", "256 tokens served, 8192 needed|context limit changed", server={"n_ctx": 1024, "n_parallel": 4}, asks=("context-limit", "greeting-nihao")),
    Row("F43", "rope base of another model", "weights or precision changed", server={"rope_freq_base": 1000.0}, asks=FINGERPRINT),
    Row("F43-middle", "the middle of a document is forgotten", "at 50 % of|cut silently", wire("lose_middle"), asks=NEEDLES),
    Row("F44", "static rope scaling on short texts", "weights or precision changed|rope", server={"rope_freq_scale": 0.25}, asks=FINGERPRINT),
    Row("F45", "endless generation: no end token, the context shifts", "no complete reply within|no limit|ignore_eos", server={"sampling.ignore_eos": True, "ctx_shift": True, "n_ctx": 1024, "n_parallel": 1}, asks=("no-limit-list", "greeting-nihao"), limits={"request_deadline_s": 60}),
    # --- availability, concurrency, speed
    Row("F47", "/health says 200 and nothing is generated", "though /health says 200", wire("hang", after=4), limits=SHORT),
    Row("F47-start", "the same from the first request on", "no complete reply within", wire("hang"), code=(75,), limits=SHORT),
    Row("F47-stall", "headers come, then nothing", "no complete reply within", wire("stall", only="streams"), limits=SHORT),
    Row("F47-late", "it hangs on the last request", "no complete reply within", wire("hang", match="snow"), asks=TALK, limits=SHORT),
    Row("F51", "logprobs kill the engine", "first-token-x .*HTTP 500|HTTP 500", wire("poisoned", arg='"logprobs": true'), asks=FINGERPRINT),
    Row("F51-long", "a long prompt is a 500", "length-over .*HTTP 500|HTTP 500", wire("server_error", longer=3000), asks=("length-over",)),
    Row("F52", "an answer is that of the request before", "reached the wrong request", wire("previous"), asks=("greeting-nihao", *ENFORCED)),
    *UNDER_LOAD,
    Row("F56", "the first token comes 7 s late", "first token after", wire("slow", arg=7, match="你好"), asks=("health.latency",), before=(), code=(1, 3), groups={"health.latency": "must"}, limits={"ttft_ms": 5000, "total_ms": 6000, "request_deadline_s": 30}),
    Row("F56-tokens", "a second passes between tokens", "last token after", wire("slow_tokens", arg=1), asks=("health.latency",), before=(), code=(1, 3), groups={"health.latency": "must"}, limits={"ttft_ms": 5000, "total_ms": 6000, "request_deadline_s": 60}),
    Row("F58", "usage counts nothing", "usage counts no tokens", wire("usage_zero")),
    Row("F58-missing", "usage is missing", "usage is missing", wire("usage_missing")),
    Row("F58-wrong", "usage does not add up", "usage does not add up|completion tokens", wire("usage_wrong")),
    Row("F58-field", "one field of usage is missing", "usage is incomplete", wire("lose_field", arg="usage.total_tokens")),
    Row("F58-id", "answers have no id", "no id", wire("lose_field", arg="id")),
    # --- identity of what is served
    Row("F60", "a name that is not served is answered", "vllm answers 4xx", AS_VLLM, asks=("wrong-model-name",), before=(*AS_VLLM, Fault("no_model", match="gatebook-no-such-model"))),
    Row("F60-name", "the reply names another model", "answered by model", wire("swap_model")),
    Row("F61", "the model is not served under its name", "is not served", wire("no_model")),
    Row("F62", "the adapter is accepted and the base answers", "weights or precision changed", asks=FINGERPRINT, before={"lora": True}),
    Row("F63", "a stronger quantisation under the same name", "weights or precision changed", server={"weights": "coarser"}, asks=FINGERPRINT),
    Row("F63-weights", "other weights of the same size and name", "weights or precision changed", server={"weights": "other_layer"}, asks=FINGERPRINT),
    Row("F64", "4 MiB of the file are zero", "weights or precision changed", server={"weights": "zeroed"}, asks=FINGERPRINT),
    Row("F65", "four of five facts are wrong, the text is fluent", "fingerprint.facts: shown worse", wire("say", arg="It was decided on Monday at noon.", rate=0.8), asks=("fingerprint.facts",)),
    Row("F66", "a picture is ignored, the text is answered", "answered with HTTP 200 instead of refusing", wire("drop_parts"), asks=("media-image",)),
    Row("F66-500", "a picture makes the conversation a 500", "media-image .*HTTP 500", wire("server_error", match="image_url"), asks=("media-image",)),
    # --- caches, gateways, keys
    Row("G01", "a cache answers", "cache", wire("cache")),
    Row("G02", "an answer of six hours ago", "answered from a cache", wire("stale")),
    Row("G03", "a gateway answers with its own page", "not valid JSON", wire("html")),
    Row("G04", "the JSON of an answer breaks off", "not valid JSON", wire("bad_json")),
    Row("G05", "an answer has no choices", "no choices", wire("no_choices")),
    Row("G06", "content is null", "content is null", wire("null")),
    Row("G07", "content is white space", "content is blank|white space in a row", wire("blank")),
    Row("G08", "the engine dies in the middle of a run", "the server had answered before", wire("die", after=4)),
    Row("G09", "answers stop after their first words", "stream says|expected 'length'|no more|first|completion tokens for \\d+ bytes of text", wire("first_chunk_only")),
]  # fmt: skip

HARMLESS = [
    Row("H01", "streams in slices of 3 bytes", "", wire("truncated_unicode"), kind="harmless", code=(0,)),
    Row("H02", "/health says 503 while generation works (F48)", "", wire("unavailable", path="/health"), kind="harmless", code=(0,), fast=True),
    Row("H03", "connections close without saying so", "", wire("disconnect_idle"), kind="harmless", code=(0,)),
    Row("H04", "the first request takes 2 s (F55)", "", wire("slow", arg=2, until=1), kind="harmless", code=(0,)),
    Row("H05", "every answer is half a second late", "", wire("slow", arg=0.5), kind="harmless", code=(0,)),
    Row("H06", "one request in ten is refused once with 429", "", wire("busy", every=10, after=3), kind="harmless", code=(0,)),
    Row("H07", "tokens trickle, one in 50 ms", "", wire("slow_tokens", arg=0.05), kind="harmless", code=(0,)),
]  # fmt: skip

DOWN = ("--base-url", "http://127.0.0.1:9/v1")
WATCHED = {f"health.{part}": "watch" for part in ("contract", "identity", "service", "canaries", "greeting")}
FALSE_GREENS = [
    Row("L01", "server unreachable: `inspect eval` ends with 0", "cannot connect", kind="false green", code=(75,), arguments=DOWN),
    Row("L02", "the same, failing switched off: `inspect eval --no-fail-on-error` says success", "cannot connect|never became ready", kind="false green", code=(75,), before=(), groups=WATCHED, arguments=DOWN),
    Row("L03", "8 of 10 samples are errors, the rest are right: `inspect eval` says accuracy 1.0", "HTTP 500", wire("server_error", after=5, rate=0.8), kind="false green"),
    Row("L08", "a filter that matches nothing: promptfoo ends with 0", "matches no case", kind="false green", code=(2,), arguments=("--only", "typo")),
    Row("L09", "the server was killed after the first run: promptfoo is green from its cache", "broke off|closed|reset|disconnect|cannot connect|no byte", wire("die"), kind="false green", code=(75,)),
    Row("L10", "answers from a cache, and a latency limit: promptfoo says success", "cache", wire("cache"), kind="false green"),
    Row("L11", "empty content and an assertion that something is not there: promptfoo says success", "content is (empty|null)", wire("empty"), asks=("greeting-nihao",), kind="false green"),
    Row("L12", "every answer is cut, nobody asserts anything: promptfoo says success", "though the request sets no limit|expected 'stop'", server={"n_predict": 4}, asks=("no-limit-list",), kind="false green"),
    Row("L13", "the reply names another model: promptfoo says success", "answered by model", wire("swap_model"), kind="false green"),
    Row("L15", "80 errors of 100 are not in the denominator: the gate script of promptfoo's documents is green", "HTTP 500", wire("server_error", after=2, rate=0.8, seed=1), kind="false green"),
    Row("L17", "an option that does not exist stands in promptfoo's documents", "No such option", kind="false green", code=(2,), arguments=("--fail-on-error",)),
    Row("L19", "a failing case marked as flaky: deepeval ends with 0; here it is excused by name", "'!' is", wire("garbage", match="water boils"), kind="false green", profile={"excused": {"canary-water": "it is flaky"}}),
    Row("L20", "the judge is unreachable (deepeval counts it; so do we)", "cosine cannot be computed", asks=("ticket-kettle-leak",), kind="false green", code=(75,), before=(), groups={"scenarios.tasks": "watch"}, profile={"similarity": {"model": "no-such-model"}}),
    Row("L22", "`content: null` for every sample: lm_eval ends with 0 and a score of 0", "content is null", wire("null"), kind="false green"),
    Row("L24", "a case that passes 4 times in 10 and is tried three times: green 11 times in 12", "'!' is", wire("garbage", rate=0.6), kind="false green"),
    Row("L25", "401 to everything: promptfoo ends with 0", "key was refused", wire("unauthorized"), kind="false green", code=(75,)),
    Row("L25-404", "404 to everything: promptfoo ends with 0", "is not served", wire("no_model"), kind="false green"),
]  # fmt: skip
"""Situations in which a widely used tool was measured to end green (the letter L and the number of that list)."""

ALL = [*ROWS, *FALSE_GREENS, *HARMLESS]

UNREPRODUCED = {
    "F50": "preemption under many long requests needs a full GPU; its look on the wire is `slow,arg=2,busy=3`, which only requests in flight together show (notebook 08)",
    "F57": "a leak grows over hours; a gate of ten minutes cannot see it",
}
"""Rows of the list without a reproduction here, and why."""
