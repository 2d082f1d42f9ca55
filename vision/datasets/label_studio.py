"""Label Studio's own JSON, whole or "min": a list of tasks, each an image with regions in hundredths of its sides."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from vision.datasets.annotated_folder import Annotated, SelfDescribedReader, not_used
from vision.datasets.defects import Defect
from vision.datasets.names import shorten
from vision.datasets.records import BoxFormat, RawObject
from vision.datasets.tree import Tree, as_written, bounding_box, load_json, try_to
from vision.structures import IMAGE_SUFFIXES, DataError

#: What Label Studio puts before the name of a file that is uploaded.
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")

#: Values of a region that are about no area.
_NO_AREA = {"keypointlabels": "key point", "brushlabels": "brush mask", "vectorlabels": "line", "choices": ""}


class _Task(NamedTuple):
    """An image's name, its regions, and of how many further annotations of it these are one."""

    name: str
    regions: list[dict[str, Any]]
    others: int


class LabelStudioReader(SelfDescribedReader):
    """A dataset that Label Studio exported as JSON or JSON-MIN, with the images anywhere.

    Turned boxes, ellipses and polygons become the boxes around them. Of several annotations of an image the first
    counts that was not canceled.
    """

    name = "label_studio"
    form = BoxFormat(relative=True)
    looks_like = "Label Studio's JSON: a list of tasks with `data` and `annotations`"

    @classmethod
    def annotated_images(cls, tree: Tree) -> int:
        """Count the images on disk that are annotated."""

        def images_of(path: str) -> list[str]:
            tasks = try_to(_read, tree.root / path) or []
            return [next((name for name in _names(task.name) if tree.holds(name)), "") for task in tasks]

        return tree.count_in(tree.ending(".json"), images_of)

    def annotate(self) -> Iterator[Annotated | Defect]:
        """See `SelfDescribedReader.annotate`."""
        for path in self.tree.ending(".json"):
            file = self.root / path
            try:
                tasks = _read(file)
            except DataError as err:
                if "project" in path.lower():  # as Label Studio calls its exports
                    yield not_used(file, err)
                continue
            for task in tasks:
                name = next((name for name in _names(task.name) if self._find(name, file)), _names(task.name)[0])
                objects = [found for number, one in enumerate(task.regions, 1) if (found := _object(number, one))]
                defects = []
                if task.others:
                    message = f"{task.others} further annotations of image {shorten(name)} left out, the first counts"
                    defects.append(Defect("annotation-repeats", file, message, things=task.others))
                image = self.image(name, file, objects, _size(task.regions), defects)
                yield Annotated(image, self.splits_of(path))


def _read(path: Path) -> list[_Task]:
    """Read the tasks that somebody has annotated.

    Raises:
        DataError: it is none of Label Studio's files.
    """
    content = load_json(path)
    tasks = [_task(item) for item in (content if isinstance(content, list) else [content]) if isinstance(item, dict)]
    found = [task for task in tasks if task is not None]
    if not found:
        raise DataError(f"{path}: has no task of Label Studio with an image and its annotations")
    return found


def _task(item: dict[str, Any]) -> _Task | None:
    """Understand a task; None if it is none, or nobody has annotated it."""
    if isinstance(item.get("result"), list) and isinstance(item.get("task"), dict):  # one file an annotation
        item = {**item["task"], "annotations": [item]}
    data = item.get("data")
    annotations = item.get("annotations", item.get("completions"))
    if isinstance(data, dict) and isinstance(annotations, list):
        name = _image_of(data)
        done = [one for one in annotations if isinstance(one, dict) and not one.get("was_cancelled")]
        done.sort(key=lambda one: not one.get("ground_truth"))
        regions = done[0].get("result") if done else None
        others = len(done) - 1
    else:  # "min": the regions stand under the name of their control
        name, others = _image_of(item), 0
        regions = next((value for key, value in item.items() if key != "annotations" and _are_regions(value)), None)
    if name is None or not isinstance(regions, list):
        return None
    return _Task(name, [region for region in regions if isinstance(region, dict)], others)


def _are_regions(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, dict) and "original_width" in one for one in value)
    )


def _image_of(data: dict[str, Any]) -> str | None:
    """The value that names an image, as a path or address."""
    texts = [value for value in data.values() if isinstance(value, str)]
    return next((text for text in texts if _path_of(text).lower().endswith(IMAGE_SUFFIXES)), None)


def _path_of(address: str) -> str:
    """The path of an image in an address; one in local storage stands behind `?d=`."""
    parts = urlsplit(address)
    local = parse_qs(parts.query).get("d")
    return local[0] if local else unquote(parts.path) if parts.scheme or parts.path.startswith("/data/") else address


def _names(address: str) -> list[str]:
    """What the file of an image may be called: with what Label Studio puts before its name, and as it was before."""
    path = _path_of(address).lstrip("/")
    folder, slash, name = path.rpartition("/")
    return [path, folder + slash + _UPLOADED.sub("", name, count=1)]


def _size(regions: list[dict[str, Any]]) -> tuple[int, int] | None:
    for region in regions:
        width, height = region.get("original_width"), region.get("original_height")
        if isinstance(width, int) and isinstance(height, int):
            return width, height
    return None


def _object(number: int, region: dict[str, Any]) -> RawObject | None:
    """Understand a region; None if it is none, as what is said of the whole image."""
    value = region.get("value", region)  # "min" has it all on one level
    if not isinstance(value, dict):
        return None
    key = next((key for key in value if key.endswith("labels") and isinstance(value[key], list)), "")
    name = as_written(value[key][0]) if key and value[key] else None
    is_shape = {"x", "y"} <= value.keys() or "points" in value or "rle" in value
    if not is_shape or region.get("type") == "choices":
        return None
    has_area = {"width", "height"} <= value.keys() or {"radiusX", "radiusY"} <= value.keys() or "points" in value
    line = _NO_AREA.get(key, "") or ("" if has_area else "key point")
    return RawObject(f"region {number}", name or None, _box(region, value), written=shorten(str(value)), line=line)


def _box(region: dict[str, Any], value: dict[str, Any]) -> tuple[float, float, float, float] | None:
    """The corners of the box around a region, as fractions of the image; None if its numbers cannot be read."""
    try:
        if "points" in value:
            corners = bounding_box(value["points"])
            if corners is None:
                return None
            x1, y1, x2, y2 = corners
            return x1 / 100, y1 / 100, x2 / 100, y2 / 100
        x, y = float(value["x"]) / 100, float(value["y"]) / 100
        # Turning keeps lengths in pixels, not in hundredths.
        aspect = float(region.get("original_height") or 1) / float(region.get("original_width") or 1)
        turn = math.radians(float(value.get("rotation") or 0))
        cos, sin = math.cos(turn), math.sin(turn)
        if "radiusX" in value:
            rx, ry = float(value["radiusX"]) / 100, float(value["radiusY"]) / 100
            half_width, half_height = math.hypot(rx * cos, ry * aspect * sin), math.hypot(rx / aspect * sin, ry * cos)
            return x - half_width, y - half_height, x + half_width, y + half_height
        width, height = float(value["width"]) / 100, float(value["height"]) / 100
        # About the corner at the top left, clockwise.
        return bounding_box(
            (x + right * cos - down * aspect * sin, y + right / aspect * sin + down * cos)
            for right in (0, width)
            for down in (0, height)
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
