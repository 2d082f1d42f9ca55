#!/usr/bin/env python3
"""Speed of a training step on this CPU: by memory layout, with freed memory kept, from a dataset, and by its parts.

    python3 benchmarks/bench_train.py
    python3 benchmarks/bench_train.py --data=data/bccd --amp off bf16 --workers=2

Without --data layouts of memory and keeping it alone. Peak memory is that of a process which does nothing but train.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import rounds  # noqa: E402
from vision import cli
from vision.datasets import AUTO, open_dataset  # noqa: E402
from vision.datasets.image_cache import ImageCache  # noqa: E402
from vision.datasets.loading import EpochBatches, end_workers, make_loader  # noqa: E402
from vision.engine import optim  # noqa: E402
from vision.engine.precision import Precision  # noqa: E402
from vision.engine.step import TrainingModel, TrainStep  # noqa: E402
from vision.nn.multibox_loss import MultiboxLoss  # noqa: E402
from vision.options import common  # noqa: E402
from vision.options.training import (  # noqa: E402
    AUGMENT_ON_CPU,
    AUGMENT_ON_DEVICE,
    OptimOptions,
    Options,
)
from vision.ssd.choices import DEFAULT_NET  # noqa: E402
from vision.ssd.data_preprocessing import TrainAugmentation  # noqa: E402
from vision.ssd.device_augmentation import AugmentingPreprocess, DeferredAugmentation  # noqa: E402
from vision.ssd.models import MODELS  # noqa: E402
from vision.structures import Batch  # noqa: E402
from vision.utils.memory import keep_freed_memory  # noqa: E402

PRECISIONS = {"off": Precision("cpu"), "bf16": Precision("cpu", torch.bfloat16)}

#: Images of a batch, and objects on each, of which matching and loss are timed.
LOSS_BATCH, LOSS_OBJECTS = 32, 20

#: Steps whose time is taken together, so that it is long beside that of the clock and of one slow image.
STEPS = 4


def draw_batch(images: int, resolution: int, objects: int = 1) -> Batch:
    """Draw a batch: noise, with boxes anywhere."""
    generator = torch.Generator().manual_seed(0)
    left_top = torch.rand(images, objects, 2, generator=generator) * 0.6
    sides = 0.05 + 0.3 * torch.rand(images, objects, 2, generator=generator)
    return Batch(
        torch.randint(0, 256, (images, 3, resolution, resolution), dtype=torch.uint8, generator=generator),
        torch.cat([left_top, left_top + sides], dim=2),
        torch.randint(1, 4, (images, objects), generator=generator),
    )


def make_train_step(
    net_name: str,
    resolution: int,
    amp: str = "off",
    memory_format: torch.memory_format = torch.channels_last,
    num_classes: int = 4,
) -> TrainStep:
    """Make what takes the steps of a run, with random weights and rates that keep them."""
    spec = MODELS[net_name]
    net = spec.build(num_classes, config=spec.config_at(resolution)).to(memory_format=memory_format)
    config = net.config
    preprocess = AugmentingPreprocess(config.image_size, config.image_mean, config.image_std)
    model = TrainingModel(net, preprocess, MultiboxLoss(), PRECISIONS[amp])
    optimizer = optim.make_optimizer(net, OptimOptions(lr=1e-4, base_net_lr=1e-4))
    train_step = TrainStep(model, optimizer, Options(epochs=1000))
    train_step.train()
    return train_step


def step_of(train_step: TrainStep, batches: Iterator[Batch], count: int = 1) -> Callable[[], None]:
    """Give a function that takes steps on the next batches."""

    def step() -> None:
        for batch in itertools.islice(batches, count):
            train_step.step([batch], 0, 1000)

    return step


def compare_layouts(net_name: str, resolution: int, batch_size: int, count: int) -> dict[str, Any]:
    """Time a step in both layouts of memory."""
    batch = draw_batch(batch_size, resolution)
    layouts = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
    steps = {
        name: step_of(make_train_step(net_name, resolution, memory_format=layout), itertools.repeat(batch))
        for name, layout in layouts.items()
    }
    return {"batch": batch_size, "images/s": {k: batch_size / v for k, v in rounds.in_turns(steps, count).items()}}


@functools.cache
def step_of_process(net_name: str, resolution: int, amp: str, batch_size: int) -> Callable[[], None]:
    """Make a step on a batch in memory, which stays with its process."""
    batch = draw_batch(batch_size, resolution)
    return step_of(make_train_step(net_name, resolution, amp), itertools.repeat(batch))


def take_step(*of: Any) -> None:
    """Take that step; a process can be sent this."""
    step_of_process(*of)()


def compare_memory(net_name: str, resolution: int, amp: str, batch_size: int, count: int) -> dict[str, Any]:
    """Time a step where freed memory goes back to the system, and where the process keeps it as training does."""
    of = net_name, resolution, amp, batch_size
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        steps = {}
        for name, initializer in (("given back", None), ("kept", keep_freed_memory)):
            pool = stack.enter_context(ProcessPoolExecutor(1, context, initializer))
            for _ in range(STEPS):  # malloc's thresholds follow what is asked of it
                pool.submit(take_step, *of).result()
            steps[name] = functools.partial(lambda pool: pool.submit(take_step, *of).result(), pool)
        speeds = {name: batch_size / seconds for name, seconds in rounds.in_turns(steps, count).items()}
    return {"batch": batch_size, "amp": amp, "images/s": speeds}


def compare_with_resident(args: argparse.Namespace, amp: str, batch_size: int) -> dict[str, Any]:
    """Time steps on what the loader gives from images that are decoded already, and on one batch that is there."""
    dataset = open_dataset(AUTO, args.data, "train", progress=cli.progress)
    cache = None
    if not args.no_cache:
        cache = ImageCache(dataset.records)
        for record in dataset.records:  # all there, as from a second epoch on
            for reduction in record.reductions:
                cache.read(record, reduction)
    dataset.repeat(1 + 2 * batch_size * STEPS * (args.rounds + 2) // len(dataset))  # one epoch lasts for all rounds
    train_step = make_train_step(args.net, args.resolution, amp, num_classes=len(dataset.class_names))
    config = train_step.net.config
    transform = TrainAugmentation(config.image_size, config.image_mean, config.image_std, args.augmentation)
    if args.augment_on == AUGMENT_ON_DEVICE:
        transform = DeferredAugmentation(transform)
    order = EpochBatches(len(dataset), batch_size)
    loader = make_loader(dataset, transform, order, args.workers, cache=cache)
    batches = iter(loader)
    first = next(batches)
    resident = first._replace(images=train_step.model.preprocess.render(first.images))
    steps = {
        "resident": step_of(train_step, itertools.repeat(resident), STEPS),
        "end to end": step_of(train_step, batches, STEPS),
    }
    seconds = rounds.in_turns(steps, args.rounds)
    end_workers(loader)
    speeds = {name: STEPS * batch_size / value for name, value in seconds.items()}
    where = AUGMENT_ON_CPU if isinstance(first.images, torch.Tensor) else AUGMENT_ON_DEVICE
    return {"batch": batch_size, "amp": amp, "augment on": where, "images/s": speeds}


def share_of_loss(net_name: str, resolution: int, amp: str, count: int) -> dict[str, float]:
    """Time a step on a large batch, and its matching, mining and loss with their gradient alone."""
    train_step = make_train_step(net_name, resolution, amp)
    batch = draw_batch(LOSS_BATCH, resolution, LOSS_OBJECTS)
    model = train_step.model
    with torch.no_grad():
        confidences, locations = train_step.net(model.preprocess(batch.images))

    def loss() -> None:
        answers = confidences.detach().requires_grad_(), locations.detach().requires_grad_()
        targets, labels = model.targets(batch)
        model.criterion(*answers, labels, targets).total.backward()

    return rounds.in_turns({"step": step_of(train_step, itertools.repeat(batch)), "loss": loss}, count)


def peak_of_training(args: argparse.Namespace, amp: str, batch_size: int) -> int:
    """Train a little, and return the most memory that this process has had, which must be new."""
    keep_freed_memory()
    compare_with_resident(argparse.Namespace(**{**vars(args), "rounds": 1}), amp, batch_size)
    return rounds.peak_bytes()


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common.add_net_options(parser, DEFAULT_NET)
    parser.add_argument("--resolution", type=cli.count, default=300)
    parser.add_argument("--batch-size", nargs="+", type=cli.count, default=[4, 16])
    parser.add_argument("--data", help="dataset to train on, against a batch in memory")
    parser.add_argument("--amp", nargs="+", type=cli.one_of("precision", tuple(PRECISIONS)), default=["off"])
    parser.add_argument("--workers", type=cli.number(int, 0), default=2, help="loader processes")
    parser.add_argument("--augmentation", default="light", help="as of train_ssd.py")
    parser.add_argument(
        "--augment-on",
        type=cli.one_of("place", (AUGMENT_ON_CPU, AUGMENT_ON_DEVICE)),
        default=AUGMENT_ON_CPU,
        help="where the new code augments",
    )
    parser.add_argument("--no-cache", action="store_true", help="decode images each time, as a first epoch does")
    rounds.add_options(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Print the ratios."""
    args = parse_args(argv)
    keep_freed_memory()
    figures: list[dict[str, Any]] = []
    for batch_size in args.batch_size:
        figures.append(compare_layouts(args.net, args.resolution, batch_size, args.rounds))
        plain, last = figures[-1]["images/s"].values()
        print(
            f"step, batch {batch_size}: contiguous {plain:.1f} images/s, channels last {last:.1f} images/s, "
            f"ratio {last / plain:.2f}",
            flush=True,
        )
    for amp, batch_size in itertools.product(args.amp, args.batch_size):
        figures.append(compare_memory(args.net, args.resolution, amp, batch_size, args.rounds))
        back, kept = figures[-1]["images/s"].values()
        print(
            f"--amp={amp}, batch {batch_size}: freed memory given back {back:.1f} images/s, kept {kept:.1f} images/s, "
            f"ratio {kept / back:.2f}",
            flush=True,
        )
    for amp, batch_size in itertools.product(args.amp, args.batch_size) if args.data else ():
        figures.append(compare_with_resident(args, amp, batch_size))
        resident, whole = figures[-1]["images/s"].values()
        print(
            f"--amp={amp}, batch {batch_size}: a batch in memory {resident:.1f} images/s, end to end {whole:.1f} "
            f"images/s, ratio {whole / resident:.3f}",
            flush=True,
        )
    for amp in args.amp if args.data else ():
        seconds = share_of_loss(args.net, args.resolution, amp, args.rounds)
        share = seconds["loss"] / seconds["step"]
        figures.append({"amp": amp, "batch": LOSS_BATCH, "objects": LOSS_OBJECTS, "seconds": seconds})
        print(
            f"--amp={amp}, batch {LOSS_BATCH} of {LOSS_OBJECTS} objects: step {seconds['step']:.2f} s, matching, "
            f"mining and loss in it {seconds['loss']:.3f} s, {100 * share:.1f} %",
            flush=True,
        )
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            peak = pool.submit(peak_of_training, args, amp, args.batch_size[0]).result()
        figures.append({"amp": amp, "batch": args.batch_size[0], "peak bytes": peak})
        print(f"--amp={amp}, batch {args.batch_size[0]}: at most {peak / 2**20:.0f} MiB of memory", flush=True)
    rounds.write_figures(args.json, figures)


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
