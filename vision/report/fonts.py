"""Letters of any script: which of the system's fonts have them. matplotlib is loaded when it is asked."""

from __future__ import annotations

import functools
import logging
import string
from collections.abc import Iterable, Sequence

logger = logging.getLogger(__name__)

#: matplotlib's own, which comes with it.
BASE = "DejaVu Sans"

#: Packages of fonts for all scripts.
PACKAGES = "fonts-noto-core and fonts-noto-cjk"


@functools.cache
def system_fonts() -> tuple[str, ...]:
    """List the font files of the system and of matplotlib, its own first.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib import font_manager

    return (font_manager.findfont(BASE), *sorted(font_manager.findSystemFonts()))


def _letters_of(path: str) -> set[str] | None:
    """The letters that a font has; None for one that cannot be read."""
    from matplotlib import font_manager

    try:
        return set(map(chr, font_manager.get_font(path).get_charmap()))
    except (OSError, RuntimeError):
        return None


def fonts_for(text: str, fonts: Sequence[str]) -> tuple[list[str], set[str]]:
    """Choose fonts that have all letters of a text, as few as the first ones that have any not yet had.

    Args:
        text: of any script.
        fonts: files, the preferred first.

    Returns:
        the chosen files, and the letters that none has.
    """
    missing = {letter for letter in text if letter.isprintable() and not letter.isspace()}
    chosen = []
    for path in fonts:
        if not missing:
            break
        letters = _letters_of(path)
        if letters is not None and missing & letters:
            chosen.append(path)
            missing -= letters
    return chosen, missing


def font_for(text: str) -> str | None:
    """Find one font with all letters of a text; None, with a word, if there is none."""
    return _font_with("".join(sorted({letter for letter in text if not letter.isascii()})))


@functools.cache
def _font_with(letters: str) -> str | None:
    """Find one font with these letters and those of ASCII, so that names with other scores beside them are one case."""
    try:
        fonts = system_fonts()
    except ImportError:
        return None
    for path in fonts:
        if not fonts_for(string.ascii_letters + string.digits + letters, [path])[1]:
            return path
    say_missing(letters)
    return None


@functools.cache
def say_missing(text: str) -> None:
    """Say once that letters of a text cannot be drawn."""
    logger.info("no font here has all letters of %r: some are drawn as boxes; %s bring them", text, PACKAGES)


def families_for(texts: Iterable[str]) -> list[str]:
    """Choose font families for texts of a figure, in the order in which they are to be tried.

    Letters that none has are said once.
    """
    from matplotlib import font_manager

    text = "".join(sorted(set("".join(texts))))
    chosen, missing = fonts_for(text, system_fonts())
    if missing:
        say_missing("".join(sorted(missing)))
    for path in chosen[1:]:
        font_manager.fontManager.addfont(path)
    names = [font_manager.FontProperties(fname=path).get_name() for path in chosen]
    return list(dict.fromkeys([BASE, *names]))
