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
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vision import cli  # noqa: E402
from vision.datasets import DetectionDataset, open_dataset  # noqa: E402
from vision.deploy.session import Session, open_session  # noqa: E402
from vision.engine import checkpoint  # noqa: E402


def evaluate(model: Path, dataset_type: str, data: str | Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """COCO's figures on a dataset's test images: AP, AP50, "AP50 per class" by name, and the number of images.

    Difficult objects are COCO's crowds, which are neither required nor counted against a detector. Classes without
    objects to be found have no figure, and count in no mean.

    Args:
        model: .pth or .onnx file, or a model folder for its best checkpoint.
        dataset_type: see `vision.datasets.open_folder`.
        data: folder of the dataset.
        device: on which a .pth file runs.

    Raises:
        DataError: the model or the dataset cannot be read.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    session = open_session(checkpoint.find(model), device=device)
    dataset = open_dataset(dataset_type, data, "test")
    dataset.set_class_names(session.class_names)
    truth, found = COCO(), COCO()
    truth.dataset, detections = _as_coco(session, dataset)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth.createIndex()
        if detections:
            found = truth.loadRes(detections)
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][0, :, :, 0, -1]  # IoU 0.5, all areas, 100 detections; -1 without objects
    return {
        "AP": float(evaluation.stats[0]),
        "AP50": float(evaluation.stats[1]),
        "AP50 per class": {
            name: float(np.mean(values))
            for name, values in zip(session.class_names[1:], precision.T, strict=True)
            if values.min() >= 0
        },
        "images": len(dataset),
    }


def _as_coco(session: Session, dataset: DetectionDataset) -> tuple[dict[str, list], list[dict[str, Any]]]:
    """Detect, and put objects and detections into COCO's form, boxes as x, y, width, height in pixels."""
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
    return truth, found


def main(argv: list[str] | None = None) -> None:
    """Print AP and AP50, and AP50 per class."""
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help=".pth or .onnx file, or a model folder")
    parser.add_argument("--data", required=True, help="folder of the dataset")
    cli.add_dataset_type_option(parser, "auto")
    args = parser.parse_args(argv)
    figures = evaluate(args.model, args.dataset_type, args.data)
    for name, value in figures["AP50 per class"].items():
        print(f"AP50 {name}: {value:.4f}")
    print(f"AP50: {figures['AP50']:.4f}")
    print(f"AP: {figures['AP']:.4f}")


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
