"""VIA's JSON and CSV (VGG Image Annotator 1 and 2): all images of a project, each with the regions drawn on it."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from vision.datasets.annotated_folder import Annotated, SelfDescribedReader, not_used
from vision.datasets.defects import Defect
from vision.datasets.imglab import UNLABELLED
from vision.datasets.labels import read_text
from vision.datasets.names import shorten
from vision.datasets.records import BoxFormat, RawObject
from vision.datasets.tree import Tree, as_written, bounding_box, load_json, try_to
from vision.structures import DataError

#: Where a project keeps its images; an export of annotations has nothing else.
_IMAGES = "_via_img_metadata"

#: Shapes without an area.
_NO_AREA = ("point", "polyline")

#: What people call the attribute that is the class, in lower case; the first that is there.
_CLASS_ATTRIBUTES = ("class", "label", "name", "category", "object", "type", "class_name", "classname", "object_type")

#: Columns of the table that are needed.
_COLUMNS = ("filename", "region_shape_attributes", "region_attributes")


class _Region(NamedTuple):
    """A region of an image: its shape and its attributes, as VIA names and writes them."""

    where: str
    shape: dict[str, Any]
    attributes: dict[str, Any]


class ViaReader(SelfDescribedReader):
    """A dataset that VIA wrote, as a project, as JSON or as a table, with the images anywhere.

    The class is the attribute of the regions that is called so, else the one that most of them have. In a file without
    attributes the class is called `UNLABELLED`.
    """

    name = "via"
    form = BoxFormat()
    looks_like = "VIA's JSON, or its CSV with region_shape_attributes"

    @classmethod
    def annotated_images(cls, tree: Tree) -> int:
        """Count the images on disk that are annotated."""
        return tree.count_in(_files(tree), lambda path: try_to(_read, tree.root / path) or {})

    def annotate(self) -> Iterator[Annotated | Defect]:
        """See `SelfDescribedReader.annotate`."""
        for path in _files(self.tree):
            file = self.root / path
            try:
                images = _read(file)
            except DataError as err:
                if "via" in path.lower():
                    yield not_used(file, err)
                continue
            key = _class_attribute([region for regions in images.values() for region in regions])
            for name, regions in images.items():
                objects = [_object(region, key) for region in regions]
                yield Annotated(self.image(name, file, objects), self.splits_of(path))


def _files(tree: Tree) -> list[str]:
    return tree.ending(".json", ".csv")


def _read(path: Path) -> dict[str, list[_Region]]:
    """Read the regions of each image, by its name.

    Raises:
        DataError: it is none of VIA's files.
    """
    return _read_table(path) if path.suffix.lower() == ".csv" else _read_json(path)


def _read_json(path: Path) -> dict[str, list[_Region]]:
    content = load_json(path)
    images = content.get(_IMAGES, content) if isinstance(content, dict) else None
    found: dict[str, list[_Region]] = {}
    for image in images.values() if isinstance(images, dict) else ():
        regions = image.get("regions") if isinstance(image, dict) else None
        regions = list(regions.values()) if isinstance(regions, dict) else regions  # VIA 1 numbers them
        if not isinstance(regions, list) or not isinstance(image.get("filename"), str):
            raise DataError(f"{path}: has an image without `filename` and `regions`")
        mine = found.setdefault(image["filename"], [])
        for number, region in enumerate(regions, start=len(mine) + 1):
            region = region if isinstance(region, dict) else {}
            parts = (region.get(f"{what}_attributes") for what in ("shape", "region"))
            mine.append(_Region(f"region {number}", *(part if isinstance(part, dict) else {} for part in parts)))
    if not found:
        raise DataError(f"{path}: lists no image with `regions`")
    return found


def _read_table(path: Path) -> dict[str, list[_Region]]:
    rows = list(csv.reader(io.StringIO(read_text(path, "VIA's table of regions"))))
    # Comments before the header begin with a hash, and so does the header of some versions.
    header = next((row for row in rows if any("region_shape_attributes" in cell for cell in row)), [])
    names = [cell.strip().lstrip("#") for cell in header]
    if not set(_COLUMNS) <= set(names):
        raise DataError(f"{path}: has no columns {', '.join(_COLUMNS)}")
    places = [names.index(column) for column in _COLUMNS]
    found: dict[str, list[_Region]] = {}
    for number, row in enumerate(rows, start=1):
        if row is header or len(row) < len(header) or row[0].startswith("#"):
            continue
        name, *cells = (row[place] for place in places)
        mine = found.setdefault(name, [])
        shape, attributes = map(_mapping, cells)
        if shape:  # a row without is an image without regions
            mine.append(_Region(f"line {number}", shape, attributes))
    return found


def _mapping(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {"name": shorten(text)}
    return value if isinstance(value, dict) else {}


def _class_attribute(regions: list[_Region]) -> str | None:
    """Choose the attribute that is the class; None if no region has any."""
    counts = Counter(key for region in regions for key, value in region.attributes.items() if _text(value))
    named = [key for wanted in _CLASS_ATTRIBUTES for key in counts if key.strip().lower() == wanted]
    return named[0] if named else counts.most_common(1)[0][0] if counts else None


def _text(value: Any) -> str:
    """An attribute's value; of a list of boxes to check the first that is."""
    if isinstance(value, dict):
        return next((key.strip() for key, checked in value.items() if checked), "")
    return as_written(value)


def _object(region: _Region, key: str | None) -> RawObject:
    name = UNLABELLED if key is None else _text(region.attributes.get(key))
    kind = str(region.shape.get("name", ""))
    box = _box(kind, region.shape)
    return RawObject(
        region.where, name or None, box, written=shorten(str(region.shape)), line=kind if kind in _NO_AREA else ""
    )


def _box(kind: str, shape: dict[str, Any]) -> tuple[float, float, float, float] | None:
    """The corners of the box around a shape; None if its numbers cannot be read."""
    try:
        if kind == "rect":
            x, y, width, height = (float(shape[key]) for key in ("x", "y", "width", "height"))
            return x, y, x + width, y + height
        if kind in ("circle", "ellipse"):
            x, y = float(shape["cx"]), float(shape["cy"])
            rx, ry = (float(shape[key]) for key in (("r", "r") if kind == "circle" else ("rx", "ry")))
            return x - rx, y - ry, x + rx, y + ry
        return bounding_box(zip(shape["all_points_x"], shape["all_points_y"], strict=True))
    except (KeyError, TypeError, ValueError):
        return None
