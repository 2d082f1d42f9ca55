"""COCO's figures, by faster-coco-eval: its numbers are pycocotools', it has wheels for ARM, and needs NumPy alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from vision.structures import Annotation, Detections

#: Boxes of nets that are hardly trained may reach to infinity; pixels, beyond which they are cut off.
FAR_AWAY = 1e7

#: Places of overlaps 0.5 and 0.75 among COCO's ten, 0.50, 0.55 ... 0.95.
_AT_50, _AT_75 = 0, 5


class CocoFigures(NamedTuple):
    """Average precision (101 recall points, overlaps of at least a threshold) and average recall; nan without objects.

    Attributes:
        ap: mean over overlaps 0.50, 0.55 ... 0.95.
        ap_50: at an overlap of 0.5.
        ap_75: at 0.75.
        ap_small: of objects whose area is below 32² pixels of the image.
        ap_medium: of those up to 96².
        ap_large: of those above.
        ar_1: recall with one detection an image, mean over the overlaps.
        ar_10: with ten.
        ar_100: with a hundred.
        ar_small: recall with a hundred, of objects below 32² pixels.
        ar_medium: of those up to 96².
        ar_large: of those above.
    """

    ap: float
    ap_50: float
    ap_75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar_1: float
    ar_10: float
    ar_100: float
    ar_small: float
    ar_medium: float
    ar_large: float


#: How COCO writes them.
FIGURE_NAMES = (
    "AP",
    "AP50",
    "AP75",
    "AP small",
    "AP medium",
    "AP large",
    "AR1",
    "AR10",
    "AR100",
    "AR small",
    "AR medium",
    "AR large",
)


class ClassFigures(NamedTuple):
    """COCO's figures of one class, by the names of all classes' figures; nan without objects."""

    ap: float
    ap_50: float
    ap_75: float


def coco_figures(
    detections: Sequence[Detections], annotations: Sequence[Annotation], num_classes: int
) -> tuple[CocoFigures, list[ClassFigures]]:
    """Compute COCO's figures over all classes, and of each.

    Difficult objects are COCO's crowds: neither required nor counted against a detector. Classes without objects count
    in no mean.

    Args:
        detections: per image, boxes in pixels.
        annotations: per image, in the same order.
        num_classes: with the background.
    """
    from faster_coco_eval import COCO, COCOeval_faster  # a quarter of a second, for those who evaluate

    objects = ground_truth(annotations, num_classes)
    truth = COCO(objects, print_function=_silent)
    rows = result_rows(detections)
    # Versions before 1.8 cannot load an empty list of results.
    found = truth.loadRes(rows) if len(rows) else COCO({**objects, "annotations": []}, print_function=_silent)
    evaluation = COCOeval_faster(truth, found, "bbox", print_function=_silent)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    whole = CocoFigures(*(_or_nan(value) for value in evaluation.stats[: len(CocoFigures._fields)]))
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # overlaps, recall points, classes; all sizes
    of_classes = [
        ClassFigures(*(_or_nan(of_class[places].mean()) for places in (slice(None), _AT_50, _AT_75)))
        for of_class in precision.transpose(2, 0, 1)
    ]
    return whole, of_classes


def ground_truth(annotations: Sequence[Annotation], num_classes: int) -> dict[str, list[dict[str, Any]]]:
    """Put annotations into COCO's form: images are numbered in their order, categories are labels."""
    objects: list[dict[str, Any]] = []
    for index, annotation in enumerate(annotations):
        sides = annotation.boxes[:, 2:] - annotation.boxes[:, :2]
        columns = (annotation.boxes, sides, annotation.labels, annotation.difficult)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        for (x1, y1, _, _), (width, height), label, difficult in rows:
            box = {"bbox": [x1, y1, width, height], "area": width * height, "iscrowd": int(difficult)}
            objects.append({"id": len(objects) + 1, "image_id": index, "category_id": label, **box})
    images = [
        {"id": index, "width": annotation.size[0], "height": annotation.size[1]}
        for index, annotation in enumerate(annotations)
    ]
    categories = [{"id": label, "name": str(label)} for label in range(1, num_classes)]
    return {"images": images, "annotations": objects, "categories": categories}


def result_rows(detections: Sequence[Detections]) -> np.ndarray:
    """Put detections into rows (N, 7): number of the image, x, y, width, height in pixels, score, label."""
    rows = [np.zeros((0, 7))]
    for index, (boxes, labels, scores) in enumerate(detections):
        corners = np.nan_to_num(np.asarray(boxes, np.float64)).clip(-FAR_AWAY, FAR_AWAY)
        numbers = np.full((len(corners), 1), index)
        values = (np.asarray(scores, np.float64)[:, None], np.asarray(labels)[:, None])
        rows.append(np.concatenate([numbers, corners[:, :2], corners[:, 2:] - corners[:, :2], *values], axis=1))
    return np.concatenate(rows)


def _or_nan(value: float) -> float:
    """COCO says -1 where there are no objects."""
    return math.nan if value < 0 else float(value)


def _silent(*_: object) -> None:
    """Takes what the evaluator would print."""
