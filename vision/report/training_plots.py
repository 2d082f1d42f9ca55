"""Curves of runs, from the rows of their `results.csv`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vision.report.plots import COLORS, GREY, figure_file, legend_beside, plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Rows of `results.csv`, numbers or their texts by column; with `epoch`.
Rows = Sequence[Mapping[str, Any]]


class Panel(NamedTuple):
    """One plot.

    Attributes:
        title: above it.
        columns: to draw; one that ends in `*` stands for all that begin so.
        is_share: whether values go from 0 to 1.
    """

    title: str
    columns: tuple[str, ...]
    is_share: bool = False


#: What a run's own picture shows.
PANELS = (
    Panel("losses", ("Loss/train", "Loss/val", "Regression Loss/val", "Classification Loss/val")),
    Panel("average precision", ("Mean Average Precision/val", "COCO AP50/val", "COCO AP75/val", "COCO AP/val"), True),
    Panel("11-point AP of each class", ("Class Average Precision/*",), True),
    Panel("learning rates", ("rate *",)),
)

#: Short names for columns, as `plot_logs.py --keys` has them.
KEYS: Mapping[str, Panel] = {
    "loss": Panel("loss", ("Loss/train", "Loss/val")),
    "regression": Panel("regression loss", ("Regression Loss/train", "Regression Loss/val")),
    "classification": Panel("classification loss", ("Classification Loss/train", "Classification Loss/val")),
    "mAP": Panel("mean 11-point AP", ("Mean Average Precision/val",), True),
    "AP": Panel("COCO AP", ("COCO AP/val",), True),
    "AP50": Panel("COCO AP50", ("COCO AP50/val",), True),
    "AP75": Panel("COCO AP75", ("COCO AP75/val",), True),
    "classes": Panel("11-point AP of each class", ("Class Average Precision/*",), True),
    "rate": Panel("learning rates", ("rate *",)),
}

#: Lines for the columns of a panel where colors tell the runs apart.
_STYLES = ("-", "--", ":", "-.")

#: More lines than that of several runs have no legend: nobody could tell them apart.
_MAX_LINES = 20


def draw_runs(path: Path, runs: Mapping[str, Rows], panels: Sequence[Panel], best_epoch: int | None = None) -> None:
    """Draw curves over epochs, a plot a panel.

    Args:
        path: of a .png to write.
        runs: rows by the names of runs. One alone has its columns in colors; of several each has its color.
        panels: those of which no run has a column are left out.
        best_epoch: of one run alone, to be marked in each panel with results of validation.

    Raises:
        ImportError: matplotlib is not installed.
    """
    shown = [(panel, columns) for panel in panels if (columns := columns_of(panel, runs))]
    width = min(len(shown), 2)
    height = -(-len(shown) // 2)
    with figure_file(path, 8 * max(width, 1), 4.5 * max(height, 1)) as figure:
        if len(runs) == 1:
            figure.suptitle(plain_text(*runs), fontweight="bold")
        for number, (panel, columns) in enumerate(shown, start=1):
            axes = figure.add_subplot(height, width, number)
            _draw_panel(axes, panel, columns, runs)
            if best_epoch is not None and any(map(_is_of_validation, columns)):
                axes.axvline(best_epoch, color="black", linewidth=1, linestyle=":", label=f"best epoch: {best_epoch}")
            if len(axes.lines) <= _MAX_LINES or len(runs) == 1:
                left_out = sum(line.get_color() == GREY for line in axes.lines)
                title = f"weakest of {left_out + len(COLORS)}, others grey" if left_out else None
                legend_beside(axes, title=title)


def columns_of(panel: Panel, runs: Mapping[str, Rows]) -> list[str]:
    """List the columns of a panel that any run has a number in."""
    known = dict.fromkeys(
        column
        for rows in runs.values()
        for row in rows
        for column, value in row.items()
        if number_of(value) is not None
    )
    found = []
    for wanted in panel.columns:
        found += [name for name in known if name.startswith(wanted[:-1])] if wanted.endswith("*") else [wanted]
    return [column for column in found if column in known]


def _draw_panel(axes: Axes, panel: Panel, columns: Sequence[str], runs: Mapping[str, Rows]) -> None:
    for place, (name, rows) in enumerate(runs.items()):
        points = {
            column: [(int(row["epoch"]), value) for row in rows if (value := number_of(row.get(column))) is not None]
            for column in columns
        }
        of_run = [column for column in columns if points[column]]
        colored = of_run
        if len(runs) == 1 and len(of_run) > len(COLORS):
            colored = sorted(of_run, key=lambda column: points[column][-1][1])[: len(COLORS)]
            of_run.sort(key=colored.__contains__)  # grey lines lie below the others
        for column in of_run:
            shown = _short(column) if len(runs) == 1 else name if len(columns) == 1 else f"{name}, {_short(column)}"
            style = "-" if len(runs) == 1 else _STYLES[columns.index(column) % len(_STYLES)]
            color = COLORS[place % len(COLORS)]
            if len(runs) == 1:
                color = COLORS[colored.index(column)] if column in colored else GREY
            label = None if color == GREY else plain_text(shown)
            axes.plot(*zip(*points[column], strict=True), color=color, linestyle=style, marker=".", label=label)
    axes.set_title(panel.title)
    axes.set_xlabel("epoch")
    axes.locator_params(axis="x", integer=True)
    if panel.is_share:
        axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)


def _is_of_validation(column: str) -> bool:
    return column.endswith("/val") or column.startswith("Class ")


def _short(column: str) -> str:
    """Name a column in a legend."""
    return column.removeprefix("Class Average Precision/").removeprefix("rate ").replace("/", ", ")


def number_of(value: Any) -> float | None:
    """Read a cell; None for an empty one or nan."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
