"""MobileNetV3 (arXiv 1905.02244) in the form that SSD code of the time used, with its names to import.

It differs from the paper's, and from torchvision's in `vision.nn.mobilenet_v3`, in that blocks scale the channels of
their output instead of those of their widest map, and add their input wherever they do not stride, through a 1x1
convolution where channels differ. Weights of one form are of no use to the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

#: Kernel, hidden and output channels, activation, whether channels are scaled, and stride of each block.
LARGE_BLOCKS = (
    (3, 16, 16, nn.ReLU, False, 1),
    (3, 64, 24, nn.ReLU, False, 2),
    (3, 72, 24, nn.ReLU, False, 1),
    (5, 72, 40, nn.ReLU, True, 2),
    (5, 120, 40, nn.ReLU, True, 1),
    (5, 120, 40, nn.ReLU, True, 1),
    (3, 240, 80, nn.Hardswish, False, 2),
    (3, 200, 80, nn.Hardswish, False, 1),
    (3, 184, 80, nn.Hardswish, False, 1),
    (3, 184, 80, nn.Hardswish, False, 1),
    (3, 480, 112, nn.Hardswish, True, 1),
    (3, 672, 112, nn.Hardswish, True, 1),
    (5, 672, 160, nn.Hardswish, True, 1),
    (5, 672, 160, nn.Hardswish, True, 2),
    (5, 960, 160, nn.Hardswish, True, 1),
)
SMALL_BLOCKS = (
    (3, 16, 16, nn.ReLU, True, 2),
    (3, 72, 24, nn.ReLU, False, 2),
    (3, 88, 24, nn.ReLU, False, 1),
    (5, 96, 40, nn.Hardswish, True, 2),
    (5, 240, 40, nn.Hardswish, True, 1),
    (5, 240, 40, nn.Hardswish, True, 1),
    (5, 120, 48, nn.Hardswish, True, 1),
    (5, 144, 48, nn.Hardswish, True, 1),
    (5, 288, 96, nn.Hardswish, True, 2),
    (5, 576, 96, nn.Hardswish, True, 1),
    (5, 576, 96, nn.Hardswish, True, 1),
)
STEM_CHANNELS = 16
LARGE_CHANNELS, SMALL_CHANNELS = 960, 576
CLASSIFIER_CHANNELS = 1280


class ChannelGate(nn.Module):
    """Scale each channel by what the mean of all says of it, with batch norm between.

    Args:
        channels: of the map; a quarter of them is between the two layers.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = channels // 4
        self.se = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1, bias=False),
            nn.BatchNorm2d(squeezed),
            nn.ReLU(inplace=True),
            nn.Conv2d(squeezed, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.Hardsigmoid(),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, channels, H, W) to the same shape."""
        return features * self.se(features)


class GatedResidual(nn.Module):
    """Expand, filter depthwise, project, scale channels; without a stride the input is added.

    Args:
        in_channels: of the input.
        hidden: channels between.
        out_channels: of the output.
        kernel: side of the depthwise convolution.
        stride: of the depthwise convolution, 1 or 2.
        activation: after the first two convolutions.
        is_gated: whether channels are scaled.
    """

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        out_channels: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        activation: type[nn.Module] = nn.Hardswish,
        is_gated: bool = False,
    ) -> None:
        super().__init__()
        # Named and ordered as the entries of published checkpoints are.
        self.se = ChannelGate(out_channels) if is_gated else nn.Identity()
        self.conv1 = nn.Conv2d(in_channels, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv3 = nn.Conv2d(hidden, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        matches = [nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)]
        self.shortcut = nn.Sequential(*matches if stride == 1 and in_channels != out_channels else ())
        self.activation = activation(inplace=True)
        self.adds_input = stride == 1

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        widest = self.activation(self.bn1(self.conv1(features)))
        filtered = self.activation(self.bn2(self.conv2(widest)))
        out = self.se(self.bn3(self.conv3(filtered)))
        return out + self.shortcut(features) if self.adds_input else out


class _MobileNetV3(nn.Module):
    def __init__(self, blocks: Sequence[tuple], last_channels: int, num_classes: int) -> None:
        super().__init__()
        modules: list[nn.Module] = [
            nn.Conv2d(3, STEM_CHANNELS, 3, 2, 1, bias=False),
            nn.BatchNorm2d(STEM_CHANNELS),
            nn.Hardswish(inplace=True),
        ]
        channels = STEM_CHANNELS
        for kernel, hidden, out_channels, activation, is_gated, stride in blocks:
            facts = {"kernel": kernel, "stride": stride, "activation": activation, "is_gated": is_gated}
            modules.append(GatedResidual(channels, hidden, out_channels, **facts))
            channels = out_channels
        modules += [nn.Conv2d(channels, last_channels, 1, bias=False), nn.BatchNorm2d(last_channels), nn.Hardswish()]
        self.features = nn.Sequential(*modules)
        self.classifier = nn.Sequential(
            nn.Linear(last_channels, CLASSIFIER_CHANNELS), nn.Hardswish(), nn.Linear(CLASSIFIER_CHANNELS, num_classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (B, 3, H, W), give (B, num_classes) before softmax."""
        return self.classifier(torch.mean(self.features(images), dim=(2, 3)))


class MobileNetV3_Large(_MobileNetV3):  # a name that scripts import
    """The large classifier; its 21 feature modules are `features`."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__(LARGE_BLOCKS, LARGE_CHANNELS, num_classes)


class MobileNetV3_Small(_MobileNetV3):  # a name that scripts import
    """The small classifier; its 17 feature modules are `features`."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__(SMALL_BLOCKS, SMALL_CHANNELS, num_classes)
