"""A healthy server that knows the answers and needs no model: for faults that only a crowd of requests shows.

Streams like vLLM: role chunk, a chunk a word, finish, usage, [DONE]. It echoes a word that a schema or a sentence gives it,
knows a few capitals, and finds a needle in a document. A token is four characters.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import threading
import time
from types import TracebackType
from typing import Any

from aiohttp import web

CAPITALS = {"France": "Paris", "Italy": "Rome", "Japan": "Tokyo", "Spain": "Madrid", "England": "London"}
ANSWER_S = 0.05
EXITS_S = 0.4
"""From the death of the engine to the end of the server: vLLM 0.32 takes less than a second."""


class ScriptedServer:
    """Runs in a thread of its own, on a free port of the loopback interface, until the block is left.

    At the chat number `dies_at` its engine dies as vLLM's does: what is in flight gets HTTP 500, and `EXITS_S` later nobody
    listens any more; where `back_s` is given, a supervisor has started it again so much later.
    """

    def __init__(
        self, model: str, answer_s: float = ANSWER_S, dies_at: int | None = None, back_s: float | None = None
    ) -> None:
        self._model, self._answer_s, self._dies_at, self._back_s = model, answer_s, dies_at, back_s
        self._dead = False
        self._dying: asyncio.Task[None] | None = None
        self.chats: list[dict[str, Any]] = []
        self._numbers = itertools.count()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._server = web.Server(self._handle, access_log=None)
        runner = web.ServerRunner(self._server, shutdown_timeout=0.1)
        await runner.setup()
        self._runner, self._site = runner, web.TCPSite(runner, "127.0.0.1", 0)
        await self._site.start()
        self.port = runner.addresses[0][1]
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _die(self) -> None:
        self._dead = True
        await asyncio.sleep(EXITS_S)
        await self._site.stop()
        for connection in self._server.connections:
            if connection.transport is not None:
                connection.transport.abort()
        if self._back_s is not None:
            await asyncio.sleep(self._back_s)
            self._dead, self._site = False, web.TCPSite(self._runner, "127.0.0.1", self.port)
            await self._site.start()

    async def _handle(self, request: web.BaseRequest, says: str | None = None) -> web.StreamResponse:
        """`says`: the answer to any chat."""
        if request.path == "/version":
            return web.json_response({"version": "scripted"})
        if request.path == "/v1/models":
            return web.json_response({"object": "list", "data": [{"id": self._model, "max_model_len": 8192}]})
        if request.path != "/v1/chat/completions":
            return web.json_response({"error": {"message": "no such path"}}, status=404)
        body = await request.json()
        if not body.get("messages") or not all(isinstance(message, dict) for message in body["messages"]):
            return web.json_response({"error": {"message": "messages: a list of messages"}}, status=400)
        text = says if says is not None else answer(body)[: 4 * body.get("max_tokens", 10**6)]
        prompt, said = len(json.dumps(body["messages"], ensure_ascii=False)) // 4, -(-len(text) // 4)
        usage = {"prompt_tokens": prompt, "completion_tokens": said, "total_tokens": prompt + said}
        head = {"id": f"chatcmpl-{next(self._numbers)}-{id(self)}", "created": int(time.time()), "model": self._model}
        self.chats.append(body)
        if len(self.chats) == self._dies_at:
            self._dying = asyncio.create_task(self._die())
        await asyncio.sleep(self._answer_s)
        if self._dead:
            return web.json_response({"error": {"message": "EngineCore encountered an issue."}}, status=500)
        if not body.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            return web.json_response({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
        pieces = [
            {"role": "assistant", "content": ""},
            *({"content": piece} for piece in re.findall(r"\S+\s*|\s+", text)),
            {},
        ]
        chunks: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": piece, "finish_reason": None if piece else "stop"}]} for piece in pieces
        ]
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for chunk in [*chunks, {"choices": [], "usage": usage}]:
            await response.write(
                b"data: " + json.dumps({**head, "object": "chat.completion.chunk", **chunk}).encode() + b"\n\n"
            )
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response


def answer(body: dict[str, Any]) -> str:
    """What a good model would say to the requests of 08_load, and a greeting to everything else."""
    asked = str(body["messages"][-1]["content"])
    properties = ((body.get("response_format") or {}).get("json_schema") or {}).get("schema", {}).get("properties", {})
    if "word" in properties:
        return json.dumps(
            {"word": properties["word"].get("const", "sun"), "tale": "Once upon a time there was a ship. " * 9}
        )
    if "answer" in properties:
        return json.dumps({"answer": "blue"})
    if own := re.match(r"([A-Z]{8}) sails", asked):
        return f"{own[1]} sails far away, and nobody has seen it since."
    if thing := re.search(r"What is the access code of the ([\w ]+)\?", asked):
        found = re.search(rf"The access code of the {thing[1]} is (\d+)\.", asked)
        return f"It is {found[1]}." if found else "It is not there."
    country = next((name for name in CAPITALS if f"capital of {name}?" in asked), "")
    return f"It is {CAPITALS[country]}." if country else "Hello! How can I help you?"
