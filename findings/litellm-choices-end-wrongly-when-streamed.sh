#!/usr/bin/env bash
# Streamed through LiteLLM, two choices (`n: 2`) end wrongly: the end of the one is given to the other, before its last text.
#
# Version: litellm 1.108.7 (openai 3.57.0).
# Behaviour: the server streams two choices in turn; choice 1 ends first ("length"), choice 0 goes on for a piece and ends ("stop"). The official
#   client shows it so. LiteLLM hands over the first end as one of choice 0, while text of choice 0 follows; choice 1 never ends; the real end of
#   choice 0 ("stop") is lost. The plain reply is passed on as it is. Its proxy behaves alike.
# Why it matters here: a client that stops reading a choice at its finish_reason loses text, and one that waits for every choice's waits for ever.
# Output seen:
#   openai: choice 0 'A1 A2 A3' ends stop after 3 pieces, choice 1 'B1 B2' ends length after 2 pieces
#   litellm: choice 0 'A1 A2 A3' ends length after 2 pieces, choice 1 'B1 B2' never ends
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

TOLD = [(0, "A1", None), (1, "B1", None), (0, " A2", None), (1, " B2", None), (1, None, "length"), (0, " A3", None), (0, None, "stop")]

class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for index, text, ended in TOLD:
            choice = {"index": index, "delta": {} if text is None else {"content": text}, "finish_reason": ended}
            chunk = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")
    def log_message(self, *args): pass

server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/v1"
ask = {"messages": [{"role": "user", "content": "Say two things"}], "stream": True, "n": 2}

def read(stream):
    texts, ends = {0: [], 1: []}, {}
    for piece in stream:
        for choice in piece.choices:
            if choice.delta.content:
                texts[choice.index].append(choice.delta.content)
            if getattr(choice, "finish_reason", None):
                ends.setdefault(choice.index, (choice.finish_reason, len(texts[choice.index])))
    return {index: ("".join(said), *ends.get(index, (None, None))) for index, said in texts.items()}

found = {
    "openai": read(OpenAI(base_url=url, api_key="none").chat.completions.create(model="m", **ask)),
    "litellm": read(litellm.completion(model="openai/m", api_base=url, api_key="none", **ask)),
}
for name, choices in found.items():
    said = (f"choice {i} {text!r} " + (f"ends {end} after {n} pieces" if end else "never ends") for i, (text, end, n) in choices.items())
    print(f"{name}: {', '.join(said)}")
assert found["openai"] == {0: ("A1 A2 A3", "stop", 3), 1: ("B1 B2", "length", 2)}, found
assert found["litellm"] == {0: ("A1 A2 A3", "length", 2), 1: ("B1 B2", None, None)}, found
PY
LITELLM_LOCAL_MODEL_COST_MAP=True "$folder/venv/bin/python" "$folder/try.py"
