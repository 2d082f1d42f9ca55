"""VGG-16 (arXiv 1409.1556) with its fully connected layers made convolutions (SSD paper, section 3)."""

from __future__ import annotations

from torch import nn

#: Channels of the 3x3 convolutions; M halves the map, C halves it and rounds odd sides up.
ROWS = (64, 64, "M", 128, 128, "M", 256, 256, 256, "C", 512, 512, 512, "M", 512, 512, 512)


def vgg16_reduced() -> nn.Sequential:
    """Make the 35 feature modules, flat; images (B, 3, H, W) become (B, 1024, H / 16, W / 16)."""
    modules: list[nn.Module] = []
    channels = 3
    for row in ROWS:
        if isinstance(row, int):
            modules += [nn.Conv2d(channels, row, 3, padding=1), nn.ReLU(inplace=True)]
            channels = row
        else:
            modules.append(nn.MaxPool2d(2, 2, ceil_mode=row == "C"))
    modules += [
        nn.MaxPool2d(3, 1, 1),
        nn.Conv2d(channels, 1024, 3, padding=6, dilation=6),
        nn.ReLU(inplace=True),
        nn.Conv2d(1024, 1024, 1),
        nn.ReLU(inplace=True),
    ]
    return nn.Sequential(*modules)
