"""How a run computes: device, precision, memory format, and where images are augmented."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from vision.engine.checkpoint import ExecutionChoice
from vision.engine.precision import Precision, choose_precision
from vision.options.training import AUGMENT_AUTO, AUGMENT_ON_CPU, AUGMENT_ON_DEVICE

if TYPE_CHECKING:
    from vision.engine.run import Run

logger = logging.getLogger(__name__)


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

    @property
    def choice(self) -> ExecutionChoice:
        """What a resumed run keeps."""
        return ExecutionChoice(self.precision.name, self.channels_last, self.augment_on)


def choose_execution(run: Run) -> ExecutionConfig:
    """Choose precision, memory format and where to augment; the same in all processes.

    A run that goes on keeps what it had.

    Args:
        run: with device and state.

    Raises:
        ValueError: the device cannot compute so.
    """
    options, device, state = run.options, run.device, run.state
    amp, augment_on = options.amp, options.augment_on
    if state and amp == "auto":
        amp = state.execution.amp
        if amp == "fp16" and device.type != "cuda":
            logger.warning("the run was in fp16, which %s does not compute in: its precision is chosen again", device)
            amp = "auto"
    precision, why = choose_precision(amp, device)
    logger.info(why)
    if (name := run.process.broadcast_from_main(lambda: precision.name)) != precision.name:
        precision, _ = choose_precision(name, device)
    channels_last = state.execution.channels_last if state else channels_last_is_faster(device, precision)
    if augment_on == AUGMENT_AUTO and state:
        augment_on = state.execution.augment_on
    if augment_on == AUGMENT_AUTO:
        augment_on = AUGMENT_ON_DEVICE if device.type == "cuda" else AUGMENT_ON_CPU
    if augment_on == AUGMENT_ON_DEVICE:
        logger.info("images: augmented on %s (--augment-on)", device)
    return ExecutionConfig(device, precision, channels_last, augment_on)


def channels_last_is_faster(device: torch.device, precision: Precision) -> bool:
    """Whether convolutions run faster with the channels last: on CPUs, and in 16 bits on GPUs (docs/performance.md)."""
    return device.type == "cpu" or (device.type == "cuda" and precision.dtype is not None)


def wait_for(device: torch.device) -> None:
    """Wait until a device has done all that it was told to; for timing."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
