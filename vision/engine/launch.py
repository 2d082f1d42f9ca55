"""Which kind of process this is: a single one, or one of those that PyTorch's torchrun started."""

from __future__ import annotations

import os

from vision.engine.process import SingleProcess


def current_process() -> SingleProcess:
    """`DistributedProcess` where torchrun started several, else `SingleProcess`."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("WORLD_SIZE") == "1":
        return SingleProcess()
    # Loaded here only: one process has nothing of it.
    from vision.engine.distributed import DistributedProcess

    return DistributedProcess()
