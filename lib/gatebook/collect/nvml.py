"""This machine's GPUs by NVML (nvidia-ml-py). Whatever NVML refuses becomes a reason; nothing is raised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from gatebook.record.gauges import PROCESS, TOTAL, UNAVAILABLE, USED, Gauge

T = TypeVar("T")
MIB = 2**20
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

    @property
    def gpu(self) -> str:
        return self.id.partition(":")[0]


def visible(devices: Sequence[Device], chosen: str | None) -> list[Device]:
    """The devices that a CUDA_VISIBLE_DEVICES names: indices or beginnings of UUIDs; None names all.

    CUDA's rules: the list ends at the first entry that names nothing, so `-1` and the empty text hide all. Indices are
    NVML's (PCI bus order); CUDA counts so with CUDA_DEVICE_ORDER=PCI_BUS_ID or where all cards are alike.
    """
    if chosen is None:
        return list(devices)
    found: list[Device] = []
    for entry in (part.strip() for part in chosen.split(",")):
        named = [d for d in devices if entry and (d.gpu == entry or d.id == entry or d.uuid.startswith(entry))]
        if not named:
            break
        found += [d for d in named if d not in found]
    return found


def why(error: Exception) -> str:
    """One line of an NVML error: its class, its text, and what it means here."""
    name = type(error).__name__
    return f"{name}: {error}{f' ({HINTS[name]})' if name in HINTS else ''}"


class Nvml:
    """Reads the chosen devices. `read` is cheap (one driver call a device) and is meant for a thread of its own."""

    def __init__(self, chosen: str | None, clock: Callable[[], float]) -> None:
        """`chosen` is a CUDA_VISIBLE_DEVICES, `clock` gives ms since the epoch."""
        self._chosen, self._clock = chosen, clock
        self._devices: list[Device] = []
        self._told: set[tuple[str, str]] = set()
        self._missing: list[Gauge] = []
        self._ready = False

    def open(self) -> list[Gauge]:
        """Name and size of every chosen device, and why there is none."""
        import pynvml

        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            return [self._unavailable("all", why(error))]
        self._ready = True
        driver = self._try("all", "driver version", pynvml.nvmlSystemGetDriverVersion) or ""
        everything = self._enumerate()
        self._devices = visible(everything, self._chosen)
        if not self._devices and not self._missing:
            self._missing.append(self._unavailable(
                "all", f"none of the {len(everything)} GPUs is named by CUDA_VISIBLE_DEVICES={self._chosen}"
                if everything else "NVML knows no GPU",
            ))  # fmt: skip
        rows = []
        for device in self._devices:
            name = self._try(device.id, "name", lambda d=device: pynvml.nvmlDeviceGetName(d.handle))  # type: ignore[misc]
            memory = self._memory(device)
            if memory is not None:
                labels = {"gpu": device.id, "uuid": device.uuid, "name": str(name or ""), "driver": str(driver)}
                rows.append(self._row(TOTAL, memory.total / MIB, labels))
        return rows + self._drain()

    def read(self, processes: bool) -> list[Gauge]:
        """Memory in use on every device, of the processes too when asked for."""
        rows = []
        for device in self._devices:
            memory = self._memory(device)
            if memory is not None:
                rows.append(self._row(USED, memory.used / MIB, {"gpu": device.id}))
            if processes:
                rows += self._processes(device)
        return rows + self._drain()

    def close(self) -> None:
        if self._ready:
            import pynvml

            self._ready = False
            self._try("all", "shutdown", pynvml.nvmlShutdown)

    def _enumerate(self) -> list[Device]:
        import pynvml

        found: list[Device] = []
        for index in range(self._try("all", "device count", pynvml.nvmlDeviceGetCount) or 0):
            handle = self._try(str(index), "handle", lambda i=index: pynvml.nvmlDeviceGetHandleByIndex(i))  # type: ignore[misc]
            if handle is not None:
                found += self._instances(str(index), handle) or [
                    Device(str(index), self._uuid(str(index), handle), handle)
                ]
        return found

    def _instances(self, gpu: str, parent: Any) -> list[Device]:
        """MIG instances; of a GPU that is split, the whole may not be told, and no process runs on it."""
        import pynvml

        try:
            if pynvml.nvmlDeviceGetMigMode(parent)[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
                return []
        except pynvml.NVMLError:  # a card that knows no MIG
            return []
        found = []
        for number in range(self._try(gpu, "MIG count", lambda: pynvml.nvmlDeviceGetMaxMigDeviceCount(parent)) or 0):
            try:
                handle = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(parent, number)
            except pynvml.NVMLError_NotFound:  # a place that is not in use
                continue
            except pynvml.NVMLError as error:
                self._miss(gpu, f"MIG instance {number}: {why(error)}")
                continue
            found.append(Device(f"{gpu}:{number}", self._uuid(f"{gpu}:{number}", handle), handle))
        return found

    def _uuid(self, gpu: str, handle: Any) -> str:
        import pynvml

        return str(self._try(gpu, "UUID", lambda: pynvml.nvmlDeviceGetUUID(handle)) or "")

    def _memory(self, device: Device) -> Any:
        import pynvml

        return self._try(device.id, "memory", lambda: pynvml.nvmlDeviceGetMemoryInfo(device.handle))

    def _processes(self, device: Device) -> list[Gauge]:
        """Containers often hide the processes of others, or their memory; the device's own figure still holds."""
        import pynvml

        found = self._try(device.id, "processes", lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(device.handle))
        for process in found or []:
            if process.usedGpuMemory is None:
                self._miss(device.id, "memory by process: not available here; the device's own memory is read")
        return [
            self._row(PROCESS, p.usedGpuMemory / MIB, {"gpu": device.id, "pid": str(p.pid)})
            for p in found or [] if p.usedGpuMemory is not None
        ]  # fmt: skip

    def _try(self, gpu: str, what: str, call: Callable[[], T]) -> T | None:
        import pynvml

        try:
            return call()
        except pynvml.NVMLError as error:
            self._miss(gpu, f"{what}: {why(error)}")
            return None

    def _miss(self, gpu: str, text: str) -> None:
        """Each reason of each device is told once."""
        if (gpu, text) not in self._told:
            self._told.add((gpu, text))
            self._missing.append(self._unavailable(gpu, text))

    def _drain(self) -> list[Gauge]:
        rows, self._missing = self._missing, []
        return rows

    def _unavailable(self, gpu: str, text: str) -> Gauge:
        return self._row(UNAVAILABLE, None, {"of": "gpu", "gpu": gpu, "why": text})

    def _row(self, name: str, value: float | None, labels: dict[str, str]) -> Gauge:
        rounded = None if value is None else round(value, 1)
        return Gauge(ms=self._clock(), source="nvml", name=name, labels=labels, value=rounded)
