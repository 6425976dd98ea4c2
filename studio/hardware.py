"""What this machine has and how busy it is, without torch: processor, memory, disk of the workspace, GPUs."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from studio import settings
from studio.errors import StudioError

_GPU_EVERY = 2.0  # seconds between two questions to the driver
_RESERVE = 256 * 1024 * 1024  # bytes always left free, so that the database and logs can still be written
_gpu_cache: tuple[float, list[dict[str, Any]]] = (-1e9, [])
_lock = threading.Lock()


def snapshot() -> dict[str, Any]:
    """How busy the machine is now.

    Returns:
        ``cpu`` {percent since the last call, cores}, ``memory`` and ``disk`` {used, total, free} in bytes, ``gpus``
        [{name, percent, used, total, temperature}] (bytes, degrees Celsius; ``None`` where the driver does not say).
    """
    import psutil

    memory, disk = psutil.virtual_memory(), shutil.disk_usage(settings.home())
    limit, used = _cgroup_memory(memory.total, memory.total - memory.available)
    return {"cpu": {"percent": psutil.cpu_percent(None), "cores": cores()},
            "memory": {"used": used, "total": limit, "free": max(limit - used, 0)},
            "disk": {"used": disk.used, "total": disk.total, "free": disk.free},
            "gpus": gpus()}


def cores() -> int:
    """Processor cores this process may use: its affinity, and in a container not more than its quota (cgroup v2)."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(allowed, -(-int(quota) // int(period))))
    except (OSError, ValueError):
        return allowed  # no container, or "max": no quota


def free_memory() -> int:
    """Bytes that a new process may take, in this machine or this container, whichever has less."""
    import psutil

    memory = psutil.virtual_memory()
    limit, used = _cgroup_memory(memory.total, memory.total - memory.available)
    return min(memory.available, max(limit - used, 0))


def total_memory() -> int:
    """Bytes of memory of this machine or this container, whichever has less."""
    import psutil

    return _cgroup_memory(psutil.virtual_memory().total, 0)[0]


def _cgroup_memory(total: int, used: int) -> tuple[int, int]:
    """(limit, used) of the container, where it has less than the machine (cgroup v2)."""
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        current = int(Path("/sys/fs/cgroup/memory.current").read_text())
        cache = next(int(line.split()[1]) for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines()
                     if line.startswith("inactive_file "))
    except (OSError, ValueError, StopIteration):
        return total, used
    return (limit, max(current - cache, 0)) if limit < total else (total, used)


def gpus(fresh: bool = False) -> list[dict[str, Any]]:
    """NVIDIA GPUs as ``nvidia-smi`` sees them, asked at most every two seconds unless ``fresh``; empty without one."""
    global _gpu_cache
    with _lock:
        made, found = _gpu_cache
        if time.monotonic() - made < (_GPU_EVERY if found else 60.0) and not (fresh and found):
            return found
        found = _ask_driver()
        _gpu_cache = (time.monotonic(), found)
        return found


def several_gpus() -> bool:
    """There is more than one GPU to spread a training over."""
    return len(gpus()) > 1


def some_gpu() -> bool:
    """There is a GPU."""
    return bool(gpus())


def _ask_driver() -> list[dict[str, Any]]:
    program = shutil.which("nvidia-smi")
    if not program:
        return []
    query = "name,utilization.gpu,memory.used,memory.total,temperature.gpu"
    try:
        text = subprocess.run([program, f"--query-gpu={query}", "--format=csv,noheader,nounits"], capture_output=True,
                              text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_smi(text)


def parse_smi(text: str) -> list[dict[str, Any]]:
    """Rows of ``nvidia-smi --query-gpu=name,utilization.gpu,memory.used,memory.total,temperature.gpu``."""
    found = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.rsplit(",", 4)]
        if len(parts) != 5:
            continue
        busy, used, total, heat = (float(p) if p.replace(".", "", 1).isdigit() else None for p in parts[1:])
        found.append({"name": parts[0], "percent": busy, "used": None if used is None else int(used * 2**20),
                      "total": None if total is None else int(total * 2**20), "temperature": heat})
    return found


def need_disk(needed: int, what: str, field: str | None = None, at: Path | None = None) -> None:
    """Refuse what would fill the disk.

    Raises:
        StudioError: fewer than ``needed`` bytes (and a reserve of 256 MB) are free.
    """
    at = at or settings.home()
    free = shutil.disk_usage(next(place for place in (at, *at.parents) if place.exists())).free
    if needed + _RESERVE > free:
        raise StudioError(f"{what} needs {size(needed)}, and only {size(max(free - _RESERVE, 0))} of disk can be used.",
                          "Delete runs or models you no longer need, or move the workspace (STUDIO_HOME).", field)


def size(count: float | None) -> str:
    """Bytes in words: ``"1.5 GB"`` (powers of 1000, as disks are sold)."""
    if count is None:
        return "unknown"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
