"""A clock that disagrees with the server's, in both directions, with a Date header and without: never the deployment's fault."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from tests.conftest import Project
from tests.faults.scripted import answer

MODEL = "smollm2-135m-instruct"
HOURS = 3600.0


@contextmanager
def serving(ahead_s: float, dated: bool, cached: int | None = None) -> Iterator[str]:
    """A good server whose clock is `ahead_s` before ours. The answer number `cached` is a day older than its clock."""
    count = iter(range(10**6))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(
                {"object": "list", "data": [{"id": MODEL}]} if self.path == "/v1/models" else {},
                self.path == "/v1/models",
            )

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            number, text = next(count), answer(body)[: 4 * body.get("max_tokens", 10**6)]
            created = int(time.time() + ahead_s) - (86_400 if number == cached else 0)
            used = -(-len(text) // 4)
            self._send({
                "id": f"chatcmpl-{number}", "object": "chat.completion", "created": created, "model": MODEL,
                "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 9, "completion_tokens": used, "total_tokens": 9 + used},
            })  # fmt: skip

        def _send(self, said: object, found: bool = True) -> None:
            raw = json.dumps(said).encode()
            self.send_response_only(200 if found else 404)
            if dated:
                now = datetime.fromtimestamp(time.time() + ahead_s, UTC)
                self.send_header("Date", format_datetime(now, usegmt=True))
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


@pytest.fixture
def asked(project: Project) -> Project:
    project.write_cases([
        {
            "id": f"capital-{name.lower()}", "notebook": "01_health", "group": "health.greeting", "suites": ["smoke"], "why": "a capital", "stream": False,
            "messages": [{"role": "user", "content": f"What is the capital of {name}?"}], "options": {"temperature": 0, "max_tokens": 64},
            "expect": [{"contains_all": [city]}], "good": [f"It is {city}."], "bad": ["I do not know."],
        }
        for name, city in (("France", "Paris"), ("Italy", "Rome"), ("Japan", "Tokyo"), ("Spain", "Madrid"))
    ])  # fmt: skip
    return project


@pytest.mark.parametrize("dated", [True, False], ids=["with a Date", "without"])
@pytest.mark.parametrize(
    "ahead_s", [-2 * HOURS, 2 * HOURS, -48 * HOURS], ids=["ours ahead", "ours behind", "ours two days ahead"]
)
def test_a_healthy_server_is_not_red_by_a_clock(asked: Project, ahead_s: float, dated: bool) -> None:
    with serving(ahead_s, dated) as url:
        done = asked.ask(url)
    contracts = [f for f in done.verdict["findings"] if f["check"] == "contract"]
    assert len(contracts) == 4 and {f["outcome"] for f in contracts} == {"pass"}, done.reasons
    which = "behind" if ahead_s < 0 else "ahead of"
    assert any(
        f"clock is {abs(ahead_s):,.0f} s {which} ours" in n or f"s {which} ours by" in n for n in done.verdict["notes"]
    )
    assert f"s {which} ours" in done.out


def test_clocks_that_agree_are_not_spoken_of(asked: Project) -> None:
    with serving(120.0, False) as url:
        done = asked.ask(url)
    assert not any("clock" in note for note in done.verdict["notes"])


@pytest.mark.parametrize("ahead_s", [0.0, -2 * HOURS])
def test_an_answer_that_is_older_than_the_others_came_from_a_cache(asked: Project, ahead_s: float) -> None:
    with serving(ahead_s, False, cached=3) as url:
        done = asked.ask(url)
    red = [f["reason"] for f in done.verdict["findings"] if f["check"] == "contract" and f["outcome"] == "fail"]
    assert len(red) == 1 and "answered from a cache: created 86,4" in red[0] and done.verdict["verdict"] == "FAIL", (
        done.reasons
    )
