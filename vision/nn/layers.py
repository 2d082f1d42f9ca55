"""Building blocks of SSD heads and extra layers, with the module indices of the published checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

#: Batch norm of MobileNetV3 and its SSD, as torchvision trained them.
SLOW_NORM = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)


class BareDepthwise(nn.Conv2d):
    """A 3x3 depthwise convolution with biases that no batch norm follows.

    Args:
        channels: in and out.
        stride: of the convolution.
        padding: of the convolution.
        gain: by which it multiplies what it sees, to begin with; below 1 for maps of large numbers.
    """

    def __init__(self, channels: int, stride: int, padding: int, gain: float) -> None:
        super().__init__(channels, channels, 3, stride, padding, groups=channels)
        self.gain = gain


def initialize(module: nn.Module) -> None:
    """Draw a convolution's weights (Xavier-uniform; biases stay), for `nn.Module.apply`.

    A depthwise one without batch norm begins as the identity, times its gain, with that on top: alone its answers are
    several times smaller than its input, and what comes after it learns as slowly.
    """
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
    if isinstance(module, BareDepthwise):
        with torch.no_grad():
            module.weight[:, :, 1, 1] += module.gain
            if module.bias is not None:
                module.bias.zero_()


def separable_conv(
    in_channels: int, out_channels: int, stride: int = 1, padding: int = 1, norm: bool = False, gain: float = 1.0
) -> nn.Sequential:
    """Make a 3x3 depthwise convolution, [batch norm and ReLU6, or] ReLU, and a 1x1 convolution, with biases.

    `gain` see `BareDepthwise`; batch norm has no use for it.
    """
    if norm:
        depthwise = nn.Conv2d(in_channels, in_channels, 3, stride, padding, groups=in_channels)
    else:
        depthwise = BareDepthwise(in_channels, stride, padding, gain)
    between = [nn.BatchNorm2d(in_channels), nn.ReLU6(inplace=True)] if norm else [nn.ReLU(inplace=True)]
    return nn.Sequential(depthwise, *between, nn.Conv2d(in_channels, out_channels, 1))


def full_extra(in_channels: int, hidden: int, out_channels: int, stride: int = 2, padding: int = 1) -> nn.Sequential:
    """Make a 1x1 and a 3x3 convolution, each with ReLU: one more, smaller feature map."""
    return nn.Sequential(
        nn.Conv2d(in_channels, hidden, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden, out_channels, 3, stride, padding),
        nn.ReLU(inplace=True),
    )


def lite_extra(
    in_channels: int, hidden: int, out_channels: int, stride: int = 2, padding: int = 1, gain: float = 1.0
) -> nn.Sequential:
    """Make a 1x1 convolution with ReLU and a separable one without activation at its end."""
    return nn.Sequential(
        nn.Conv2d(in_channels, hidden, 1),
        nn.ReLU(inplace=True),
        separable_conv(hidden, out_channels, stride, padding, gain=gain),
    )


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel: int = 1,
    stride: int = 1,
    *,
    groups: int = 1,
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    activation: type[nn.Module] | None = None,
) -> list[nn.Module]:
    """Make a convolution without bias, padded by half its kernel, batch norm [and an activation]."""
    return [
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        norm(out_channels),
        *([] if activation is None else [activation(inplace=True)]),
    ]


def separable_conv_norm(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """Make a 3x3 depthwise and a 1x1 convolution, each with batch norm and ReLU."""
    return nn.Sequential(
        *conv_norm(in_channels, in_channels, 3, stride, groups=in_channels, activation=nn.ReLU),
        *conv_norm(in_channels, out_channels, activation=nn.ReLU),
    )


def norm_extra(in_channels: int, hidden: int, out_channels: int, stride: int = 2) -> nn.Sequential:
    """Make a 1x1, a 3x3 depthwise (padding 1) and a 1x1 convolution, each with batch norm and ReLU6."""
    make = partial(conv_norm, norm=SLOW_NORM, activation=nn.ReLU6)
    return nn.Sequential(
        *make(in_channels, hidden), *make(hidden, hidden, 3, stride, groups=hidden), *make(hidden, out_channels)
    )


def norm_head(in_channels: int, out_channels: int) -> nn.Sequential:
    """Make a 3x3 depthwise convolution with batch norm and ReLU6, and a 1x1 convolution with bias."""
    return nn.Sequential(
        *conv_norm(in_channels, in_channels, 3, groups=in_channels, norm=SLOW_NORM, activation=nn.ReLU6),
        nn.Conv2d(in_channels, out_channels, 1),
    )


class L2Norm(nn.Module):
    """Bring each cell's channels to length 1, then scale each channel (SSD paper, section 3.1; arXiv 1506.04579).

    Args:
        channels: of the map.
        scale: that training begins with.
    """

    def __init__(self, channels: int, scale: float = 20.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, channels, H, W) to the same shape."""
        # The largest becomes 1 first: 16 bits could not hold the squares of VGG's. The length does not depend on it,
        # so no gradient does, and it is at least 1 but for cells that are 0.
        peaks = features.detach().abs().amax(dim=1, keepdim=True).clamp_min(1e-4)
        features = features / peaks
        lengths = torch.linalg.vector_norm(features, dim=1, keepdim=True).clamp_min(1.0)
        return features / lengths * self.weight.view(1, -1, 1, 1)
