#!/usr/bin/env python3
"""What a training sample costs, read from its file or from memory, against plainly reading and resizing the same file.

    python3 benchmarks/bench_pipeline.py --data=data/bccd
    python3 benchmarks/bench_pipeline.py --data=data/signs --scale-to=1280x960

On one thread; the ways take turns image by image, and the ratio is that of all images' times. The last one is what is
left for the loader where the device augments (train_ssd.py --augment-on=device).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import rounds  # noqa: E402
from vision import cli  # noqa: E402
from vision.boxes.priors import as_width_height  # noqa: E402
from vision.datasets import AUTO, DetectionDataset, open_dataset, synthetic  # noqa: E402
from vision.datasets.image_cache import ImageCache  # noqa: E402
from vision.datasets.loading import SampleTransform  # noqa: E402
from vision.datasets.voc_dataset import VOCDataset  # noqa: E402
from vision.ssd.data_preprocessing import TrainAugmentation  # noqa: E402
from vision.ssd.device_augmentation import DeferredAugmentation  # noqa: E402

KINDS = ("ssd", "light")

#: Ways to an image at the network's size.
PLAIN, FROM_FILE, FROM_MEMORY = "imread and resize", "sample", "sample from memory"
FOR_DEVICE = "cut out of memory for the device"


def scale(dataset: DetectionDataset, size: tuple[int, int], folder: Path) -> None:
    """Write all images of a dataset at another size, as JPEGs, and have the dataset read these."""
    records = []
    for number, record in enumerate(dataset.records):
        path = folder / f"{number}.jpg"
        synthetic.write_image(path, cv2.resize(record.read(), size, interpolation=cv2.INTER_CUBIC))
        boxes = record.boxes * np.tile(np.divide(size, record.size), 2).astype(np.float32)
        records.append(record._replace(image_path=path, size=size, boxes=boxes, orientation=1))
    dataset.records = records


def sample_seconds(dataset: DetectionDataset, resolution: int, kind: str, count: int) -> dict[str, float]:
    """Time each way; seconds an image, the median of the rounds."""
    augmentation = TrainAugmentation(resolution, 127, 128.0, kind)
    deferred = DeferredAugmentation(augmentation)
    cache = ImageCache(dataset.records)
    records = dataset.records

    def plain(index: int) -> None:
        cv2.resize(cv2.imread(str(records[index].image_path)), (resolution, resolution))

    def sample(index: int, read: Callable, transform: SampleTransform = augmentation) -> None:
        rng = np.random.default_rng((0, 0, index))
        view = transform.plan(records[index].size, *dataset.targets(index), rng, records[index].reductions)
        transform.render(read(records[index], view.reduction), view)

    ways = {
        PLAIN: plain,
        FROM_FILE: lambda index: sample(index, lambda record, reduction: record.read(reduction)),
        FROM_MEMORY: lambda index: sample(index, cache.read),
        FOR_DEVICE: lambda index: sample(index, cache.read, deferred),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(count + 1):
        sums = dict.fromkeys(ways, 0.0)
        for index in range(len(dataset)):
            for name, way in ways.items():
                began = time.perf_counter()
                way(index)
                sums[name] += time.perf_counter() - began
        if number:  # the first round warms up, and fills the memory
            for name, seconds in sums.items():
                times[name].append(seconds / len(dataset))
    return {name: median(found) for name, found in times.items()}


def main(argv: list[str] | None = None) -> None:
    """Print a row for each kind of augmentation."""
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="dataset whose training images become samples (default: drawings of 640x480)")
    parser.add_argument("--resolution", type=cli.count, default=300)
    parser.add_argument("--scale-to", type=cli.resolution, help="bring the images to N or WxH first, as JPEGs")
    rounds.add_options(parser)
    args = parser.parse_args(argv)
    cv2.setNumThreads(0)
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        if args.data:
            dataset = open_dataset(AUTO, args.data, "train", progress=cli.progress)
        else:
            synthetic.write_voc(Path(folder), {"train": synthetic.drawings(20, 0, size=(640, 480))})
            dataset = VOCDataset(folder)
        if args.scale_to is not None:
            scale(dataset, as_width_height(args.scale_to), Path(folder) / "scaled")
        size = "x".join(map(str, dataset.records[0].size))
        print("| images | augmentation | imread and resize | from files | from memory | for the device |")
        print("|---|---|---|---|---|---|")
        for kind in KINDS:
            seconds = sample_seconds(dataset, args.resolution, kind, args.rounds)
            plain = seconds[PLAIN]
            ways = (FROM_FILE, FROM_MEMORY, FOR_DEVICE)
            cells = [f"{1000 * seconds[name]:.2f} ms ({seconds[name] / plain:.2f})" for name in ways]
            print(f"| {size} | {kind} | {1000 * plain:.2f} ms | {' | '.join(cells)} |", flush=True)
            figures.append({"size": size, "augmentation": kind, "seconds": seconds})
    rounds.write_figures(args.json, figures)


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
