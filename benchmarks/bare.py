"""The least that asks the same: an httpx loop that reads every byte and keeps nothing."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True)
class Request:
    """As Gatebook records it: a path on the host (`/x`) or below the base URL (`x`)."""

    method: str
    path: str
    body: dict[str, Any] | None


@dataclass(frozen=True)
class Spent:
    wall_s: float
    cpu_s: float


async def ask_all(
    base_url: str, requests: list[Request], in_flight: int, *, close: bool, clients: int | None = None
) -> Spent:
    """Send all requests over `in_flight` lanes. `clients` httpx clients are shared by them; default: one a lane."""
    queue = list(reversed(requests))
    headers = {"Content-Type": "application/json", **({"Connection": "close"} if close else {})}

    async def lane(client: httpx.AsyncClient) -> None:
        while queue:
            request = queue.pop()
            url = (
                base_url.removesuffix("/v1") + request.path
                if request.path.startswith("/")
                else f"{base_url}/{request.path}"
            )
            content = None if request.body is None else json.dumps(request.body).encode()
            async with client.stream(request.method, url, content=content, headers=headers) as response:
                async for _ in response.aiter_raw():
                    pass

    async with AsyncExitStack() as stack:
        count = clients or in_flight
        limits = httpx.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
        pool = [
            await stack.enter_async_context(httpx.AsyncClient(timeout=120, limits=limits, trust_env=False))
            for _ in range(count)
        ]
        wall, cpu = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for number in range(in_flight):
                group.create_task(lane(pool[number % count]))
        return Spent(time.perf_counter() - wall, time.process_time() - cpu)
