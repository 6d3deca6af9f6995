#!/usr/bin/env bash
# promptfoo passes a server that is not running, from its cache, and a case whose answer is empty.
#
# Version: promptfoo 0.121.9 (npm), Node 20, provider `openai:chat:...` with `apiBaseUrl`, two cases at temperature 0.
# Behaviour: the second `promptfoo eval` of one configuration sends nothing: the replies of the first are taken from the cache on disk, which is on
#   by default, keyed by URL and body and kept for days. With the server stopped in between it still exits 0 with 2 successes; other weights behind
#   the same URL are not seen either. The result file says so only in `tokenUsage.cached`. With `--no-cache`, a server whose answers are `""` passes
#   `not-contains`; a missing content (null) fails it.
# Why it matters here: a gate that runs twice from one checkout, as a retried CI job does, is green for a deployment that never answered it.
# Output seen:
#   server up: exit 0, successes 2, requests that arrived 2
#   server stopped, same command: exit 0, successes 2
#   every answer empty, --no-cache: `contains` fails, `not-contains` passes
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund promptfoo@0.121.9 > /dev/null 2>&1
cat > server.mjs <<'JS'
import http from "node:http";
import fs from "node:fs";
const content = process.argv[2];
const server = http.createServer((request, response) => {
  request.on("data", () => {});
  request.on("end", () => {
    fs.appendFileSync("asked", `${request.url}\n`);
    response.writeHead(200, {"content-type": "application/json"});
    response.end(JSON.stringify({id: "c", object: "chat.completion", created: 1, model: "m",
      choices: [{index: 0, message: {role: "assistant", content}, finish_reason: "stop"}],
      usage: {prompt_tokens: 3, completion_tokens: 2, total_tokens: 5}}));
  });
});
server.listen(Number(process.argv[3] ?? 0), "127.0.0.1", () => fs.writeFileSync("port", `${server.address().port}`));
JS
export PROMPTFOO_DISABLE_TELEMETRY=1 PROMPTFOO_DISABLE_UPDATE=1 PROMPTFOO_CONFIG_DIR="$folder/config" PROMPTFOO_DISABLE_REMOTE_GENERATION=1
start() {  # what every answer is, and a port
    rm -f port; : > asked
    node server.mjs "$@" & server=$!
    until [ -s port ]; do sleep 0.1; done
}
evaluate() {  # promptfoo's options; sets $status
    status=0
    npx promptfoo eval -c gate.json --no-progress-bar --no-table -o out.json "$@" > log 2>&1 || status=$?
}
read_out() { node -e 'const r = JSON.parse(require("fs").readFileSync("out.json")).results; console.log(eval(process.argv[1]))' "$1"; }

start "Paris is the capital."
cat > gate.json <<JSON
{"prompts": ["What is the capital of {{country}}?"],
 "providers": [{"id": "openai:chat:m", "config": {"apiBaseUrl": "http://127.0.0.1:$(cat port)/v1", "apiKey": "none", "temperature": 0}}],
 "tests": [{"vars": {"country": "France"}, "assert": [{"type": "contains", "value": "Paris"}]},
           {"vars": {"country": "Spain"}, "assert": [{"type": "not-contains", "value": "sorry"}]}]}
JSON
evaluate; first=$status/$(read_out r.stats.successes)/$(wc -l < asked)
kill "$server"; wait "$server" 2> /dev/null || true
evaluate; second=$status/$(read_out r.stats.successes)
start "" "$(cat port)"
evaluate --no-cache; third=$(read_out 'r.results.map(one => one.success).join("/")')
kill "$server"
IFS=/ read -r a b c <<< "$first"; echo "server up: exit $a, successes $b, requests that arrived $c"
IFS=/ read -r a b <<< "$second"; echo "server stopped, same command: exit $a, successes $b"
[ "$third" = false/true ] && echo 'every answer empty, --no-cache: `contains` fails, `not-contains` passes'
[ "$first $second $third" = "0/2/2 0/2 false/true" ] || { echo "the behaviour has changed: $first $second $third"; exit 1; }
