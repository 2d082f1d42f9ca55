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


def available_memory() -> int:
    """Bytes that can be used without others having to go to disk, within the container's limit; 0 if nobody says."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
    except OSError:
        return 0
    free = [] if found is None else [1024 * int(found[1])]
    for limit, used, (statistics, key) in _CGROUPS:
        try:
            cached = re.search(rf"^{key} (\d+)$", statistics.read_text(), re.MULTILINE)
            free.append(int(limit.read_text()) - int(used.read_text()) + (0 if cached is None else int(cached[1])))
        except (OSError, ValueError):  # no such group, or "max": no limit
            continue
    return max(0, min(free, default=0))
