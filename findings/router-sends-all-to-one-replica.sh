#!/usr/bin/env bash
# Three routers with their default policy send every request of a quiet evaluation to one of two equal replicas.
#
# Version: sglang-router 0.3.2, vllm-router 0.1.17, smg 1.13.0, default options, two workers that answer alike.
# Behaviour: the default policy is cache_aware. As long as the load counts as balanced, a request goes where the longest known prefix is; the chat
#   prefix and the system prompt of an evaluation are such a prefix. 40 different questions, one after the other, all go to one worker. For
#   sglang-router the load is balanced up to a difference of 64 requests: 32 clients at once, too, use one of two workers.
# Why it matters here: an evaluation or a benchmark behind a router says nothing about the other replicas; a broken one is not met, and
#   two replicas are as fast as one. `--policy round_robin` spreads the requests.
# Output seen (requests that the two workers got):
#   sglang-router: 40 in turn 40 + 0, 320 from 32 clients 320 + 0
#   vllm-router: 40 in turn 40 + 0, 320 from 32 clients 163 + 157
#   smg: 40 in turn 40 + 0, 320 from 32 clients 181 + 139
#   sglang-router --policy round_robin: 40 in turn 20 + 20, 320 from 32 clients 160 + 160
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for package in sglang-router==0.3.2 vllm-router==0.1.17 smg==1.13.0; do
  python3 -m venv "$folder/${package%%==*}"
  "$folder/${package%%==*}/bin/pip" install --quiet --disable-pip-version-check "$package"
done
cat > "$folder/try.py" <<'PY'
import json, subprocess, sys, threading, time, urllib.error, urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import socket

SEEN = Counter()
SYSTEM = "You are a careful assistant. Answer in one word and nothing else. " * 3

class Worker(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.answer({"object": "list", "data": [{"id": "m", "object": "model"}], "model_path": "m", "served_model_name": "m"})
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/v1/chat/completions":
            SEEN[self.server.server_port] += 1
            time.sleep(0.02)
        message = {"role": "assistant", "content": "Hi"}
        self.answer({"id": "c1", "object": "chat.completion", "created": 1, "model": "m",
                     "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass

def free():
    with socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]

def shares(*command):
    """How two workers share 40 requests in turn, and 320 from 32 clients at once; the greater share first."""
    workers = [ThreadingHTTPServer(("127.0.0.1", 0), Worker) for _ in range(2)]
    for worker in workers:
        threading.Thread(target=worker.serve_forever, daemon=True).start()
    port = free()
    urls = [f"http://127.0.0.1:{worker.server_port}" for worker in workers]
    whole = [*command, "--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free()), "--worker-urls", *urls]
    router = subprocess.Popen(whole, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    def ask(number):
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"Question {number}: what is {number} times 7?"}]
        query = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions",
                                       json.dumps({"model": "m", "messages": messages}).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(query, timeout=30) as reply:
            return reply.status
    found = []
    try:
        for _ in range(120):
            try:
                ask(0)
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        time.sleep(3)  # until both workers are known
        for clients, count in ((1, 40), (32, 320)):
            SEEN.clear()
            with ThreadPoolExecutor(clients) as pool:
                assert set(pool.map(ask, range(1000, 1000 + count))) == {200}
            found.append(tuple(sorted((SEEN[worker.server_port] for worker in workers), reverse=True)))
    finally:
        router.kill()
        router.wait()
    return found

here = Path(sys.argv[0]).parent
SGLANG = (str(here / "sglang-router/bin/python"), "-m", "sglang_router.launch_router")
ROUTERS = {
    "sglang-router": SGLANG,
    "vllm-router": (str(here / "vllm-router/bin/python"), "-m", "vllm_router.launch_router"),
    "smg": (str(here / "smg/bin/smg"), "launch"),
    "sglang-router --policy round_robin": (*SGLANG, "--policy", "round_robin"),
}
found = {name: shares(*command) for name, command in ROUTERS.items()}
for name, (turn, crowd) in found.items():
    print(f"{name}: 40 in turn {turn[0]} + {turn[1]}, 320 from 32 clients {crowd[0]} + {crowd[1]}")
assert [turn for turn, _ in found.values()] == [(40, 0), (40, 0), (40, 0), (20, 20)], found
assert found["sglang-router"][1] == (320, 0), found
PY
"$folder/sglang-router/bin/python" "$folder/try.py"
