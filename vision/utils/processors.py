"""How many processors there are to compute with."""

from __future__ import annotations

import os
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")


def usable_processors() -> int:
    """Count the cores that this process may use, as OpenMP and PyTorch do.

    That is the number in OMP_NUM_THREADS, else that of the cores this process is allowed to run on. Two threads of one
    core count once.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    if not hasattr(os, "sched_getaffinity"):  # no Linux
        return os.cpu_count() or 1
    allowed = os.sched_getaffinity(0)
    try:
        return len({(_CPUS / f"cpu{number}/topology/thread_siblings_list").read_text() for number in allowed})
    except OSError:  # a container that does not show them
        return len(allowed)
