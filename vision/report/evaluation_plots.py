"""Plots of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vision.evaluation import ClassResult, Evaluation
from vision.report.plots import COLORS, GREY, figure_file, legend_below, legend_beside, plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Classes that a confusion matrix shows; of more, those with most mistakes, and the others together.
MAX_CLASSES = 24

#: Classes up to which its two pictures stand side by side.
_MAX_SIDE_BY_SIDE = 5

#: Bins of scores.
BINS = 50


def draw_plots(folder: Path, evaluation: Evaluation) -> dict[str, Path]:
    """Draw all plots; returns them by title.

    Raises:
        ImportError: matplotlib is not installed.
    """
    for name, draw in PLOTS.values():
        draw(folder / name, evaluation)
    return {title: folder / name for title, (name, _) in PLOTS.items()}


def _colored(evaluation: Evaluation) -> list[tuple[ClassResult, str]]:
    """Give classes with objects their colors: where there are too many, the worst have one and the rest are grey."""
    classes = evaluation.report.with_objects
    if len(classes) <= len(COLORS):
        return list(zip(classes, COLORS, strict=False))
    worst = sorted(classes, key=lambda result: result.ap_area)[: len(COLORS)]
    colors = {result.name: color for result, color in zip(worst, COLORS, strict=True)}
    return sorted(((result, colors.get(result.name, GREY)) for result in classes), key=lambda pair: pair[1] != GREY)


def _legend(axes: Axes, evaluation: Evaluation) -> None:
    classes = _colored(evaluation)
    grey = sum(color == GREY for _, color in classes)
    legend_beside(axes, title=f"worst of {len(classes)} classes, the others grey" if grey else None)


def draw_pr_curves(path: Path, evaluation: Evaluation) -> None:
    """Draw precision over recall, a curve a class with its area AP, and their mean."""
    with figure_file(path, 10.5, 6.5) as figure:
        axes = figure.add_subplot()
        levels = np.linspace(0, 1, 101)
        means = []
        for result, color in _colored(evaluation):
            recall, precision = result.curve.recall, result.curve.precision
            label = None if color == GREY else f"{plain_text(result.name)}: AP {result.ap_area:.3f}"
            line: dict[str, Any] = {"color": color, "linewidth": 1 if color == GREY else 1.8, "label": label}
            start = [0.0] * min(len(recall), 1)  # of a class of which nothing is found there is only the legend
            axes.plot(np.concatenate([start, recall]), np.concatenate([precision[:1], precision]), **line)
            means.append([precision[recall >= level].max(initial=0.0) for level in levels])
        if means:
            label = f"mean: AP {evaluation.report.mean_ap_area:.3f}"
            axes.plot(levels, np.mean(means, axis=0), color="black", linewidth=2.5, linestyle="--", label=label)
        _finish(axes, "Precision and recall", "recall: share of the objects that are found", "precision: share of hits")
        _legend(axes, evaluation)


def draw_thresholds(path: Path, evaluation: Evaluation) -> None:
    """Draw precision, recall and F1 over the threshold, with the one that the evaluation looks at."""
    thresholds = np.linspace(0, 1, 501)
    with figure_file(path, 14, 4.5) as figure:
        for number, name in enumerate(("precision", "recall", "f1")):
            axes = figure.add_subplot(1, 3, number + 1)
            curves = []
            for result, color in _colored(evaluation):
                counts = result.curve.counts_at(thresholds)
                values = getattr(result.curve, name)
                values = np.concatenate([[0.0], values])[counts]  # without a detection all three are 0
                label = None if color == GREY else plain_text(result.name)
                axes.plot(thresholds, values, color=color, linewidth=1 if color == GREY else 1.8, label=label)
                curves.append(values)
            if curves:
                mean = np.mean(curves, axis=0)
                axes.plot(thresholds, mean, color="black", linewidth=2.5, linestyle="--", label="mean")
            axes.axvline(evaluation.threshold, color="black", linewidth=1, linestyle=":")
            title = f"{name.capitalize()}, dotted: threshold {evaluation.threshold:g}"
            _finish(axes, title, "threshold of the score", name.replace("f1", "F1"))
        _legend(axes, evaluation)


def draw_confusion_matrix(path: Path, evaluation: Evaluation) -> None:
    """Draw which classes are taken for which: counts, and shares of each true class.

    Of many classes those with most mistakes are shown, and the others as one.
    """
    matrix, names = most_confused(evaluation.confusion_matrix, evaluation.class_names)
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.zeros(matrix.shape), where=totals > 0)
    shares[0] = 0  # false detections are no objects of which to take shares
    side = 4 + 0.3 * len(names)
    columns = 2 if len(names) <= _MAX_SIDE_BY_SIDE + 1 else 1
    with figure_file(path, columns * side + 1, (side + 0.5) * 2 / columns) as figure:
        kinds = (
            ("counts", matrix, matrix[1 : MAX_CLASSES + 1].max(initial=1)),
            ("shares of the true class", shares, 1),
        )
        for number, (kind, values, most) in enumerate(kinds):
            axes = figure.add_subplot(2 // columns, columns, number + 1)
            axes.imshow(values, cmap="Blues", vmin=0, vmax=most, aspect="auto")
            for row, column in np.argwhere(values > 0).tolist():
                value = values[row, column]
                text = f"{value:.2f}" if number else str(value)
                ink = "white" if value > 0.6 * most else "black"
                axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=9)
            axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
            axes.set_yticks(range(len(names)), names)
            axes.set_title(f"{kind}, at a threshold of {evaluation.threshold:g}")
            axes.set_xlabel("detected as")
            axes.set_ylabel("true class (nothing: false detections)")


def most_confused(matrix: np.ndarray, class_names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Reduce a confusion matrix to the classes with most mistakes, so that it can be read.

    Args:
        matrix: (C, C), see `Evaluation.confusion_matrix`.
        class_names: BACKGROUND first.

    Returns:
        the matrix with the other classes added up in its last row and column, and the names of its rows.
    """
    names = ["nothing", *map(plain_text, class_names[1:])]
    others = len(names) - 1 - MAX_CLASSES
    if others <= 0:
        return matrix, names
    mistakes = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal()
    shown = [0, *np.sort(1 + np.argsort(-mistakes[1:], kind="stable")[:MAX_CLASSES]).tolist()]
    places = np.full(len(names), len(shown))
    places[shown] = np.arange(len(shown))
    reduced = np.zeros((len(shown) + 1,) * 2, matrix.dtype)
    np.add.at(reduced, (places[:, None], places[None]), matrix)
    return reduced, [*(names[label] for label in shown), f"{others} other classes"]


def draw_scores(path: Path, evaluation: Evaluation) -> None:
    """Draw how many hits and false detections there are by score, over all classes."""
    hits, false = [np.zeros(0)], [np.zeros(0)]
    for result in evaluation.report.classes:
        is_hit = np.diff(result.curve.hits, prepend=0) > 0
        hits.append(result.curve.scores[is_hit])
        false.append(result.curve.scores[~is_hit])
    with figure_file(path, 9, 5.5) as figure:
        axes = figure.add_subplot()
        edges = np.linspace(0, 1, BINS + 1)
        for scores, label, color in ((false, "false", COLORS[1]), (hits, "hits", COLORS[0])):
            joined = np.concatenate(scores)
            axes.hist(joined, edges.tolist(), color=color, alpha=0.65, label=f"{label}: {len(joined)}")
        axes.axvline(evaluation.threshold, color="black", linewidth=1, linestyle=":")
        axes.set_yscale("symlog", linthresh=1)
        axes.set_title(f"Scores of detections, dotted: threshold {evaluation.threshold:g}")
        axes.set_xlabel("score")
        axes.set_ylabel("detections")
        axes.set_xlim(0, 1)
        axes.grid(alpha=0.3)
        legend_below(axes)


def _finish(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)


#: All plots: title -> name of the file, and what draws it.
PLOTS: Mapping[str, tuple[str, Callable[[Path, Evaluation], None]]] = {
    "Precision and recall": ("pr_curves.png", draw_pr_curves),
    "Precision, recall and F1 by threshold": ("thresholds.png", draw_thresholds),
    "What objects are taken for": ("confusion_matrix.png", draw_confusion_matrix),
    "Scores of hits and false detections": ("scores.png", draw_scores),
}
