#!/usr/bin/env bash
# Two readers of event streams tell a stream that was cut in opposite ways, and neither says that it was cut.
#
# Version: sseclient-py 1.9.0 and httpx-sse 0.4.3 (httpx 0.28.1).
# Behaviour: an event ends with a blank line; the standard discards what is unfinished when a stream ends. sseclient-py hands out the unfinished
#   event: half of a JSON text, or `[DONE]` of a stream that broke right after it. httpx-sse drops it: a server that forgets the blank
#   line after its last event loses that event.
# Why it matters here: one stream has another number of events, another end and another error for each reader.
# Output seen:
#   cut in an event: sseclient-py ['{"a": 1}', '{"a"'], httpx-sse ['{"a": 1}']
#   no blank line at the end: sseclient-py ['{"a": 1}', '[DONE]'], httpx-sse ['{"a": 1}']
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check sseclient-py==1.9.0 httpx-sse==0.4.3 httpx==0.28.1
cat > "$folder/try.py" <<'PY'
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
import httpx, httpx_sse, sseclient

STREAMS = {"/cut": ("cut in an event", 'data: {"a": 1}\n\ndata: {"a"'),
           "/end": ("no blank line at the end", 'data: {"a": 1}\n\ndata: [DONE]\n')}

class Server(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.wfile.write(STREAMS[self.path][1].encode())
    def log_message(self, *args): pass

class Bytes:
    """What sseclient-py reads."""
    def __init__(self, reply): self.reply = reply
    def __iter__(self): return self.reply.iter_bytes()
    def close(self): self.reply.close()

server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
found = {}
with httpx.Client(base_url=f"http://127.0.0.1:{server.server_port}") as client:
    for path, (name, _) in STREAMS.items():
        with client.stream("GET", path) as reply:
            one = [event.data for event in sseclient.SSEClient(Bytes(reply)).events()]
        with httpx_sse.connect_sse(client, "GET", path) as source:
            other = [event.data for event in source.iter_sse()]
        found[name] = (one, other)
        print(f"{name}: sseclient-py {one}, httpx-sse {other}")
assert found == {
    "cut in an event": (['{"a": 1}', '{"a"'], ['{"a": 1}']),
    "no blank line at the end": (['{"a": 1}', "[DONE]"], ['{"a": 1}']),
}, found
PY
"$folder/venv/bin/python" "$folder/try.py"
