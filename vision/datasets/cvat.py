"""CVAT's own XML: one file with all images and their shapes, or with the tracks of a video."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from vision.datasets.annotated_folder import Annotated, SelfDescribedReader, not_used
from vision.datasets.defects import Defect
from vision.datasets.file_cache import FileCache
from vision.datasets.folder import ReadingOptions
from vision.datasets.labels import LabelList, check_labels
from vision.datasets.records import BoxFormat, RawImage, RawObject
from vision.datasets.tree import Tree, bounding_box, parse_xml, try_to
from vision.datasets.writer import AnnotationWriter, WrittenImage, refuse_existing
from vision.structures import DataError
from vision.utils.files import replacing

#: Shapes that have an area, and all others.
_AREAS = ("box", "polygon", "ellipse", "mask", "cuboid")
_OTHERS = ("polyline", "points", "skeleton")

#: Types of labels that CVAT allows for shapes without an area alone.
_TYPES_WITHOUT_AREA = (*_OTHERS, "tag")

#: Up to this many XML files are all read; of more, those called annotations.xml.
_FEW = 20

#: How CVAT calls the images of a video's frames.
_FRAME = "frame_{:06d}"


class CvatReader(SelfDescribedReader):
    """A dataset as "CVAT for images" or "CVAT for video" exports it: `annotations.xml` and the images anywhere.

    Rotated boxes, ellipses and polygons become the boxes around them; what the task calls subsets are the splits.
    """

    name = "cvat"
    form = BoxFormat(states_size=True)
    looks_like = "annotations.xml, as CVAT exports images or a video"

    def __init__(self, root: Path, cache: FileCache | None = None, options: ReadingOptions | None = None) -> None:
        super().__init__(root, cache, options)
        self._task_labels: dict[str, Path] = {}  # the file that lists each

    @classmethod
    def annotated_images(cls, tree: Tree) -> int:
        """Count the images on disk that are annotated, about."""

        def images_of(path: str) -> list[str]:
            root = try_to(_root, tree.root / path)
            if root is None:
                return []
            names = [image.get("name", "") for image in root.iter("image")]
            return names or [_FRAME.format(frame) for frame in _frames(root)]

        return tree.count_in(_files(tree), images_of)

    def annotate(self) -> Iterator[Annotated | Defect]:
        """See `SelfDescribedReader.annotate`."""
        for path in _files(self.tree):
            file = self.root / path
            try:
                root = _root(file)
            except DataError as err:
                if _is_called_so(path):
                    yield not_used(file, err)
                continue
            for name in _labels_of(root):
                self._task_labels.setdefault(name, file)
            for image in root.iter("image"):
                subset = str(image.get("subset") or "").lower()
                yield Annotated(_image(self, image, file), self.splits_of(f"{subset}/{path}"))
            for frame, shapes in _frames(root).items():
                yield Annotated(self.image(_FRAME.format(frame), file, _objects(shapes)), self.splits_of(path))

    def written_labels(self) -> LabelList | None:
        """Read the labels that the task lists, unless a file at the root does."""
        written = super().written_labels()
        if written is not None:
            return written
        _ = self._annotated  # reads the files, and what they list with them
        names = self._task_labels
        return check_labels(list(names), next(iter(names.values()))) if names else None


def _labels_of(root: ET.Element) -> list[str]:
    """The names of a task's labels, without those that are meant, or only used, for shapes without an area."""
    areas, others = (_labels_with(root, tags) for tags in (_AREAS, _OTHERS))
    return [
        name
        for label in root.iterfind("meta//labels/label")
        if (name := (label.findtext("name") or "").strip())
        and (name in areas or (name not in others and label.findtext("type") not in _TYPES_WITHOUT_AREA))
        and (name in areas or not label.findtext("parent"))
    ]


def _labels_with(root: ET.Element, tags: Iterable[str]) -> set[str]:
    """The names of the labels that shapes with these tags have."""
    tags = tuple(tags)
    shapes = [shape.get("label", "") for tag in tags for shape in root.iter(tag)]
    tracks = [track.get("label", "") for track in root.iter("track") if any(shape.tag in tags for shape in track)]
    return {name.strip() for name in (*shapes, *tracks)}


def _is_called_so(path: str) -> bool:
    return path.rpartition("/")[2].lower() == "annotations.xml"


def _files(tree: Tree) -> list[str]:
    paths = tree.ending(".xml")
    return paths if len(paths) <= _FEW else [path for path in paths if _is_called_so(path)]


def _root(path: Path) -> ET.Element:
    try:
        root = parse_xml(path)
    except (ET.ParseError, ValueError, LookupError, OSError) as err:
        raise DataError(f"{path}: not readable as XML ({err})") from err
    if root.tag != "annotations":
        raise DataError(f"{path}: holds <{root.tag}>, expected <annotations>")
    return root


def _frames(root: ET.Element) -> dict[int, list[ET.Element]]:
    """The shapes of each frame of a video, each with the label of its track."""
    frames: dict[int, list[ET.Element]] = {}
    for track in root.iter("track"):
        for shape in track:
            if shape.get("outside") != "1" and (shape.get("frame") or "").isdecimal():
                shape.set("label", track.get("label", ""))
                frames.setdefault(int(shape.get("frame", "0")), []).append(shape)
    return frames


def _image(folder: CvatReader, image: ET.Element, file: Path) -> RawImage:
    try:
        size = round(float(image.get("width", ""))), round(float(image.get("height", "")))
    except (ValueError, OverflowError):
        size = None
    return folder.image(image.get("name", ""), file, _objects(image), size)


def _objects(shapes: Iterable[ET.Element]) -> list[RawObject]:
    objects = []
    for number, shape in enumerate(shapes, start=1):
        name = (shape.get("label") or "").strip() or None
        written = str({key: value for key, value in shape.attrib.items() if key not in ("source", "occluded")})
        if shape.tag in _OTHERS:
            objects.append(RawObject(f"{shape.tag} {number}", name, None, line=shape.tag))
        elif shape.tag in _AREAS:
            objects.append(RawObject(f"{shape.tag} {number}", name, _box(shape), written=written))
    return objects


def _box(shape: ET.Element) -> tuple[float, float, float, float] | None:
    """The box around a shape; None if its numbers cannot be read."""
    try:
        if shape.tag == "box":
            x1, y1, x2, y2 = (float(shape.get(key, "")) for key in ("xtl", "ytl", "xbr", "ybr"))
            if not shape.get("rotation"):
                return x1, y1, x2, y2
            return _turned((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, shape)
        if shape.tag == "ellipse":
            x, y, rx, ry = (float(shape.get(key, "")) for key in ("cx", "cy", "rx", "ry"))
            turn = math.radians(float(shape.get("rotation") or 0))
            half_width = math.hypot(rx * math.cos(turn), ry * math.sin(turn))
            half_height = math.hypot(rx * math.sin(turn), ry * math.cos(turn))
            return x - half_width, y - half_height, x + half_width, y + half_height
        if shape.tag == "mask":
            left, top, width, height = (float(shape.get(key, "")) for key in ("left", "top", "width", "height"))
            return left, top, left + width, top + height
        if shape.tag == "polygon":
            return bounding_box(point.split(",") for point in shape.get("points", "").split(";"))  # type: ignore[misc]
        xs, ys = (
            [value for key, value in shape.attrib.items() if key[0] == axis and key[-1].isdecimal()] for axis in "xy"
        )
        return bounding_box(zip(xs, ys, strict=True))  # type: ignore[arg-type]  # a cuboid's corners: xtl1, ytl1, ...
    except ValueError:
        return None


def _turned(x: float, y: float, width: float, height: float, shape: ET.Element) -> tuple[float, float, float, float]:
    """The box around a box that is turned about its center."""
    turn = math.radians(float(shape.get("rotation") or 0))
    cos, sin = abs(math.cos(turn)), abs(math.sin(turn))
    half_width, half_height = (width * cos + height * sin) / 2, (width * sin + height * cos) / 2
    return x - half_width, y - half_height, x + half_width, y + half_height


class CvatWriter(AnnotationWriter):
    """Writes "CVAT for images": `images` and one `annotations.xml`. The format has no room for scores."""

    name = "cvat"

    def __enter__(self) -> AnnotationWriter:
        super().__enter__()
        path = self.root / "annotations.xml"
        refuse_existing(path)
        temporary = self._contexts.enter_context(replacing(path))
        self._file = self._contexts.enter_context(open(temporary, "w", encoding="utf-8"))
        self._contexts.callback(lambda: self._file.write("</annotations>\n"))
        self._images_written = 0
        labels = "".join(f"<label><name>{escape(name)}</name></label>" for name in self.class_names)
        head = f"<version>1.1</version>\n<meta><task><labels>{labels}</labels></task></meta>\n"
        self._file.write(f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n{head}')
        return self

    def add(self, image: WrittenImage) -> None:
        """Write the objects of an image."""
        width, height = image.size
        name = quoteattr(str(image.name))
        self._file.write(f'<image id="{self._images_written}" name={name} width="{width}" height="{height}">\n')
        for label, (x1, y1, x2, y2), _ in image.objects():
            corners = f'xtl="{x1:.2f}" ytl="{y1:.2f}" xbr="{x2:.2f}" ybr="{y2:.2f}"'
            self._file.write(
                f'  <box label={quoteattr(label)} source="auto" occluded="0" {corners} z_order="0"></box>\n'
            )
        self._file.write("</image>\n")
        self._images_written += 1
