#!/usr/bin/env python3
"""Suppression of all classes of an image: ours, a plain loop over torchvision's kernel, and the published functions.

All take the same answers and candidates, in turns, on one thread; times are of the processor. With --model and --data
also the mAP of each.

    python3 benchmarks/bench_postprocess.py
    python3 benchmarks/bench_postprocess.py --model=models/bccd --data=data/bccd
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import process_time

import torch
from torch import Tensor
from torchvision import ops

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import rounds  # noqa: E402
from vision import cli
from vision.boxes.nms import (  # noqa: E402
    DEFAULT_CANDIDATES,
    DEFAULT_IOU_THRESHOLD,
    DEFAULT_SCORE_THRESHOLD,
    multiclass_nms,
    nms,
)
from vision.datasets import open_dataset  # noqa: E402
from vision.deploy.session import open_session  # noqa: E402
from vision.engine import checkpoint  # noqa: E402
from vision.evaluation import evaluate  # noqa: E402
from vision.options import common  # noqa: E402
from vision.structures import Detections  # noqa: E402

#: Priors and classes: VGG on VOC, MobileNet on COCO, MobileNet on three classes of one's own.
SIZES = ((8732, 21), (3000, 91), (3000, 4))


def published(scores: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Do what `multiclass_nms` does, by the published function for one class."""
    rows, labels = [], []
    for label in range(1, scores.shape[1]):
        above = scores[:, label] > DEFAULT_SCORE_THRESHOLD
        rows.append(nms(torch.cat([boxes[above], scores[above, label, None]], dim=1)))
        labels.append(torch.full((len(rows[-1]),), label))
    found = torch.cat(rows)
    return found[:, :4], torch.cat(labels), found[:, 4]


def plain_loop(scores: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Do the same in a few lines as anyone's: threshold, best candidates, torchvision's kernel, class by class."""
    kept, labels, kept_scores = [], [], []
    for label in range(1, scores.shape[1]):
        above = (scores[:, label] > DEFAULT_SCORE_THRESHOLD).nonzero()[:, 0]
        best = scores[above, label].topk(min(DEFAULT_CANDIDATES, len(above)))
        candidates = boxes[above[best.indices]]
        picked = ops.nms(candidates, best.values, DEFAULT_IOU_THRESHOLD)
        kept.append(candidates[picked])
        labels.append(torch.full((len(picked),), label))
        kept_scores.append(best.values[picked])
    return torch.cat(kept), torch.cat(labels), torch.cat(kept_scores)


METHODS: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]] = {
    "ours": multiclass_nms,
    "plain loop": plain_loop,
    "published": published,
}


def random_answer(priors: int, classes: int) -> tuple[Tensor, Tensor]:
    """Scores (P, C) after softmax and relative corner-form boxes (P, 4), scattered as an untrained net's are."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(priors, 2, generator=generator) * 0.7
    sides = 0.05 + 0.3 * torch.rand(priors, 2, generator=generator)
    scores = torch.randn(priors, classes, generator=generator).mul(3).softmax(dim=1)
    return scores, torch.cat([corners, corners + sides], dim=1)


def seconds_by_method(priors: int, classes: int, count: int) -> dict[str, float]:
    """Median of the processor time of each method, on which other programs have little influence."""
    answer = random_answer(priors, classes)
    return rounds.in_turns({name: partial(method, *answer) for name, method in METHODS.items()}, count, process_time)


def print_mean_aps(model: Path, data: str, dataset_type: str) -> None:
    """Print the mAP of a model on the test images with each method."""
    session = open_session(checkpoint.find(model))
    dataset = open_dataset(dataset_type, data, "test")
    dataset.set_class_names(session.class_names)
    found: dict[str, list[Detections]] = {name: [] for name in METHODS}
    for index in cli.progress(range(len(dataset)), "Detecting", len(dataset)):
        image = dataset.get_image(index)
        height, width = image.shape[:2]
        scores, boxes = map(torch.from_numpy, session.run(session.transform(image)[None]))
        for name, method in METHODS.items():
            picked, labels, picked_scores = method(scores[0], boxes[0])
            found[name].append(Detections(picked * torch.tensor([width, height] * 2), labels, picked_scores))
    annotations = [dataset.annotation(index) for index in range(len(dataset))]
    for name, detections in found.items():
        report = evaluate(detections, annotations, dataset.class_names)
        print(
            f"{name:11}  {sum(len(one.labels) for one in detections):6} detections, "
            f"mAP of 11 points {report.mean_ap_2007:.4f}, of the area {report.mean_ap_area:.4f}"
        )


def main(argv: list[str] | None = None) -> None:
    """Print a line for each size, and with a model one for each method."""
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    rounds.add_options(parser, 15)
    parser.add_argument("--model", type=Path, help=".pth or .onnx file, or a model folder")
    parser.add_argument("--data", help="folder of the dataset to measure the model's mAP on")
    common.add_dataset_type_option(parser)
    args = parser.parse_args(argv)
    if (args.model is None) != (args.data is None):
        parser.error("--model and --data go together; give both or neither")
    torch.set_num_threads(1)
    figures = []
    for priors, classes in SIZES:
        seconds = seconds_by_method(priors, classes, args.rounds)
        figures.append({"priors": priors, "classes": classes, "seconds": seconds})
        cells = [f"{name} {1000 * value:.1f} ms ({value / seconds['ours']:.2f})" for name, value in seconds.items()]
        print(f"{priors} priors, {classes:2} classes: {', '.join(cells)}", flush=True)
    rounds.write_figures(args.json, figures)
    if args.model is not None:
        print_mean_aps(args.model, args.data, args.dataset_type)


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
