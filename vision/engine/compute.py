"""How a run computes: device, precision, memory format, and where images are augmented."""

from __future__ import annotations

import copy
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from vision.engine.faults import is_out_of_memory
from vision.engine.precision import Precision, choose_precision
from vision.options.training import AUGMENT_AUTO, AUGMENT_ON_CPU, AUGMENT_ON_DEVICE
from vision.ssd.ssd import SSD, place

if TYPE_CHECKING:
    from vision.engine.run import Run

logger = logging.getLogger(__name__)

#: Passes that are timed, after some that are not: the first are slower than all others.
_WARM_UP, _TIMED = 2, 2


@dataclass(frozen=True)
class ExecutionConfig:
    """How a run computes.

    Attributes:
        device: of the net.
        precision: of the forward pass.
        channels_last: memory format of net and images.
        augment_on: `AUGMENT_ON_CPU` where loaders render their samples, `AUGMENT_ON_DEVICE` where the device does.
    """

    device: torch.device
    precision: Precision
    channels_last: bool
    augment_on: str = AUGMENT_ON_CPU

    def as_values(self) -> dict[str, Any]:
        """Plain values of what a resumed run keeps."""
        return {"amp": self.precision.name, "channels_last": self.channels_last, "augment_on": self.augment_on}


def choose_execution(run: Run) -> ExecutionConfig:
    """Choose precision, memory format and where to augment; the same in all processes.

    A run that goes on keeps what it had. Memory formats are measured where nothing has to be repeatable.

    Args:
        run: with device, net and state; the net stays as it is.

    Raises:
        ValueError: the device cannot compute so.
    """
    options, device, state = run.options, run.device, run.state
    amp, augment_on = options.amp, options.augment_on
    if state and amp == "auto":
        amp = state.compute["amp"]
        if amp == "fp16" and device.type != "cuda":
            logger.warning("the run was in fp16, which %s does not compute in: its precision is chosen anew", device)
            amp = "auto"
    precision, why = choose_precision(amp, device)
    logger.info(why)
    if (name := run.process.broadcast_from_main(lambda: precision.name)) != precision.name:
        precision, _ = choose_precision(name, device)
    if state:
        channels_last = state.compute["channels_last"]
    elif options.seed is None and not options.dry_run:
        channels_last = run.process.broadcast_from_main(
            lambda: measure_memory_format(run.net, device, precision, options.batch_size)
        )
        logger.info("memory format: %s, measured", "channels last" if channels_last else "contiguous")
    else:
        channels_last = device.type == "cpu"
    if augment_on == AUGMENT_AUTO and state:
        augment_on = state.compute.get("augment_on", AUGMENT_ON_CPU)
    if augment_on == AUGMENT_AUTO:
        augment_on = AUGMENT_ON_DEVICE if device.type == "cuda" else AUGMENT_ON_CPU
    if augment_on == AUGMENT_ON_DEVICE:
        logger.info("images: augmented on %s (--augment-on)", device)
    return ExecutionConfig(device, precision, channels_last, augment_on)


def wait_for(device: torch.device) -> None:
    """Wait until a device has done all that it was told to; for timing."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_memory_format(net: SSD, device: torch.device, precision: Precision, batch_size: int) -> bool:
    """Do as `channels_last_is_faster`, with as many images of a batch as there is memory for."""
    while True:
        try:
            return channels_last_is_faster(net, device, precision, batch_size)
        except (RuntimeError, MemoryError, OSError) as err:
            if batch_size == 1 or not is_out_of_memory(err):
                raise
            batch_size //= 2


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
        for _ in range(_WARM_UP + _TIMED):
            wait_for(device)
            before = time.perf_counter()
            with precision.autocast():
                confidences, locations = trial(images)
            (confidences.float().sum() + locations.float().sum()).backward()
            wait_for(device)
            times.append(time.perf_counter() - before)
        seconds[channels_last] = min(times[_WARM_UP:])
    return seconds[True] <= seconds[False]
