"""What all plots share. matplotlib is loaded when something is drawn: a Jetson may do without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vision.utils.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Colours that the colour-blind can tell apart (Okabe and Ito, "Color Universal Design", 2008); black is for means.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
GREY = "#B0B0B0"


def plain_text(name: str) -> str:
    """Write a name so that matplotlib shows it as it is: no mathematics, and in legends though it begins with `_`."""
    return ("\u200b" if name.startswith("_") else "") + name.replace("$", r"\$")


@contextmanager
def figure_file(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Context that gives a figure and writes it as a PNG file at the end. No pyplot, which would keep state.

    Args:
        path: of the file.
        width: of the figure in inches of 100 pixels.
        height: likewise.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=100)
    FigureCanvasAgg(figure)
    yield figure
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
