"""What NVIDIA's driver says of its GPUs: names, memory, who has memory on them, how busy they are.

Through the library that comes with the driver, libnvidia-ml.so.1 (NVML): nothing of CUDA is loaded, no memory on a
GPU is taken, and no program is started. Structures and functions are those of nvml.h (NVML API Reference, r580); older
drivers have older forms of some functions, which are tried after the newer. `KUULO_NVML` names another library.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

VARIABLE = "KUULO_NVML"
LIBRARY = "libnvidia-ml.so.1"

SUCCESS, NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND, TOO_SMALL, NO_FUNCTION = 0, 3, 4, 6, 7, 13
NOT_AVAILABLE = (1 << 64) - 1
"""NVML_VALUE_NOT_AVAILABLE: the memory of a process, where the driver does not tell it."""

REASONS = {
    1: "it was not initialised",
    NOT_SUPPORTED: "not supported",
    NO_PERMISSION: "no permission",
    NOT_FOUND: "not found",
    9: "the driver is not loaded",
    12: "the library was not found",
    15: "a GPU is lost",
    18: "library and driver are of different versions: a driver was updated without a restart",
    999: "unknown error",
}
"""nvmlReturn_t, in words."""

MOST_PROCESSES = 1024
TEXT = 128


class Missing(Exception):
    """There is no driver, or it does not answer."""


class _Failed(Exception):
    def __init__(self, function: str, code: int) -> None:
        super().__init__(f"{function}: {REASONS.get(code, f'error {code}')}")
        self.code = code


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class _OldProcess(ctypes.Structure):
    _fields_ = (("pid", ctypes.c_uint), ("used", ctypes.c_ulonglong))


class _Process(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_uint),
        ("used", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


class _Sample(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_uint),
        ("time_us", ctypes.c_ulonglong),
        ("sm", ctypes.c_uint),
        ("memory", ctypes.c_uint),
        ("encoder", ctypes.c_uint),
        ("decoder", ctypes.c_uint),
    )


@dataclass(frozen=True)
class Gpu:
    """A GPU, or a part of one (MIG). Memory in bytes."""

    index: int
    name: str
    uuid: str
    total: int
    used: int
    part: int | None = None

    def __str__(self) -> str:
        return f"{self.index}{'' if self.part is None else f'.{self.part}'}"


class Nvml:
    """The library, initialised. `close` it, or use it as a context."""

    def __init__(self, library: str | None = None) -> None:
        """Raises Missing."""
        self.library = library or os.environ.get(VARIABLE) or LIBRARY
        try:
            self._library = ctypes.CDLL(self.library)
        except OSError as error:
            raise Missing(f"no NVIDIA driver: {self.library} cannot be loaded") from error
        try:
            self._call("nvmlInit_v2")
        except _Failed as error:
            raise Missing(f"the NVIDIA driver does not answer: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with contextlib.suppress(_Failed):
            self._call("nvmlShutdown")

    # The driver.

    def driver(self) -> str:
        """Its version: "550.54.15"; empty when it does not say."""
        return self._text("nvmlSystemGetDriverVersion")

    def cuda(self) -> tuple[int, int] | None:
        """The newest CUDA that the driver runs: (12, 4)."""
        value = ctypes.c_int()
        try:
            self._either(("nvmlSystemGetCudaDriverVersion_v2", "nvmlSystemGetCudaDriverVersion"), ctypes.byref(value))
        except _Failed:
            return None
        return value.value // 1000, value.value % 1000 // 10

    # GPUs.

    def gpus(self) -> list[Gpu]:
        """Those that the driver shows us. CUDA_VISIBLE_DEVICES hides none; a cgroup's limits do. Raises Missing."""
        return [gpu for gpu, _ in self._each()]

    def processes(self) -> dict[str, dict[int, int | None]]:
        """For each GPU's uuid: process -> bytes of the GPU's memory that it has, None where that is not told. Numbers
        are as the driver gives them: where processes are hidden from us (a container), they may be another's. Raises
        Missing."""
        return {gpu.uuid: self._processes(handle) for gpu, handle in self._each()}

    def busy(self) -> dict[str, int | None]:
        """For each GPU's uuid: per cent of the last moments (1/6 to 1 s) in which it worked; None where that is not
        told, as of parts. Raises Missing."""
        return {gpu.uuid: self._busy(handle) for gpu, handle in self._each()}

    def busy_by_process(self, since_us: int) -> dict[str, dict[int, int] | None]:
        """For each GPU's uuid: process -> the most per cent that it kept the GPU busy, in the driver's samples since
        then (POSIX time in microseconds); None where that is not told. Raises Missing."""
        return {gpu.uuid: self._samples(handle, since_us) for gpu, handle in self._each()}

    # ------------------------------------------------------------------

    def _each(self) -> Iterator[tuple[Gpu, Any]]:
        count = ctypes.c_uint()
        try:
            self._either(("nvmlDeviceGetCount_v2", "nvmlDeviceGetCount"), ctypes.byref(count))
            for index in range(count.value):
                handle = ctypes.c_void_p()
                names = ("nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetHandleByIndex")
                try:
                    self._either(names, ctypes.c_uint(index), ctypes.byref(handle))
                except _Failed as error:
                    if error.code == NO_PERMISSION:  # a GPU of another job
                        continue
                    raise
                parts = list(self._parts(handle))
                for number, each in enumerate(parts or [handle]):
                    yield self._gpu(each, index, number if parts else None), each
        except _Failed as error:
            raise Missing(f"the NVIDIA driver does not tell its GPUs: {error}") from error

    def _parts(self, handle: Any) -> Iterator[Any]:
        """The parts (MIG) of a GPU that is divided."""
        count = ctypes.c_uint()
        try:
            self._call("nvmlDeviceGetMaxMigDeviceCount", handle, ctypes.byref(count))
        except _Failed:
            return
        for number in range(count.value):
            part = ctypes.c_void_p()
            try:
                self._call("nvmlDeviceGetMigDeviceHandleByIndex", handle, ctypes.c_uint(number), ctypes.byref(part))
            except _Failed:
                continue
            yield part

    def _gpu(self, handle: Any, index: int, part: int | None) -> Gpu:
        memory = _Memory()
        with contextlib.suppress(_Failed):
            self._call("nvmlDeviceGetMemoryInfo", handle, ctypes.byref(memory))
        name = self._text("nvmlDeviceGetName", handle)
        uuid = self._text("nvmlDeviceGetUUID", handle) or f"{index}.{part}"
        return Gpu(index, name, uuid, int(memory.total), int(memory.used), part)

    def _processes(self, handle: Any) -> dict[int, int | None]:
        for function, kind in (
            ("nvmlDeviceGetComputeRunningProcesses_v3", _Process),
            ("nvmlDeviceGetComputeRunningProcesses_v2", _Process),
            ("nvmlDeviceGetComputeRunningProcesses", _OldProcess),
        ):
            count = ctypes.c_uint(MOST_PROCESSES)
            rows = (kind * MOST_PROCESSES)()
            try:
                self._call(function, handle, ctypes.byref(count), rows)
            except _Failed as error:
                if error.code == NO_FUNCTION:
                    continue
                return {}
            return {int(r.pid): None if r.used == NOT_AVAILABLE else int(r.used) for r in rows[: count.value]}
        return {}

    def _busy(self, handle: Any) -> int | None:
        found = _Utilization()
        try:
            self._call("nvmlDeviceGetUtilizationRates", handle, ctypes.byref(found))
        except _Failed:
            return None
        return int(found.gpu)

    def _samples(self, handle: Any, since_us: int) -> dict[int, int] | None:
        count = ctypes.c_uint(0)
        since = ctypes.c_ulonglong(since_us)
        function = "nvmlDeviceGetProcessUtilization"
        try:
            self._call(function, handle, None, ctypes.byref(count), since)
        except _Failed as error:
            if error.code == NOT_FOUND:
                return {}
            if error.code != TOO_SMALL:
                return None
        rows = (_Sample * max(1, count.value))()
        try:
            self._call(function, handle, rows, ctypes.byref(count), since)
        except _Failed as error:
            return {} if error.code == NOT_FOUND else None
        most: dict[int, int] = {}
        for row in rows[: count.value]:
            if row.sm <= 100:  # what is beyond was seen of drivers without a sample
                most[int(row.pid)] = max(int(row.sm), most.get(int(row.pid), 0))
        return most

    def _text(self, function: str, *arguments: Any) -> str:
        text = ctypes.create_string_buffer(TEXT)
        try:
            self._call(function, *arguments, text, ctypes.c_uint(TEXT))
        except _Failed:
            return ""
        return text.value.decode(errors="replace")

    def _either(self, functions: tuple[str, ...], *arguments: Any) -> None:
        for function in functions:
            try:
                self._call(function, *arguments)
                return
            except _Failed as error:
                if error.code != NO_FUNCTION or function == functions[-1]:
                    raise

    def _call(self, function: str, *arguments: Any) -> None:
        """Raises _Failed, with NO_FUNCTION for what this library does not have."""
        try:
            found = getattr(self._library, function)
        except AttributeError as error:
            raise _Failed(function, NO_FUNCTION) from error
        code = found(*arguments)
        if code != SUCCESS:
            raise _Failed(function, code)
