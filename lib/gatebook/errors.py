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


def first_line(error: BaseException) -> str:
    """Of what an exception says; its name where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def os_reason(error: OSError) -> str:
    """What the system said, in words: a copy of many files keeps what happened to each and has no `strerror` of its own."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list) and error.args[0]:
        return str(error.args[0][0][-1])
    return error.strerror or str(error) or type(error).__name__


class GatebookError(Exception):
    """Root of every error that Gatebook raises on purpose."""

    exit_code = 75

    def _render_traceback_(self) -> list[str]:
        """Give IPython one readable line instead of a traceback through our own files."""
        return [f"{type(self).__name__}: {self}"]


class BadInput(GatebookError):
    """The user's input is wrong: file, key, value and what to do, in one line."""

    exit_code = 2


class CannotMeasure(GatebookError):
    """Nothing can be said about the deployment."""


class ServerFailed(CannotMeasure):
    """The embedded server did not come up."""


class BrokenRecord(CannotMeasure):
    """A run folder's evidence is missing, torn or edited."""


class HistoryFailed(CannotMeasure):
    """The measurements of past runs cannot be reached, read or written."""


class NotGreen(GatebookError):
    """The notebook's verdict is not PASS."""

    exit_code = 1
