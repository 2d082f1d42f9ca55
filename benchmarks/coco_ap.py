#!/usr/bin/env python3
"""COCO's average precision of a model on a dataset, by pycocotools: 101 recall points, 100 detections an image.

python3 benchmarks/coco_ap.py --model=models/bccd --data=data/bccd
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vision import cli  # noqa: E402
from vision.datasets import open_dataset  # noqa: E402
from vision.deploy.session import open_session  # noqa: E402
from vision.engine import checkpoint  # noqa: E402


def main(argv: list[str] | None = None) -> None:
    """Print AP and AP50, and AP50 per class."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help=".pth or .onnx file, or a model folder")
    parser.add_argument("--data", required=True, help="folder of the dataset")
    cli.add_dataset_type_option(parser, "auto")
    args = parser.parse_args(argv)
    session = open_session(checkpoint.find(args.model))
    dataset = open_dataset(args.dataset_type, args.data, "test")
    dataset.set_class_names(session.class_names)

    truth = {"images": [], "annotations": [], "categories": []}
    truth["categories"] = [{"id": label, "name": name} for label, name in enumerate(session.class_names) if label]
    found = []
    for index in cli.progress(range(len(dataset)), "Detecting", len(dataset)):
        truth["images"].append({"id": index})
        annotation = dataset.annotation(index)
        for box, label, difficult in zip(annotation.boxes, annotation.labels, annotation.difficult, strict=True):
            x1, y1, x2, y2 = box.tolist()
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]) + 1,
                    "image_id": index,
                    "category_id": int(label),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(difficult),
                }
            )
        detections = session.detect(dataset.get_image(index))
        for box, label, score in zip(*(values.tolist() for values in detections), strict=True):
            x1, y1, x2, y2 = box
            found.append({"image_id": index, "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score})

    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][0, :, :, 0, -1]  # IoU 0.5, all areas, 100 detections
    for column, name in enumerate(session.class_names[1:]):
        print(f"AP50 {name}: {np.mean(precision[:, column]):.4f}")
    print(f"AP50: {evaluation.stats[1]:.4f}")
    print(f"AP: {evaluation.stats[0]:.4f}")


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
