"""What an evaluation leaves for programs: its figures as JSON and CSV, and its detections."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vision.evaluation import ClassResult, Evaluation
from vision.evaluation.coco import FIGURE_NAMES, ground_truth, result_rows
from vision.evaluation.curves import Point
from vision.evaluation.metrics import COLUMNS, METRICS, titles
from vision.structures import Detections
from vision.utils.files import fit_for_name, write_text

#: Names of the files in --eval-dir.
METRICS_FILE, PER_CLASS, DETECTIONS, GROUND_TRUTH = (
    "metrics.json",
    "per_class.csv",
    "detections.json",
    "ground_truth.json",
)


def write_files(folder: Path, evaluation: Evaluation, asked: Mapping[str, Any]) -> None:
    """Write all of them.

    Args:
        folder: made if it is not there.
        evaluation: its figures, images and detections.
        asked: what `metrics.json` says of how it came about.
    """
    write_text(folder / METRICS_FILE, json.dumps({**asked, **metrics(evaluation)}, indent=2) + "\n")
    write_text(folder / PER_CLASS, per_class_table(evaluation))
    write_text(folder / DETECTIONS, _json_rows(coco_results(evaluation.detections)))
    write_text(folder / GROUND_TRUTH, json.dumps(coco_ground_truth(evaluation)) + "\n")
    write_voc_files(folder, evaluation.ids, evaluation.detections, evaluation.class_names)


def metrics(evaluation: Evaluation) -> dict[str, Any]:
    """All figures as plain values; None where one is not defined."""
    report = evaluation.report
    return {
        "images": len(evaluation.ids),
        "objects": sum(result.objects for result in report.classes),
        "means": report.means_note,
        "mean_ap_2007": _plain(report.mean_ap_2007),
        "mean_ap_area": _plain(report.mean_ap_area),
        "coco": dict(zip(FIGURE_NAMES, map(_plain, report.coco), strict=True)),
        "own_thresholds": _point(report.mean_at_own_thresholds()),
        "best_threshold": _point(report.mean_at(report.best_threshold)),
        "threshold": _point(report.mean_at(evaluation.threshold)),
        "classes": [_of_class(result, evaluation.threshold) for result in report.classes],
        "confusion_matrix": {
            "rows": "true class, columns: detected class",
            "names": list(evaluation.class_names),
            "counts": evaluation.confusion_matrix.tolist(),
        },
    }


def _of_class(result: ClassResult, threshold: float) -> dict[str, Any]:
    values: dict[str, Any] = {"name": result.name, "objects": result.objects}
    for metric in METRICS:
        group, _, name = metric.key.rpartition(".")
        place = values.setdefault(group, {}) if group else values
        place[name] = _plain(metric.of_class(result, threshold))
    return values


def _point(point: Point) -> dict[str, float | None]:
    values = point._asdict()
    return {"score": _plain(values.pop("threshold")), **{name: _plain(value) for name, value in values.items()}}


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value


def per_class_table(evaluation: Evaluation) -> str:
    """Write a row a class as CSV; empty where a figure is not defined."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    threshold = evaluation.threshold
    writer.writerow(titles(COLUMNS, threshold))
    for result in evaluation.report.classes:
        values = [metric.of_class(result, threshold) for metric in COLUMNS]
        writer.writerow([result.name, result.objects, *("" if math.isnan(value) else value for value in values)])
    return text.getvalue()


def coco_results(detections: Sequence[Detections]) -> list[dict[str, Any]]:
    """Detections in the form of COCO's results; images are numbered from 1 as in `coco_ground_truth`."""
    return [
        {"image_id": int(image) + 1, "category_id": int(label), "bbox": box, "score": score}
        for image, *box, score, label in result_rows(detections).tolist()
    ]


def coco_ground_truth(evaluation: Evaluation) -> dict[str, Any]:
    """Objects in COCO's form, for tools that want both; difficult ones are crowds."""
    truth = ground_truth(evaluation.annotations, len(evaluation.class_names))
    for image, image_id in zip(truth["images"], evaluation.ids, strict=True):
        image |= {"id": image["id"] + 1, "file_name": image_id}
    for item in truth["annotations"]:
        item["image_id"] += 1
    for category in truth["categories"]:
        category["name"] = evaluation.class_names[category["id"]]
    return truth


def _json_rows(rows: Sequence[Any]) -> str:
    """Write a JSON list with an item a line: it can be very long, and people look into it."""
    return "[" + ",\n".join(map(json.dumps, rows)) + "]\n"


def write_voc_files(folder: Path, ids: Sequence[str], found: Sequence[Detections], class_names: Sequence[str]) -> None:
    """Write `det_test_<class>.txt`: a line `id score x1 y1 x2 y2` per detection, pixels counted from 1 as in VOC.

    Those of an earlier evaluation go. Classes whose names differ in what file names cannot have are numbered.
    """
    for path in folder.glob("det_test_*.txt"):
        path.unlink()
    taken = set()
    for label, name in enumerate(class_names[1:], start=1):
        lines = []
        for image_id, detections in zip(ids, found, strict=True):
            mine = detections.labels == label
            boxes = (detections.boxes[mine] + 1).tolist()
            for score, box in zip(detections.scores[mine].tolist(), boxes, strict=True):
                lines.append(" ".join(map(str, (image_id, score, *box))) + "\n")
        safe_name = fit_for_name(name)
        while safe_name.casefold() in taken:  # one file where case does not count
            safe_name = f"{safe_name}_{label}"
        taken.add(safe_name.casefold())
        write_text(folder / f"det_test_{safe_name}.txt", "".join(lines))
