"""The metrics of a class, once: every table of an evaluation and every curve of a run follows from `METRICS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter

from vision.evaluation.report import ClassResult, Report, number_text


@dataclass(frozen=True)
class Metric:
    """A metric of each class, and its mean over the classes.

    Attributes:
        key: in `metrics.json`; "group.name" for a name within a group.
        title: of its column; {threshold} stands for the threshold for all classes. "" for `metrics.json` alone.
        of_class: gives the value of a class from its result and the threshold for all classes.
        of_all: gives the mean over the classes that have objects, from the report and that threshold.
        is_printed: whether the table that eval_ssd.py prints has it.
        curve: name of its curves in TensorBoard and of its columns in `results.csv`, one a class; "" for none.
        form: how it is written for people, as a format; "" for the digits of the table.
    """

    key: str
    title: str
    of_class: Callable[[ClassResult, float], float]
    of_all: Callable[[Report, float], float]
    is_printed: bool = False
    curve: str = ""
    form: str = ""


def _at_best(name: str, title: str, curve: str = "", form: str = "") -> Metric:
    """Metric of the point of highest F1 of each class: one of the fields of `Point`."""
    get = attrgetter(name)
    return Metric(
        f"best_threshold.{'score' if name == 'threshold' else name}",
        title,
        lambda result, _: get(result.best),
        lambda report, _: get(report.mean_at_own_thresholds()),
        is_printed=True,
        curve=curve,
        form=form,
    )


def _at_threshold(name: str, title: str) -> Metric:
    """Metric of the threshold for all classes: one of the fields of `Point`."""
    get = attrgetter(name)
    return Metric(
        f"threshold.{name}",
        title,
        lambda result, threshold: get(result.curve.at(threshold)),
        lambda report, threshold: get(report.mean_at(threshold)),
    )


METRICS = (
    Metric(
        "ap_2007",
        "AP (11-point)",
        lambda result, _: result.ap_2007,
        lambda report, _: report.mean_ap_2007,
        is_printed=True,
        curve="Class Average Precision",
    ),
    Metric("ap_area", "AP (area)", lambda result, _: result.ap_area, lambda report, _: report.mean_ap_area, True),
    Metric("coco.AP", "AP", lambda result, _: result.coco.ap, lambda report, _: report.coco.ap, True),
    Metric("coco.AP50", "AP50", lambda result, _: result.coco.ap_50, lambda report, _: report.coco.ap_50, True),
    Metric("coco.AP75", "AP75", lambda result, _: result.coco.ap_75, lambda report, _: report.coco.ap_75),
    _at_best("threshold", "best threshold", form="g"),
    _at_best("precision", "precision at it"),
    _at_best("recall", "recall at it"),
    _at_best("f1", "F1 at it", curve="Class Best F1"),
    Metric("threshold.score", "", lambda _, threshold: threshold, lambda _, threshold: threshold),
    _at_threshold("precision", "precision at {threshold:g}"),
    _at_threshold("recall", "recall at {threshold:g}"),
    _at_threshold("f1", "F1 at {threshold:g}"),
)

#: Those with a column in `per_class.csv` and on the page.
COLUMNS = tuple(metric for metric in METRICS if metric.title)
#: Those with a column in the table that eval_ssd.py prints.
PRINTED = tuple(metric for metric in METRICS if metric.is_printed)
#: Those with a curve for each class.
CURVES = tuple(metric for metric in METRICS if metric.curve)


def titles(metrics: Sequence[Metric], threshold: float) -> list[str]:
    """Titles of the columns: class, objects, and one for each metric."""
    return ["class", "objects", *(metric.title.format(threshold=threshold) for metric in metrics)]


def class_table(report: Report, threshold: float, metrics: Sequence[Metric], form: str) -> list[list[str]]:
    """Lay metrics of all classes out in rows of texts for people, titles first and means last.

    Args:
        report: of the evaluation.
        threshold: for all classes.
        metrics: some of `METRICS`.
        form: how numbers are written, as a format.
    """

    def texts(values: Sequence[float]) -> list[str]:
        return [number_text(value, metric.form or form) for metric, value in zip(metrics, values, strict=True)]

    rows = [titles(metrics, threshold)]
    for result in report.classes:
        values = [metric.of_class(result, threshold) for metric in metrics]
        rows.append([result.name, str(result.objects), *texts(values)])
    objects = sum(result.objects for result in report.classes)
    return [*rows, ["mean", str(objects), *texts([metric.of_all(report, threshold) for metric in metrics])]]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Write rows of a table with columns of equal width, the first to the left and numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
