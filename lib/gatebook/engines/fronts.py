"""What stands before a server, as far as its replies show it: reverse proxies, gateways and clouds, by their headers and words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

FRONTS = re.compile(
    r"^(nginx|openresty|tengine|envoy|istio-envoy|caddy|cloudflare|kong|apisix|traefik|haproxy|awselb|microsoft-azure|gws|google frontend|litellm)\b",
    re.IGNORECASE,
)
"""How the header `server` of a front begins; engines write uvicorn, llama.cpp and the like there, or nothing."""
LITELLM = "x-litellm-version"
OWN_WORDS = re.compile(
    r"<html|upstream connect error|no healthy upstream|upstream request timeout|\blitellm\.|No connected db|No api key passed in",
    re.IGNORECASE,
)
"""Of fronts, in errors that they make themselves: no inference server answers with a page."""
SHOWN = 60
"""Characters of a header."""


def front(headers: Mapping[str, str]) -> str | None:
    """Who passed the reply on, and the header that says so; None where nobody shows."""
    if version := headers.get(LITELLM):
        return f"LiteLLM {version[:SHOWN]} (header {LITELLM})"
    if (server := headers.get("server", "")) and FRONTS.match(server):
        return f"{server[:SHOWN]} (header server)"
    return f"{headers['via'][:SHOWN]} (header via)" if headers.get("via") else None


def fronts(replies: Iterable[Mapping[str, str]]) -> list[str]:
    """All that show in the headers of some replies."""
    return list(dict.fromkeys(found for headers in replies if (found := front(headers))))


def said_by(headers: Mapping[str, str], body: str | None) -> str | None:
    """The front that wrote an error itself, by its words; None where the server behind it may have."""
    return front(headers) if body and OWN_WORDS.search(body) else None
