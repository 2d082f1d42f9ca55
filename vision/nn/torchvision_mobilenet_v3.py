"""MobileNetV3-Large (arXiv 1905.02244) with the narrow end that the paper gives detectors."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from vision.nn.layers import SLOW_NORM, conv_norm

_conv_norm = partial(conv_norm, norm=SLOW_NORM)

#: Kernel, hidden, squeezed (0 for no squeeze-and-excitation) and output channels, activation and stride of each block
#: (paper, table 1). From the last stride on, channels are half of the classifier's (section 6.3); squeezed are a
#: quarter of the hidden ones, as a multiple of 8.
BLOCKS = (
    (3, 16, 0, 16, nn.ReLU, 1),
    (3, 64, 0, 24, nn.ReLU, 2),
    (3, 72, 0, 24, nn.ReLU, 1),
    (5, 72, 24, 40, nn.ReLU, 2),
    (5, 120, 32, 40, nn.ReLU, 1),
    (5, 120, 32, 40, nn.ReLU, 1),
    (3, 240, 0, 80, nn.Hardswish, 2),
    (3, 200, 0, 80, nn.Hardswish, 1),
    (3, 184, 0, 80, nn.Hardswish, 1),
    (3, 184, 0, 80, nn.Hardswish, 1),
    (3, 480, 120, 112, nn.Hardswish, 1),
    (3, 672, 168, 112, nn.Hardswish, 1),
    (5, 672, 168, 80, nn.Hardswish, 2),
    (5, 480, 120, 80, nn.Hardswish, 1),
    (5, 480, 120, 80, nn.Hardswish, 1),
)
STEM_CHANNELS = 16
LAST_CHANNELS = 480


class SqueezeExcitation(nn.Module):
    """Scale each channel by what the mean of all says of it (paper, section 5.3).

    Args:
        channels: of the map.
        squeezed: channels between the two layers.
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.scale = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(squeezed, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, channels, H, W) to the same shape."""
        return features * self.scale(features)


class InvertedResidual(nn.Module):
    """Expand, filter depthwise, weigh channels, project; adds its input where shapes allow (paper, figure 4).

    Args:
        inp: input channels.
        kernel: of the depthwise convolution, odd.
        hidden: channels between; where they are those of the input the expansion is left out.
        squeezed: of `SqueezeExcitation`, 0 for none.
        oup: output channels.
        activation: after expansion and filter.
        stride: of the depthwise convolution.
    """

    def __init__(
        self, inp: int, kernel: int, hidden: int, squeezed: int, oup: int, activation: type[nn.Module], stride: int
    ) -> None:
        super().__init__()
        expansion = [] if hidden == inp else _conv_norm(inp, hidden, activation=activation)
        self.conv = nn.Sequential(
            *expansion,
            *_conv_norm(hidden, hidden, kernel, stride, groups=hidden, activation=activation),
            *([SqueezeExcitation(hidden, squeezed)] if squeezed else []),
            *_conv_norm(hidden, oup),
        )
        self.use_res_connect = stride == 1 and inp == oup

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, inp, H, W) to (B, oup, H / stride, W / stride), rounded up."""
        out = self.conv(features)
        return features + out if self.use_res_connect else out


def mobilenet_v3_large() -> nn.Sequential:
    """Make the 17 feature modules; images (B, 3, H, W) become (B, 480, H / 32, W / 32), rounded up."""
    modules: list[nn.Module] = [nn.Sequential(*_conv_norm(3, STEM_CHANNELS, 3, 2, activation=nn.Hardswish))]
    channels = STEM_CHANNELS
    for kernel, hidden, squeezed, out_channels, activation, stride in BLOCKS:
        modules.append(InvertedResidual(channels, kernel, hidden, squeezed, out_channels, activation, stride))
        channels = out_channels
    modules.append(nn.Sequential(*_conv_norm(channels, LAST_CHANNELS, activation=nn.Hardswish)))
    return nn.Sequential(*modules)
