"""What stops Gatebook. A failed check is data (a finding), never an exception.

GatebookError
├── BadInput          exit 2: a profile, case, argument or run folder is wrong; nothing was asked
├── CannotMeasure     exit 75 (EX_TEMPFAIL, worth a retry): our side could not go on
│   ├── ServerFailed  the embedded server did not start
│   ├── BrokenRecord  the record is missing, torn in the middle or edited
│   └── HistoryFailed the history database cannot be reached, read or written
└── NotGreen          raised by the gate cell only, so that a bare papermill exits 1
"""

from __future__ import annotations

import shutil
from enum import IntEnum

_BIDI = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
_CONTROL = (*(c for c in range(0x20) if chr(c) not in "\n\t"), *range(0x7F, 0xA0))
_NO_CHARACTER = (*range(0xD800, 0xE000), 0xFFFE, 0xFFFF)
_ESCAPES = {c: f"\\x{c:02x}" for c in _CONTROL} | {c: f"\\u{c:04x}" for c in (*_BIDI, *_NO_CHARACTER)}
_LINE = {ord("\n"): "\\n", ord("\t"): "\\t", 0x2028: "\\u2028", 0x2029: "\\u2029"}


class ExitCode(IntEnum):
    """How a command ends, where no signal ends it."""

    PASS = 0
    FAIL = 1
    BAD_INPUT = 2
    INCONCLUSIVE = 3
    ERROR = 75


def visible(text: str) -> str:
    """Control characters, bidi overrides and lone surrogates as `\\x1b`, `\\u202e`, `\\ud83d`; the rest as it is.

    What comes out can be encoded in UTF-8 and stands in XML 1.0. Markup stays Markup.
    """
    return text.translate(_ESCAPES)


def one_line(text: object) -> str:
    """Return a name or a message as one line of a terminal, whatever a file or a bundle is called."""
    return visible(str(text)).translate(_LINE)


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's text; its class where it has none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def os_reason(error: OSError) -> str:
    """Return the system's message; a copy of many files has one for each file and no `strerror` of its own."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list) and error.args[0]:
        return str(error.args[0][0][-1])
    return error.strerror or str(error) or type(error).__name__


class GatebookError(Exception):
    """Root of every error that Gatebook raises on purpose. Its text is one line, safe in a terminal."""

    exit_code = ExitCode.ERROR

    def __init__(self, *said: object) -> None:
        super().__init__(*map(one_line, said))

    def _render_traceback_(self) -> list[str]:
        """Give IPython one readable line instead of a traceback through our own files."""
        return [f"{type(self).__name__}: {self}"]


class BadInput(GatebookError):
    """The user's input is wrong: file, key, value and what to do, in one line."""

    exit_code = ExitCode.BAD_INPUT


class CannotMeasure(GatebookError):
    """Nothing can be said about the deployment."""


class ServerFailed(CannotMeasure):
    pass


class BrokenRecord(CannotMeasure):
    pass


class HistoryFailed(CannotMeasure):
    pass


class NotGreen(GatebookError):
    exit_code = ExitCode.FAIL
