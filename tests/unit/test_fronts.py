"""Who stands before a server, and who wrote an error: by headers and words as they were seen."""

from __future__ import annotations

import pytest
from gatebook.engines.fronts import front, fronts, said_by

PAGE = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><center><h1>502 Bad Gateway</h1></center><hr><center>nginx/1.22.1</center>"


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"server": "nginx/1.22.1"}, "nginx/1.22.1 (header server)"),
        ({"server": "envoy"}, "envoy (header server)"),
        ({"server": "uvicorn", "x-litellm-version": "1.108.7"}, "LiteLLM 1.108.7 (header x-litellm-version)"),
        ({"server": "uvicorn", "via": "1.1 varnish"}, "1.1 varnish (header via)"),
        ({"server": "uvicorn"}, None),
        ({"server": "llama.cpp"}, None),
        ({}, None),
    ],
)
def test_a_front_is_known_by_its_headers(headers: dict[str, str], told: str | None) -> None:
    assert front(headers) == told


def test_each_front_is_told_once() -> None:
    assert fronts([{"server": "nginx"}, {"server": "nginx"}, {"server": "uvicorn"}]) == ["nginx (header server)"]


def test_an_error_is_a_fronts_only_in_its_own_words() -> None:
    nginx = {"server": "nginx/1.22.1"}
    assert said_by(nginx, PAGE) == "nginx/1.22.1 (header server)"
    assert said_by(nginx, '{"error": {"message": "too long", "code": 400}}') is None, "passed on from the server behind"
    assert said_by(nginx, "Internal Server Error") is None, "uvicorn says so too"
    assert said_by({"server": "uvicorn"}, PAGE) is None
    lite = {"x-litellm-version": "1.108.7"}
    assert said_by(lite, '{"error": {"message": "litellm.InternalServerError: OpenAIException"}}') is not None
