"""What batch norm asks of batches."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from vision.ssd.ssd import SSD
from vision.structures import DataError


def trains_batch_norm(net: nn.Module, frozen: Sequence[nn.Module]) -> bool:
    """Whether a batch norm outside the frozen modules takes its statistics from batches."""
    still = {id(module) for part in frozen for module in part.modules()}
    return any(isinstance(module, _BatchNorm) and id(module) not in still for module in net.modules())


def check_batch_size(net: SSD, smallest: int, frozen: Sequence[nn.Module]) -> None:
    """Refuse batches so small that batch norm sees a single value; tried without numbers, on the meta device.

    Args:
        net: to be trained.
        smallest: number of images that batch norm sees in the smallest batch.
        frozen: modules that stay in eval mode.

    Raises:
        DataError: it is too small.
    """
    if smallest > 1:
        return
    if not smallest:
        raise DataError("--data: there are fewer training images than processes; start fewer with --nproc_per_node")
    width, height = net.config.width_height
    trial = copy.deepcopy(net).to("meta").train()
    for name, module in net.named_modules():
        if any(module is part for part in frozen):
            trial.get_submodule(name).eval()
    try:
        trial(torch.empty(smallest, 3, height, width, device="meta"))
    except ValueError as err:
        raise DataError(
            f"--batch-size: batches of one image are too small for the batch norm of {net.architecture.net} at "
            f"{width}x{height}; use --batch-size=2 or more, and at least two images"
        ) from err
