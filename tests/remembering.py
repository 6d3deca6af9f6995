"""A front of a real server that remembers its greedy answers, so that each question of a test session is computed once.

The suite asks the same cases in run after run, and the embedded model takes nine tenths of their time. What is sampled, and every other path, goes
to the server each time.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from tests.faults.call import Call, Event, Events, Transform
from tests.faults.proxy import FaultProxy, send

PACE_S = 0.002
"""Between two events of a stream that is given again."""
EVENT_END = re.compile(rb"(?<=\n\n)")


class Remembering(FaultProxy):
    """Keeps whole answers in `folder`, which the workers of a session share. One that is given again has an id and a time of its own."""

    def __init__(self, upstream: str, folder: Path) -> None:
        super().__init__(upstream)
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    async def _answer(self, request: web.BaseRequest, call: Call, data: bytes) -> web.StreamResponse:
        if call.path.endswith("/chat/completions") and call.body.get("temperature") == 0 and "seed" not in call.body:
            asked = {key: value for key, value in call.body.items() if key != "user"}
            file = self._folder / hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
            if file.exists():
                kind = "text/event-stream" if call.streaming else "application/json; charset=utf-8"
                headers = {"Content-Type": kind, "Connection": "close"}
                return await send(request, call, 200, headers, _again(file.read_bytes()))
            call.transforms.append(_kept(file, call.streaming))
        return await super()._answer(request, call, data)


def _kept(file: Path, streaming: bool) -> Transform:
    async def keep(events: Events) -> Events:
        raw = []
        async for event in events:
            raw.append(event.raw)
            yield Event(event.raw)
        if not streaming or raw[-1].startswith(b"data: [DONE]"):
            fresh = file.with_suffix(f".{secrets.token_hex(4)}")
            fresh.write_bytes(b"".join(raw))
            fresh.replace(file)

    return keep


async def _again(answer: bytes) -> AsyncIterator[bytes]:
    answer = re.sub(rb'"id":"chatcmpl-\w+"', b'"id":"chatcmpl-%s"' % secrets.token_hex(16).encode(), answer)
    answer = re.sub(rb'"created":\d+', b'"created":%d' % int(time.time()), answer)
    for event in EVENT_END.split(answer):
        yield event
        await asyncio.sleep(PACE_S)
