"""How a run computes: device, precision, memory format, and where images are augmented."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

from vision.engine.checkpoint import ComputeChoice, RunState
from vision.engine.precision import Precision, choose_precision
from vision.engine.process import SingleProcess

logger = logging.getLogger(__name__)

#: What --augment-on may say.
AUGMENT_ON = AUTO, CPU, DEVICE = ("auto", "cpu", "device")


@dataclass(frozen=True)
class Compute:
    """How a run computes.

    Attributes:
        device: of the net.
        precision: of the forward pass.
        channels_last: memory format of net and images.
        augment_on: `CPU` where loaders render their samples, `DEVICE` where the net's device does.
    """

    device: torch.device
    precision: Precision
    channels_last: bool
    augment_on: str = CPU

    @property
    def choice(self) -> ComputeChoice:
        """What a resumed run keeps."""
        return ComputeChoice(self.precision.name, self.channels_last, self.augment_on)


def choose_compute(
    device: torch.device,
    amp: str,
    augment_on: str = AUTO,
    *,
    state: RunState | None,
    process: SingleProcess,
) -> Compute:
    """Choose precision, memory format and where to augment; the same in all processes.

    Args:
        device: to be used.
        amp: one of `vision.engine.precision.AMP_CHOICES`.
        augment_on: one of `AUGMENT_ON`.
        state: of a run that goes on, which keeps what it had; None for a new one.
        process: this one.

    Raises:
        ValueError: the device cannot compute so.
    """
    if state and amp == "auto":
        amp = state.compute.amp
        if amp == "fp16" and device.type != "cuda":
            logger.warning("the run was in fp16, which %s does not compute in: its precision is chosen anew", device)
            amp = "auto"
    precision, why = choose_precision(amp, device)
    logger.info(why)
    if (name := process.broadcast_from_main(lambda: precision.name)) != precision.name:
        precision, _ = choose_precision(name, device)
    channels_last = state.compute.channels_last if state else channels_last_is_faster(device, precision)
    if augment_on == AUTO and state:
        augment_on = state.compute.augment_on
    if augment_on == AUTO:
        augment_on = DEVICE if device.type == "cuda" else CPU
    if augment_on == DEVICE:
        logger.info("images: augmented on %s (--augment-on)", device)
    return Compute(device, precision, channels_last, augment_on)


def channels_last_is_faster(device: torch.device, precision: Precision) -> bool:
    """Whether convolutions run faster with the channels last: on CPUs, and in 16 bits on GPUs (docs/performance.md)."""
    return device.type == "cpu" or (device.type == "cuda" and precision.dtype is not None)


def wait_for(device: torch.device) -> None:
    """Wait until a device has done all that it was told to; for timing."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
