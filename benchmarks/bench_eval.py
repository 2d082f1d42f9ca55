#!/usr/bin/env python3
"""COCO's figures of many detections: ours against pycocotools, the same arrays in and the same numbers out.

    python3 benchmarks/bench_eval.py --images=5000 --detections=100 --classes=20

Needs pycocotools; exit code 1 if a figure differs by more than a millionth. Also how the time grows with images.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import rounds  # noqa: E402
from vision import cli  # noqa: E402
from vision.evaluation import evaluate  # noqa: E402
from vision.evaluation.coco import coco_figures, ground_truth, result_rows  # noqa: E402
from vision.structures import Annotation, Detections  # noqa: E402

OBJECTS, SIZE = 5, (640, 480)
LARGEST_DIFFERENCE = 1e-6


def draw_scene(images: int, detections: int, classes: int) -> tuple[list[Detections], list[Annotation]]:
    """Draw objects, and detections of which half are near an object."""
    rng = np.random.default_rng(0)
    found, truth = [], []
    for _ in range(images):
        corners = rng.uniform(0, 1, (OBJECTS, 2)) * np.subtract(SIZE, 200)
        boxes = np.concatenate([corners, corners + rng.uniform(10, 200, (OBJECTS, 2))], axis=1).astype(np.float32)
        labels = rng.integers(1, classes + 1, OBJECTS)
        truth.append(Annotation(boxes, labels, np.zeros(OBJECTS, bool), SIZE))
        chosen = rng.integers(0, OBJECTS, detections)
        spread = np.where(rng.random(detections) < 0.5, 0.08, 1.0)[:, None]
        sides = np.tile(boxes[chosen, 2:] - boxes[chosen, :2], 2)
        moved = boxes[chosen] + rng.normal(0, spread, (detections, 4)) * sides
        moved = np.concatenate([np.minimum(moved[:, :2], moved[:, 2:]), np.maximum(moved[:, :2], moved[:, 2:])], axis=1)
        guessed = np.where(rng.random(detections) < 0.8, labels[chosen], rng.integers(1, classes + 1, detections))
        scores = rng.random(detections).astype(np.float32)
        found.append(Detections(*map(torch.from_numpy, (moved.astype(np.float32), guessed, scores))))
    return found, truth


def by_pycocotools(found: Sequence[Detections], truth: Sequence[Annotation], num_classes: int) -> Sequence[float]:
    """Compute the twelve figures, from the same arrays as `coco_figures`."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        objects = COCO()
        objects.dataset = ground_truth(truth, num_classes)
        objects.createIndex()
        evaluation = COCOeval(objects, objects.loadRes(result_rows(found)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def main(argv: list[str] | None = None) -> None:
    """Print the times and their ratio, and a row for each number of images."""
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="+", type=cli.count, default=[1000, 5000])
    parser.add_argument("--detections", type=cli.count, default=100, help="on each image")
    parser.add_argument("--classes", type=cli.count, default=20)
    rounds.add_options(parser)
    args = parser.parse_args(argv)
    names = ("BACKGROUND", *map(str, range(1, args.classes + 1)))
    figures, worst = [], 0.0
    print(
        "| images | pycocotools | ours | ratio | all of an evaluation | largest difference |\n|---|---|---|---|---|---|"
    )
    for images in args.images:
        scene = draw_scene(images, args.detections, args.classes)
        times: dict[str, list[float]] = {"pycocotools": [], "ours": [], "evaluation": []}
        for _ in cli.progress(range(args.rounds), f"{images} images", args.rounds):
            began = time.perf_counter()
            expected = by_pycocotools(*scene, len(names))
            times["pycocotools"].append(time.perf_counter() - began)
            began = time.perf_counter()
            ours, _ = coco_figures(*scene, len(names))
            times["ours"].append(time.perf_counter() - began)
            began = time.perf_counter()
            evaluate(*scene, names)
            times["evaluation"].append(time.perf_counter() - began)
        # COCO says -1 of what there is none.
        difference = float(np.abs(np.nan_to_num(ours, nan=-1) - expected).max())
        worst = max(worst, difference)
        seconds = {name: median(found) for name, found in times.items()}
        figures.append({"images": images, "seconds": seconds, "largest difference": difference})
        theirs, own, whole = seconds.values()
        print(
            f"| {images} | {theirs:.2f} s | {own:.2f} s | {theirs / own:.1f} | {whole:.2f} s | {difference:.1e} |",
            flush=True,
        )
    rounds.write_figures(args.json, figures)
    sys.exit(worst > LARGEST_DIFFERENCE)


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
