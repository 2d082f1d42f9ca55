"""Tables with a row per object, as Roboflow, VoTT, AutoML, Keras-RetinaNet and people write them."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vision.datasets.annotated_folder import Annotated, SelfDescribedReader, not_used
from vision.datasets.defects import Defect
from vision.datasets.labels import read_text
from vision.datasets.names import shorten
from vision.datasets.records import BoxFormat, RawObject, are_fractions
from vision.datasets.tree import Tree, try_to
from vision.structures import IMAGE_SUFFIXES, DataError

#: What columns are called, in lower case without anything but letters and digits.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "image": (
        "filename",
        "file",
        "image",
        "imagename",
        "imagepath",
        "path",
        "img",
        "imageid",
        "frame",
        "filepath",
        "name",
    ),
    "label": (
        "class",
        "label",
        "classname",
        "category",
        "labelname",
        "object",
        "type",
        "target",
        "tag",
        "classid",
        "name",
    ),
    "x1": ("xmin", "x1", "left", "bboxxmin", "minx", "x0", "bboxx1", "xtl"),
    "y1": ("ymin", "y1", "top", "bboxymin", "miny", "y0", "bboxy1", "ytl"),
    "x2": ("xmax", "x2", "right", "bboxxmax", "maxx", "bboxx2", "xbr"),
    "y2": ("ymax", "y2", "bottom", "bboxymax", "maxy", "bboxy2", "ybr"),
    "x": ("x", "bboxx", "bboxleft", "xleft"),
    "y": ("y", "bboxy", "bboxtop", "ytop"),
    "w": ("w", "bboxwidth", "bboxw", "boxwidth", "width"),
    "h": ("h", "bboxheight", "bboxh", "boxheight", "height"),
    "box": ("bbox", "box", "boundingbox"),
    "width": ("width", "imagewidth", "imgwidth", "imwidth", "widthimage"),
    "height": ("height", "imageheight", "imgheight", "imheight", "heightimage"),
    "split": ("split", "set", "subset", "usage"),
}

#: Headers of tables that are about other things, or are read as another format.
_OTHERS = ("regionshapeattributes", "isgroupof", "labelname,confidence")

_SEPARATORS = (",", ";", "\t", "|")

_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?$")

#: Splits in the first column of Google's AutoML tables, without a header.
_AUTOML_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validate", "validation"), "validation"),
    "test": "test",
    "unassigned": "",
}


class Layout(NamedTuple):
    """Which column is what.

    Attributes:
        columns: by their meaning, a key of `_NAMES`.
        has_header: whether the first row names them.
    """

    columns: Mapping[str, int]
    has_header: bool


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        number: of the line, from 1.
        cells: as they stand there.
    """

    number: int
    cells: list[str]


class TableReader(SelfDescribedReader):
    """A dataset with tables: a row per object, with the image's name, the class and the corners in pixels.

    Names and order of the columns and the separator are found out; a row without class and corners is an image without
    objects. Corners that are all fractions are those of the image's sides.
    """

    name = "csv"
    form = BoxFormat(states_size=False)
    looks_like = "a .csv with columns such as filename,class,xmin,ymin,xmax,ymax"

    @classmethod
    def annotated_images(cls, tree: Tree) -> int:
        """Count the images on disk that are annotated."""

        def images_of(path: str) -> list[str]:
            found = try_to(_read, tree.root / path)
            return [] if found is None else [_cell(row, found[0], "image") for row in found[1]]

        return tree.count_in(_files(tree), images_of)

    def annotate(self) -> Iterator[Annotated | Defect]:
        """See `SelfDescribedReader.annotate`."""
        for path in _files(self.tree):
            file = self.root / path
            try:
                layout, rows = _read(file)
            except DataError as err:
                yield not_used(file, err)
                continue
            items = [_object(row, layout) for row in rows]
            relative = are_fractions([item for item in items if item is not None])
            by_image: dict[tuple[str, str], list[tuple[Row, RawObject | None]]] = {}
            for row, item in zip(rows, items, strict=True):
                name = _cell(row, layout, "image")
                if name:
                    split = _cell(row, layout, "split").lower()
                    by_image.setdefault((name, _AUTOML_SPLITS.get(split, split)), []).append((row, item))
                else:
                    yield Defect("row-unreadable", file, f"line {row.number} left out: it names no image", 1)
            for (name, split), mine in by_image.items():
                objects = [item for _, item in mine if item is not None]
                splits = self.splits_of(f"{split}/{path}")
                yield Annotated(self.image(name, file, objects, _size(mine[0][0], layout), relative=relative), splits)


def _files(tree: Tree) -> list[str]:
    return tree.ending(".csv", ".tsv")


def _read(path: Path) -> tuple[Layout, list[Row]]:
    """Read a table of objects.

    Raises:
        DataError: it cannot be read, or is none.
    """
    text = read_text(path, "a table with a row per object")
    lines = text.splitlines()
    if not any(map(str.strip, lines)):
        raise DataError(f"{path}: is empty")
    separator = max(_SEPARATORS, key=next(line for line in lines if line.strip()).count)
    try:
        rows = [
            Row(number, cells) for number, cells in enumerate(csv.reader(io.StringIO(text), delimiter=separator), 1)
        ]
    except csv.Error as err:
        raise DataError(f"{path}: cannot be read as a table ({err})") from err
    quoted = next((row for row in rows if any("\n" in cell for cell in row.cells)), None)
    if quoted is not None and not _is_well_quoted(text, separator):
        raise DataError(
            f"{path}: line {quoted.number}: a quote begins there that does not end, or ends on a later line"
        )
    rows = [row for row in rows if any(map(str.strip, row.cells))]
    if not rows:
        raise DataError(f"{path}: has nothing but {separator!r}")
    if separator == ";":  # where numbers have decimal commas
        rows = [Row(number, [_with_point(cell) for cell in cells]) for number, cells in rows]
    layout = _layout(rows)
    if layout is None:
        found = shorten(separator.join(rows[0].cells))
        raise DataError(f"{path}: begins with {found!r}, expected columns such as filename,class,xmin,ymin,xmax,ymax")
    return layout, rows[layout.has_header :]


def _is_well_quoted(text: str, separator: str) -> bool:
    try:
        return all(True for _ in csv.reader(io.StringIO(text), delimiter=separator, strict=True))
    except csv.Error:
        return False


def _with_point(cell: str) -> str:
    return cell.replace(",", ".") if re.fullmatch(r"\s*-?\d+,\d+\s*", cell) else cell


def _layout(rows: Sequence[Row]) -> Layout | None:
    """Find out which column is what: by their names, else by what stands in them."""
    named = [re.sub(r"[^a-z0-9]", "", cell.lower()) for cell in rows[0].cells]
    if any(other in ",".join(named) for other in _OTHERS):
        return None
    columns: dict[str, int] = {}
    for meaning, names in _NAMES.items():
        place = next((named.index(name) for name in names if name in named), None)
        if place is not None:
            columns[meaning] = place
    if columns.get("image") == columns.get("label"):  # "name" may be either
        columns.pop("label", None)
    has_corners = {"x1", "y1", "x2", "y2"} <= columns.keys()
    if has_corners or "box" in columns:
        for side in "xywh":
            columns.pop(side, None)
    elif columns.get("w") == columns.get("width"):
        columns.pop("width", None)
        columns.pop("height", None)
    has_box = has_corners or "box" in columns or {"x", "y", "w", "h"} <= columns.keys()
    if has_box and {"image", "label"} <= columns.keys():
        return Layout(columns, True)
    return _layout_without_header(rows)


def _layout_without_header(rows: Sequence[Row]) -> Layout | None:
    """Keras-RetinaNet's path,x1,y1,x2,y2,class, the like in another order, and Google's AutoML tables."""
    sample = rows[:50]
    width = Counter(len(row.cells) for row in sample).most_common(1)[0][0]
    fitting = [row for row in sample if len(row.cells) == width]
    if width >= 11 and all(row.cells[0].strip().lower() in _AUTOML_SPLITS for row in fitting):
        return Layout({"split": 0, "image": 1, "label": 2, "x1": 3, "y1": 4, "x2": 7, "y2": 8}, False)
    filled = [row for row in fitting if all(map(str.strip, row.cells[:width]))]
    if not filled or 2 * len(fitting) < len(sample):
        return None
    numeric = [_mostly(bool(_NUMBER.match(row.cells[place].strip())) for row in filled) for place in range(width)]
    images = [
        _mostly(row.cells[place].strip().lower().endswith(IMAGE_SUFFIXES) for row in fitting) for place in range(width)
    ]
    start = next((place for place in range(width - 3) if all(numeric[place : place + 4])), None)
    if start is None or True not in images:
        return None
    image = images.index(True)
    others = [place for place in range(width) if place != image and not start <= place < start + 4]
    texts = [place for place in others if not numeric[place]] or others
    if not texts:
        return None
    # makesense.ai's: label, left, top, width, height, image, and the image's sides.
    has_sides = width == 8 and (texts[0], start, image) == (0, 1, 5) and numeric[6] and numeric[7]
    keys = ("x", "y", "w", "h") if has_sides else ("x1", "y1", "x2", "y2")
    corners = dict(zip(keys, range(start, start + 4), strict=True))
    layout = Layout({"image": image, "label": texts[0], **corners}, False)
    boxes = [box for row in filled if (box := _box(row, layout)) is not None]
    # Columns of zeros and ones are classes of whole images.
    return layout if _mostly(x1 < x2 and y1 < y2 for x1, y1, x2, y2 in boxes) else None


def _mostly(answers: Iterable[bool]) -> bool:
    said = list(answers)
    return 3 * sum(said) >= 2 * len(said)


def _cell(row: Row, layout: Layout, meaning: str) -> str:
    place = layout.columns.get(meaning)
    return row.cells[place].strip() if place is not None and place < len(row.cells) else ""


def _size(row: Row, layout: Layout) -> tuple[int, int] | None:
    try:
        return round(float(_cell(row, layout, "width"))), round(float(_cell(row, layout, "height")))
    except (ValueError, OverflowError):
        return None


def _written(row: Row, layout: Layout) -> list[str]:
    keys = ("x1", "y1", "x2", "y2") if "x1" in layout.columns else ("x", "y", "w", "h")
    if "box" in layout.columns and "x1" not in layout.columns:
        return re.split(r"[,\s]+", _cell(row, layout, "box").strip("[]() "))
    return [_cell(row, layout, key) for key in keys]


def _box(row: Row, layout: Layout) -> tuple[float, float, float, float] | None:
    try:
        a, b, c, d = map(float, _written(row, layout))
    except ValueError:
        return None
    return (a, b, c, d) if "x1" in layout.columns else (a, b, a + c, b + d)


def _object(row: Row, layout: Layout) -> RawObject | None:
    """An object's row; None for an image without any."""
    name, written = _cell(row, layout, "label"), _written(row, layout)
    if not any(written) and name.lower() in ("", "none", "background", "negative"):
        return None
    return RawObject(f"line {row.number}", name or None, _box(row, layout), written=f"[{', '.join(written)}]")
