"""A few steps of a run, to see that it works and what it will cost in time and memory."""

from __future__ import annotations

import itertools
import math
import time
from typing import TYPE_CHECKING, NamedTuple

import torch

from vision.engine.execution import wait_for
from vision.engine.loop import MeanLosses, ValidationSums, steps_per_epoch, validate
from vision.structures import DataError

if TYPE_CHECKING:
    from vision.datasets.batch_loader import BatchLoader
    from vision.engine.run import Run

#: Timed steps: the first of a run is slower than all others, and batches that lie ready make the next ones faster.
_WARM_UP, _TIMED, _SECONDS = 2, 4, 10.0


class DryRunResult(NamedTuple):
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


def dry_run(run: Run, train_loader: BatchLoader, val_loader: BatchLoader) -> DryRunResult:
    """Take a few steps and validate one batch; the net is changed by them.

    Args:
        run: with all that it needs for a step.
        train_loader: yields `Batch`es.
        val_loader: yields `Batch`es in the order of the run's annotations.

    Raises:
        DataError: a loss is not finite.
    """
    train_step, accumulate, all_gather = run.train_step, run.settings.accumulate, run.process.all_gather
    device = train_step.device
    train_step.train()
    steps = steps_per_epoch(train_loader, accumulate)
    first = MeanLosses(math.nan, math.nan)
    seconds: list[float] = []
    began = before = time.perf_counter()
    batches = iter(train_loader)
    while group := list(itertools.islice(batches, accumulate)):
        losses = train_step.step(group, len(seconds), steps)
        if losses is None:
            raise DataError("the training loss of the first batches is not finite: look at the starting weights")
        if not seconds:
            first = MeanLosses(losses.regression.item(), losses.classification.item())
        wait_for(device)
        now = time.perf_counter()
        seconds.append(now - before)
        before = now
        if len(seconds) == _WARM_UP + _TIMED or max(all_gather(now - began)) > _SECONDS:
            break
    timed = seconds[_WARM_UP:] or seconds[-1:]
    batches = iter(val_loader)
    batch = next(batches, None)  # waits for the workers to start; several processes may have no batch for all
    before = time.perf_counter()
    batch = next(batches, batch)
    part = ValidationSums() if batch is None else validate(train_step.model, [batch], run.annotations)
    validation_seconds = time.perf_counter() - before
    validation = ValidationSums.merge(all_gather(part)).losses
    if not math.isfinite(validation.total):
        raise DataError("the validation loss of the first batch is not finite: look at the starting weights")
    step_seconds = sum(timed) / len(timed)
    return DryRunResult(
        first,
        validation,
        step_seconds,
        step_seconds * steps,
        validation_seconds * len(val_loader),
        _peak_memory(),
        torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None,
    )


def _peak_memory() -> int | None:
    try:
        import resource
        import sys
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
