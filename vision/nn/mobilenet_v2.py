"""MobileNetV2 (arXiv 1801.04381)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Expansion, output channels, repetitions and first stride of each group of blocks (paper, table 2).
GROUPS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM_CHANNELS = 32
LAST_CHANNELS = 1280


def last_channels(width_mult: float) -> int:
    """Channels of the last feature module; like the paper's, it only ever grows with the width."""
    return int(LAST_CHANNELS * width_mult) if width_mult > 1 else LAST_CHANNELS


class InvertedResidual(nn.Module):
    """Expand, filter depthwise, project; adds its input where shapes allow (paper, section 3.3).

    Args:
        inp: input channels.
        oup: output channels.
        stride: of the depthwise convolution, 1 or 2.
        expand_ratio: hidden channels per input channel; for 1 the expansion is left out.
        use_batch_norm: normalize after each convolution.
        onnx_compatible: ReLU in the place of ReLU6.
        hidden: hidden channels outright, in the place of `expand_ratio`.
    """

    def __init__(
        self,
        inp: int,
        oup: int,
        stride: int,
        expand_ratio: float,
        use_batch_norm: bool = True,
        onnx_compatible: bool = False,
        *,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        if stride not in (1, 2):
            raise ValueError(f"stride: expected 1 or 2, got {stride}")
        activation = nn.ReLU if onnx_compatible else nn.ReLU6
        hidden = round(inp * expand_ratio) if hidden is None else hidden

        def norm(channels: int) -> list[nn.Module]:
            return [nn.BatchNorm2d(channels)] if use_batch_norm else []

        layers: list[nn.Module] = []
        if hidden != inp:
            layers += [nn.Conv2d(inp, hidden, 1, bias=False), *norm(hidden), activation(inplace=True)]
        layers += [
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            *norm(hidden),
            activation(inplace=True),
        ]
        layers += [nn.Conv2d(hidden, oup, 1, bias=False), *norm(oup)]
        self.conv = nn.Sequential(*layers)
        self.use_res_connect = stride == 1 and inp == oup

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, inp, H, W) to (B, oup, H / stride, W / stride)."""
        out = self.conv(features)
        return features + out if self.use_res_connect else out


class MobileNetV2(nn.Module):
    """The classifier; its 19 feature modules are `features`.

    Args:
        n_class: classes.
        input_size: side of the images it is meant for, a multiple of 32.
        width_mult: scales the channels, truncated to whole numbers.
        dropout_ratio: before the classifier.
        use_batch_norm: normalize in all feature modules; the first does so always.
        onnx_compatible: ReLU in the place of ReLU6.
    """

    def __init__(
        self,
        n_class: int = 1000,
        input_size: int = 224,
        width_mult: float = 1.0,
        dropout_ratio: float = 0.2,
        use_batch_norm: bool = True,
        onnx_compatible: bool = False,
    ) -> None:
        super().__init__()
        if input_size % 32:
            raise ValueError(f"input_size: expected a multiple of 32, got {input_size}")
        activation = nn.ReLU if onnx_compatible else nn.ReLU6
        channels = int(STEM_CHANNELS * width_mult)
        modules: list[nn.Module] = [
            nn.Sequential(
                nn.Conv2d(3, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels), activation(inplace=True)
            )
        ]
        for expansion, width, repetitions, first_stride in GROUPS:
            out_channels = int(width * width_mult)
            for index in range(repetitions):
                stride = first_stride if index == 0 else 1
                modules.append(
                    InvertedResidual(channels, out_channels, stride, expansion, use_batch_norm, onnx_compatible)
                )
                channels = out_channels
        last = last_channels(width_mult)
        norm = [nn.BatchNorm2d(last)] if use_batch_norm else []
        modules.append(nn.Sequential(nn.Conv2d(channels, last, 1, bias=False), *norm, activation(inplace=True)))
        self.features = nn.Sequential(*modules)
        self.classifier = nn.Sequential(nn.Dropout(dropout_ratio), nn.Linear(last, n_class))

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (B, 3, H, W), give (B, n_class) before softmax."""
        return self.classifier(torch.mean(self.features(images), dim=(2, 3)))
