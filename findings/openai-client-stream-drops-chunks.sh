#!/usr/bin/env bash
# The two ways in which the openai client reads one stream do not agree on which chunks there are.
#
# Version: openai 3.57.0.
# Behaviour: `create(stream=True)` yields every chunk, whatever its `object` says. `client.chat.completions.stream()` skips, without a
#   word, each chunk whose `object` is not "chat.completion.chunk": a server that writes "chat.completion" there (or nothing) is read
#   well by the one and is an AssertionError without a message for the other.
# Output seen:
#   object 'chat.completion.chunk': create 'Hi', stream 'Hi'
#   object 'chat.completion': create 'Hi', stream '(AssertionError)'  (nothing was summed up, and the end says so)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check openai==3.57.0 httpx==0.28.1
cat > "$folder/try.py" <<'PY'
import json, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from openai import OpenAI

class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        kind = json.loads(self.rfile.read(int(self.headers["content-length"])))["model"]
        def chunk(delta, finish=None):
            return "data: " + json.dumps({"id": "c1", "object": kind, "created": 1, "model": "m",
                                          "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}) + "\n\n"
        body = "".join([chunk({"role": "assistant", "content": "H"}), chunk({"content": "i"}), chunk({}, "stop"), "data: [DONE]\n\n"]).encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass

server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = OpenAI(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="none", max_retries=0)
ASK = [{"role": "user", "content": "x"}]
found = {}
for kind in ("chat.completion.chunk", "chat.completion"):
    plain = "".join(c.choices[0].delta.content or "" for c in client.chat.completions.create(model=kind, stream=True, messages=ASK))
    try:
        with client.chat.completions.stream(model=kind, messages=ASK) as stream:
            events = [e.type for e in stream]
            summed = stream.get_final_completion().choices[0].message.content
    except Exception as error:
        summed = f"({type(error).__name__})"
    found[kind] = (plain, summed)
    print(f"object {kind!r}: create {plain!r}, stream {summed!r}")
assert found["chat.completion.chunk"] == ("Hi", "Hi"), found
assert found["chat.completion"][0] == "Hi" and found["chat.completion"][1] != "Hi", found
PY
"$folder/venv/bin/python" "$folder/try.py"
