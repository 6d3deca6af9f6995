"""This machine's GPUs by NVML (nvidia-ml-py). Whatever NVML refuses becomes a reason; nothing is raised."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pynvml

from gatebook.collect.gauges import row
from gatebook.record.gauges import PROCESS, TOTAL, UNAVAILABLE, USED, Gauge

MIB = 2**20
PROCESSES_EVERY = 10
"""Memory by process, once in so many readings."""
HINTS = {
    "NVMLError_LibraryNotFound": "no NVIDIA driver is visible on this machine",
    "NVMLError_DriverNotLoaded": "the NVIDIA driver is installed and not loaded",
    "NVMLError_NoPermission": "this process may not ask; give its container the GPU and the driver capability `utility`",
    "NVMLError_LibRmVersionMismatch": "driver and library differ in version; reboot or reload the driver",
    "NVMLError_GpuIsLost": "the GPU has fallen off the bus",
    "NVMLError_NotSupported": "this GPU or driver does not tell it",
}


@dataclass(frozen=True)
class Device:
    """A GPU, or one MIG instance of it."""

    id: str
    """NVML's index; `0:1` is the second MIG instance of GPU 0."""
    uuid: str
    handle: Any = None


def visible(devices: Sequence[Device], chosen: str | None) -> list[Device]:
    """The devices that a CUDA_VISIBLE_DEVICES names by index or beginning of the UUID; None names all.

    As in CUDA the list ends at the first entry that names nothing, so `-1` and the empty text hide all. Indices are
    NVML's (PCI bus order), as CUDA's are with CUDA_DEVICE_ORDER=PCI_BUS_ID or where all cards are alike.
    """
    if chosen is None:
        return list(devices)
    found: list[Device] = []
    for entry in (part.strip() for part in chosen.split(",")):
        named = [d for d in devices if entry and (entry in (d.id, d.id.partition(":")[0]) or d.uuid.startswith(entry))]
        if not named:
            break
        found += [d for d in named if d not in found]
    return found


def why(error: Exception) -> str:
    """One line of an NVML error: its class, its text, and what it means here."""
    name = type(error).__name__
    return f"{name}: {error}{f' ({HINTS[name]})' if name in HINTS else ''}"


def readings(chosen: str | None) -> Generator[list[Gauge], None, None]:
    """Yield the names and sizes of the devices that `chosen` (a CUDA_VISIBLE_DEVICES) names, or why there is none, and their
    memory in use; then the memory again and again, one driver call a device. Closing shuts NVML down."""
    nvml = _Nvml()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        nvml.miss("all", why(error))
        yield nvml.rows()
        return
    try:
        nvml.describe(chosen)
        for number in itertools.count():
            nvml.measure(processes=number % PROCESSES_EVERY == 0)
            yield nvml.rows()
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


class _Nvml:
    def __init__(self) -> None:
        self._devices: list[Device] = []
        self._told: set[tuple[str, str]] = set()
        self._rows: list[Gauge] = []

    def rows(self) -> list[Gauge]:
        """What was read since the last time."""
        rows, self._rows = self._rows, []
        return rows

    def miss(self, gpu: str, text: str) -> None:
        """Add the reason of a device, once."""
        if (gpu, text) not in self._told:
            self._told.add((gpu, text))
            self._rows.append(row(UNAVAILABLE, None, "nvml", of="gpu", gpu=gpu, why=text))

    def describe(self, chosen: str | None) -> None:
        """Name and size of every chosen device, and why there is none."""
        driver = self._ask("all", "driver version", pynvml.nvmlSystemGetDriverVersion) or ""
        everything = self._enumerate()
        self._devices = visible(everything, chosen)
        if not self._devices and not self._rows:
            hidden = f"none of the {len(everything)} GPUs is named by CUDA_VISIBLE_DEVICES={chosen}"
            self.miss("all", hidden if everything else "NVML knows no GPU")
        for device in self._devices:
            name = self._ask(device.id, "name", pynvml.nvmlDeviceGetName, device.handle) or ""
            if memory := self._memory(device):
                labels = {"gpu": device.id, "uuid": device.uuid, "name": str(name), "driver": str(driver)}
                self._rows.append(row(TOTAL, memory.total / MIB, "nvml", **labels))

    def measure(self, processes: bool) -> None:
        """Memory in use on every device, and by process on request: containers often hide other processes or their memory."""
        for device in self._devices:
            if memory := self._memory(device):
                self._rows.append(row(USED, memory.used / MIB, "nvml", gpu=device.id))
            get = pynvml.nvmlDeviceGetComputeRunningProcesses
            found = self._ask(device.id, "processes", get, device.handle) if processes else None
            for process in found or []:
                if process.usedGpuMemory is None:
                    self.miss(device.id, "memory by process: not available here; the device's own memory is read")
                else:
                    used_mib = process.usedGpuMemory / MIB
                    self._rows.append(row(PROCESS, used_mib, "nvml", gpu=device.id, pid=str(process.pid)))

    def _enumerate(self) -> list[Device]:
        found: list[Device] = []
        for index in map(str, range(self._ask("all", "device count", pynvml.nvmlDeviceGetCount) or 0)):
            handle = self._ask(index, "handle", pynvml.nvmlDeviceGetHandleByIndex, int(index))
            if handle is not None:
                found += self._instances(index, handle) or [self._device(index, handle)]
        return found

    def _instances(self, gpu: str, parent: Any) -> list[Device]:
        """The MIG instances: a GPU that is split may hide its whole memory, and no process runs on it."""
        try:
            if pynvml.nvmlDeviceGetMigMode(parent)[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
                return []
        except pynvml.NVMLError:  # a card that knows no MIG
            return []
        found = []
        for number in range(self._ask(gpu, "MIG count", pynvml.nvmlDeviceGetMaxMigDeviceCount, parent) or 0):
            try:
                handle = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(parent, number)
                found.append(self._device(f"{gpu}:{number}", handle))
            except pynvml.NVMLError as error:
                if not isinstance(error, pynvml.NVMLError_NotFound):  # a place that is not in use
                    self.miss(gpu, f"MIG instance {number}: {why(error)}")
        return found

    def _device(self, gpu: str, handle: Any) -> Device:
        return Device(gpu, str(self._ask(gpu, "UUID", pynvml.nvmlDeviceGetUUID, handle) or ""), handle)

    def _memory(self, device: Device) -> Any:
        return self._ask(device.id, "memory", pynvml.nvmlDeviceGetMemoryInfo, device.handle)

    def _ask(self, gpu: str, what: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """The call's result; None where NVML refuses."""
        try:
            return call(*arguments)
        except pynvml.NVMLError as error:
            self.miss(gpu, f"{what}: {why(error)}")
            return None
