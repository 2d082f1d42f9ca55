"""A light feature pyramid (arXiv 1612.03144, in the separable form of TensorFlow's "FPNLite" detectors)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from vision.nn.layers import conv_norm, separable_conv_norm


class FeaturePyramid(nn.Module):
    """Gives fine maps what coarse ones know: brings all to the same channels, and adds each to the next finer one.

    Args:
        in_channels: of the maps, from fine to coarse.
        out_channels: of all maps that come out.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Sequential(*conv_norm(channels, out_channels)) for channels in in_channels)
        self.outputs = nn.ModuleList(separable_conv_norm(out_channels, out_channels) for _ in in_channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Mix maps, from fine to coarse, each of half the size of the one before, rounded up."""
        mixed = [lateral(m) for lateral, m in zip(self.laterals, maps, strict=True)]
        for index in reversed(range(len(mixed) - 1)):
            # By a whole factor and then cut to odd sizes: what every TensorRT parser takes.
            height, width = map(int, mixed[index].shape[2:])
            doubled = F.interpolate(mixed[index + 1], scale_factor=2.0, mode="nearest")
            mixed[index] = mixed[index] + doubled[:, :, :height, :width]
        return [output(m) for output, m in zip(self.outputs, mixed, strict=True)]
