"""MobileNetV1 (arXiv 1704.04861)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Output channels and stride of each depthwise separable block.
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


def _conv_bn_relu(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out_channels), nn.ReLU()]


class MobileNetV1(nn.Module):
    """The classifier; its 14 feature modules are `model`."""

    def __init__(self, num_classes: int = 1024) -> None:
        super().__init__()
        modules, channels = [nn.Sequential(*_conv_bn_relu(3, 32, 3, stride=2))], 32
        for out_channels, stride in BLOCKS:
            depthwise = _conv_bn_relu(channels, channels, 3, stride, groups=channels)
            modules.append(nn.Sequential(*depthwise, *_conv_bn_relu(channels, out_channels, 1)))
            channels = out_channels
        self.model = nn.Sequential(*modules)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (B, 3, H, W), give (B, num_classes) before softmax."""
        return self.fc(torch.mean(self.model(images), dim=(2, 3)))
