"""The annotation tables of Open Images: which classes, boxes and images of them are wanted, and writing that down.

The tables are far larger than memory needs to be. They are read row by row; what is kept in memory of a row is one
64-bit number, and of an image another.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import heapq
import itertools
import logging
import math
import operator
import re
import tempfile
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from vision.datasets.labels import with_background
from vision.structures import DataError
from vision.utils.files import replacing

logger = logging.getLogger(__name__)

#: What the published tables have, in this order.
SOURCE_COLUMNS = (
    "ImageID",
    "Source",
    "LabelName",
    "Confidence",
    "XMin",
    "XMax",
    "YMin",
    "YMax",
    "IsOccluded",
    "IsTruncated",
    "IsGroupOf",
    "IsDepiction",
    "IsInside",
)
#: What our own tables have: the class's id again, and its name.
TABLE_COLUMNS = (*SOURCE_COLUMNS, "id", "ClassName")

_IMAGE_ID, _LABEL = SOURCE_COLUMNS.index("ImageID"), SOURCE_COLUMNS.index("LabelName")
_CORNERS = operator.itemgetter(*(SOURCE_COLUMNS.index(name) for name in ("XMin", "YMin", "XMax", "YMax")))
_IS_GROUP, _IS_DEPICTION = SOURCE_COLUMNS.index("IsGroupOf"), SOURCE_COLUMNS.index("IsDepiction")

#: Ids become file names.
_PLAIN_ID = re.compile(r"\w[\w.-]*")

#: How many numbers are looked at in one piece: temporary arrays stay small.
_BLOCK = 1 << 20
#: How many rows are sorted in memory; of all boxes of Open Images that makes 300 files to merge.
_ROWS_IN_MEMORY = 50_000

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_JPEG_TAIL = 1024

_FETCH_AGAIN = "delete the file and run again to download it again"

Row = tuple[str, ...]


def choose_classes(wanted: Iterable[str], descriptions: Path) -> dict[str, str]:
    """Look up classes by name, in any case and with any spaces around and between words.

    Args:
        wanted: names; a background among them is dropped, as it has no boxes.
        descriptions: the published list of classes, lines of id and name.

    Returns:
        {id of the class: its name as published}, in the order wanted.

    Raises:
        DataError: the list cannot be read, names are not in it (it says all of them, with near ones), or none is
            wanted.
    """
    published: dict[str, list[tuple[str, str]]] = {}
    for label, name in _descriptions(descriptions):
        published.setdefault(_fold(name), []).append((label, name))
    names = with_background(wanted)[1:]
    if not names:
        raise DataError("--class-names: names no class; expected names as in " + str(descriptions))
    unknown = [_unknown(name, published) for name in names if _fold(name) not in published]
    if unknown:
        raise DataError(
            f"--class-names: {'; '.join(unknown)}; expected names as in {descriptions}, with commas between, "
            "or a file with a name a line"
        )
    return {label: name for wish in names for label, name in published[_fold(wish)]}


def _descriptions(path: Path) -> Iterator[tuple[str, str]]:
    with _csv_reader(path) as reader:
        for row in filter(None, reader):
            if len(row) != 2:
                found = f"{len(row)} fields, expected a class's id and its name"
                raise DataError(f"{path}: line {reader.line_num}: {found}; {_FETCH_AGAIN}")
            yield row[0].strip(), row[1].strip()


def _fold(name: str) -> str:
    return " ".join(name.casefold().split())


def _unknown(name: str, published: Mapping[str, list[tuple[str, str]]]) -> str:
    near = difflib.get_close_matches(_fold(name), published, n=3)
    hint = f", did you mean {' or '.join(published[other][0][1] for other in near)}?" if near else ""
    return f"unknown class {name!r}{hint}"


class SourceTable:
    """The boxes of one split that are wanted; a context manager.

    The published table is read once. What is wanted of it goes to a temporary file without a name in the same folder,
    which is gone through as often as one likes, one passage at a time.

    Args:
        path: of the published table.
        classes: {id of a class: its name}.
        include_depiction: also boxes on drawings and the like (IsDepiction is 1).
        remove_overlapped: not boxes of single objects inside a group's box (IsGroupOf is 1) of their class.

    Attributes:
        classes: as given.
        names: of the classes, each once.
        depictions: how many boxes were left out as depictions.
        overlapped: how many were left out as being in a group's box.

    Raises:
        DataError: the table lacks columns, or a line is not as expected.
    """

    def __init__(
        self, path: Path, classes: Mapping[str, str], *, include_depiction: bool, remove_overlapped: bool
    ) -> None:
        self.path = path
        self.classes = dict(classes)
        self.names = tuple(dict.fromkeys(classes.values()))
        self.depictions = 0
        self.overlapped = 0
        self._numbers = {label: self.names.index(name) for label, name in classes.items()}
        self._file = self._written(self._published(include_depiction))
        if remove_overlapped:
            with self._file as everything:
                self._file = self._written(self._not_overlapped(everything))

    def __enter__(self) -> SourceTable:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def rows(self) -> Iterator[Sequence[str]]:
        """Read the rows, texts in the order of `SOURCE_COLUMNS`."""
        return _from_start(self._file)

    def boxes(self) -> Iterator[tuple[str, int]]:
        """Read the rows as (id of the image, place of the class in `names`)."""
        for row in self.rows():
            yield row[_IMAGE_ID], self._numbers[row[_LABEL]]

    def _written(self, rows: Iterable[Sequence[str]]) -> TextIO:
        with _naming(self.path.parent):
            file = _nameless(self.path.parent)
            try:
                _write_rows(file, rows)
            except BaseException:
                # A full disk is met again when what is left is written.
                with suppress(OSError):
                    file.close()
                raise
        return file

    def _published(self, include_depiction: bool) -> Iterator[Row]:
        with _csv_reader(self.path) as reader:
            header = [column.strip() for column in next(reader, [])]
            lacking = [column for column in SOURCE_COLUMNS if column not in header]
            if lacking:
                raise DataError(
                    f"{self.path}: lacks the columns {', '.join(lacking)}; found {_shown(header)}, expected a table "
                    f"of Open Images boxes; {_FETCH_AGAIN}"
                )
            width, label_at = len(header), header.index("LabelName")
            in_order = operator.itemgetter(*(header.index(column) for column in SOURCE_COLUMNS))
            last_id = None
            for row in reader:
                if len(row) != width:
                    if not row:
                        continue
                    found = f"{len(row)} fields, expected {width} like the header"
                    raise DataError(f"{self.path}: line {reader.line_num}: {found}; {_FETCH_AGAIN}")
                if row[label_at] not in self.classes:
                    continue
                fields = in_order(row)
                if fields[_IMAGE_ID] != last_id:
                    last_id = fields[_IMAGE_ID]
                    if not _PLAIN_ID.fullmatch(last_id):
                        found = f"{last_id!r} is no id of an image, expected letters, digits, . - _"
                        raise DataError(f"{self.path}: line {reader.line_num}: {found}; {_FETCH_AGAIN}")
                if not _are_numbers(_CORNERS(fields)):
                    found = f"the corners are {list(_CORNERS(fields))}, expected numbers from 0 to 1"
                    raise DataError(f"{self.path}: line {reader.line_num}: {found}; {_FETCH_AGAIN}")
                if fields[_IS_DEPICTION] == "1" and not include_depiction:
                    self.depictions += 1
                else:
                    yield fields

    def _not_overlapped(self, everything: TextIO) -> Iterator[Sequence[str]]:
        pack = _Packer(len(self.names))
        groups = _Groups()
        for row in _from_start(everything):
            if row[_IS_GROUP] == "1":
                groups.add(pack(row[_IMAGE_ID], self._numbers[row[_LABEL]]), _CORNERS(row))
        groups.sort()
        for row in _from_start(everything):
            entry = pack(row[_IMAGE_ID], self._numbers[row[_LABEL]])
            if row[_IS_GROUP] != "1" and groups.cover(entry, _CORNERS(row)):
                self.overlapped += 1
            else:
                yield row


@contextmanager
def _csv_reader(path: Path) -> Iterator[Any]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        try:
            yield reader
        except (csv.Error, UnicodeDecodeError) as err:
            raise DataError(
                f"{path}: cannot be read as CSV after line {reader.line_num} ({err}); {_FETCH_AGAIN}"
            ) from err


def _nameless(folder: Path) -> TextIO:
    """Make a temporary file that is gone when the program is, however it ends."""
    return tempfile.TemporaryFile("w+", newline="", encoding="utf-8", dir=folder)


def _write_rows(file: TextIO, rows: Iterable[Sequence[str]]) -> None:
    csv.writer(file, lineterminator="\n").writerows(rows)
    file.flush()


@contextmanager
def _naming(place: Path) -> Iterator[None]:
    """Name a place in errors of writing, which do not say where."""
    try:
        yield
    except OSError as err:
        raise OSError(err.errno, err.strerror, err.filename or str(place)) from err


def _from_start(file: TextIO) -> Iterator[list[str]]:
    file.seek(0)
    return csv.reader(file)


def _shown(header: Sequence[str], most: int = 80) -> str:
    text = ",".join(header)
    return repr(text if len(text) <= most else text[:most] + "...")


def _are_numbers(texts: Sequence[str]) -> bool:
    try:
        return math.isfinite(sum(map(float, texts)))
    except ValueError:
        return False


# Numbers for rows.


class _Packer:
    """Packs image and class of a box into 64 bits: a hash of the image's id, its lowest bits replaced by the class.

    The hash is the same on every machine, and in no relation to what the image shows.
    """

    def __init__(self, classes: int) -> None:
        self.bits = (classes - 1).bit_length()
        self._last_id: str | None = None
        self._base = 0

    def __call__(self, image_id: str, number: int) -> int:
        if image_id != self._last_id:
            self._last_id = image_id
            digest = hashlib.blake2b(image_id.encode(), digest_size=8).digest()
            self._base = int.from_bytes(digest, "big") >> self.bits << self.bits
        return self._base | number


class _Groups:
    """The boxes of groups, to be asked whether they cover others; 24 bytes each."""

    def __init__(self) -> None:
        self._entries = array("Q")
        self._boxes = array("f")

    def add(self, entry: int, corners: Sequence[str]) -> None:
        """Add a box, before `sort`."""
        self._entries.append(entry)
        self._boxes.extend(map(float, corners))

    def sort(self) -> None:
        """Get ready for `cover`."""
        entries, boxes = np.asarray(self._entries), np.asarray(self._boxes).reshape(-1, 4)
        order = np.argsort(entries)
        self._entries, self._boxes = array("Q", entries[order].tobytes()), array("f", boxes[order].tobytes())

    def cover(self, entry: int, corners: Sequence[str]) -> bool:
        """Whether a box lies in that of a group of its image and class, edges included."""
        place = bisect_left(self._entries, entry)
        if place == len(self._entries) or self._entries[place] != entry:
            return False
        left, top, right, bottom = array("f", map(float, corners))
        while place < len(self._entries) and self._entries[place] == entry:
            x1, y1, x2, y2 = self._boxes[4 * place : 4 * place + 4]
            if x1 <= left and y1 <= top and right <= x2 and bottom <= y2:
                return True
            place += 1
        return False


class ClassCount(NamedTuple):
    """How often a class occurs."""

    images: int
    boxes: int


class Tally:
    """Which classes occur how often in which images, 8 bytes for a box.

    Images are ordered by a hash of their ids. So a choice of some of them is like a random one, but always the same,
    whatever the order of the rows; and fewer images are a part of more. Two ids with one hash, which hardly ever
    happens, are taken or left together.

    Args:
        boxes: (id of the image, place of the class in `names`) each.
        names: of the classes.
    """

    def __init__(self, boxes: Iterable[tuple[str, int]], names: Sequence[str]) -> None:
        self.names = tuple(names)
        pack = _Packer(len(names))
        self._bits = pack.bits
        self._entries = array("Q", itertools.starmap(pack, boxes))
        np.asarray(self._entries).sort()

    def images(self) -> int:
        """Count the images."""
        return sum(int(is_new.sum()) for _, is_new, _ in self._blocks())

    def boxes(self) -> int:
        """Count the boxes."""
        return len(self._entries)

    def per_class(self) -> dict[str, ClassCount]:
        """Count images and boxes of each class."""
        images = np.zeros(len(self.names), np.int64)
        boxes = np.zeros(len(self.names), np.int64)
        for entries, _, is_new_class in self._blocks():
            numbers = (entries & np.uint64((1 << self._bits) - 1)).astype(np.int64)
            boxes += np.bincount(numbers, minlength=len(self.names))
            images += np.bincount(numbers[is_new_class], minlength=len(self.names))
        counts = zip(self.names, images.tolist(), boxes.tolist(), strict=True)
        return {name: ClassCount(in_images, in_boxes) for name, in_images, in_boxes in counts}

    def with_boxes(self, limit: int) -> Tally:
        """Keep images, in their order, that bring a class of which there are fewer than `limit` boxes so far.

        Images are kept whole, so a class may end above the limit.
        """
        mask = (1 << self._bits) - 1
        counts = [0] * len(self.names)
        kept = array("Q")
        for _, image in itertools.groupby(self._entries, key=lambda entry: entry >> self._bits):
            entries = list(image)
            numbers = [entry & mask for entry in entries]
            if any(counts[number] < limit for number in numbers):
                kept.extend(entries)
                for number in numbers:
                    counts[number] += 1
        return self._part(kept)

    def first(self, images: int) -> Tally:
        """Keep the first few images."""
        passed, seen = 0, 0
        for entries, is_new, _ in self._blocks():
            begins = np.flatnonzero(is_new)
            if seen + len(begins) > images:
                return self._part(self._entries[: passed + int(begins[images - seen])])
            seen += len(begins)
            passed += len(entries)
        return self

    def keys(self) -> array:
        """Return what stands for each image, in ascending order."""
        pieces = [entries[is_new] >> np.uint64(self._bits) for entries, is_new, _ in self._blocks()]
        keys = array("Q")
        for piece in pieces:
            keys.frombytes(piece.tobytes())
        return keys

    def _part(self, entries: array) -> Tally:
        part = Tally((), self.names)
        part._entries = entries
        return part

    def _blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Go through the entries: (some of them, which begin an image, which begin a class in an image)."""
        entries, bits = np.asarray(self._entries), np.uint64(self._bits)
        for start in range(0, len(entries), _BLOCK):
            block = entries[start : start + _BLOCK]
            is_new, is_new_class = np.ones(len(block), bool), np.ones(len(block), bool)
            # From the second block on there is a last one of the block before.
            before = entries[max(0, start - 1) : start + len(block) - 1]
            here = slice(len(block) - len(before), None)
            is_new_class[here] = block[here] != before
            is_new[here] = block[here] >> bits != before >> bits
            yield block, is_new, is_new_class


def limited(found: Mapping[str, Tally], max_boxes: int | None, max_images: int | None) -> dict[str, Tally]:
    """Keep some images of each split.

    Args:
        found: {split: what there is}.
        max_boxes: of a class in a split; see `Tally.with_boxes`. None for no limit.
        max_images: in all splits together, shared in proportion to what they have left. None for no limit.
    """
    kept = dict(found)
    if max_boxes is not None:
        kept = {split: tally.with_boxes(max_boxes) for split, tally in kept.items()}
    if max_images is not None:
        parts = share(max_images, [tally.images() for tally in kept.values()])
        kept = {split: tally.first(part) for (split, tally), part in zip(kept.items(), parts, strict=True)}
    return kept


def share(total: int, sizes: Sequence[int]) -> list[int]:
    """Divide a number in proportion to sizes, none getting more than its size; the largest rests get what is left."""
    whole = sum(sizes)
    if total >= whole:
        return list(sizes)
    parts = [total * size // whole for size in sizes]
    by_rest = sorted(range(len(sizes)), key=lambda place: -(total * sizes[place] % whole))
    for place in by_rest[: total - sum(parts)]:
        parts[place] += 1
    return parts


class Choice:
    """The images of a split to fetch, and their boxes; 9 bytes each.

    Args:
        tally: of the images.
        source: where their ids and boxes are read.
    """

    def __init__(self, tally: Tally, source: SourceTable) -> None:
        self._pack = _Packer(len(tally.names))
        self._keys = tally.keys()
        self._source = source

    def __len__(self) -> int:
        return len(self._keys)

    def image_ids(self) -> Iterator[str]:
        """Read each id once, in the order of the table."""
        seen, last_id = bytearray(len(self._keys)), None
        for row in self._source.rows():
            image_id = row[_IMAGE_ID]
            if image_id == last_id:
                continue
            last_id = image_id
            place = self._place(image_id)
            if place is not None and not seen[place]:
                seen[place] = True
                yield image_id

    def table_rows(self) -> Iterator[Row]:
        """Read the boxes, texts in the order of `TABLE_COLUMNS`."""
        last_id, chosen = None, False
        for row in self._source.rows():
            image_id = row[_IMAGE_ID]
            if image_id != last_id:
                last_id, chosen = image_id, self._place(image_id) is not None
            if chosen:
                label = row[_LABEL]
                yield (*row, label, self._source.classes[label])

    def _place(self, image_id: str) -> int | None:
        key = self._pack(image_id, 0) >> self._pack.bits
        place = bisect_left(self._keys, key)
        return place if place < len(self._keys) and self._keys[place] == key else None


# Images and tables of ours.


def image_defect(path: Path) -> str | None:
    """Say why a file is no whole JPEG; None if nothing speaks against it.

    Images are not decoded: what is looked at is whether there is a beginning and an end.
    """
    with open(path, "rb") as file:
        start = file.read(len(_JPEG_START))
        if not start:
            return "is empty"
        if start != _JPEG_START:
            return f"is no JPEG (it begins with {start + file.read(10)!r})"
        size = file.seek(0, 2)
        file.seek(max(0, size - _JPEG_TAIL))
        # Some programs fill up files with zeros.
        if not file.read().rstrip(b"\0").endswith(_JPEG_END):
            return f"is only the beginning of a JPEG ({size} bytes, without its end-of-image marker)"
    return None


class Merged(NamedTuple):
    """What became of a table.

    Attributes:
        boxes: rows written; without any, nothing was written.
        images: that these rows are of.
        lost: rows left out as their image is not there, by where they came from: this run, or the table before.
    """

    boxes: int
    images: int
    lost: tuple[int, int]


def merge_table(path: Path, rows: Iterable[Row], folder: Path) -> Merged:
    """Write a table of the rows given and those that an earlier run left in it.

    The result is sorted, so that it does not depend on the order of the rows or runs. A box counts once: of rows that
    agree in image, class and corners, the one whose text sorts first stays.

    Args:
        path: of the table, `sub-<split>-annotations-bbox.csv`.
        rows: texts in the order of `TABLE_COLUMNS`.
        folder: of the images. A row whose image is not there as a whole is left out.

    Raises:
        DataError: there is a table of another kind.
    """
    lost = [0, 0]

    def having_images(some_rows: Iterable[Row], origin: int) -> Iterator[Row]:
        last_id, is_there = None, False
        for row in some_rows:
            image_id = row[_IMAGE_ID]
            if image_id != last_id:
                image = folder / f"{image_id}.jpg"
                last_id, is_there = image_id, image.is_file() and image_defect(image) is None
            if is_there:
                yield row
            else:
                lost[origin] += 1

    both = itertools.chain(having_images(_table_rows(path), 1), having_images(rows, 0))
    alike = itertools.groupby(_in_order(both, path.parent), key=_identity)
    ordered = (next(group) for _, group in alike)
    first = next(ordered, None)
    if first is None:
        return Merged(0, 0, (lost[0], lost[1]))
    boxes = images = 0

    def counted() -> Iterator[Row]:
        nonlocal boxes, images
        last_id = None
        for row in itertools.chain([first], ordered):
            boxes += 1
            images += row[_IMAGE_ID] != last_id
            last_id = row[_IMAGE_ID]
            yield row

    with (
        _naming(path),
        replacing(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        _write_rows(file, itertools.chain([TABLE_COLUMNS], counted()))
    return Merged(boxes, images, (lost[0], lost[1]))


def _table_rows(path: Path) -> Iterator[Row]:
    if not path.exists():
        return
    with _csv_reader(path) as reader:
        header: list[str] = next(reader, [])
        if sorted(header) != sorted(TABLE_COLUMNS):
            raise DataError(
                f"{path}: its columns are {_shown(header)}, expected {','.join(TABLE_COLUMNS)}; "
                "move it away, or name another folder"
            )
        in_order = operator.itemgetter(*(header.index(column) for column in TABLE_COLUMNS))
        for row in filter(None, reader):
            if len(row) != len(header) or not _are_numbers(_CORNERS(in_order(row))):
                found = f"{_shown(row)} is no box"
                raise DataError(
                    f"{path}: line {reader.line_num}: {found}; correct or remove the line, or move the file away"
                )
            yield in_order(row)


def _identity(row: Row) -> tuple[str, str, list[float]]:
    return row[_IMAGE_ID], row[_LABEL], [float(text) for text in _CORNERS(row)]


def _order(row: Row) -> tuple:
    return (*_identity(row), row)


def _in_order(rows: Iterable[Row], folder: Path) -> Iterator[Row]:
    """Sort rows, of which there may be more than memory holds; the temporary files have no names."""
    rows = iter(rows)
    with _naming(folder), ExitStack() as stack:
        runs: list[Iterator[Any]] = []
        while chunk := sorted(itertools.islice(rows, _ROWS_IN_MEMORY), key=_order):
            if not runs and len(chunk) < _ROWS_IN_MEMORY:
                yield from chunk
                return
            file = stack.enter_context(_nameless(folder))
            _write_rows(file, chunk)
            runs.append(map(tuple, _from_start(file)))
        yield from heapq.merge(*runs, key=_order)
