"""What an XML file of Pascal VOC's kind says, as every tool writes it a little differently."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from vision.datasets.images import LFS_POINTER, LFS_PULL
from vision.datasets.names import shorten
from vision.datasets.tree import xml_root
from vision.datasets.writer import AnnotationWriter, FilePerImageWriter, WrittenImage, write_class_list

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class VocAnnotation(NamedTuple):
    """What an XML file says; plain values, so that they can be kept between runs."""

    file_name: str
    size: list[int] | None
    objects: list[list[Any]]  # name, four texts or None, difficult as text or None
    error: str | None
    first_pixel: int | None = None  # where it is not VOC's


def parse_annotation(path: Path) -> VocAnnotation:
    """Read an XML file; what cannot be read becomes its error."""
    content = path.read_bytes()
    if content.startswith(LFS_POINTER):
        return VocAnnotation("", None, [], f"is a Git LFS pointer; {LFS_PULL}")
    try:
        root = xml_root(content)
    except (ET.ParseError, ValueError, LookupError) as err:
        return VocAnnotation("", None, [], f"not readable as XML ({err})")
    for element in root.iter():  # namespaces say nothing here
        element.tag = str(element.tag).rpartition("}")[2]
    if root.tag.lower() != "annotation":
        return VocAnnotation("", None, [], f"holds <{shorten(root.tag, 20)}>, expected <annotation>")
    is_labelme = root.find("object/polygon/pt") is not None and root.find("object/bndbox") is None
    size = root.find("imagesize" if is_labelme else "size")
    sides = ("ncols", "nrows") if is_labelme else ("width", "height")
    numbers = [] if size is None else [_whole(size.findtext(side)) for side in sides]
    stated = [number for number in numbers if number is not None]
    return VocAnnotation(
        file_name=(root.findtext("filename") or "").strip(),
        size=stated if len(stated) == len(sides) else None,
        objects=[
            [_text(element, "name"), _corners(element), _text(element, "difficult")] for element in root.iter("object")
        ],
        error=None,
        first_pixel=0 if is_labelme else None,
    )


def may_be_box(corners: Sequence[str] | None) -> bool:
    """Whether four texts are finite numbers; an object of another kind is none of a class."""
    try:
        return corners is not None and all(math.isfinite(float(corner)) for corner in corners)
    except ValueError:
        return False


def _text(element: ET.Element, tag: str) -> str | None:
    return (element.findtext(tag) or "").strip() or None


def _whole(text: str | None) -> int | None:
    try:
        return None if text is None else round(float(text))
    except (ValueError, OverflowError):
        return None


def _corners(element: ET.Element) -> list[str] | None:
    """Return the four texts of a box, or of the box around a polygon."""
    if element.find("bndbox") is not None:
        return [(element.findtext(f"bndbox/{corner}") or "").strip() for corner in _CORNERS]
    polygon = element.find("polygon")
    if polygon is None:
        return None
    axes: dict[str, list[float]] = {"x": [], "y": []}
    for point in polygon.iter():
        if point.tag[:1] in axes and point.tag[1:].isdecimal() | (len(point.tag) == 1):
            try:
                axes[point.tag[0]].append(float(point.text or ""))
            except ValueError:
                return None
    if not axes["x"] or not axes["y"]:
        return None
    return [repr(function(axes[axis])) for function in (min, max) for axis in ("x", "y")]


class VocWriter(FilePerImageWriter):
    """Writes Pascal VOC's layout: whole pixels counted from 1; scores in an element that tools pass over."""

    name = "voc"
    images_folder = "JPEGImages"

    def __enter__(self) -> AnnotationWriter:
        super().__enter__()
        write_class_list(self.root / "labels.txt", self.class_names)
        return self

    def annotation_path(self, name: PurePosixPath) -> Path:
        """Say where the annotation of an image belongs."""
        return self.root / "Annotations" / name.with_suffix(".xml")

    def text_of(self, image: WrittenImage) -> str:
        """Write the annotation of an image."""
        root = ET.Element("annotation")
        ET.SubElement(root, "filename").text = image.name.name
        _add_all(ET.SubElement(root, "size"), {"width": image.size[0], "height": image.size[1], "depth": 3})
        difficult = image.difficult or [False] * len(image.names)
        for (name, box, score), is_difficult in zip(image.objects(), difficult, strict=True):
            element = ET.SubElement(root, "object")
            _add_all(element, {"name": name, "pose": "Unspecified", "truncated": 0, "difficult": int(is_difficult)})
            x1, y1, x2, y2 = (round(value) + 1 for value in box)
            x2, y2 = min(x2, image.size[0]), min(y2, image.size[1])
            corners = (max(1, min(x1, x2 - 1)), max(1, min(y1, y2 - 1)), x2, y2)
            _add_all(ET.SubElement(element, "bndbox"), dict(zip(_CORNERS, corners, strict=True)))
            _add_all(element, {"score": f"{score:.3f}"})
        ET.indent(root)
        return ET.tostring(root, encoding="unicode") + "\n"


def _add_all(parent: ET.Element, texts: dict[str, object]) -> None:
    for tag, text in texts.items():
        ET.SubElement(parent, tag).text = str(text)
