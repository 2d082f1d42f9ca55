"""How much memory there is left to use, and what becomes of what is freed."""

from __future__ import annotations

import contextlib
import ctypes
import re
from pathlib import Path
from typing import NamedTuple

_MEMINFO = Path("/proc/meminfo")
#: Parameters of glibc's mallopt, by the numbers of its malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
#: Control groups, each with a limit that a container, a service or a job may have, and which ones this process is in.
_CGROUPS, _OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


class _GroupFiles(NamedTuple):
    """Names of a control group's files: its limit, its use, and how much of that is files that can be read again."""

    limit: str
    used: str
    statistics: str
    inactive: str


_VERSION_1 = _GroupFiles("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat", "total_inactive_file")
_VERSION_2 = _GroupFiles("memory.max", "memory.current", "memory.stat", "inactive_file")


def _groups() -> list[tuple[Path, _GroupFiles]]:
    """The control groups for memory that this process may be in, in either version: its own and those around it."""
    found = [(_CGROUPS, _VERSION_2), (_CGROUPS / "memory", _VERSION_1)]
    try:
        lines = _OWN_CGROUPS.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        parts = [part for part in path.split("/") if part]
        if (controllers and "memory" not in controllers.split(",")) or ".." in parts:  # seen from within a namespace
            continue
        base, files = (_CGROUPS / "memory", _VERSION_1) if controllers else (_CGROUPS, _VERSION_2)
        found += [(base.joinpath(*parts[:depth]), files) for depth in range(1, len(parts) + 1)]
    return found


def _statistic(path: Path, key: str) -> int:
    """Read a number from lines of keys and numbers; 0 if nobody says."""
    try:
        found = re.search(rf"^{key} (\d+)$", path.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return 0 if found is None else int(found[1])


def available_memory() -> int | None:
    """Bytes that can be used without others having to go to disk, within the limits of container, service and job.

    None where nobody says, as outside Linux.
    """
    free = []
    with contextlib.suppress(OSError):
        found = re.search(r"^MemAvailable:\s+(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
        free += [] if found is None else [1024 * int(found[1])]
    for group, files in _groups():
        try:
            limit, used = (int((group / name).read_text()) for name in (files.limit, files.used))
        except (OSError, ValueError):  # no such group, or "max": no limit
            continue
        free.append(limit - used + _statistic(group / files.statistics, files.inactive))
    return max(0, min(free)) if free else None


def keep_freed_memory() -> bool:
    """Let this process keep the memory it frees, to use it again, until it ends.

    PyTorch takes the tensors of a step on a CPU from malloc. glibc's gives large blocks back to the system as soon as
    they are freed, and the system fills each page with zeros when it is used next: a third of the time of a step, at
    the worst (docs/performance.md). The most memory that the process has at a time grows somewhat, as what is freed
    between blocks in use is only good for smaller ones.

    Returns:
        whether it will; only glibc (Linux) is asked to.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library; Windows has no name for the process itself
        return False
    # Both or none: whoever sets one of them loses thresholds that grow with use, which trims more than before.
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))
