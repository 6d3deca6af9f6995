"""What a signal does to a command: it stops it, and whatever swallows that, 0 does not follow."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time

import pytest
from gatebook.errors import BrokenRecord, CannotMeasure
from gatebook.stopping import within

START = """
import sys, time
from gatebook import stopping
stopping.heed()
def wait():
    print("ready", flush=True)
    time.sleep(30)
"""
SWALLOWS = (
    START
    + """
try:
    wait()
except BaseException:
    pass
raise SystemExit(stopping.exit_code({code}))
"""
)
ASKS_ON = (
    START
    + """
try:
    wait()
except KeyboardInterrupt:
    print("stopped", flush=True)
    time.sleep({seconds})
stopping.finish()
raise SystemExit(stopping.exit_code(75))
"""
)
SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def _started(script: str, ignored: signal.Signals | None = None) -> subprocess.Popen[str]:
    def inherit() -> None:
        if ignored is not None:
            signal.signal(ignored, signal.SIG_IGN)

    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=inherit
    )
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(("number", "code"), SIGNALS.items(), ids=lambda v: str(v))
def test_zero_never_follows_a_signal_and_another_code_stays(number: signal.Signals, code: int) -> None:
    for own, ended in ((0, code), (1, 1), (75, 75)):
        process = _started(SWALLOWS.format(code=own))
        process.send_signal(number)
        process.communicate(timeout=60)
        assert process.returncode == ended


def test_sigint_counts_where_it_was_inherited_as_ignored_and_nohup_is_respected() -> None:
    process = _started(SWALLOWS.format(code=0), ignored=signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    process = _started(SWALLOWS.format(code=0), ignored=signal.SIGHUP)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    process.kill()
    process.communicate()


def test_a_signal_that_comes_twice_at_once_is_one_and_a_later_one_ends_it() -> None:
    process = _started(ASKS_ON.format(seconds=1.5))
    process.send_signal(signal.SIGTERM)
    assert process.stdout and process.stdout.readline() == "stopped\n"
    process.send_signal(signal.SIGTERM)  # as `timeout` does
    process.communicate(timeout=60)
    assert process.returncode == 75

    process = _started(ASKS_ON.format(seconds=60))
    process.send_signal(signal.SIGTERM)
    time.sleep(1.2)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=30)[1]
    assert (process.returncode, err) == (130, "gatebook: interrupted again, stopped at once\n")


def test_a_signal_within_an_exec_does_not_choose_the_status() -> None:
    """CPython 3.11 would die of SIGINT for a plain KeyboardInterrupt."""
    process = _started(SWALLOWS.format(code=0).replace("    wait()", "    exec('wait()')"))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143


def test_what_takes_too_long_is_ended_and_what_does_not_is_left_alone() -> None:
    before, left = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0]
    with pytest.raises(CannotMeasure, match=r"^counting took longer than 0.2 s$"), within(0.2, 4096, "counting"):
        while True:
            pass
    with within(30, 4096, "nothing"):
        pass
    assert (signal.getitimer(signal.ITIMER_REAL)[0] > 0) == (left > 0)
    assert signal.getsignal(signal.SIGALRM) is before


def test_what_takes_too_much_memory_is_ended_and_the_limit_is_as_before() -> None:
    before, said = (
        resource.getrlimit(resource.RLIMIT_DATA),
        r"^filling took more than 64 MiB of memory, or than there is$",
    )
    with (
        pytest.raises(BrokenRecord, match="took more"),
        within(30, 64, "the outer one"),
        within(30, 4096, "the inner one"),
    ):
        bytearray(256 << 20)
    with pytest.raises(BrokenRecord, match=said), within(30, 64, "filling"):
        bytearray(256 << 20)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


FIRST_MOMENT = """
import builtins, os, signal, sys
import gatebook.__main__ as entry
imported = builtins.__import__
def interrupt(name, *arguments):
    if name == "gatebook.cli":
        os.kill(os.getpid(), signal.SIGINT)
    return imported(name, *arguments)
builtins.__import__ = interrupt
entry.main()
"""


def test_a_signal_while_the_command_is_still_importing_is_one_line() -> None:
    done = subprocess.run([sys.executable, "-c", FIRST_MOMENT], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "gatebook: interrupted\n")


def test_the_time_of_a_block_around_it_ends_a_block() -> None:
    began = time.monotonic()
    with (
        pytest.raises(CannotMeasure, match="took longer"),
        within(0.2, 4096, "the outer one"),
        within(60, 4096, "the inner one"),
    ):
        time.sleep(5)
    assert time.monotonic() - began < 2
