#!/usr/bin/env bash
# sglang-router passes on only the request fields that it knows: SGLang's own ones and vLLM's are lost, without an error.
#
# Version: sglang-router 0.3.2 (the newest on PyPI) before one worker, default options.
# Behaviour: the router reads a chat request into a type of its own and writes it anew. Fields without a place there never reach the worker: OpenAI's
#   `user`, SGLang's `rid`, `priority` and `cache_salt`, vLLM's `structured_outputs`, `prompt_logprobs` and `return_token_ids`, the `name` of a
#   tool message. The reply is HTTP 200. smg 1.13.0, which comes of the same code, passes all of them on but the `name`.
# Why it matters here: the same request is held to a grammar when it is sent to the engine, and not when it is sent to its router.
# Output seen:
#   lost on the way: cache_salt, priority, prompt_logprobs, return_token_ids, rid, structured_outputs, user
#   still there: messages, model, response_format, seed, temperature, chat_template_kwargs
#   the tool message: content, role, tool_call_id
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check sglang-router==0.3.2
cat > "$folder/try.py" <<'PY'
import json, subprocess, sys, threading, time, urllib.error, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import socket

SEEN = []

class Worker(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.answer({"object": "list", "data": [{"id": "m", "object": "model"}], "model_path": "m", "served_model_name": "m"})
    def do_POST(self):
        SEEN.append((self.path, json.loads(self.rfile.read(int(self.headers["content-length"])))))
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

worker = ThreadingHTTPServer(("127.0.0.1", 0), Worker)
threading.Thread(target=worker.serve_forever, daemon=True).start()
port = free()
command = [sys.executable, "-m", "sglang_router.launch_router", "--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free()),
           "--worker-urls", f"http://127.0.0.1:{worker.server_port}"]
router = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
call = {"id": "k1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
request = {
    "model": "m", "seed": 7, "temperature": 0.5, "user": "u1", "rid": "r1", "priority": 1, "cache_salt": "s1", "prompt_logprobs": 1,
    "return_token_ids": True, "structured_outputs": {"regex": "yes|no"}, "chat_template_kwargs": {"enable_thinking": False},
    "response_format": {"type": "json_object"},
    "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [call]},
                 {"role": "tool", "tool_call_id": "k1", "name": "f", "content": "1"}],
}
def ask():
    query = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(request).encode(), {"content-type": "application/json"})
    return urllib.request.urlopen(query, timeout=10).status
try:
    for _ in range(120):
        try:
            status = ask()
            break
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
finally:
    router.kill()
    router.wait()
assert status == 200
came = SEEN[-1][1]
lost = sorted(set(request) - set(came))
print("lost on the way:", ", ".join(lost))
print("still there:", ", ".join(k for k in came if k in request))
print("the tool message:", ", ".join(sorted(came["messages"][2])))
assert lost == ["cache_salt", "priority", "prompt_logprobs", "return_token_ids", "rid", "structured_outputs", "user"], lost
assert "name" not in came["messages"][2], came["messages"]
PY
"$folder/venv/bin/python" "$folder/try.py"
