#!/usr/bin/env python3
"""Speed of a training step in both memory layouts, and of making a sample, side by side.

python3 benchmarks/train_step.py
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vision import cli  # noqa: E402
from vision.datasets import synthetic  # noqa: E402
from vision.datasets.voc_dataset import VOCDataset  # noqa: E402
from vision.engine import optim  # noqa: E402
from vision.engine.step import NetWithLoss  # noqa: E402
from vision.nn.multibox_loss import MultiboxLoss  # noqa: E402
from vision.ssd.data_preprocessing import Normaliser, TrainAugmentation  # noqa: E402
from vision.ssd.models import DEFAULT_NET, MODELS  # noqa: E402
from vision.structures import Batch  # noqa: E402
from vision.utils.timer import Timer  # noqa: E402


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


def sample_seconds(resolution: int) -> tuple[float, float]:
    """Time reading an image and resizing it plainly, and making a training sample of it, on one thread."""
    with tempfile.TemporaryDirectory() as folder:
        synthetic.write_voc(Path(folder), {"train": synthetic.drawings(20, 0, size=(640, 480))})
        dataset = VOCDataset(folder)
        augmentation = TrainAugmentation(resolution, 127, 128.0)
        cv2.setNumThreads(0)

        def plain() -> None:
            for index in range(len(dataset)):
                cv2.resize(dataset.get_image(index), (resolution, resolution))

        def augmented() -> None:
            for index in range(len(dataset)):
                rng = np.random.default_rng((0, 0, index))
                augmentation.resample(dataset.get_image(index), *dataset.targets(index), rng)

        return tuple(seconds_per_call(function, 3) / len(dataset) for function in (plain, augmented))


def main(argv: list[str] | None = None) -> None:
    """Print the ratios."""
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_net_options(parser, DEFAULT_NET)
    parser.add_argument("--resolution", type=cli.count, default=300)
    args = parser.parse_args(argv)
    for batch_size in (4, 16):
        plain, last = (
            step_seconds(args.net, args.resolution, batch_size, memory_format)
            for memory_format in (torch.contiguous_format, torch.channels_last)
        )
        print(
            f"step, batch {batch_size}: contiguous {batch_size / plain:.1f} images/s, "
            f"channels last {batch_size / last:.1f} images/s, ratio {plain / last:.2f}"
        )
    plain, augmented = sample_seconds(args.resolution)
    print(
        f"sample of 640x480: read and resize {1000 * plain:.2f} ms, with augmentation {1000 * augmented:.2f} ms, "
        f"ratio {augmented / plain:.2f}"
    )


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
