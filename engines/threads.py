"""How many cores this process may use, and threads that give way to others."""

from __future__ import annotations

import os
import threading
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
GIVE_WAY = 5  # nice; lower still, and the thread would keep the GIL while it waits for a core


def cores(cgroup: Path = CGROUP) -> int:
    """Cores that this process may keep busy: by its affinity and by its container's quota, at least 1."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        allowed = os.cpu_count() or 1
    return max(1, min(allowed, _quota(cgroup) or allowed))


def share(workers: int, whole: int | None = None) -> int:
    """Inference threads of each of `workers` processes: together no more than the cores, each at least 1."""
    return max(1, (cores() if whole is None else whole) // max(1, workers))


def give_way() -> None:
    """Lower the priority of the calling thread for the rest of its life; threads that it starts inherit it."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), GIVE_WAY)
    except (AttributeError, OSError):
        return  # elsewhere a thread has no priority of its own


def _quota(cgroup: Path) -> int | None:
    """The container's quota in whole cores (cgroup v2), or None."""
    try:
        limit, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()
        return None if limit == "max" else max(1, int(limit) // int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return None
