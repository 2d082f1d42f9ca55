#!/usr/bin/env python3
r"""Convert TensorFlow's SSDLite MobileNetV2 to a checkpoint of `mb2-ssd-lite`, as a start for more training.

    python3 benchmarks/convert_ssdlite.py --weights=models/ssdlite_mobilenet_v2_coco.pth \
        --images=data/voc07/JPEGImages --out=runs/mb2-ssd-lite-coco.pth

The conversion is not exact, so the result must be trained before it is used: TensorFlow pads stride-2 convolutions at
one side, has a ReLU6 behind the projections of its extra layers, twice as many channels on the last map, and scores by
a sigmoid.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from vision import cli  # noqa: E402
from vision.boxes.priors import CellPrior, FreePriorLevel, Level  # noqa: E402
from vision.datasets.images import read_image  # noqa: E402
from vision.nn.mobilenet_v2 import InvertedResidual  # noqa: E402
from vision.ssd.data_preprocessing import PredictionTransform  # noqa: E402
from vision.ssd.models import MODELS  # noqa: E402
from vision.ssd.ssd import HEADS, SSD  # noqa: E402
from vision.ssd.weights import read_weights  # noqa: E402

NET = "mb2-ssd-lite"

#: COCO's categories by id, with PASCAL VOC's names for its twenty classes.
CATEGORIES = {
    **{1: "person", 2: "bicycle", 3: "car", 4: "motorbike", 5: "aeroplane", 6: "bus", 7: "train", 9: "boat"},
    **{16: "bird", 17: "cat", 18: "dog", 19: "horse", 20: "sheep", 21: "cow", 44: "bottle", 62: "chair", 63: "sofa"},
    **{64: "pottedplant", 67: "diningtable", 72: "tvmonitor"},
}
NUM_CATEGORIES = 90

#: Pixels by which a cell of ours looks further up and left than one of TensorFlow's, by level. A convolution of stride
#: 2 pads even sides at their end there and at both ends here, which is a pixel of its input.
SHIFTS = (1 + 2 + 8, 1 + 2 + 8, 1 + 2 + 8 + 32, 1 + 2 + 8 + 32, 1 + 2 + 8 + 32, 1 + 2 + 8 + 32)

#: Order of TensorFlow's location codes (y, x, height, width) in ours (x, y, width, height).
CODES = (1, 0, 3, 2)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, type=Path, help="TensorFlow's detector")
    parser.add_argument("--images", required=True, type=Path, help="folder of .jpg files to calibrate batch norms with")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.pth")
    return parser.parse_args(argv)


def cell_priors(anchors: Tensor, levels: Sequence[Level], counts: Sequence[int]) -> list[FreePriorLevel]:
    """Read the priors of each level from TensorFlow's anchors (P, 4), ymin xmin ymax xmax, relative to 300 pixels."""
    result, start = [], 0
    for level, count, shift in zip(levels, counts, SHIFTS, strict=True):
        first = anchors[start : start + count] * 300
        # TensorFlow spreads its cells over 300 pixels, the published steps go beyond; the mean over the cells counts.
        beyond = (level.shrinkage * level.feature_map_size - 300) / 2
        offset = -(shift + beyond) / level.shrinkage
        priors = [CellPrior(float(x2 - x1), float(y2 - y1), offset, offset) for y1, x1, y2, x2 in first]
        result.append(FreePriorLevel(level.feature_map_size, level.shrinkage, tuple(priors)))
        start += level.feature_map_size**2 * count
    return result


def load_extra(extra: InvertedResidual, weights: dict[str, Tensor], prefix: str) -> None:
    """Fill an extra layer with convolutions whose batch norm is folded; the norm becomes the bias."""
    for place, name in ((0, "expand"), (3, "depthwise"), (6, "project")):
        conv, norm = extra.conv[place], extra.conv[place + 1]
        kept = slice(conv.out_channels)
        conv.weight.copy_(weights[f"{prefix}{name}.weight"][kept])
        norm.weight.fill_(1)
        norm.bias.copy_(weights[f"{prefix}{name}.bias"][kept])
        norm.running_mean.zero_()
        norm.running_var.fill_(1 - norm.eps)


def load_head(head: nn.Sequential, weights: dict[str, Tensor], prefix: str) -> None:
    """Fill the layers below the last of a head."""
    conv, norm = head[0], head[1]
    conv.weight.copy_(weights[f"{prefix}depthwise.weight"])
    conv.bias.zero_()
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(norm, name).copy_(weights[f"{prefix}norm.{name}"])
    norm.running_var += 0.001 - norm.eps  # TensorFlow's epsilon


def calibrate(net: SSD, images: Iterable[Tensor]) -> None:
    """Give the extra layers' batch norms the statistics of their inputs, without changing what the net computes."""
    found: dict[nn.BatchNorm2d, list[Tensor]] = {}
    norms = [module for module in net.extras.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [
        norm.register_forward_pre_hook(lambda norm, inputs: found.setdefault(norm, []).append(inputs[0].clone()))
        for norm in norms
    ]
    for image in images:
        net(image[None])
    for hook in hooks:
        hook.remove()
    for norm in norms:
        values = torch.cat(found[norm]).transpose(0, 1).flatten(1)
        mean, variance = values.mean(dim=1), values.var(dim=1, correction=0)
        norm.bias += mean
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)


@torch.no_grad()
def convert(weights: dict[str, Tensor], images: Iterable[Tensor]) -> SSD:
    """Make the net.

    Args:
        weights: of TensorFlow's detector.
        images: (3, 300, 300) normalized, to calibrate batch norms with.
    """
    spec = MODELS[NET]
    last = "{}.{}.project.{}".format
    counts = [len(weights[last(HEADS[1], level, "bias")]) // 4 for level in range(6)]
    levels = cell_priors(weights["anchors_ymin_xmin_ymax_xmax"], spec.config_at().specs, counts)
    net = spec.build(1 + NUM_CATEGORIES, config=replace(spec.config_at(), specs=tuple(levels)))
    net.class_names = ("BACKGROUND", *(CATEGORIES.get(number, f"coco-{number}") for number in range(1, 91)))
    net.init()
    prefix = "base_net."
    net.base_net.load_state_dict(
        {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    )
    for number, extra in enumerate(net.extras):
        load_extra(extra, weights, f"extras.{number}.")
    for name in HEADS:
        for level, head in enumerate(list(getattr(net, name))[:-1]):  # the last map has other channels
            load_head(head, weights, f"{name}.{level}.")
            for part in ("weight", "bias"):
                found = weights[last(name, level, part)]
                rows = found.reshape(counts[level], -1, *found.shape[1:])
                if name == HEADS[1]:
                    rows = rows[:, CODES]
                else:
                    rows[:, 0] = 0  # the softmax's odds against the background are the sigmoid's
                getattr(head[-1], part).copy_(rows.flatten(0, 1))
    calibrate(net.eval(), images)
    return net


def main(argv: Sequence[str] | None = None) -> None:
    """Convert and write."""
    args = parse_args(argv)
    transform = PredictionTransform(300, 127.0, 128.0)
    paths = sorted(args.images.glob("*.jpg"))[:100]
    cv2.setNumThreads(1)
    net = convert(read_weights(args.weights), [transform(read_image(path)) for path in paths])
    net.save(str(args.out))
    print(f"Saved {args.out}, calibrated on {len(paths)} images")


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
