"""Gauges: the file that survives a crash, the sources that are read, and what cannot be read told as a reason."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.server
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest
from gatebook.collect.gauges import READINGS, glanced, on_this_machine, others, parsed, sampled
from gatebook.collect.nvml import Device, readings, visible, why
from gatebook.config.policies import Production
from gatebook.engines import by_name
from gatebook.errors import BrokenRecord
from gatebook.record.gauges import (
    CACHE_CONFIG,
    KV_CACHE,
    PREEMPTED,
    PROCESS,
    RETRACTED_NOW,
    RUNNING,
    SESSION,
    USED,
    WAITING,
    GaugeFile,
    gpus,
    read_gauges,
    series,
    sessions,
    unavailable,
)
from gatebook.record.run import Run

from tests.unit.replies import case, profile, run_folder
from tests.unit.traces import DCGM, LLAMA, SGLANG, VLLM, card, row


def test_rows_come_back_and_a_second_session_appends(tmp_path: Path) -> None:
    path = tmp_path / "g.jsonl"
    for used in (1.0, 2.0):
        with GaugeFile(path) as file:
            file.append([row(SESSION, None, state="begins"), *card(used)])
    rows = read_gauges(path)
    assert [len(part) for part in sessions(rows)] == [3, 3]
    assert gpus(rows)[0].peak_mib == 2048
    assert read_gauges(tmp_path / "none.jsonl") == []


def test_what_a_crash_cut_is_left_out_and_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "g.jsonl"
    with GaugeFile(path) as file:
        file.append(card(1.0))
    with path.open("ab") as torn:
        torn.write(b'{"ms": 17, "sou')
    assert len(read_gauges(path)) == 2
    with GaugeFile(path) as file:
        file.append(card(3.0))
    assert len(read_gauges(path)) == 4
    assert (tmp_path / "g.jsonl.torn").read_bytes().startswith(b'{"ms": 17')


def test_an_edited_line_is_a_broken_record(tmp_path: Path) -> None:
    path = tmp_path / "g.jsonl"
    path.write_text('{"ms": 1, "source": "guess", "name": "x"}\n')
    with pytest.raises(BrokenRecord, match="line 1"):
        read_gauges(path)


def test_one_writer_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatebook.record.journal.LOCK_WAIT_S", 0.1)
    with GaugeFile(tmp_path / "g.jsonl"), pytest.raises(OSError, match="another process"):
        GaugeFile(tmp_path / "g.jsonl")


def test_a_closed_file_takes_no_more(tmp_path: Path) -> None:
    with GaugeFile(tmp_path / "g.jsonl") as file:
        file.append(card(1.0))
    file.append(card(2.0))  # a sampler that was slow to end
    assert len(read_gauges(tmp_path / "g.jsonl")) == 2


def test_two_cards_and_their_processes() -> None:
    rows = [*card(20.0, 21.5, 20.5), *card(3.0, gpu="1"), row(PROCESS, 900.0, gpu="0", pid="7")]
    first, second = gpus([*rows, row(PROCESS, 700.0, 1, gpu="0", pid="7")])
    assert (first.id, first.peak_mib, first.total_mib, first.processes) == ("0", 21.5 * 1024, 24564.0, {"7": 900.0})
    assert (second.id, second.peak_mib, second.name) == ("1", 3072.0, "NVIDIA GeForce RTX 4090 D")


def test_the_texts_of_four_exporters() -> None:
    vllm, sglang, llama, dcgm = (parsed(text, 5.0) for text in (VLLM, SGLANG, LLAMA, DCGM))
    assert series(vllm, KV_CACHE, False) == [(5.0, 0.9732)]
    assert series(vllm, WAITING, True) == [(5.0, 3.0)], "by_reason is not added"
    assert series(vllm, PREEMPTED, True) == [(5.0, 4.0)]
    labels = next(r.labels for r in vllm if r.name == CACHE_CONFIG)
    assert labels["enable_prefix_caching"] == "True" and "model_name" not in labels
    assert series(sglang, KV_CACHE, False) == [(5.0, 0.41)]
    assert series(sglang, (RETRACTED_NOW,), True) == [(5.0, 2.0)]
    assert (series(llama, RUNNING, True), series(llama, WAITING, True)) == ([(5.0, 2.0)], [(5.0, 1.0)])
    [gpu] = gpus(dcgm)
    assert (gpu.id, gpu.name, gpu.peak_mib, gpu.total_mib) == ("box/0", "NVIDIA GeForce RTX 4090 D", 23000, 24564)


def test_engines_of_one_scrape_are_added_and_the_fullest_cache_counts() -> None:
    text = "".join(f'{name}{{engine="{n}"}} {v}\n' for name, vs in
                   (("vllm:num_requests_waiting", (2, 3)), ("vllm:kv_cache_usage_perc", (0.2, 0.7))) for n, v in enumerate(vs))  # fmt: skip
    rows = parsed(text, 1.0)
    assert series(rows, WAITING, True) == [(1.0, 5.0)]
    assert series(rows, KV_CACHE, False) == [(1.0, 0.7)]


def test_older_names_and_numbers_that_are_none() -> None:
    rows = parsed('vllm:gpu_cache_usage_perc{engine="0"} 0.5\nvllm:num_requests_waiting NaN\n', 1.0)
    assert [(r.name, r.value) for r in rows] == [("vllm:gpu_cache_usage_perc", 0.5)]
    assert parsed("<html>vllm: no metrics here</html>", 1.0) == []


@pytest.mark.parametrize(
    ("chosen", "ids"),
    [
        (None, ["0", "1:0", "1:1"]),
        ("0", ["0"]),
        ("1", ["1:0", "1:1"]),
        ("1:1", ["1:1"]),
        ("GPU-aa", ["0"]),
        ("MIG-c", ["1:1"]),
        ("1, 0", ["1:0", "1:1", "0"]),
        ("0,9,1", ["0"]),
        ("-1", []),
        ("", []),
    ],
)
def test_cuda_visible_devices_by_cudas_rules(chosen: str | None, ids: list[str]) -> None:
    devices = [Device("0", "GPU-aaaa"), Device("1:0", "MIG-bbbb"), Device("1:1", "MIG-cccc")]
    assert [d.id for d in visible(devices, chosen)] == ids


def test_nvmls_errors_are_told_with_what_they_mean() -> None:
    denied = why(pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION))
    assert denied.startswith("NVMLError_NoPermission: Insufficient Permissions (this process may not ask")
    assert why(pynvml.NVMLError(pynvml.NVML_ERROR_IRQ_ISSUE)) == "NVMLError_IrqIssue: Interrupt Request Issue"


def test_without_a_driver_nvml_gives_one_reason_and_no_reading() -> None:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        pass
    else:
        pynvml.nvmlShutdown()
        pytest.skip("this machine has a GPU")
    [[told]] = readings(None)
    assert told.labels["why"].startswith("NVMLError_LibraryNotFound") and told.value is None


def refuse(code: int) -> None:
    raise pynvml.NVMLError(code)


def test_a_whole_card_a_split_one_and_a_lost_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a driver that is not here: its answers are those of the C library, its refusals are NVML's own errors."""
    driver = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlSystemGetDriverVersion": lambda: "580.65",
        "nvmlDeviceGetCount": lambda: 3,
        "nvmlDeviceGetHandleByIndex": lambda n: f"card{n}" if n < 2 else refuse(pynvml.NVML_ERROR_GPU_IS_LOST),
        "nvmlDeviceGetMigMode": lambda h: [1, 1] if h == "card1" else refuse(pynvml.NVML_ERROR_NOT_SUPPORTED),
        "nvmlDeviceGetMaxMigDeviceCount": lambda h: 7,
        "nvmlDeviceGetMigDeviceHandleByIndex": lambda h, n: "mig" if n == 5 else refuse(pynvml.NVML_ERROR_NOT_FOUND),
        "nvmlDeviceGetUUID": lambda h: f"GPU-{h}",
        "nvmlDeviceGetName": lambda h: f"NVIDIA {h}",
        "nvmlDeviceGetMemoryInfo": lambda h: SimpleNamespace(total=24 * 2**30, used=3 * 2**30),
        "nvmlDeviceGetComputeRunningProcesses": lambda h: [
            SimpleNamespace(pid=7, usedGpuMemory=2**30), SimpleNamespace(pid=8, usedGpuMemory=None),
        ],
    }  # fmt: skip
    for name, call in driver.items():
        monkeypatch.setattr(pynvml, name, call)
    with contextlib.closing(readings(None)) as source:
        first, second = next(source), next(source)
    whole, split = gpus(first)
    assert (whole.id, whole.name, whole.total_mib) == ("0", "NVIDIA card0", 24576)
    assert (split.id, split.peak_mib, split.processes) == ("1:5", 3072, {"7": 1024})
    reasons = unavailable(first, "gpu")
    assert reasons[0] == "handle: NVMLError_GpuIsLost: GPU is lost (the GPU has fallen off the bus)"
    assert reasons[1:] == ["memory by process: not available here; the device's own memory is read"]
    assert [r.name for r in second] == [USED, USED], "a reason is told once, and processes are read less often"


def test_only_this_machines_own_addresses_are_this_machine() -> None:
    assert on_this_machine("http://127.0.0.1:8000/v1")
    assert not on_this_machine("http://192.0.2.7:8000/v1"), "TEST-NET-1 is nobody's address"
    assert not on_this_machine("http://no-such-host.invalid/v1")


class Exporter(str):
    """Its URL."""

    seen: set[tuple[str, str | None]]
    """(path, Authorization) of every request."""


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    """A server whose /metrics is vLLM's text and whose /dcgm is DCGM's; everything else is 404."""
    pages = {"/metrics": VLLM, "/dcgm": DCGM}
    seen: set[tuple[str, str | None]] = set()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.add((self.path, self.headers.get("Authorization")))
            body = pages.get(self.path, "").encode()
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = Exporter(f"http://127.0.0.1:{server.server_port}")
        url.seen = seen
        yield url
        server.shutdown()


@contextlib.contextmanager
def hostile(head: bytes, piece: bytes, pause_s: float) -> Iterator[str]:
    """A /metrics that sends the piece again and again, with a pause between."""
    ended = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(OSError):
                self.wfile.write(b"HTTP/1.1 200 OK\r\n" + head)
                while not ended.wait(pause_s):
                    self.wfile.write(piece)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        ended.set()
        server.shutdown()


@contextlib.contextmanager
def counting(*running: int | None) -> Iterator[str]:
    """A /metrics that counts so many running requests at each scrape, and goes on with the last; None is 404."""
    left = [*running]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            count = left.pop(0) if len(left) > 1 else left[0]
            body = f"sglang:num_running_reqs {count}\nsglang:num_queue_reqs 0\n".encode()
            self.send_response(404 if count is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


TOLD = "sglang:num_running_reqs"


@pytest.mark.parametrize(
    ("running", "settle_s", "found"),
    [
        ([0], 0.0, (0, "")),
        ([0, 0, 2, 0], 0.0, (2, TOLD)),
        ([1] * READINGS + [0], 0.1, (0, "")),
        ([1] * READINGS + [3], 0.1, (3, TOLD)),
        ([None], 0.1, "HTTP 404"),
    ],
    ids=["nobody", "users come and go", "our own last request", "users who stay", "untold"],
)
def test_requests_of_others_are_what_stands_while_we_ask_nothing(
    running: list[int | None], settle_s: float, found: tuple[int, str] | str
) -> None:
    """An idle SGLang goes on showing the last request for half a minute."""
    with counting(*running) as url:
        said = others(profile().target, url, settle_s)
    assert said == found or (isinstance(found, str) and found in str(said)), said
    assert by_name("sglang").gauges_settle_s > 30 > by_name("vllm").gauges_settle_s


BOMB = gzip.compress(bytes(200 * 2**20), 9)


@pytest.mark.parametrize(
    ("head", "piece", "pause_s", "told"),
    [
        (b"Content-Encoding: gzip\r\n\r\n", BOMB, 0.0, "the reply is larger than 8 MiB"),
        (b"\r\n", b"x", 0.5, "no complete reply within 5 s"),
        (b"X: ", b"x", 0.5, "no complete reply within 5 s"),
        (b"\r\n", b"vllm:num_requests_running 1\n" * 1000, 0.0, "the reply is larger than 8 MiB"),
    ],
    ids=["gzip", "drip", "drip of a header", "endless"],
)
def test_metrics_are_read_up_to_a_limit_of_bytes_and_of_time(
    tmp_path: Path, head: bytes, piece: bytes, pause_s: float, told: str
) -> None:
    run, began = folder(tmp_path), time.monotonic()
    tracemalloc.start()
    try:
        with hostile(head, piece, pause_s) as url:
            asyncio.run(glanced(run, "01_x", profile(metrics_url=f"{url}/metrics"), f"{url}/v1"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    [reason] = unavailable(run.gauges("01_x"), "metrics")
    assert told in reason and time.monotonic() - began < 15 and peak < 100 * 2**20, (reason, peak)


def test_more_rows_than_engines_have_are_not_kept() -> None:
    row = 'vllm:num_requests_running{engine="%s"} 1\n'
    assert len(parsed("".join(row % n for n in range(2000)), 1.0)) == 2000
    with pytest.raises(ValueError, match="2,001 rows"):
        parsed("".join(row % n for n in range(2001)), 1.0)
    with pytest.raises(ValueError, match="20,0.. characters"):
        parsed(row % ("1" * 20_000), 1.0)


def folder(path: Path) -> Run:
    return run_folder(path / "run", [case()], profile())


def test_sampling_beside_a_load(tmp_path: Path, exporter: str) -> None:
    run, chosen = folder(tmp_path), profile()
    chosen = chosen.model_copy(update={"production": Production(gpu_metrics_url=f"{exporter}/dcgm", nvml="never")})

    async def load() -> None:
        async with sampled(run, "01_x", chosen, f"{exporter}/v1"):
            for _ in range(200):
                newest = sessions(run.gauges("01_x"))[-1]
                if len(series(newest, KV_CACHE, False)) > 1 and gpus(newest):
                    break
                await asyncio.sleep(0.05)

    for _ in range(2):  # the second time as a run that goes on
        asyncio.run(load())
    rows = run.gauges("01_x")
    assert [r.labels["state"] for r in rows if r.name == SESSION] == ["begins", "ends"] * 2
    assert len(series(rows, KV_CACHE, False)) >= 4
    assert gpus(rows)[0].peak_mib == 23000
    assert sum(r.name == CACHE_CONFIG for r in rows) == 2, "what does not change is kept once a session"


def test_an_exception_of_the_load_goes_through(tmp_path: Path, exporter: str) -> None:
    run = folder(tmp_path)

    async def load() -> None:
        async with sampled(run, "01_x", profile(), f"{exporter}/v1"):
            raise OSError("the load's own")

    with pytest.raises(OSError, match="the load's own"):
        asyncio.run(load())
    assert run.gauges("01_x")[-1].labels == {"state": "ends"}


@pytest.mark.parametrize(
    ("path", "told"), [("/nothing", "HTTP 404"), ("/dcgm", "has none of the metrics that are read")]
)
def test_an_endpoint_that_does_not_tell_is_a_reason(tmp_path: Path, exporter: str, path: str, told: str) -> None:
    run = folder(tmp_path)
    asyncio.run(glanced(run, "01_x", profile(metrics_url=exporter + path), f"{exporter}/v1"))
    [reason] = unavailable(run.gauges("01_x"), "metrics")
    assert told in reason


def test_a_server_elsewhere_is_not_judged_by_this_machines_gpu(tmp_path: Path) -> None:
    run = folder(tmp_path)
    asyncio.run(glanced(run, "01_x", profile(), "http://no-such-host.invalid/v1"))
    rows = run.gauges("01_x")
    assert "the server is on another machine" in unavailable(rows, "gpu")[0]
    assert unavailable(rows, "metrics") and not gpus(rows)


def test_the_key_goes_to_the_server_and_not_to_the_exporter(
    tmp_path: Path, exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEM_KEY", "sesame")
    chosen = profile(api_key_env="MEM_KEY")
    other = exporter.replace("127.0.0.1", "localhost")
    chosen = chosen.model_copy(update={"production": Production(gpu_metrics_url=f"{other}/dcgm", nvml="never")})
    run = folder(tmp_path)
    asyncio.run(glanced(run, "01_x", chosen, f"{exporter}/v1"))
    assert gpus(run.gauges("01_x")) and series(run.gauges("01_x"), KV_CACHE, False)
    assert exporter.seen == {("/metrics", "Bearer sesame"), ("/dcgm", None)}
    assert b"sesame" not in run.gauges_file("01_x").read_bytes()
