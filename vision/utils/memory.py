"""How much memory there is left to use, and what becomes of what is freed."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
#: Parameters of glibc's mallopt, by the numbers of its malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
#: Of the container or service that this process is in, in either version of control groups: limit, use, and how much
#: of that is files that can be read again.
_CGROUPS = (
    (
        Path("/sys/fs/cgroup/memory.max"),
        Path("/sys/fs/cgroup/memory.current"),
        (Path("/sys/fs/cgroup/memory.stat"), "inactive_file"),
    ),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
        (Path("/sys/fs/cgroup/memory/memory.stat"), "total_inactive_file"),
    ),
)


def _statistic(path: Path, key: str) -> int:
    """Read a number from lines of keys and numbers; 0 if nobody says."""
    try:
        found = re.search(rf"^{key} (\d+)$", path.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return 0 if found is None else int(found[1])


def available_memory() -> int:
    """Bytes that can be used without others having to go to disk, within the container's limit; 0 if nobody says."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
    except OSError:
        return 0
    free = [] if found is None else [1024 * int(found[1])]
    for limit, used, (statistics, key) in _CGROUPS:
        try:
            free.append(int(limit.read_text()) - int(used.read_text()) + _statistic(statistics, key))
        except (OSError, ValueError):  # no such group, or "max": no limit
            continue
    return max(0, min(free, default=0))


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
