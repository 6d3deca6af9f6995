#!/usr/bin/env bash
# LiteLLM turns a finish_reason that it does not know into "stop"; streamed, nothing remains of it.
#
# Version: litellm 1.108.7.
# Behaviour: engines end an answer with more reasons than OpenAI names: SGLang and vLLM say "abort", vLLM also "repetition" where its detection
#   of repetition cut the answer. Whole answers come as "stop" with the word kept in `provider_specific_fields.native_finish_reason`;
#   streamed ones come as "stop" with no such field. An answer that the engine gave up is one that the model ended.
# Why it matters here: rates of "stop" and "length" are how a gate knows that answers are whole.
# Output seen:
#   abort: whole 'stop' (native 'abort'), streamed 'stop' (native None)
#   repetition: whole 'stop' (native 'repetition'), streamed 'stop' (native None)
#   length: whole 'length' (native None), streamed 'length' (native None)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check litellm==1.108.7 openai==3.57.0
cat > "$folder/try.py" <<'PY'
import json, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
import litellm

class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        query = json.loads(self.rfile.read(int(self.headers["content-length"])))
        base = {"id": "c1", "created": 1, "model": "m"}
        usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        if query.get("stream"):
            kind, base["object"] = "text/event-stream", "chat.completion.chunk"
            parts = [({"role": "assistant", "content": "Hi"}, None), ({}, query["model"])]
            events = [{**base, "choices": [{"index": 0, "delta": d, "finish_reason": f}]} for d, f in parts]
            body = "".join(f"data: {json.dumps(e)}\n\n" for e in events) + "data: [DONE]\n\n"
        else:
            kind, base["object"] = "application/json", "chat.completion"
            message = {"role": "assistant", "content": "Hi"}
            body = json.dumps({**base, "choices": [{"index": 0, "message": message, "finish_reason": query["model"]}], "usage": usage})
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())
    def log_message(self, *args): pass

server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()

def said(reason, stream):
    reply = litellm.completion(model=f"hosted_vllm/{reason}", api_base=f"http://127.0.0.1:{server.server_port}/v1", api_key="none",
                               messages=[{"role": "user", "content": "x"}], stream=stream)
    choices = [c for piece in (reply if stream else [reply]) for c in piece.choices]
    [finish] = {c.finish_reason for c in choices if c.finish_reason}
    native = [p["native_finish_reason"] for c in choices
              for p in (getattr(c, "provider_specific_fields", None), getattr(getattr(c, "delta", None), "provider_specific_fields", None))
              if p and p.get("native_finish_reason")]
    return finish, native[0] if native else None

found = {reason: (said(reason, False), said(reason, True)) for reason in ("abort", "repetition", "length")}
for reason, (whole, streamed) in found.items():
    print(f"{reason}: whole {whole[0]!r} (native {whole[1]!r}), streamed {streamed[0]!r} (native {streamed[1]!r})")
assert found == {
    "abort": (("stop", "abort"), ("stop", None)),
    "repetition": (("stop", "repetition"), ("stop", None)),
    "length": (("length", None), ("length", None)),
}, found
PY
LITELLM_LOCAL_MODEL_COST_MAP=True "$folder/venv/bin/python" "$folder/try.py"
