"""JSON Schema's formats `iri` and `iri-reference`, without the grammars that jsonschema would build at each start (1.2 s)."""

from __future__ import annotations

import re
from typing import Any

_UCSCHAR = re.compile(
    r"[\u00a0-\ud7ff\uf900-\ufdcf\ufdf0-\uffef"
    + "".join(f"\\U{plane:04x}0000-\\U{plane:04x}fffd" for plane in range(1, 14))
    + r"\U000e1000-\U000efffd]"
)


def is_iri(instance: object, rule: str = "URI") -> bool:
    """Whether a text is an IRI (rule `URI`) or a reference (`URI_reference`); what is no text has no format.

    RFC 3987, 3.1: an IRI becomes a URI when its characters beyond ASCII are percent-encoded. Private-use characters,
    which it allows in a query, are not taken.
    """
    if not isinstance(instance, str):
        return True
    from rfc3986_validator import validate_rfc3986

    uri = _UCSCHAR.sub("%20", instance)
    return uri.isascii() and bool(validate_rfc3986(uri, rule=rule))


def formats() -> Any:
    """jsonschema's own format checker with these two in it."""
    from jsonschema import Draft202012Validator, FormatChecker

    checker = FormatChecker(Draft202012Validator.FORMAT_CHECKER.checkers)
    checker.checkers = Draft202012Validator.FORMAT_CHECKER.checkers | {
        "iri": (is_iri, ()),
        "iri-reference": (lambda instance: is_iri(instance, "URI_reference"), ()),
    }
    return checker
