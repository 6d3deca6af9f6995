#!/usr/bin/env bash
# `inspect eval` exits with 0 when its task ended in an error, and when not one of its samples could be scored.
#
# Version: inspect-ai 0.3.285 (openai 3.57.0).
# Behaviour: a server that answers every request with HTTP 400. By default the task is interrupted at once, its log says `status: error`, and
#   the exit code is 0. With `--no-fail-on-error` the log says `status: success` without a score, and the exit code is 0 too. Where some
#   samples are answered, the accuracy is over those only: one right answer and one refused request are 1.0.
# Why it matters here: a pipeline that reads the exit code takes a dead server for a passed evaluation.
# Output seen:
#   refused: exit 0, status error, accuracy None
#   refused, --no-fail-on-error: exit 0, status success, accuracy None
#   one of two refused, --no-fail-on-error: exit 0, status success, accuracy 1.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check inspect-ai==0.3.285 openai==3.57.0
cat > "$folder/own.py" <<'PY'
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate

@task
def own(words: str) -> Task:
    return Task(dataset=[Sample(input=word, target="Hi") for word in words.split("+")], solver=generate(), scorer=includes())
PY
cat > "$folder/try.py" <<'PY'
import json, os, subprocess, sys, tempfile, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        query = json.loads(self.rfile.read(int(self.headers["content-length"])))
        good = "good" in json.dumps(query["messages"])
        message = {"role": "assistant", "content": "Hi"}
        value = {"id": "c1", "object": "chat.completion", "created": 1, "model": "m",
                 "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
                 "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        body = json.dumps(value if good else {"error": {"message": "no", "type": "invalid_request_error"}}).encode()
        self.send_response(200 if good else 400)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
here = Path(sys.argv[0]).parent
inspect = str(here / "venv/bin/inspect")

def evaluated(words, *options):
    with tempfile.TemporaryDirectory(dir=here) as logs:
        command = [inspect, "eval", "own.py", "-T", f"words={words}", "--model", "openai-api/own/m", "--model-base-url",
                   f"http://127.0.0.1:{server.server_port}/v1", "--log-dir", logs, "--display", "none", *options]
        done = subprocess.run(command, cwd=here, env={**os.environ, "OWN_API_KEY": "none", "HOME": str(here)}, capture_output=True)
        [log] = Path(logs).glob("*.eval")
        header = json.loads(subprocess.run([inspect, "log", "dump", "--header-only", str(log)], check=True, capture_output=True).stdout)
        scores = (header.get("results") or {}).get("scores") or []
        return done.returncode, header["status"], next((s["metrics"]["accuracy"]["value"] for s in scores if s["metrics"].get("accuracy")), None)

found = {
    "refused": evaluated("bad"),
    "refused, --no-fail-on-error": evaluated("bad", "--no-fail-on-error"),
    "one of two refused, --no-fail-on-error": evaluated("good+bad", "--no-fail-on-error"),
}
for name, (code, status, accuracy) in found.items():
    print(f"{name}: exit {code}, status {status}, accuracy {accuracy}")
assert list(found.values()) == [(0, "error", None), (0, "success", None), (0, "success", 1.0)], found
PY
"$folder/venv/bin/python" "$folder/try.py"
