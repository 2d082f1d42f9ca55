"""What all plots share. matplotlib is loaded when something is drawn: a Jetson may do without."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vision.report.fonts import families_for
from vision.utils.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colors that the color-blind can tell apart (Okabe and Ito, "Color Universal Design", 2008); black is for means.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
GREY = "#B0B0B0"

#: How matplotlib's warning of a letter that a font does not have begins.
_MISSING_LETTER = r"Glyph \d+"


#: Height of the numbers and the label below a plot, in inches.
_BELOW = 0.45

#: Letters of a name beyond which it is cut in the middle.
MAX_LETTERS = 28


def plain_text(name: str) -> str:
    """Write a name so that matplotlib shows it as it is: no mathematics, and in legends though it begins with `_`.

    A long one is cut in the middle: both ends of a name say much.
    """
    if len(name) > MAX_LETTERS:
        name = f"{name[: MAX_LETTERS // 2]}\u2026{name[-MAX_LETTERS // 2 + 1 :]}"
    return ("\u200b" if name.startswith("_") else "") + name.replace("$", r"\$")


def legend_beside(axes: Axes, **options: Any) -> None:
    """Put the legend on the right of a plot, where it hides no data; no legend for nothing."""
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, fontsize=9, **options)


def legend_below(axes: Axes) -> None:
    """Put a short legend below the labels of a plot, where it hides no data."""
    from matplotlib.transforms import ScaledTranslation

    inches = ScaledTranslation(0, -_BELOW, axes.get_figure().dpi_scale_trans)  # type: ignore[union-attr]  # it is in one
    moved = axes.transAxes + inches
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=moved, ncol=4, fontsize=9, frameon=False)


def in_pixels(axes: Axes, sides: np.ndarray) -> None:
    """Give a plot of widths and heights in pixels axes that double from tick to tick: 16, 32, 64.

    Args:
        axes: of the plot.
        sides: (N, 2) all that it shows.
    """
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    least, most = np.floor(np.log2(sides.min(axis=0))), np.ceil(np.log2(sides.max(axis=0)))
    for axis, low, high in zip((axes.xaxis, axes.yaxis), least, most, strict=True):
        ticks = 2.0 ** np.arange(low, high + 1)
        axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_minor_locator(NullLocator())
    axes.set_xlim(2.0 ** (least[0] - 0.1), 2.0 ** (most[0] + 0.1))
    axes.set_ylim(2.0 ** (least[1] - 0.1), 2.0 ** (most[1] + 0.1))


@contextmanager
def figure_file(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Context that gives a figure and writes it as a PNG file at the end. No pyplot, which would keep state.

    Args:
        path: of the file.
        width: of the figure in inches of 100 pixels.
        height: of the figure in inches of 100 pixels.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    figure = Figure(figsize=(width, height), layout="constrained", dpi=100)
    FigureCanvasAgg(figure)
    yield figure
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("error", _MISSING_LETTER)
        try:
            figure.savefig(temporary, format="png")
            return
        except UserWarning:  # some texts, as those of ticks, are known now only
            pass
        texts = figure.findobj(Text)
        families = families_for(artist.get_text() for artist in texts)
        for artist in texts:
            artist.set_fontfamily(families)
        warnings.filterwarnings("ignore", _MISSING_LETTER)  # said already
        figure.savefig(temporary, format="png")
