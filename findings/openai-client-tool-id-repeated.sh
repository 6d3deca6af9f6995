#!/usr/bin/env bash
# The openai client joins a tool call's id and name when a stream repeats them, as it joins the arguments.
#
# Version: openai 3.57.0.
# Behaviour: `client.chat.completions.stream()` accumulates deltas by adding every text. A server that repeats `id` and
#   `function.name` in each piece of a streamed tool call (as some compatible servers do) ends as id "k1k1" and name "ff": the tool
#   is unknown and the `tool` message refers to a call that nobody made. No error is raised.
# Why it matters here: each chunk is valid by the API's schema; only the sum is wrong, so checks of single chunks are green.
# Output seen:
#   id once: id 'k1', name 'f', arguments '{"a": 1}'
#   id twice: id 'k1k1', name 'ff', arguments '{"a": 1}'
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

def call(arguments, named):
    name = {"id": "k1", "type": "function"} if named == "first" else {"id": "k1"} if named else {}
    function = {"arguments": arguments, **({"name": "f"} if named else {})}
    return {"tool_calls": [{"index": 0, **name, "function": function}]}

class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        twice = json.loads(self.rfile.read(int(self.headers["content-length"])))["model"] == "twice"
        body = "".join([chunk({"role": "assistant", **call('{"a":', "first")}), chunk(call(" 1}", twice)),
                        chunk({}, "tool_calls"), "data: [DONE]\n\n"]).encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass

server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = OpenAI(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="none", max_retries=0)
found = {}
for kind in ("once", "twice"):
    with client.chat.completions.stream(model=kind, messages=[{"role": "user", "content": "x"}]) as stream:
        [call_] = stream.get_final_completion().choices[0].message.tool_calls
    found[kind] = (call_.id, call_.function.name, call_.function.arguments)
    print(f"id {kind}: id {call_.id!r}, name {call_.function.name!r}, arguments {call_.function.arguments!r}")
assert found == {"once": ("k1", "f", '{"a": 1}'), "twice": ("k1k1", "ff", '{"a": 1}')}, found
PY
"$folder/venv/bin/python" "$folder/try.py"
