"""A few steps of a run, to see that it works and what it will cost."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.data import DataLoader

from vision.engine.loop import MeanLosses, Objective, to_device, train_step, validate
from vision.structures import Annotation, DataError

#: Timed steps: the first of a run is slower than all others, and batches that lie ready make the next ones faster.
_WARM_UP, _TIMED, _SECONDS = 2, 4, 10.0


class Rehearsal(NamedTuple):
    """What a few steps have shown.

    Attributes:
        losses: of the first step.
        validation: of the first validation batch.
        seconds_per_step: loading included.
        training_seconds: of an epoch.
        validation_seconds: of one validation, detections included.
        peak_memory: of this process in bytes, None where the system does not tell.
        peak_device_memory: of a CUDA device, None elsewhere.
    """

    losses: MeanLosses
    validation: MeanLosses
    seconds_per_step: float
    training_seconds: float
    validation_seconds: float
    peak_memory: int | None
    peak_device_memory: int | None


def rehearse(
    objective: Objective,
    train_loader: DataLoader,
    val_loader: DataLoader,
    annotations: Sequence[Annotation],
    optimizer: torch.optim.Optimizer,
    frozen: Sequence[nn.Module] = (),
) -> Rehearsal:
    """Take a few steps and validate one batch; the net is changed by them.

    Args:
        objective: of the net, on its device.
        train_loader: yields `Batch`es.
        val_loader: likewise, in the order of `annotations`.
        annotations: of the validation pictures.
        optimizer: as for training.
        frozen: modules that stay in eval mode.

    Raises:
        DataError: a loss is not finite.
    """
    device = next(objective.net.parameters()).device
    objective.train()
    for module in frozen:
        module.eval()
    first = None
    seconds: list[float] = []
    began = before = time.perf_counter()
    for batch in train_loader:
        losses = train_step(objective, to_device(batch, device), optimizer)
        first = first or MeanLosses(losses.regression.item(), losses.classification.item())
        _wait_for(device)
        now = time.perf_counter()
        seconds.append(now - before)
        before = now
        if len(seconds) == _WARM_UP + _TIMED or now - began > _SECONDS:
            break
    timed = seconds[_WARM_UP:] or seconds[-1:]
    batches = iter(val_loader)
    batch = next(batches)  # waits for the workers to start
    before = time.perf_counter()
    batch = next(batches, batch)
    validation, _ = validate(objective, [batch], annotations)
    validation_seconds = time.perf_counter() - before
    for what, numbers in (("training", first), ("validation", validation)):
        if not math.isfinite(numbers.total):
            raise DataError(f"the {what} loss of the first batch is not finite ({numbers.total}): look at the weights")
    step_seconds = sum(timed) / len(timed)
    return Rehearsal(
        first,
        validation,
        step_seconds,
        step_seconds * len(train_loader),
        validation_seconds * len(val_loader),
        _peak_memory(),
        torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None,
    )


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_memory() -> int | None:
    try:
        import resource
        import sys
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
