"""XML of dlib's imglab: one file with all images and their boxes, by the name of the image."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

from vision.datasets.annotated_folder import Annotated, SelfDescribedReader, not_used
from vision.datasets.defects import Defect
from vision.datasets.records import BoxFormat, RawObject
from vision.datasets.tree import Tree, parse_xml, try_to
from vision.structures import DataError

#: What objects are called in a file that has no label: dlib's detectors of one class need none.
UNLABELLED = "object"

#: A folder with more XML files has one for each image, as imglab has not.
_MOST_FILES = 20

_SIDES = ("left", "top", "width", "height")


class ImglabReader(SelfDescribedReader):
    """A dataset that dlib's imglab wrote: `training.xml` and `testing.xml`, or one file, with the images anywhere.

    Boxes to ignore count as difficult. In a file without any label the class is called `UNLABELLED`.
    """

    name = "imglab"
    form = BoxFormat()
    looks_like = "an XML file with <dataset><images><image file=...><box top=... left=... width=... height=...>"

    @classmethod
    def annotated_images(cls, tree: Tree) -> int:
        """Count the images on disk that are annotated."""
        return tree.count_in(_files(tree), lambda path: _names(try_to(_images, tree.root / path) or []))

    def annotate(self) -> Iterator[Annotated | Defect]:
        """See `SelfDescribedReader.annotate`."""
        for path in _files(self.tree):
            file = self.root / path
            try:
                images = _images(file)
            except DataError as err:
                yield not_used(file, err)
                continue
            labelled = any(image.find("box/label") is not None for image in images)
            for image in images:
                objects = [_object(number, box, labelled) for number, box in enumerate(image.iter("box"), start=1)]
                yield Annotated(self.image(image.get("file", ""), file, objects), self.splits_of(path))

    def splits_of(self, path: str) -> frozenset[str]:
        """See `SelfDescribedReader.splits_of`; imglab's files are usually called training and testing."""
        return super().splits_of(path.lower().replace("training", "train").replace("testing", "test"))


def _files(tree: Tree) -> list[str]:
    paths = tree.ending(".xml")
    return paths if len(paths) <= _MOST_FILES else []


def _images(path: Path) -> list[ET.Element]:
    try:
        root = parse_xml(path)
    except (ET.ParseError, ValueError, LookupError, OSError) as err:
        raise DataError(f"{path}: not readable as XML ({err})") from err
    images = root.findall("images/image")
    if root.tag != "dataset" or not images:
        raise DataError(f"{path}: has no <dataset> with <images>")
    return images


def _names(images: list[ET.Element]) -> list[str]:
    return [image.get("file", "") for image in images]


def _object(number: int, box: ET.Element, labelled: bool) -> RawObject:
    try:
        left, top, width, height = (float(box.get(side, "")) for side in _SIDES)
        corners = left, top, left + width, top + height
    except ValueError:
        corners = None
    name = (box.findtext("label") or "").strip() if labelled else UNLABELLED
    ignored = "1" in (box.get("ignore"), box.get("difficult"))
    written = str({side: box.get(side) for side in _SIDES})
    return RawObject(f"box {number}", name or None, corners, ignored, written)
