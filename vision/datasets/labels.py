"""Lists of class names: reading, writing, merging; and the one rule about the background."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from vision.structures import DataError
from vision.utils.files import write_text

logger = logging.getLogger(__name__)

#: What CVAT writes above its list, and behind each name: colour, parts, actions.
_CVAT_HEADER = "# label:"
_CVAT_ENDING = re.compile(r":\d+,\d+,\d+:[^:]*:[^:]*$")

#: Class 0 of every list here; detectNet expects it, too.
BACKGROUND = "BACKGROUND"


def with_background(names: Iterable[str]) -> tuple[str, ...]:
    """Put BACKGROUND first; drop blank and repeated names and backgrounds of any case.

    This is the only place where the background joins a class list.
    """
    stripped = (name.strip() for name in names)
    kept = dict.fromkeys(name for name in stripped if name and name.upper() != BACKGROUND)
    return (BACKGROUND, *kept)


def read_labels(path: str | Path) -> tuple[str, ...]:
    """Read class names, one a line, or with commas on a single line; also CVAT's `labelmap.txt`.

    Byte order marks, CRLF, blank lines, and colours as CVAT appends them (`name:r,g,b::`) are no part of a name.
    Repeated names are said, and count once.

    Returns:
        the names, BACKGROUND first; see `with_background`.

    Raises:
        DataError: the file cannot be read as text, or names no class.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError as err:
        raise DataError(f"{path}: no such file; expected class names, one a line") from err
    except (OSError, UnicodeDecodeError) as err:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({err}); expected class names, one a line") from err
    lines = [line for line in text.strip().splitlines() if not line.startswith(_CVAT_HEADER)]
    found = [_CVAT_ENDING.sub("", line).strip() for line in lines]
    if len(found) == 1:
        found = [name.strip() for name in found[0].split(",")]
    names = with_background(found)
    repeated = [name for name, count in Counter(filter(None, found)).items() if count > 1]
    if repeated:
        logger.warning("%s: names %s more than once; each counts once", path, ", ".join(repeated))
    if len(names) == 1:
        raise DataError(f"{path}: names no class; expected class names, one a line")
    return names


def store_labels(path: str | Path, labels: Sequence[str]) -> None:
    """Write class names, one a line."""
    write_text(path, "".join(f"{label}\n" for label in labels))


def merge(lists: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Join class lists by name, in the order of first appearance, BACKGROUND first."""
    return with_background(name for names in lists for name in names)
