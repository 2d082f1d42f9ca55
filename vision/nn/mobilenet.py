"""MobileNetV1 (arXiv 1704.04861)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vision.nn.layers import conv_norm, separable_conv_norm

#: Output channels and stride of each depthwise separable block.
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


class MobileNetV1(nn.Module):
    """The classifier; its 14 feature modules are `model`."""

    def __init__(self, num_classes: int = 1024) -> None:
        super().__init__()
        modules, channels = [nn.Sequential(*conv_norm(3, 32, 3, 2, activation=nn.ReLU))], 32
        for out_channels, stride in BLOCKS:
            modules.append(separable_conv_norm(channels, out_channels, stride))
            channels = out_channels
        self.model = nn.Sequential(*modules)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (B, 3, H, W), give (B, num_classes) before softmax."""
        return self.fc(torch.mean(self.model(images), dim=(2, 3)))
