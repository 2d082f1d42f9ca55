"""SqueezeNet 1.1 (arXiv 1602.07360)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Squeeze and (per branch) expand channels of each Fire module, None for a pooling.
ROWS = (
    None,
    (16, 64),
    (16, 64),
    None,
    (32, 128),
    (32, 128),
    None,
    (48, 192),
    (48, 192),
    (64, 256),
    (64, 256),
)


class Fire(nn.Module):
    """Squeeze with 1x1, expand with 1x1 and 3x3 side by side (paper, section 3.2)."""

    def __init__(self, in_channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, 2 * expand, H, W)."""
        squeezed = torch.relu_(self.squeeze(features))
        return torch.relu_(torch.cat([self.expand1x1(squeezed), self.expand3x3(squeezed)], dim=1))


class SqueezeNet(nn.Module):
    """The classifier; its 13 feature modules are `features`."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        modules: list[nn.Module] = [nn.Conv2d(3, 64, 3, 2), nn.ReLU(inplace=True)]
        channels = 64
        for row in ROWS:
            if row is None:
                modules.append(nn.MaxPool2d(3, 2))
            else:
                modules.append(Fire(channels, *row))
                channels = 2 * row[1]
        self.features = nn.Sequential(*modules)
        self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(channels, num_classes, 1), nn.ReLU(inplace=True))

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (B, 3, H, W), give (B, num_classes) before softmax."""
        return torch.mean(self.classifier(self.features(images)), dim=(2, 3))
