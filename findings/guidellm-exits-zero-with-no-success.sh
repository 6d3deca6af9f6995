#!/usr/bin/env bash
# guidellm ends with 0 where no request succeeded, counts an answer without a single character as a success, and a stream that breaks off too.
#
# Version: guidellm 0.8.1 (torch 2.14.1, transformers 5.24.0, datasets 5.2.0), `guidellm run`, synchronous, four requests to a chat server of a few lines.
# Behaviour: the exit status is 0 whatever happened. A server that answers every request with 500 leaves "successful=0 errored=4" in the log and
#   0 from the command. A stream whose only chunks have `content: ""` and `usage.completion_tokens: 8` is four successes, with output tokens a second
#   counted from that usage. A connection that closes after one chunk, without `finish_reason`, usage and `[DONE]`, is four successes as well.
#   An error object alone in a 200 stream is an error, as it should be.
# Why it matters here: a job that runs `guidellm run` as its check of a deployment is green for a server that is down or says nothing, and the
#   throughput of an engine that breaks off can look better than that of a healthy one.
# Output seen:
#   healthy: exit 0, successful 4, errored 0, output tokens counted 8
#   500 for every request: exit 0, successful 0, errored 4, output tokens counted 0
#   error object in a 200 stream: exit 0, successful 0, errored 4, output tokens counted 0
#   no text, usage says 8 tokens: exit 0, successful 4, errored 0, output tokens counted 32
#   broken off after one chunk: exit 0, successful 4, errored 0, output tokens counted 4
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check guidellm==0.8.1 torch==2.14.1 transformers==5.24.0 datasets==5.2.0
cat > "$folder/try.py" <<'PY'
import json, os, subprocess, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

folder = Path(sys.argv[1])

def chunk(delta, finish=None, **more):
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices, **more}

def stream(*chunks, done=True):
    return "".join(f"data: {json.dumps(c)}\n\n" for c in chunks) + ("data: [DONE]\n\n" if done else "")

def usage(tokens):
    return chunk(None, usage={"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": 5 + tokens})

HELLO = chunk({"role": "assistant", "content": "Hello"})
SERVERS = {  # what it answers; what was seen: successful, errored, output tokens
    "healthy": (stream(HELLO, chunk({"content": " world"}), chunk({}, "stop"), usage(2)), (4, 0, 8)),
    "500 for every request": (None, (0, 4, 0)),
    "error object in a 200 stream": (stream({"error": {"message": "out of memory", "code": 500}}), (0, 4, 0)),
    "no text, usage says 8 tokens": (stream(chunk({"role": "assistant", "content": ""}), chunk({}, "stop"), usage(8)), (4, 0, 32)),
    "broken off after one chunk": (stream(HELLO, done=False), (4, 0, 4)),
}
said = None

class Chat(BaseHTTPRequestHandler):
    def log_message(self, *_): ...
    def answer(self, status, kind, text):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.end_headers()
        self.wfile.write(text.encode())
    def do_GET(self):
        self.answer(200, "application/json", json.dumps({"object": "list", "data": [{"id": "m", "object": "model"}]}))
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        if said is None:
            self.answer(500, "application/json", '{"error": {"message": "no"}}')
        else:
            self.answer(200, "text/event-stream", said)

server = ThreadingHTTPServer(("127.0.0.1", 0), Chat)
threading.Thread(target=server.serve_forever, daemon=True).start()
(folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"hello {n}"}) + "\n" for n in range(4)))
changed = False
for name, (said, seen) in SERVERS.items():
    out = folder / "out.json"
    out.unlink(missing_ok=True)
    done = subprocess.run(
        [folder / "venv/bin/guidellm", "run", "--backend", f"kind=openai_http,target=http://127.0.0.1:{server.server_port},model=m", "--profile", "kind=synchronous",
         "--constraint", "kind=max_requests,count=4", "--data", f"kind=json_file,path={folder}/prompts.jsonl", "--output", f"kind=json,path={out}", "--disable-console"],
        capture_output=True, env=os.environ | {"HF_HUB_OFFLINE": "1"}, timeout=600)
    metrics = json.loads(out.read_text())["benchmarks"][0]["metrics"]
    totals, tokens = metrics["request_totals"], metrics["output_token_count"]["successful"]["total_sum"]
    found = (totals["successful"], totals["errored"], int(tokens))
    print(f"{name}: exit {done.returncode}, successful {found[0]}, errored {found[1]}, output tokens counted {found[2]}", flush=True)
    changed |= done.returncode != 0 or found != seen
sys.exit("the behaviour has changed" if changed else 0)
PY
"$folder/venv/bin/python" "$folder/try.py" "$folder"
