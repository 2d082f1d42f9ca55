"""A few steps of a run, to see that it works and what it will cost."""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader

from vision.engine.learner import Learner
from vision.engine.loop import MeanLosses, Validation, steps_of, validate
from vision.engine.precision import Precision
from vision.ssd.ssd import SSD, place
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
    learner: Learner,
    train_loader: DataLoader,
    val_loader: DataLoader,
    annotations: Sequence[Annotation],
    accumulate: int,
    everyone: Callable[[Any], list[Any]] = lambda value: [value],
) -> Rehearsal:
    """Take a few steps and validate one batch; the net is changed by them.

    Args:
        learner: takes the steps.
        train_loader: yields `Batch`es.
        val_loader: likewise, in the order of `annotations`.
        annotations: of the validation pictures.
        accumulate: batches that make one step.
        everyone: see `fit`.

    Raises:
        DataError: a loss is not finite.
    """
    device = learner.device
    learner.train()
    steps = steps_of(train_loader, accumulate)
    first = None
    seconds: list[float] = []
    began = before = time.perf_counter()
    batches = iter(train_loader)
    while group := list(itertools.islice(batches, accumulate)):
        losses = learner.step(group, len(seconds), steps)
        if losses is None:
            raise DataError("the training loss of the first batches is not finite: look at the starting weights")
        first = first or MeanLosses(losses.regression.item(), losses.classification.item())
        _wait_for(device)
        now = time.perf_counter()
        seconds.append(now - before)
        before = now
        if len(seconds) == _WARM_UP + _TIMED or max(everyone(now - began)) > _SECONDS:
            break
    timed = seconds[_WARM_UP:] or seconds[-1:]
    batches = iter(val_loader)
    batch = next(batches, None)  # waits for the workers to start; several processes may have no batch for all
    before = time.perf_counter()
    batch = next(batches, batch)
    part = Validation() if batch is None else validate(learner.objective, [batch], annotations)
    validation_seconds = time.perf_counter() - before
    validation = Validation.join(everyone(part)).losses
    if not math.isfinite(validation.total):
        raise DataError("the validation loss of the first batch is not finite: look at the starting weights")
    step_seconds = sum(timed) / len(timed)
    return Rehearsal(
        first,
        validation,
        step_seconds,
        step_seconds * steps,
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


def channels_last_is_faster(net: SSD, device: torch.device, precision: Precision, batch_size: int) -> bool:
    """Time forward and backward passes of a copy of a net in both memory formats.

    Args:
        net: stays as it is.
        device: to be used.
        precision: likewise.
        batch_size: of the run.
    """
    width, height = net.config.width_height
    seconds = {}
    for channels_last in (True, False):
        trial = place(copy.deepcopy(net), device, channels_last).train()
        images = torch.zeros(max(batch_size, 2), 3, height, width, device=device)
        times = []
        for _ in range(_WARM_UP + _TIMED // 2):
            _wait_for(device)
            before = time.perf_counter()
            with precision.autocast():
                confidences, locations = trial(images)
            (confidences.float().sum() + locations.float().sum()).backward()
            _wait_for(device)
            times.append(time.perf_counter() - before)
        seconds[channels_last] = min(times[_WARM_UP:])
    return seconds[True] <= seconds[False]
