#!/usr/bin/env python3
"""Measure a detector's average precision on a dataset.

python3 eval_ssd.py --model=models/fruit --dataset-type=open_images --data=data/fruit
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from vision import cli
from vision.boxes.nms import DEFAULT_SCORE_THRESHOLD
from vision.datasets import open_dataset
from vision.datasets.records import log_defects
from vision.evaluation import Report, evaluate
from vision.ssd.models import spec_of
from vision.ssd.ssd import SSD
from vision.structures import Annotation, DataError, Detections
from vision.utils.files import write_text

logger = logging.getLogger(__name__)

NOTHING_FOUND = Detections(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0))


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = cli.Parser(description="Measure a detector's average precision on a dataset.")
    cli.add_net_options(parser, None)
    parser.add_argument(
        "--trained-model",
        "--model",
        required=True,
        type=Path,
        help=".pth or .onnx file, or a model folder (its best checkpoint)",
    )
    cli.add_dataset_type_option(parser, "voc")
    cli.add_reading_options(parser)
    parser.add_argument("--dataset", "--data", nargs="+", required=True, help="folder of the dataset, or several")
    parser.add_argument(
        "--label-file", "--labels", type=Path, help="class names, for a model that does not know its own"
    )
    cli.add_device_options(parser)
    parser.add_argument(
        "--use-2007-metric",
        type=cli.str2bool,
        nargs="?",
        const=True,
        default=True,
        help="the headline is the 11-point AP, else the area under the curve",
    )
    cli.add_nms_options(parser)
    parser.add_argument("--iou-threshold", type=cli.share, default=0.5, help="overlap above which a detection is a hit")
    parser.add_argument("--eval-dir", type=Path, default=Path("eval_results"), help="where reports are written")
    cli.add_resolution_option(parser, None, " (default: as trained)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate."""
    args = parse_args(argv)
    cli.setup_logging()
    cli.check_writable(args.eval_dir, "--eval-dir")
    model, session, class_names = cli.open_model(args.trained_model, args.label_file, args)
    options = cli.reading_options(args)
    datasets = [open_dataset(args.dataset_type, path, "test", options, cli.progress) for path in args.dataset]
    for dataset in datasets:
        dataset.set_class_names(class_names)
        log_defects([*dataset.defects, *dataset.class_defects()])
        logger.info("%s: %s", dataset.title, dataset.summary())
    places = [(dataset, index) for dataset in datasets for index in range(len(dataset))]
    if not places:
        raise DataError(f"{', '.join(args.dataset)}: no image to evaluate on")

    annotations = [dataset.annotation(index) for dataset, index in places]
    if not any(len(annotation.labels) for annotation in annotations):
        raise DataError(
            f"{', '.join(args.dataset)}: no object is of a class that the model knows: {list(class_names[1:])}"
        )

    found = []
    for dataset, index in cli.progress(places, "Detecting", len(places)):
        try:
            image = dataset.get_image(index)
        except DataError as err:
            logger.warning("%s; it counts as an image on which nothing was found", err)
            found.append(NOTHING_FOUND)
            continue
        found.append(session.detect(image, nms_method=args.nms_method, iou_threshold=args.nms_iou_threshold))
    report = evaluate(found, annotations, class_names, args.iou_threshold)

    print_report(report, args.use_2007_metric)
    ids = [dataset.ids[index] for dataset, index in places]
    write_detection_files(args.eval_dir, ids, found, class_names)
    write_report(args.eval_dir / "report.json", report, model, args)


def print_report(report: Report, use_2007_metric: bool) -> None:
    """Print the documented lines, and both kinds of average precision side by side."""
    print("Average Precision Per-class:")
    for of_class in report.classes:
        print(f"{of_class.name}: {of_class.ap_2007 if use_2007_metric else of_class.ap_area}")
    mean = report.mean_ap_2007 if use_2007_metric else report.mean_ap_area
    print(f"\nAverage Precision Across All Classes: {mean}\n")
    rows = [("class", "objects", "AP (11-point)", "AP (area)")]
    rows += [(c.name, str(c.objects), f"{c.ap_2007:.4f}", f"{c.ap_area:.4f}") for c in report.classes]
    objects = sum(c.objects for c in report.classes)
    rows.append(("mean", str(objects), f"{report.mean_ap_2007:.4f}", f"{report.mean_ap_area:.4f}"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join([row[0].ljust(widths[0]), *(row[column].rjust(widths[column]) for column in (1, 2, 3))]))


def write_report(path: Path, report: Report, model: Path, args: argparse.Namespace) -> None:
    """Write the results as JSON; null for a class without objects."""

    def plain(value: float) -> float | None:
        return None if math.isnan(value) else value

    content = {
        "model": str(model),
        "data": args.dataset,
        "nms_method": args.nms_method,
        "nms_iou_threshold": args.nms_iou_threshold,
        "iou_threshold": args.iou_threshold,
        "mean_ap_2007": plain(report.mean_ap_2007),
        "mean_ap_area": plain(report.mean_ap_area),
        "classes": [
            {"name": c.name, "objects": c.objects, "ap_2007": plain(c.ap_2007), "ap_area": plain(c.ap_area)}
            for c in report.classes
        ],
    }
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_detection_files(
    folder: Path, ids: Sequence[str], found: Sequence[Detections], class_names: Sequence[str]
) -> None:
    """Write `det_test_<class>.txt`: a line `id score x1 y1 x2 y2` per detection, pixels counted from 1 as in VOC."""
    for label, name in enumerate(class_names[1:], start=1):
        lines = []
        for image_id, detections in zip(ids, found, strict=True):
            mine = detections.labels == label
            boxes = (detections.boxes[mine] + 1).tolist()
            for score, box in zip(detections.scores[mine].tolist(), boxes, strict=True):
                lines.append(" ".join(map(str, (image_id, score, *box))) + "\n")
        safe_name = re.sub(r"[^-\w. ]", "_", name)
        write_text(folder / f"det_test_{safe_name}.txt", "".join(lines))


class MeanAPEvaluator:
    """Mean average precision of a net on a dataset, for scripts.

    Args:
        dataset: has `class_names`, `ids`, `get_image(i)` and `get_annotation(i)`.
        net: any `SSD`; its mode is put back after use.
        arch: name of the net, for the preprocessing of a net that has no config.
        eval_dir: where `det_test_<class>.txt` files are written.
        nms_method: "hard" or "soft".
        iou_threshold: overlap above which a detection is a hit.
        use_2007_metric: 11-point AP, else the area under the curve.
        device: moves the net there, if given.
    """

    def __init__(
        self,
        dataset,
        net: SSD,
        arch: str = "mb1-ssd",
        eval_dir: str | Path = "models/eval_results",
        nms_method: str = "hard",
        iou_threshold: float = 0.5,
        use_2007_metric: bool = True,
        device: torch.device | str | None = None,
    ) -> None:
        self.dataset = dataset
        self.net = net
        self.predictor = spec_of(arch).predictor(net, nms_method=nms_method, device=device)
        self.eval_dir = Path(eval_dir)
        self.iou_threshold = iou_threshold
        self.use_2007_metric = use_2007_metric

    def compute(self) -> tuple[float, list[float]]:
        """Detect and compare.

        Returns:
            the mean over classes that have objects, and the AP of each of `class_names[1:]`, nan without objects.
        """
        ids, found, annotations = [], [], []
        for index in range(len(self.dataset)):
            image = self.dataset.get_image(index)
            image_id, (boxes, labels, difficult) = self.dataset.get_annotation(index)
            size = (image.shape[1], image.shape[0])
            annotations.append(
                Annotation(
                    np.asarray(boxes, np.float32),
                    np.asarray(labels, np.int64),
                    np.asarray(difficult, bool),
                    size,
                )
            )
            ids.append(image_id)
            found.append(self.predictor.predict(image, prob_threshold=DEFAULT_SCORE_THRESHOLD))
        report = evaluate(found, annotations, self.dataset.class_names, self.iou_threshold)
        write_detection_files(self.eval_dir, ids, found, self.dataset.class_names)
        if self.use_2007_metric:
            return report.mean_ap_2007, [result.ap_2007 for result in report.classes]
        return report.mean_ap_area, [result.ap_area for result in report.classes]

    def log_results(self, mean_ap: float, class_ap: Sequence[float], prefix: str = "") -> None:
        """Log what `compute` gave."""
        logger.info("%sAverage Precision Per-class:", prefix)
        for name, value in zip(self.dataset.class_names[1:], class_ap, strict=True):
            logger.info("    %s: %s", name, value)
        logger.info("%sMean Average Precision: %s", prefix, mean_ap)


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
