"""Many deployments behind one scripted server: a path for each, `/NAME/v1`."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from typing import Any

from aiohttp import web

from tests.faults.scripted import ScriptedServer


class ManyServers(ScriptedServer):
    """Knows who asked what of which deployment, and how many requests were in flight at a time.

    One that is in `broken` answers every chat with HTTP 500, one in `wrong` with other capitals than there are, one in `fixed`
    with this status and body, one in `says` with this text.
    """

    def __init__(self, model: str, answer_s: float = 0.0) -> None:
        super().__init__(model, answer_s)
        self.slow = 0.0
        """Seconds that an answer takes."""
        self.broken: set[str] = set()
        self.wrong: set[str] = set()
        self.fixed: dict[str, tuple[int, str]] = {}
        self.says: dict[str, str] = {}
        self.asked: dict[str, list[str]] = defaultdict(list)
        """Deployment -> the last message of every chat."""
        self.keys: dict[str, set[str | None]] = defaultdict(set)
        """Deployment -> what its Authorization headers said."""
        self.most: Counter[str] = Counter()
        """Deployment -> most requests in flight; `` for all of them."""
        self._flying: Counter[str] = Counter()

    def base_url(self, name: str) -> str:
        return f"{self.url}/{name}/v1"

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        name, _, rest = request.path.lstrip("/").partition("/")
        for who in (name, ""):
            self._flying[who] += 1
            self.most[who] = max(self.most[who], self._flying[who])
        try:
            self.keys[name].add(request.headers.get("Authorization"))
            inner = request.clone(rel_url=f"/{rest}")
            if rest == "v1/chat/completions":
                body: dict[str, Any] = await inner.json()
                self.asked[name].append(str(body["messages"][-1]["content"]))
                await asyncio.sleep(self.slow)
                if name in self.broken:
                    return web.json_response({"error": {"message": "out of memory"}}, status=500)
                if name in self.fixed:
                    status, text = self.fixed[name]
                    return web.Response(status=status, text=text, content_type="application/json")
                if name in self.says:
                    return await super()._handle(inner, self.says[name])
                if name in self.wrong and "capital" in self.asked[name][-1]:
                    body["messages"][-1]["content"] = "Where is it?"
                    inner._read_bytes = json.dumps(body).encode()
            return await super()._handle(inner)
        finally:
            for who in (name, ""):
                self._flying[who] -= 1
