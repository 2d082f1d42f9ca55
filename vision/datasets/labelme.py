"""LabelMe's JSON: a file per image, with shapes of points."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from vision.datasets.annotated_folder import Annotated, SelfDescribedReader, without_suffix
from vision.datasets.defects import Defect
from vision.datasets.records import BoxFormat, RawObject
from vision.datasets.tree import Tree, as_written, bounding_box, load_json, try_to
from vision.datasets.writer import FilePerImageWriter, WrittenImage
from vision.structures import DataError

#: Shapes without an area.
_NO_AREA = ("point", "points", "line", "linestrip")


class LabelmeReader(SelfDescribedReader):
    """A dataset as LabelMe, X-AnyLabeling and others write it: a JSON file beside each image, or elsewhere.

    Corners may come in any order; polygons, circles and masks become the boxes around them.
    """

    name = "labelme"
    form = BoxFormat(states_size=True)
    own_files = True
    about_many = False
    looks_like = "a JSON file with `shapes` and `imagePath` for each image"

    @classmethod
    def annotated_images(cls, tree: Tree) -> int:
        """Count the images on disk that are annotated, about."""

        def fits(path: str) -> bool:
            content = try_to(_parse, tree.root / path)
            return content is not None and (tree.holds_named(without_suffix(path)) or tree.holds_named(content["name"]))

        return tree.count_by_sample(tree.ending(".json"), fits)

    def annotate(self) -> Iterator[Annotated | Defect]:
        """See `SelfDescribedReader.annotate`."""
        for path in self.tree.ending(".json"):
            file = self.root / path
            content, error = self.cache.get("labelme", file, _parse_or_say)
            splits = self.splits_of(path)
            if content is None:
                if self.tree.holds_named(without_suffix(path)):
                    defect = Defect("annotation-unreadable", file, f"image {file.stem} left out: {error}", images=1)
                    yield Annotated(self.image(file.stem, file, defects=[defect]), splits)
                continue
            name = content["name"] if self._find(content["name"], file) else file.stem
            objects = [
                RawObject(
                    f"shape {number}",
                    label,
                    None if box is None else tuple(box),
                    difficult,
                    written,
                    kind if kind in _NO_AREA else "",
                )
                for number, (label, kind, box, difficult, written) in enumerate(content["shapes"], start=1)
            ]
            size = content["size"]
            yield Annotated(self.image(name, file, objects, None if size is None else tuple(size)), splits)


def _parse_or_say(path: Path) -> tuple[dict[str, Any] | None, str]:
    try:
        return _parse(path), ""
    except DataError as err:
        return None, str(err).removeprefix(f"{path}: ")


def _parse(path: Path) -> dict[str, Any]:
    """Reduce a file to plain values that are worth keeping.

    Raises:
        DataError: it is none of LabelMe's.
    """
    content = load_json(path)
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise DataError(f"{path}: has no list of shapes")
    try:
        size = [round(content["imageWidth"]), round(content["imageHeight"])]
    except (KeyError, TypeError, ValueError, OverflowError):
        size = None
    return {
        "name": str(content.get("imagePath") or "").replace("\\", "/"),
        "size": size,
        "shapes": [
            [
                as_written(shape.get("label")) or None,
                str(shape.get("shape_type") or "polygon"),
                _box(shape),
                shape.get("difficult") is True,
                str(shape.get("points")),
            ]
            for shape in shapes
        ],
    }


def _box(shape: dict[str, Any]) -> tuple[float, float, float, float] | None:
    points = shape.get("points")
    box = bounding_box(points) if isinstance(points, list) else None
    if (
        box is not None and isinstance(points, list) and shape.get("shape_type") == "circle"
    ):  # its center, and a point of its rim
        (x, y), (rim_x, rim_y) = ((float(value) for value in point[:2]) for point in points[:2])
        radius = math.hypot(rim_x - x, rim_y - y)
        return x - radius, y - radius, x + radius, y + radius
    return box


class LabelmeWriter(FilePerImageWriter):
    """Writes a JSON file beside each image; scores as X-AnyLabeling has them, which LabelMe passes over."""

    name = "labelme"
    images_folder = ""

    def annotation_path(self, name: PurePosixPath) -> Path:
        """Say where the annotation of an image belongs."""
        return self.root / name.with_suffix(".json")

    def text_of(self, image: WrittenImage) -> str:
        """Write the annotation of an image."""
        shapes: list[dict[str, Any]] = [
            {
                "label": name,
                "score": round(score, 4),
                "points": [[round(x1, 2), round(y1, 2)], [round(x2, 2), round(y2, 2)]],
                "group_id": None,
                "shape_type": "rectangle",
                "flags": {},
            }
            for name, (x1, y1, x2, y2), score in image.objects()
        ]
        width, height = image.size
        facts = {"imagePath": image.name.name, "imageData": None, "imageHeight": height, "imageWidth": width}
        return json.dumps({"version": "5.4.1", "flags": {}, "shapes": shapes, **facts}, indent=2) + "\n"
