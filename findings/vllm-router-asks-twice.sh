#!/usr/bin/env bash
# vllm-router asks the worker twice for each chat request, also where there is only one worker to choose.
#
# Version: vllm-router 0.1.17 with its default policy (cache_aware) before one worker.
# Behaviour: before each POST /v1/chat/completions the router POSTs the whole request to the worker's /v1/chat/completions/render and waits for
#   the answer. Nothing of `--help` says so. A worker that has no such path (HTTP 404) is asked for it again with every request. The two
#   bodies differ: /render gets temperatures as 32-bit floats (0.1 is 0.10000000149011612). From both, `strict` of a tool is left out.
# Why it matters here: the engine renders and tokenizes each prompt twice, within the client's time to first token; access logs and request
#   counters of the worker show twice as many requests as clients sent.
# Output seen:
#   a worker with /render: 3 requests sent, POSTs: 3 /v1/chat/completions, 3 /v1/chat/completions/render
#   a worker without: 3 requests sent, POSTs: 3 /v1/chat/completions, 3 /v1/chat/completions/render
#   temperature: chat 0.1, render 0.10000000149011612
#   the tool: description, name, parameters
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check vllm-router==0.1.17
cat > "$folder/try.py" <<'PY'
import json, subprocess, sys, threading, time, urllib.error, urllib.request
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import socket

SEEN = []
RENDERS = True

class Worker(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.answer({"object": "list", "data": [{"id": "m", "object": "model"}], "model_path": "m", "served_model_name": "m"})
    def do_POST(self):
        SEEN.append((self.path, json.loads(self.rfile.read(int(self.headers["content-length"])))))
        if self.path.endswith("/render"):
            return self.answer({"token_ids": [1, 2, 3]}) if RENDERS else self.answer({"detail": "Not Found"}, 404)
        message = {"role": "assistant", "content": "Hi"}
        self.answer({"id": "c1", "object": "chat.completion", "created": 1, "model": "m",
                     "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    def answer(self, value, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass

def free():
    with socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]

tool = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}, "strict": True}
request = {"model": "m", "temperature": 0.1, "messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function", "function": tool}]}

def three():
    """What a worker is asked when three requests are sent to the router before it."""
    worker = ThreadingHTTPServer(("127.0.0.1", 0), Worker)
    threading.Thread(target=worker.serve_forever, daemon=True).start()
    port = free()
    command = [sys.executable, "-m", "vllm_router.launch_router", "--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free()),
               "--worker-urls", f"http://127.0.0.1:{worker.server_port}"]
    router = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    query = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(request).encode(), {"content-type": "application/json"})
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(query, timeout=10)
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        SEEN.clear()
        for _ in range(3):
            assert urllib.request.urlopen(query, timeout=10).status == 200
    finally:
        router.kill()
        router.wait()
    return Counter(path for path, _ in SEEN)

WANTED = {"/v1/chat/completions": 3, "/v1/chat/completions/render": 3}
for RENDERS, name in ((True, "a worker with /render"), (False, "a worker without")):
    asked = three()
    print(f"{name}: 3 requests sent, POSTs:", ", ".join(f"{n} {path}" for path, n in sorted(asked.items())))
    assert asked == WANTED, asked
last = {path.rpartition("/")[2]: body for path, body in SEEN}
print(f"temperature: chat {last['completions']['temperature']}, render {last['render']['temperature']}")
print("the tool:", ", ".join(sorted(last["completions"]["tools"][0]["function"])))
assert (last["completions"]["temperature"], last["render"]["temperature"]) == (0.1, 0.10000000149011612), last
assert all("strict" not in body["tools"][0]["function"] for body in last.values()), last
PY
"$folder/venv/bin/python" "$folder/try.py"
