#!/usr/bin/env bash
# LiteLLM gives another answer, and other counts, for the same reply when it is streamed.
#
# Version: litellm 1.108.7.
# Behaviour, for one and the same text from the server:
#   - `<think>..</think>` at the head of an answer: whole, it is cut out of `content` and put into `reasoning_content`; streamed, it stays in.
#   - `reasoning_tokens`, which the server did not count: whole, no such field; streamed, LiteLLM makes it up with a tokenizer of its own,
#     here more tokens than the server wrote in all, cut down to that number. `text_tokens` is then 0, though there is text.
# Why it matters here: thinking budgets and answers judged through it depend on `stream`, not on the model.
# Output seen:
#   tags, whole: content '\nYes', reasoning 'It is', details None
#   tags, streamed: content '<think>It is</think>\nYes', reasoning '', details (0 reasoning, 4 text)
#   field, whole: content 'Yes', reasoning 'It is so, I think', details None
#   field, streamed: content 'Yes', reasoning 'It is so, I think', details (4 reasoning, 0 text)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check litellm==1.108.7 openai==3.57.0
cat > "$folder/try.py" <<'PY'
import json, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
import litellm

SAID = {"tags": [{"content": "<think>"}, {"content": "It is"}, {"content": "</think>"}, {"content": "\nYes"}],
        "field": [{"reasoning_content": "It is so"}, {"reasoning_content": ", I think"}, {"content": "Yes"}]}
USAGE = {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}

class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        query = json.loads(self.rfile.read(int(self.headers["content-length"])))
        pieces, base = SAID[query["model"]], {"id": "c1", "created": 1, "model": "m"}
        if query.get("stream"):
            kind, base["object"] = "text/event-stream", "chat.completion.chunk"
            parts = [({"role": "assistant", "content": ""}, None), *((p, None) for p in pieces), ({}, "stop")]
            events = [{**base, "choices": [{"index": 0, "delta": d, "finish_reason": f}]} for d, f in parts]
            events.append({**base, "choices": [], "usage": USAGE})
            body = "".join(f"data: {json.dumps(e)}\n\n" for e in events) + "data: [DONE]\n\n"
        else:
            kind, base["object"] = "application/json", "chat.completion"
            message = {"role": "assistant", **{k: "".join(p.get(k, "") for p in pieces) for k in ("content", "reasoning_content")}}
            message = {k: v for k, v in message.items() if v}
            body = json.dumps({**base, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": USAGE})
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())
    def log_message(self, *args): pass

server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()

def said(kind, stream):
    options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    reply = litellm.completion(model=f"hosted_vllm/{kind}", api_base=f"http://127.0.0.1:{server.server_port}/v1", api_key="none",
                               messages=[{"role": "user", "content": "x"}], **options)
    text, thought, details = "", "", None
    for piece in reply if stream else [reply]:
        for choice in piece.choices:
            part = choice.delta if stream else choice.message
            text += part.content or ""
            thought += getattr(part, "reasoning_content", None) or ""
        usage = getattr(piece, "usage", None)
        if usage and (counted := getattr(usage, "completion_tokens_details", None)):
            details = f"({counted.reasoning_tokens} reasoning, {counted.text_tokens} text)"
    return text, thought, details

found = {(kind, stream): said(kind, stream) for kind in SAID for stream in (False, True)}
for (kind, stream), (text, thought, details) in found.items():
    print(f"{kind}, {'streamed' if stream else 'whole'}: content {text!r}, reasoning {thought!r}, details {details}")
assert found == {
    ("tags", False): ("\nYes", "It is", None),
    ("tags", True): ("<think>It is</think>\nYes", "", "(0 reasoning, 4 text)"),
    ("field", False): ("Yes", "It is so, I think", None),
    ("field", True): ("Yes", "It is so, I think", "(4 reasoning, 0 text)"),
}, found
PY
LITELLM_LOCAL_MODEL_COST_MAP=True "$folder/venv/bin/python" "$folder/try.py"
