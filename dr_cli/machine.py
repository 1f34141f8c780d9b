"""What this process may use of its machine: cores and memory, as its container bounds them.

Free of torch, so that whatever decodes or draws in parallel asks here.
"""

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path


def cores() -> int:
    """Processor cores that this process may use: its affinity, and its container's quota."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it
    mine = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota, _, period = _cgroup("cpu.max").partition(" ")
    return max(1, min(mine, int(quota) // int(period))) if quota.isdigit() else mine


def free_memory() -> int | None:
    """Bytes that can be had without swapping, in the machine or its container; None if unknown."""
    free = _free_memory_windows() if sys.platform == "win32" else _available()
    limit, used = _cgroup("memory.max"), _cgroup("memory.current")
    if not (limit.isdigit() and used.isdigit()):  # "max" where the container has no bound
        return free
    within = max(0, int(limit) - int(used))
    return within if free is None else min(free, within)


def peak_memory() -> int | None:
    """Bytes that this process had at its peak; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory ran out: Python's, torch's on a GPU or a CPU, the system's, or
    oneDNN's, which then makes no primitive."""
    text = str(error).lower()
    told = (
        "out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory",
        "bad_alloc", "could not create a primitive", "can't start new thread",
    )  # fmt: skip
    return isinstance(error, MemoryError) or any(words in text for words in told)


def _available() -> int | None:
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with suppress(AttributeError, OSError, ValueError):  # no Linux: half of all, a careful guess
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return None


def _free_memory_windows() -> int:
    class Status(ctypes.Structure):  # MEMORYSTATUSEX
        _fields_ = [("length", ctypes.c_uint32), ("load", ctypes.c_uint32)] + [
            (name, ctypes.c_uint64)
            for name in ("total", "free", "f1", "f2", "v1", "v2", "extended")
        ]

    status = Status(length=ctypes.sizeof(Status))
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined]
    return status.free


def _cgroup(name: str) -> str:
    """A figure of this process's container (cgroup v2), as text; "" where there is none."""
    with suppress(OSError):
        return Path("/sys/fs/cgroup", name).read_text(encoding="ascii").strip()
    return ""
