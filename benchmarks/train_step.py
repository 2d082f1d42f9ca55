#!/usr/bin/env python3
"""Speed of a training step in both memory layouts, and of making a sample, side by side.

python3 benchmarks/train_step.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vision import cli  # noqa: E402
from vision.datasets import AUTO, DetectionDataset, open_dataset, synthetic  # noqa: E402
from vision.datasets.image_cache import ImageCache  # noqa: E402
from vision.datasets.voc_dataset import VOCDataset  # noqa: E402
from vision.engine import optim  # noqa: E402
from vision.engine.step import NetWithLoss  # noqa: E402
from vision.nn.multibox_loss import MultiboxLoss  # noqa: E402
from vision.ssd.data_preprocessing import Normaliser, TrainAugmentation  # noqa: E402
from vision.ssd.models import DEFAULT_NET, MODELS  # noqa: E402
from vision.structures import Batch  # noqa: E402
from vision.utils.timer import Timer  # noqa: E402

#: Of samples.
ROUNDS = 5


def seconds_per_call(function: Callable[[], None], calls: int) -> float:
    """Call once to warm up, then `calls` times; give the mean."""
    function()
    timer = Timer()
    timer.start()
    for _ in range(calls):
        function()
    return timer.end() / calls


def step_seconds(net_name: str, resolution: int, batch_size: int, memory_format: torch.memory_format) -> float:
    """Time a whole step on a batch in memory."""
    spec = MODELS[net_name]
    net = spec.build(4, config=spec.config_at(resolution)).to(memory_format=memory_format)
    config = net.config
    net_with_loss = NetWithLoss(net, Normaliser(config.image_mean, config.image_std), MultiboxLoss()).train()
    optimizer = optim.make_optimizer(net, optim.OptimOptions(lr=1e-4, base_net_lr=1e-4))
    images = torch.randint(0, 256, (batch_size, 3, resolution, resolution), dtype=torch.uint8)
    boxes = torch.tensor([[0.2, 0.2, 0.6, 0.6]]).expand(batch_size, 1, 4)
    batch = Batch(images, boxes, torch.ones(batch_size, 1, dtype=torch.int64))

    def step() -> None:
        losses, _, _ = net_with_loss(batch)
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        optimizer.step()

    return seconds_per_call(step, 5)


def sample_seconds(dataset: DetectionDataset, resolution: int, kind: str) -> list[float]:
    """Time reading an image and resizing it plainly, making a training sample of it, and the same from memory.

    On one thread, in turns; medians of the rounds, seconds an image.
    """
    augmentation = TrainAugmentation(resolution, 127, 128.0, kind)
    cache = ImageCache(dataset.records)
    cv2.setNumThreads(0)

    def plain() -> None:
        for index in range(len(dataset)):
            cv2.resize(cv2.imread(str(dataset.records[index].image_path)), (resolution, resolution))

    def make_samples(read: Callable[[int], np.ndarray]) -> None:
        for index in range(len(dataset)):
            rng = np.random.default_rng((0, 0, index))
            augmentation.resample(read(index), *dataset.targets(index), rng)

    functions = (
        plain,
        lambda: make_samples(dataset.get_image),
        lambda: make_samples(lambda index: cache.read(dataset.records[index])),
    )
    rounds = [[seconds_per_call(function, 1) for function in functions] for _ in range(ROUNDS)]
    return [statistics.median(column) / len(dataset) for column in zip(*rounds, strict=True)]


def print_samples(dataset: DetectionDataset, resolution: int) -> None:
    """Print what a sample costs, by augmentation."""
    width, height = dataset.records[0].size
    for kind in ("ssd", "light"):
        plain, augmented, cached = sample_seconds(dataset, resolution, kind)
        print(
            f"sample of {width}x{height}, {kind}: imread and resize {1000 * plain:.2f} ms; sample "
            f"{1000 * augmented:.2f} ms, ratio {augmented / plain:.2f}; from memory {1000 * cached:.2f} ms, "
            f"ratio {cached / plain:.2f}"
        )


def main(argv: list[str] | None = None) -> None:
    """Print the ratios."""
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_net_options(parser, DEFAULT_NET)
    parser.add_argument("--resolution", type=cli.count, default=300)
    parser.add_argument("--data", help="dataset whose training images become samples (default: drawings of 640x480)")
    parser.add_argument("--samples-only", action="store_true", help="time no steps")
    args = parser.parse_args(argv)
    for batch_size in () if args.samples_only else (4, 16):
        plain, last = (
            step_seconds(args.net, args.resolution, batch_size, memory_format)
            for memory_format in (torch.contiguous_format, torch.channels_last)
        )
        print(
            f"step, batch {batch_size}: contiguous {batch_size / plain:.1f} images/s, "
            f"channels last {batch_size / last:.1f} images/s, ratio {plain / last:.2f}"
        )
    if args.data:
        print_samples(open_dataset(AUTO, args.data, "train"), args.resolution)
        return
    with tempfile.TemporaryDirectory() as folder:
        synthetic.write_voc(Path(folder), {"train": synthetic.drawings(20, 0, size=(640, 480))})
        print_samples(VOCDataset(folder), args.resolution)


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
