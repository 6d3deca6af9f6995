"""A hostile server that says the key which it was sent, in another dress and in another place of each reply."""

from __future__ import annotations

import base64
import html
import itertools
import json
import textwrap
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from aiohttp import web

from tests.faults.scripted import ScriptedServer

DRESSES: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "JSON": lambda key: json.dumps(key),
    "JSON in JSON": lambda key: json.dumps(json.dumps(key)),
    "Python": repr,
    "code points": lambda key: "".join(f"\\u{ord(char):04x}" for char in key),
    "Python bytes": lambda key: "".join(f"\\x{ord(char):02x}" for char in key),
    "HTML": lambda key: html.escape(key),
    "HTML numbers": lambda key: "".join(f"&#{ord(char)};" for char in key),
    "URL": lambda key: quote(key, safe=""),
    "URL twice": lambda key: quote(quote(key, safe=""), safe=""),
    "URL of every character": lambda key: "".join(f"%{ord(char):02x}" for char in key),
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "base64 behind one byte": lambda key: base64.b64encode(f"x{key}yz".encode()).decode(),
    "base64 behind two bytes": lambda key: base64.b64encode(f"xy{key}z".encode()).decode(),
    "base64 of a header": lambda key: base64.b64encode(f"Authorization: Bearer {key}".encode()).decode(),
    "base64 for URLs": lambda key: base64.urlsafe_b64encode(key.encode()).decode(),
    "hex": lambda key: key.encode().hex(),
    "HEX": lambda key: key.encode().hex().upper(),
    "hex with colons": lambda key: key.encode().hex(":"),
    "hex with dashes": lambda key: key.encode().hex("-"),
    "hex with 0x": lambda key: ",".join(f"0x{ord(char):02x}" for char in key),
    "code numbers": lambda key: ", ".join(str(ord(char)) for char in key),
    "octal": lambda key: "".join(f"\\{ord(char):03o}" for char in key),
    "long code points": lambda key: "".join(f"\\U{ord(char):08x}" for char in key),
    "quoted-printable": lambda key: "".join(f"={ord(char):02X}" for char in key),
    "base64 twice": lambda key: base64.b64encode(base64.b64encode(f"x{key}y".encode()) + b"z").decode(),
    "base64 in lines": lambda key: textwrap.fill(base64.b64encode(f"x{key}".encode()).decode(), 19),
    "base64 of UTF-16": lambda key: base64.b64encode(key.encode("utf-16")).decode(),
    "hex of UTF-16": lambda key: key.encode("utf-16-be").hex(),
    "base32": lambda key: base64.b32encode(f"xyz{key}".encode()).decode(),
    "small and capital": lambda key: f"{key.lower()} {key.upper()}",
}
PLACES = (
    "content", "one character a chunk", "two chunks", "both reasoning fields", "arguments", "tokens", "bytes of tokens", "id", "model",
    "finish_reason", "comment", "an event's name", "a line that is cut", "error", "error that is cut", "no JSON", "header", "other choice",
)  # fmt: skip


class EchoingServer(ScriptedServer):
    """Answers like the scripted one until a request carries a key."""

    def __init__(self, model: str) -> None:
        super().__init__(model, answer_s=0.0)
        self._turn = itertools.count()
        self.used: list[tuple[str, str]] = []

    def _way(self) -> tuple[str, str]:
        """Another place and another dress each time, until every pair has come up."""
        at = next(self._turn)
        way = PLACES[at % len(PLACES)], [*DRESSES][at * 7 % len(DRESSES)]
        self.used.append(way)
        return way

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not key:
            return await super()._handle(request)
        place, dress = self._way()
        said = DRESSES[dress](key)
        if request.method == "GET":
            return self._got(request.path, said, key)
        body = json.loads(await request.read())
        self.chats.append(body)
        headers = {"Server": said} if place == "header" and said.isprintable() else {}
        if place == "error":
            return web.json_response({"error": {"message": f"bad key {said}"}}, status=400, headers=headers)
        if place == "error that is cut":
            return web.json_response({"detail": "x" * 180 + said}, status=422, headers=headers)
        if place == "no JSON":
            return web.Response(text=f"<html>{said}</html>", content_type="text/html")
        if not body.get("stream"):
            return web.json_response(self._reply(place, said), headers=headers)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **headers})
        await response.prepare(request)
        for piece in self._pieces(place, said):
            await response.write(
                piece if isinstance(piece, bytes) else b"data: " + json.dumps(piece).encode() + b"\n\n"
            )
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    def _got(self, path: str, said: str, key: str) -> web.Response:
        if path == "/v1/models":
            return web.json_response(
                {"data": [{"id": self._model, "max_model_len": 8192}, {"id": said, "owned_by": key}]}
            )
        if path == "/metrics":
            label = said.replace("\\", "\\\\").replace('"', '\\"')
            text = f'# HELP x {said}\nvllm:num_requests_running{{engine="{label}"}} 1\nvllm:cache_config_info{{cache_dtype="{label}"}} 1\n'
            return web.Response(text=text)
        return web.json_response(
            {"version": said, "api_key": key, "model_path": said, "server_args": {"api_key": said}}
        )

    def _head(self, place: str, said: str) -> dict[str, Any]:
        number = next(self._numbers)
        return {
            "id": f"{number}-{said}" if place == "id" else f"chatcmpl-{number}-{id(self)}",
            "created": 0, "model": said if place == "model" else self._model,
            "usage": {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18},
        }  # fmt: skip

    def _reply(self, place: str, said: str) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": f"Hello {said}!"}
        logprobs = None
        if place == "arguments":
            function = {"name": "f", "arguments": json.dumps({"key": said})}
            message["tool_calls"] = [{"id": said, "type": "function", "function": function}]
        if place == "both reasoning fields":
            message["reasoning_content"] = message["reasoning"] = said
        if place == "tokens":
            logprobs = {
                "content": [{"token": char, "logprob": -1.0, "bytes": None, "top_logprobs": []} for char in said]
            }
        if place == "bytes of tokens":
            logprobs = {"content": [{"token": "", "logprob": -1.0, "bytes": list(char.encode())} for char in said]}
        end = said if place == "finish_reason" else "stop"
        choice = {"index": 0, "message": message, "finish_reason": end, "logprobs": logprobs}
        return {**self._head(place, said), "object": "chat.completion", "choices": [choice]}

    def _pieces(self, place: str, said: str) -> list[dict[str, Any] | bytes]:
        head, half = self._head(place, said), len(said) // 2

        def chunk(index: int = 0, end: str | None = None, **delta: Any) -> dict[str, Any]:
            return {**head, "choices": [{"index": index, "delta": delta, "finish_reason": end}]}

        last = chunk(end=said if place == "finish_reason" else "stop")
        parts: list[dict[str, Any] | bytes] = [chunk(role="assistant", content="Hello ")]
        if place == "one character a chunk":
            parts += [chunk(content=char) for char in said]
        elif place == "both reasoning fields":
            parts += [chunk(reasoning_content=said[:half]), chunk(reasoning=said[half:])]
        elif place == "arguments":
            call = {"index": 0, "id": "k", "type": "function"}
            parts.append(chunk(tool_calls=[{**call, "function": {"name": said[:half], "arguments": ""}}]))
            parts.append(chunk(tool_calls=[{"index": 0, "function": {"name": said[half:]}}]))
            parts += [chunk(tool_calls=[{"index": 0, "function": {"arguments": char}}]) for char in said]
        elif place == "other choice":
            parts += [chunk(index=number % 2, content=char) for char in said for number in (0, 1)]
        elif place == "comment":
            parts.append(f": {said}\n\n".encode())
        elif place == "an event's name":
            parts.append(f"event: {said}\nid: {said}\n: x\n\n".encode())
        elif place == "a line that is cut":
            parts.append(b": " + b"x" * 480 + said.encode() + b"\n\n")
        else:
            parts += [chunk(content=said[:half]), chunk(content=""), chunk(content=said[half:])]
        return [*parts, last]
