"""Building blocks of SSD heads and extra layers, with the module indices of the published checkpoints."""

from __future__ import annotations

from torch import nn


def separable_conv(
    in_channels: int, out_channels: int, stride: int = 1, padding: int = 1, norm: bool = False
) -> nn.Sequential:
    """Make a 3x3 depthwise convolution, [batch norm and ReLU6, or] ReLU, and a 1x1 convolution, with biases."""
    depthwise = nn.Conv2d(in_channels, in_channels, 3, stride, padding, groups=in_channels)
    between = [nn.BatchNorm2d(in_channels), nn.ReLU6()] if norm else [nn.ReLU()]
    return nn.Sequential(depthwise, *between, nn.Conv2d(in_channels, out_channels, 1))


def full_extra(in_channels: int, hidden: int, out_channels: int, stride: int, padding: int) -> nn.Sequential:
    """Make a 1x1 and a 3x3 convolution, each with ReLU: one more, smaller feature map."""
    return nn.Sequential(
        nn.Conv2d(in_channels, hidden, 1),
        nn.ReLU(),
        nn.Conv2d(hidden, out_channels, 3, stride, padding),
        nn.ReLU(),
    )


def lite_extra(in_channels: int, hidden: int, out_channels: int, stride: int, padding: int) -> nn.Sequential:
    """Make a 1x1 convolution with ReLU and a separable one without activation at its end."""
    return nn.Sequential(
        nn.Conv2d(in_channels, hidden, 1), nn.ReLU(), separable_conv(hidden, out_channels, stride, padding)
    )
