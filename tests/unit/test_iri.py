"""Our reading of `iri` agrees with the grammar of RFC 3987, which is too slow to build in every process."""

from __future__ import annotations

import subprocess
import sys

import pytest
from gatebook.checks.structured import invalid, is_iri

TEXTS = [
    "https://例え.jp/ページ?検索=猫#頁",
    "https://example.org/",
    "http://user@host:8080/a/b;c?d=e&f=g#h",
    "mailto:某@例.中国",
    "urn:isbn:0451450523",
    "//host/path",
    "../相对/路径",
    "#片段",
    "",
    "http://ex ample.org/",
    "http://example.org/<b>",
    "http://example.org/%zz",
    "http://[2001:db8:0:0:0:0:0:7]/é",
    "1http://example.org",
    "::",
    "http://example.org/a\nb",
    "http://example.org/\ufffe",
    "日本語",
    "日本語:x",
]


def test_it_agrees_with_the_grammar() -> None:
    code = (
        "import sys\nfrom rfc3987_syntax import is_valid_syntax as v\n"
        "print([[bool(v(r, t)) for r in ('iri', 'iri_reference')] for t in eval(sys.argv[1])])"
    )
    done = subprocess.run([sys.executable, "-c", code, ascii(TEXTS)], capture_output=True, text=True, check=True)
    ours = [[is_iri(text), is_iri(text, "URI_reference")] for text in TEXTS]
    assert dict(zip(TEXTS, ours, strict=True)) == dict(zip(TEXTS, eval(done.stdout), strict=True))
    assert {tuple(row) for row in ours} == {(True, True), (False, True), (False, False)}


@pytest.mark.parametrize("format_", ["iri", "iri-reference", "uri", "date", "ipv4"])
def test_a_schema_s_format_is_checked(format_: str) -> None:
    assert "is not a" in invalid('"a b"', {"type": "string", "format": format_})
    assert invalid("3", {"format": format_}) == ""


def test_no_process_of_ours_builds_the_grammars() -> None:
    code = "import gatebook.workbook, nbformat, jsonschema, sys; print(sys.modules.get('rfc3987_syntax'))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "None\n"
