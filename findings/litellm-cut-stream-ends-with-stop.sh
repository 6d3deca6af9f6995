#!/usr/bin/env bash
# Through LiteLLM, a stream that its server left unfinished ends as a complete answer.
#
# Version: litellm 1.108.7 (openai 3.57.0).
# Behaviour: the server's reply ends after one piece of text: no chunk with a finish_reason, no usage, no `data: [DONE]`, as when a worker
#   behind a proxy is stopped. The official client shows what came: no finish_reason. LiteLLM adds a last chunk with `finish_reason: "stop"`
#   and, where usage was asked for, counts that it makes up with a tokenizer of its own. Its proxy writes `data: [DONE]` after them.
# Why it matters here: who measures behind it sees a finished answer with counted tokens; a truncated one cannot be told from a whole one.
# Output seen:
#   openai: 'Hel', finish None, usage None
#   litellm: 'Hel', finish stop, usage 9 + 1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check litellm==1.108.7 openai==3.57.0
cat > "$folder/try.py" <<'PY'
import json, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
import litellm
from openai import OpenAI

def chunk(delta):
    return "data: " + json.dumps({"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m",
                                  "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}) + "\n\n"

class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.wfile.write((chunk({"role": "assistant", "content": ""}) + chunk({"content": "Hel"})).encode())
    def log_message(self, *args): pass

server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/v1"
ask = {"messages": [{"role": "user", "content": "Say hello"}], "stream": True, "stream_options": {"include_usage": True}}

def read(stream):
    text, finish, usage = "", None, None
    for piece in stream:
        for choice in piece.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
        if counted := getattr(piece, "usage", None):
            usage = f"{counted.prompt_tokens} + {counted.completion_tokens}"
    return text, finish, usage

found = {
    "openai": read(OpenAI(base_url=url, api_key="none").chat.completions.create(model="m", **ask)),
    "litellm": read(litellm.completion(model="openai/m", api_base=url, api_key="none", **ask)),
}
for name, (text, finish, usage) in found.items():
    print(f"{name}: {text!r}, finish {finish}, usage {usage}")
assert found["openai"] == ("Hel", None, None), found
assert found["litellm"][:2] == ("Hel", "stop") and found["litellm"][2], found
PY
LITELLM_LOCAL_MODEL_COST_MAP=True "$folder/venv/bin/python" "$folder/try.py"
