"""Lists of class names: reading, writing, merging; and the one rule about the background."""

from __future__ import annotations

import codecs
import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from vision.datasets.defects import REPAIRED, Defect
from vision.datasets.images import LFS_POINTER, LFS_PULL
from vision.structures import DataError
from vision.utils.files import write_text

logger = logging.getLogger(__name__)

#: What CVAT writes above its list, and behind each name: color, parts, actions.
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


class LabelList(NamedTuple):
    """Class names as a dataset lists them, without a background, what was odd about them, and the file if it is one."""

    names: tuple[str, ...]
    defects: tuple[Defect, ...] = ()
    source: Path | None = None


def read_label_list(path: str | Path) -> LabelList:
    """Read class names, one a line, or with commas on a single line; also CVAT's `labelmap.txt`.

    Byte order marks, CRLF, blank lines, and colors as CVAT appends them (`name:r,g,b::`) are no part of a name.
    A background in any case is dropped wherever it stands; repeated names count once.

    Raises:
        DataError: the file cannot be read as text, or names no class.
    """
    path = Path(path)
    return check_labels(written_names(path), path)._replace(source=path)


def find_label_list(folders: Iterable[Path], names: Sequence[str]) -> LabelList | None:
    """Read the first list of classes with one of these names in one of the folders; None if there is none."""
    paths = (folder / name for folder in folders for name in names)
    return next((read_label_list(path) for path in paths if path.is_file()), None)


def written_names(path: Path) -> list[str]:
    """Read the names of a list of classes as they stand there, backgrounds and repetitions included.

    Raises:
        DataError: the file cannot be read as text.
    """
    lines = read_text(path, "class names, one a line").splitlines()
    found = [_CVAT_ENDING.sub("", line).strip() for line in lines if not line.startswith(_CVAT_HEADER)]
    found = [name for name in found if name]
    return [name.strip() for name in found[0].split(",") if name.strip()] if len(found) == 1 else found


def check_labels(found: Sequence[str], path: Path) -> LabelList:
    """Drop backgrounds and repeated names from a list of classes, and name them.

    Args:
        found: names in their order.
        path: of the file they come from.

    Raises:
        DataError: no class is left.
    """
    defects = []
    backgrounds = [name for name in found if name.upper() == BACKGROUND]
    if backgrounds:
        message = f"lists {', '.join(map(repr, backgrounds))}: removed, {BACKGROUND} is always class 0"
        defects.append(Defect("label-background", path, message))
    names = with_background(found)[1:]
    repeated = [name for name, count in Counter(found).items() if count > 1 and name in names]
    if repeated:
        message = f"names {', '.join(repeated)} more than once; each counts once"
        defects.append(Defect("label-repeats", path, message))
    if not names:
        raise DataError(f"{path}: names no class; expected class names, one a line")
    return LabelList(names, tuple(defects))


def read_labels(path: str | Path) -> tuple[str, ...]:
    """Read class names, BACKGROUND first, and log what is odd about the list; see `read_label_list`."""
    found = read_label_list(path)
    for defect in found.defects:
        logger.log(logging.WARNING if defect.effect == REPAIRED else logging.DEBUG, "%s", defect)
    return with_background(found.names)


def read_text(path: Path, expected: str) -> str:
    """Read a text file in UTF-8 or, as some editors call "Unicode", UTF-16; without its byte order mark.

    Args:
        path: of the file.
        expected: what should stand in it, for the message.

    Raises:
        DataError: it is not there or not such a text.
    """
    try:
        content = path.read_bytes()
        if content.startswith(LFS_POINTER):
            raise DataError(f"{path}: is a Git LFS pointer in the place of {expected or 'a text'}; {LFS_PULL}")
        has_utf16_mark = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return content.decode("utf-16" if has_utf16_mark else "utf-8-sig")
    except FileNotFoundError as err:
        raise DataError(f"{path}: no such file; expected {expected}") from err
    except (OSError, UnicodeDecodeError) as err:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({err}); expected {expected}") from err


def read_lines(path: Path, expected: str) -> tuple[list[str], str | None]:
    """Read a text file's lines, and why it cannot be read; see `read_text`."""
    try:
        return read_text(path, expected).splitlines(), None
    except DataError as err:
        return [], str(err)


def store_labels(path: str | Path, labels: Sequence[str]) -> None:
    """Write class names, one a line."""
    write_text(path, "".join(f"{label}\n" for label in labels))


def merge(lists: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Join class lists by name, in the order of first appearance, BACKGROUND first."""
    return with_background(name for names in lists for name in names)
