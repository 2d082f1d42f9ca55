#!/usr/bin/env python3
"""From an image in memory to its detections in onnxruntime: what each stage takes, by threads, and over many images.

    python3 benchmarks/bench_onnx.py --model=models/bccd/ssd-mobilenet.onnx --data=data/bccd
    python3 benchmarks/bench_onnx.py --net=mb1-ssd-fpnlite

Without --model a net of random weights, whose scores give post-processing more to do than a trained one's.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import rounds  # noqa: E402
from vision import cli
from vision.datasets import AUTO, open_dataset, synthetic  # noqa: E402
from vision.deploy import export  # noqa: E402
from vision.deploy.session import OnnxSession  # noqa: E402
from vision.options import common  # noqa: E402
from vision.ssd.choices import DEFAULT_NET  # noqa: E402
from vision.ssd.models import MODELS  # noqa: E402
from vision.utils.prefetch import read_ahead  # noqa: E402

NUM_CLASSES = 4


def export_net(name: str, resolution: int, folder: Path) -> Path:
    """Export a net of random weights."""
    torch.manual_seed(0)
    net = MODELS[name].build(NUM_CLASSES, config=MODELS[name].config_at(resolution)).eval()
    net.class_names = tuple(f"class {index}" for index in range(NUM_CLASSES))
    export.write(net, folder / "net.onnx")
    return folder / "net.onnx"


def measure(path: Path, images: Sequence[np.ndarray], threads: int, count: int) -> dict[str, float]:
    """Time the stages, and all of them over images that come from another thread; median seconds an image."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    session = OnnxSession(path)
    session.detect(images[0])
    session.stages.seconds.clear()
    whole = []
    for _ in range(count):
        began = time.perf_counter()
        for image in read_ahead(images):
            session.detect(image)
        whole.append((time.perf_counter() - began) / len(images))
    return {**{stage: median(found) for stage, found in session.stages.seconds.items()}, "all": median(whole)}


def main(argv: list[str] | None = None) -> None:
    """Print a row for each number of threads."""
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common.add_net_options(parser, DEFAULT_NET)
    parser.add_argument("--resolution", type=cli.count, default=300)
    parser.add_argument("--model", type=Path, help="exported file (default: one of --net with random weights)")
    parser.add_argument("--data", help="dataset whose test images are looked at (default: drawings of 640x480)")
    parser.add_argument("--images", type=cli.count, default=40)
    parser.add_argument("--threads", nargs="+", type=cli.count, default=[1, 2])
    rounds.add_options(parser)
    args = parser.parse_args(argv)
    if args.data:
        dataset = open_dataset(AUTO, args.data, "test", progress=cli.progress)
        images = [dataset.get_image(index) for index in range(min(args.images, len(dataset)))]
    else:
        images = [drawing.image for drawing in synthetic.drawings(args.images, 0, size=(640, 480))]
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        path = args.model or export_net(MODELS[args.net].name, args.resolution, Path(folder))
        for threads in args.threads:
            seconds = measure(path, images, threads, args.rounds)
            figures.append({"threads": threads, "seconds": seconds})
            if len(figures) == 1:
                print(f"| threads | {' | '.join(seconds)} | images/s |\n{'|---' * (len(seconds) + 2)}|")
            cells = [f"{1000 * value:.2f} ms" for value in seconds.values()]
            print(f"| {threads} | {' | '.join(cells)} | {1 / seconds['all']:.1f} |", flush=True)
    rounds.write_figures(args.json, figures)


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
