"""How much memory there is left to use."""

from __future__ import annotations

import re
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
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
