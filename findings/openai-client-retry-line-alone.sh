#!/usr/bin/env bash
# The openai client cannot read a stream that carries a lone `retry:` line, which the SSE standard allows.
#
# Version: openai 3.57.0 (httpx 0.28.1).
# Behaviour: WHATWG's "interpreting an event stream" dispatches no event when a blank line comes and the data buffer is empty, so
#   `retry: 3000` and a blank line set the reconnection time and are nothing else. The client makes an event without data of it and
#   parses "" as JSON: json.JSONDecodeError in the middle of the iteration. `event: ping` without data does the same.
# Why it matters here: proxies that keep streams alive send such lines; a gate that only looks at `data:` lines calls the server healthy.
# Output seen:
#   plain: 'Hi'
#   retry: 'JSONDecodeError'
#   ping: 'JSONDecodeError'
#   comment: 'Hi'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check openai==3.57.0 httpx==0.28.1
cat > "$folder/try.py" <<'PY'
import json, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from openai import OpenAI

def chunk(delta, finish=None):
    return "data: " + json.dumps({"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m",
                                  "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}) + "\n\n"

GOOD = [chunk({"role": "assistant", "content": "H"}), chunk({"content": "i"}), chunk({}, "stop"), "data: [DONE]\n\n"]
EXTRA = {"plain": "", "retry": "retry: 3000\n\n", "ping": "event: ping\n\n", "comment": ": keep-alive\n\n"}

class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        kind = json.loads(self.rfile.read(int(self.headers["content-length"])))["model"]
        body = (GOOD[0] + EXTRA[kind] + "".join(GOOD[1:])).encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass

server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = OpenAI(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="none", max_retries=0)

def said(kind):
    try:
        stream = client.chat.completions.create(model=kind, stream=True, messages=[{"role": "user", "content": "x"}])
        return "".join(c.choices[0].delta.content or "" for c in stream)
    except Exception as error:
        return type(error).__name__

found = {kind: said(kind) for kind in EXTRA}
for kind, text in found.items():
    print(f"{kind}: {text!r}")
assert found == {"plain": "Hi", "retry": "JSONDecodeError", "ping": "JSONDecodeError", "comment": "Hi"}, found
PY
"$folder/venv/bin/python" "$folder/try.py"
