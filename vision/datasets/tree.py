"""All files of a folder, listed once: what formats go by when they are asked whether a dataset is theirs."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

from vision.datasets.file_index import FileIndex, files_below
from vision.datasets.images import LFS_POINTER, LFS_PULL
from vision.datasets.labels import read_text
from vision.datasets.names import EXAMPLES
from vision.structures import IMAGE_SUFFIXES, DataError

T = TypeVar("T")

#: Names of folders, in lower case, that say what kind of file is in them and nothing else.
KIND_FOLDERS = (
    *("images", "image", "imgs", "img", "image_2", "jpegimages"),
    *("labels", "label", "label_2", "annotations", "annotation", "xmls", "xml", "json", "jsons", "csv"),
)

#: How names of archives end, which are to be unpacked first.
ARCHIVES = (".zip", ".7z", ".rar", ".tar", ".tgz", ".tbz2", ".txz", ".gz", ".bz2", ".xz", ".zst")

#: How deep below a folder a dataset may begin, as archives wrap it in folders of their own.
MAX_DEPTH = 3

#: An XML declaration up to the end, with the encoding that it names.
_XML_ENCODING = re.compile(rb"\s*<\?xml[^>]*?encoding\s*=\s*[\"']([\w.-]+)[\"'][^>]*\?>")

#: Files of a kind that are looked into when each image has one.
_LOOKED_INTO = 12

#: Files of a kind that are looked into when each may be about many images.
_MOST_TABLES = 20


class Tree:
    """The files below a folder.

    Args:
        root: the folder.

    Attributes:
        paths: relative to it, with / between, sorted; nothing hidden.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths = list(files_below(root, ("",)))

    def ending(self, *suffixes: str) -> list[str]:
        """List the files with these suffixes, in lower case."""
        return [path for path in self.paths if path.lower().endswith(suffixes)]

    @functools.cached_property
    def images(self) -> FileIndex:
        """Finds the images."""
        return FileIndex(self.root, transparent=KIND_FOLDERS, paths=self.ending(*IMAGE_SUFFIXES))

    def holds(self, name: str) -> bool:
        """Whether there is an image of that name."""
        return self.images.find(name) is not None

    def holds_named(self, name: str) -> bool:
        """Whether there is an image of that name, in whatever folder: what `SelfDescribedReader.image` finds."""
        return self.holds(name) or self.holds(name.replace("\\", "/").rpartition("/")[2])

    def count_by_sample(self, paths: Sequence[str], fits: Callable[[str], bool | None]) -> int:
        """Estimate how many files fit, by a look into a few.

        Args:
            paths: of files of which each image has one.
            fits: whether a file fits; None if it says neither.
        """
        step = max(1, len(paths) / _LOOKED_INTO)
        chosen = [paths[int(place * step)] for place in range(min(len(paths), _LOOKED_INTO))]
        said = [answer for answer in map(fits, chosen) if answer is not None]
        return round(len(paths) * sum(said) / len(said)) if said else 0

    def count_in(self, paths: Sequence[str], images_of: Callable[[str], Iterable[str]]) -> int:
        """Count the images on disk that files are about which may each be about many; estimate it where files are many.

        Args:
            paths: of the files.
            images_of: the names of the images that one is about.
        """
        step = max(1, len(paths) // _MOST_TABLES)
        chosen = paths[::step]
        return step * sum(self.holds_named(name) for path in chosen for name in set(images_of(path)) - {""})


def load_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: it cannot be read as text or as JSON.
    """
    text = read_text(path, "JSON")
    try:
        return json.loads(text)
    except ValueError as err:
        raise DataError(f"{path}: cannot be read as JSON ({err})") from err


def parse_xml(path: Path) -> ElementTree.Element:
    """Parse an XML file.

    Raises:
        ValueError: it is a Git LFS pointer.
        ElementTree.ParseError: it is no XML.
    """
    content = path.read_bytes()
    if content.startswith(LFS_POINTER):
        raise ValueError(f"a Git LFS pointer; {LFS_PULL}")
    return xml_root(content)


def xml_root(content: bytes) -> ElementTree.Element:
    """Parse XML, also in encodings that Python knows and expat does not.

    Raises:
        ElementTree.ParseError, ValueError, LookupError: it is no XML, or not in the encoding that it names.
    """
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError):
        declared = _XML_ENCODING.match(content)
        if declared is None:
            raise
        text = content[declared.end() :].decode(declared[1].decode("ascii"))
        return ElementTree.fromstring(text[text.index("<") :] if "<" in text else text)


def as_written(value: Any) -> str:
    """The text of a value in JSON, as it stands there: `true`, not `True`; nothing where it is missing or null."""
    return "" if value is None else (value if isinstance(value, str) else json.dumps(value)).strip()


def try_to(read: Callable[[Path], T], path: Path) -> T | None:
    """Read a file that may be of any kind; None if it is not of the kind, or cannot be read."""
    try:
        return read(path)
    except (DataError, OSError, ValueError, LookupError, TypeError, AttributeError, ElementTree.ParseError):
        return None


def bounding_box(points: Iterable[Sequence[float]]) -> tuple[float, float, float, float] | None:
    """The box (x1, y1, x2, y2) around points (x, y); None if there are fewer than two, or one is no pair of numbers."""
    try:
        pairs = [(float(point[0]), float(point[1])) for point in points]
    except (TypeError, ValueError, LookupError):
        return None
    if len(pairs) < 2:
        return None
    xs, ys = zip(*pairs, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def subfolders(folder: Path) -> list[Path]:
    """List the folders in a folder, sorted, without hidden ones; none where it cannot be read."""
    try:
        with os.scandir(folder) as entries:  # says of each file what it is without asking again
            return sorted(Path(entry.path) for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    except OSError:
        return []


def several_datasets(root: Path, found: Sequence[Path]) -> DataError:
    """Say that a folder holds several datasets, and how to name them."""
    listed = " ".join(map(str, found[:EXAMPLES]))
    return DataError(f"{root}: holds {len(found)} datasets; name them one by one: --data {listed}")
