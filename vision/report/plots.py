"""What all plots share. matplotlib is loaded when something is drawn: a Jetson may do without."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vision.report.fonts import families_for
from vision.utils.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Colors that the color-blind can tell apart (Okabe and Ito, "Color Universal Design", 2008); black is for means.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
GREY = "#B0B0B0"

#: How matplotlib's warning of a letter that a font does not have begins.
_MISSING_LETTER = r"Glyph \d+"


def plain_text(name: str) -> str:
    """Write a name so that matplotlib shows it as it is: no mathematics, and in legends though it begins with `_`."""
    return ("\u200b" if name.startswith("_") else "") + name.replace("$", r"\$")


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
