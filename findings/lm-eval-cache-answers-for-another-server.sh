#!/usr/bin/env bash
# The answers that `lm_eval --use_cache` keeps are given for every model and server, not only for the one that wrote them.
#
# Version: lm-eval 0.4.13 (local-chat-completions).
# Behaviour: `--use_cache PATH` is "a path to cache model responses". Its key is the kind of request and the prompt; model, base_url and the rest
#   of `--model_args` are no part of it. Another server, measured with the same PATH, is never asked: it gets the score of the first.
# Why it matters here: a deployment before and after a change scores the same to the last digit, also when the second one is down.
# Output seen:
#   first (answers right): exit 0, score 1.0, asked 2 times
#   second (answers wrong): exit 0, score 1.0, asked 0 times
#   second without the cache: exit 0, score 0.0, asked 2 times
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "lm-eval[api]==0.4.13" datasets==5.2.0
cat > "$folder/own.yaml" <<YAML
task: own
dataset_path: json
dataset_kwargs: {data_files: {test: $folder/own.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["###"], max_gen_toks: 8}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
YAML
printf '{"question": "one", "answer": "yes"}\n{"question": "two", "answer": "yes"}\n' > "$folder/own.jsonl"
cat > "$folder/try.py" <<'PY'
import json, os, subprocess, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

here = Path(sys.argv[0]).parent

def reply(content):
    return {"id": "c1", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}]}

class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.asked += 1
        query = self.rfile.read(int(self.headers["content-length"])).decode()
        body = json.dumps(ANSWER(self.server, query)).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass

def started(name):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.name, server.asked = name, 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server

def evaluated(server, *options):
    """Exit code and score."""
    out = here / f"out-{server.name}"
    command = [str(here / "venv/bin/lm_eval"), "run", "--model", "local-chat-completions", "--model_args",
               f"model={server.name},base_url=http://127.0.0.1:{server.server_port}/v1/chat/completions,max_retries=1", "--tasks", "own",
               "--include_path", str(here), "--apply_chat_template", "--output_path", str(out), *options]
    env = {**os.environ, "HOME": str(here), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(command, cwd=here, env=env, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return done.returncode, None
    [result] = out.rglob("results_*.json")
    return 0, json.loads(result.read_text())["results"]["own"]["exact_match,none"]

ANSWER = lambda server, query: reply("yes" if server.name == "first" else "no")
first, second, third = started("first"), started("second"), started("third")
cache = ("--use_cache", str(here / "answers"))
found = [(*evaluated(first, *cache), first.asked), (*evaluated(second, *cache), second.asked), (*evaluated(third), third.asked)]
for name, (code, score, asked) in zip(("first (answers right)", "second (answers wrong)", "second without the cache"), found):
    print(f"{name}: exit {code}, score {score}, asked {asked} times")
assert found == [(0, 1.0, 2), (0, 1.0, 0), (0, 0.0, 2)], found
PY
"$folder/venv/bin/python" "$folder/try.py"
