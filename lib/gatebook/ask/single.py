"""One request to a target, from a notebook cell or anywhere else: for a person who explores."""

from __future__ import annotations

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gatebook.ask.client import Lane, LoopLag
from gatebook.plan.settings import Profile
from gatebook.record.exchange import Exchange


def ask_once(profile: Profile, base_url: str, body: dict[str, Any], case: str, ask: str) -> Exchange:
    """Send one chat completion and return what came back; never raises for what the server does.

    The model comes from the profile unless the body names one, and `user` is one that no other request has.
    """
    sent = {"model": profile.target.model, "user": f"gatebook-explore-{secrets.token_hex(8)}", **body}

    async def send() -> Exchange:
        async with Lane(profile.target, base_url, LoopLag()) as lane:
            return await lane.ask(
                kind="ask", key=f"{case}/{ask}", case=case, ask=ask, body=sent,
                deadline_s=profile.limits.request_deadline_s, retries=profile.limits.transport_retries,
            )  # fmt: skip

    with ThreadPoolExecutor(1) as pool:  # a notebook's own thread has a running event loop
        return pool.submit(asyncio.run, send()).result()
