"""The annotation tables of Open Images: which classes, boxes and images of them are wanted, and writing that down.

The tables are far larger than memory needs to be. They are read row by row, and what is wanted lies in SQLite's
databases on disk.
"""

from __future__ import annotations

import csv
import difflib
import errno
import hashlib
import itertools
import logging
import math
import operator
import re
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

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
_CORNER_COLUMNS = ("XMin", "YMin", "XMax", "YMax")
_CORNERS = operator.itemgetter(*map(SOURCE_COLUMNS.index, _CORNER_COLUMNS))
_IS_GROUP, _IS_DEPICTION = SOURCE_COLUMNS.index("IsGroupOf"), SOURCE_COLUMNS.index("IsDepiction")

#: Ids become file names.
_PLAIN_ID = re.compile(r"\w[\w.-]*")

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


class ClassCount(NamedTuple):
    """How often a class occurs."""

    images: int
    boxes: int


class WantedBoxes:
    """The boxes of one split that are wanted; a context manager.

    The published table is read once. What is wanted of it lies in a database on disk, in the same folder, which is gone
    when it is closed. So memory does not grow with the table.

    Images are ordered by a hash of their ids, the same on every machine and in no relation to what an image shows. So a
    choice of some of them is like a random one, but always the same, whatever the order of the rows; and fewer images
    are a part of more. Two ids with one hash, which hardly ever happens, are taken or left together.

    Args:
        path: of the published table.
        classes: {id of a class: its name}.
        include_depiction: also boxes on drawings and the like (IsDepiction is 1).
        remove_overlapped: not boxes of single objects inside a group's box (IsGroupOf is 1) of their class and image,
            edges included.

    Attributes:
        names: of the classes, each once.
        depictions: how many boxes were left out as depictions.
        overlapped: how many were left out as being in a group's box.

    Raises:
        DataError: the table lacks columns, or a line is not as expected.
        OSError: the folder has no room for the database.
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
        with ExitStack() as stack:
            self._database = stack.enter_context(_temporary_database(path.parent))
            self._read(include_depiction, remove_overlapped)
            self._opened = stack.pop_all()

    def __enter__(self) -> WantedBoxes:
        return self

    def __exit__(self, *error: Any) -> None:
        self._opened.__exit__(*error)

    def images(self) -> int:
        """Count the images."""
        return self._number("SELECT COUNT(*) FROM images")

    def boxes(self) -> int:
        """Count the boxes."""
        return self._number("SELECT COUNT(*) FROM boxes JOIN images USING (hash)")

    def per_class(self) -> dict[str, ClassCount]:
        """Count images and boxes of each class."""
        of_images = "SELECT number, COUNT(*) AS boxes FROM boxes JOIN images USING (hash) GROUP BY hash, number"
        rows = self._database.execute(f"SELECT number, COUNT(*), SUM(boxes) FROM ({of_images}) GROUP BY number")
        counts = {number: ClassCount(images, boxes) for number, images, boxes in rows}
        return {name: counts.get(number, ClassCount(0, 0)) for number, name in enumerate(self.names)}

    def limit_boxes(self, limit: int) -> None:
        """Keep images, in their order, that bring a class of which there are fewer than `limit` boxes so far.

        Images are kept whole, so a class may end above the limit.
        """
        self._database.execute("CREATE TEMP TABLE refused (hash INTEGER PRIMARY KEY)")
        self._database.executemany("INSERT INTO refused VALUES (?)", self._beyond(limit))
        self._database.execute("DELETE FROM images WHERE hash IN refused")
        self._database.execute("DROP TABLE refused")

    def limit_images(self, limit: int) -> None:
        """Keep the first few images."""
        first_refused = "SELECT hash FROM images ORDER BY hash LIMIT 1 OFFSET ?"
        self._database.execute(f"DELETE FROM images WHERE hash >= ({first_refused})", (limit,))

    def image_ids(self) -> Iterator[str]:
        """Read each id once, in the order of the table."""
        for (image_id,) in self._database.execute("SELECT ImageID FROM images ORDER BY place"):
            yield image_id

    def table_rows(self) -> Iterator[Row]:
        """Read the boxes, texts in the order of `TABLE_COLUMNS`."""
        columns = ", ".join(f"boxes.{column}" for column in SOURCE_COLUMNS)
        query = f"SELECT {columns} FROM boxes JOIN images USING (hash) ORDER BY boxes.rowid"
        for row in self._database.execute(query):
            yield (*row, row[_LABEL], self.classes[row[_LABEL]])

    def _read(self, include_depiction: bool, remove_overlapped: bool) -> None:
        run = self._database.execute
        columns = ("hash INTEGER", "number INTEGER", *_as_texts(SOURCE_COLUMNS))
        _fill(self._database, columns, self._published(include_depiction))
        if remove_overlapped:
            run("CREATE TEMP TABLE groups AS SELECT * FROM boxes WHERE IsGroupOf = '1'")
            run("CREATE INDEX temp.of_groups ON groups (hash, number)")
            covers = (
                "float(groups.XMin) <= float(boxes.XMin) AND float(groups.YMin) <= float(boxes.YMin) "
                "AND float(boxes.XMax) <= float(groups.XMax) AND float(boxes.YMax) <= float(groups.YMax)"
            )
            alike = "groups.hash = boxes.hash AND groups.number = boxes.number"
            found = f"EXISTS (SELECT 1 FROM groups WHERE {alike} AND {covers})"
            self.overlapped = run(f"DELETE FROM boxes WHERE IsGroupOf <> '1' AND {found}").rowcount
            run("DROP TABLE groups")
        run("CREATE INDEX of_boxes ON boxes (hash, number)")
        run("CREATE TABLE images (hash INTEGER PRIMARY KEY, place INTEGER, ImageID TEXT)")
        run("INSERT INTO images SELECT hash, MIN(rowid), ImageID FROM boxes GROUP BY hash")
        run("CREATE INDEX of_images ON images (place)")

    def _number(self, query: str) -> int:
        (number,) = self._database.execute(query).fetchone()
        return number

    def _beyond(self, limit: int) -> Iterator[tuple[int]]:
        """Find the images that `limit_boxes` does without."""
        counts = [0] * len(self.names)
        boxes = self._database.execute("SELECT hash, number FROM boxes JOIN images USING (hash) ORDER BY hash")
        for image, rows in itertools.groupby(boxes, key=operator.itemgetter(0)):
            numbers = [number for _, number in rows]
            if any(counts[number] < limit for number in numbers):
                for number in numbers:
                    counts[number] += 1
            else:
                yield (image,)

    def _published(self, include_depiction: bool) -> Iterator[tuple]:
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
            last_id, hash_of_last = None, 0
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
                    hash_of_last = _hash(last_id)
                if not _are_numbers(_CORNERS(fields)):
                    found = f"the corners are {list(_CORNERS(fields))}, expected numbers from 0 to 1"
                    raise DataError(f"{self.path}: line {reader.line_num}: {found}; {_FETCH_AGAIN}")
                if fields[_IS_DEPICTION] == "1" and not include_depiction:
                    self.depictions += 1
                else:
                    yield hash_of_last, self._numbers[fields[_LABEL]], *fields


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


@contextmanager
def _temporary_database(folder: Path) -> Iterator[sqlite3.Connection]:
    """Make a database on disk that is gone when it is closed, however the program ends."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            database = sqlite3.connect(file.name)
            # What is lost with the program needs no care.
            for setting in ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE"):
                database.execute(f"PRAGMA {setting}")
            database.execute("CREATE TABLE opened (is_open)")
        # SQLite's own reading of a number may differ from Python's in the last digit.
        database.create_function("float", 1, float, deterministic=True)
        with closing(database):
            yield database
    except sqlite3.OperationalError as err:
        code = errno.ENOSPC if "full" in str(err) else errno.EIO
        raise OSError(code, f"a temporary file cannot be written or read ({err})", str(folder)) from err


def _as_texts(columns: Sequence[str]) -> list[str]:
    return [f"{column} TEXT" for column in columns]


def _fill(database: sqlite3.Connection, columns: Sequence[str], rows: Iterable[tuple]) -> None:
    """Make a table `boxes` of these columns with their types."""
    database.execute(f"CREATE TABLE boxes ({', '.join(columns)})")
    database.executemany(f"INSERT INTO boxes VALUES ({', '.join('?' * len(columns))})", rows)


@contextmanager
def _naming(place: Path) -> Iterator[None]:
    """Name a place in errors of writing, which do not say where."""
    try:
        yield
    except OSError as err:
        raise OSError(err.errno, err.strerror, err.filename or str(place)) from err


def _shown(header: Sequence[str], most: int = 80) -> str:
    text = ",".join(header)
    return repr(text if len(text) <= most else text[:most] + "...")


def _are_numbers(texts: Sequence[str]) -> bool:
    try:
        return math.isfinite(sum(map(float, texts)))
    except ValueError:
        return False


def _hash(image_id: str) -> int:
    """Give a number of 64 bits with a sign, as databases have them."""
    return int.from_bytes(hashlib.blake2b(image_id.encode(), digest_size=8).digest(), "big") - (1 << 63)


def limit(found: Mapping[str, WantedBoxes], max_boxes: int | None, max_images: int | None) -> None:
    """Keep some images of each split.

    Args:
        found: {split: what there is}.
        max_boxes: of a class in a split; see `WantedBoxes.limit_boxes`. None for no limit.
        max_images: in all splits together, shared in proportion to what they have left. None for no limit.
    """
    if max_boxes is not None:
        for boxes in found.values():
            boxes.limit_boxes(max_boxes)
    if max_images is not None:
        parts = share(max_images, [boxes.images() for boxes in found.values()])
        for boxes, part in zip(found.values(), parts, strict=True):
            boxes.limit_images(part)


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
        csv.writer(file, lineterminator="\n").writerows(itertools.chain([TABLE_COLUMNS], counted()))
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


def _in_order(rows: Iterable[Row], folder: Path) -> Iterator[Row]:
    """Sort rows by `_identity` and their text; there may be more than memory holds."""
    corners = (f"float({column})" for column in _CORNER_COLUMNS)
    with _temporary_database(folder) as database:
        _fill(database, _as_texts(TABLE_COLUMNS), rows)
        order = ", ".join(("ImageID", "LabelName", *corners, *TABLE_COLUMNS))
        yield from database.execute(f"SELECT * FROM boxes ORDER BY {order}")
