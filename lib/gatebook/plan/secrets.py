"""Keys stay out of files: values that look like one are refused wherever they are read, and no message repeats them."""

from __future__ import annotations

import re
from typing import Any

from gatebook.errors import BadInput

_SECRET_VALUE = re.compile(
    r"^(sk-|hf_|glpat-|ghp_|xox[bp]-|AKIA|ey[JK][\w-]+\.[\w-]+\.)[\w.\-]{6,}|^(Bearer|Basic)\s+\S{6,}$"
    r"|://[^/\s@]*:[^/\s@]+@|[?&](api[_-]?key|key|token|access_token|password)=[^&\s]",
    re.IGNORECASE,
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SHORT = 8
"""A key of fewer characters is found in texts by chance."""
_COMMON = frozenset(
    re.findall(
        r"\w+",
        "a abc abc123 an and any anything api bar change changeme default demo dev dummy empty example fake foo free here insert key keys "
        "litellm llama lm local localhost me mock my needed no nokey none not null of ollama open openai password placeholder proj put "
        "replace required secret sglang sk some something string studio test testing the this token undefined unused used value vllm "
        "whatever with without xinference xyz you your",
    )
)
"""Words that placeholders in public code and manuals are made of."""
_SECRET_KEY = re.compile(r"(^|[_-])(api[_-]?key|apikey|token|secret|password|passwd|authorization)$", re.IGNORECASE)


def refuse_secrets(data: Any, where: str, path: str = "") -> None:
    """Raise BadInput where a value looks like a key, or a key of `target` names one. The message never repeats the value."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        here = f"{path}.{key}" if path else str(key)
        if here.endswith("api_key_env") and value is not None and not _VARIABLE.fullmatch(str(value)):
            raise BadInput(f"{where}: key {here!r} must be the NAME of an environment variable, not the key itself")
        if _is_secret(str(key) if here.startswith("target") or not path else "", value):
            raise BadInput(
                f"{where}: key {here!r} holds what looks like a secret; put it in an environment variable and "
                "name that variable in target.api_key_env (headers: `env:NAME`)"
            )
        refuse_secrets(value, where, here)


def _is_secret(key: str, value: Any) -> bool:
    if value in (None, "") or isinstance(value, dict | list) or str(value).startswith("env:"):
        return False
    return bool(_SECRET_KEY.search(key) or _SECRET_VALUE.search(str(value)))


def holds_secret(text: str) -> bool:
    """Whether any word of a text looks like a key: for prompts and tables, where it may stand inside a sentence."""
    words = re.split(r"[\s\"'`,;()<>\[\]{}=：，。；]+", text)
    return bool(re.search(r"\b(Bearer|Basic)\s+[\w.+/\-]{16,}", text)) or any(_SECRET_VALUE.search(w) for w in words)


def is_sendable(value: str, blanks: bool) -> bool:
    """Whether it fits an HTTP header: printable ASCII, one line, and blanks only where they are allowed and never at an end."""
    return bool(re.fullmatch(r"[!-~]([ -~]*[!-~])?" if blanks else r"[!-~]+", value))


def sendable(value: str, variable: str, blanks: bool = False) -> str:
    """The value of an environment variable, fit for an HTTP header. Raises BadInput, which names the variable only."""
    if is_sendable(value, blanks):
        return value
    raise BadInput(
        f"environment variable {variable} cannot be sent as a header: it is empty or holds a line break, "
        "a blank or a character that is not ASCII; export it again, without them"
    )


def is_telling(secret: str) -> bool:
    """Whether a text that holds it must have leaked it: not `1`, `vllm` or `sk-no-key-required`, which stand in replies by chance."""
    parts = [part for part in re.split(r"[\W_]+", secret.casefold()) if part]
    common = all(part in _COMMON or len(set(part)) == 1 or part in "1234567890" for part in parts)
    return len(secret) >= SHORT and not common
