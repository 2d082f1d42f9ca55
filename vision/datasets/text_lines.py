"""Formats with a text file per image, a line per object, by name and pixels: KITTI's, and that of the OIDv4 toolkit."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from vision.datasets.annotated_folder import LABEL_FILES, Annotated, SelfDescribedReader, without_suffix
from vision.datasets.defects import Defect
from vision.datasets.labels import read_lines, read_text
from vision.datasets.records import BoxFormat, RawImage, RawObject
from vision.datasets.tree import Tree, try_to

#: Texts that are about something else, by the beginnings of their names in lower case.
_OTHER_TEXTS = (*LABEL_FILES, "readme", "license", "requirements", "train.", "val.", "test.", "trainval.")


class Line(NamedTuple):
    """An object's line: its class, and all numbers behind that."""

    name: str
    numbers: list[float]


class TextLinesReader(SelfDescribedReader):
    """A dataset with a text file for each image."""

    own_files = True
    about_many = False

    @staticmethod
    @abstractmethod
    def box_of(line: Line) -> tuple[float, float, float, float] | None:
        """The corners of an object's box in pixels; None if the line is not as the format has it."""

    @staticmethod
    @abstractmethod
    def may_be(path: str) -> bool:
        """Whether a text of this path may be one of the format."""

    @classmethod
    def annotated_images(cls, tree: Tree) -> int:
        """Count the images on disk that are annotated, about."""

        def fits(path: str) -> bool | None:
            text = try_to(lambda file: read_text(file, ""), tree.root / path)
            lines = [] if text is None else [line for line in text.splitlines() if line.strip()]
            if text is not None and not lines:
                return None
            good = sum(cls.box_of(parse_line(line)) is not None for line in lines)
            return 2 * good > len(lines) and tree.holds_named(without_suffix(path))

        return tree.count_by_sample(cls._texts(tree), fits)

    @classmethod
    def _texts(cls, tree: Tree) -> list[str]:
        return [
            path
            for path in tree.ending(".txt")
            if cls.may_be(path) and not path.rpartition("/")[2].lower().startswith(_OTHER_TEXTS)
        ]

    def annotate(self) -> Iterator[Annotated | Defect]:
        """See `SelfDescribedReader.annotate`."""
        for path in self._texts(self.tree):
            yield Annotated(self._image_of(path), self.splits_of(path))

    def _image_of(self, path: str) -> RawImage:
        file = self.root / path
        lines, error = self.cache.get("lines", file, partial(read_lines, expected="a line per object"))
        if error is not None:
            defect = Defect("annotation-unreadable", file, f"image {file.stem} left out: {error}", images=1)
            return self.image(without_suffix(path), file, defects=[defect])
        objects, defects = [], []
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            parsed = parse_line(line)
            if parsed.name == "DontCare":
                message = (
                    f"line {number}: a region that KITTI marks as not to be counted, neither trained on nor counted"
                )
                defects.append(Defect("group", file, message))
                continue
            objects.append(RawObject(f"line {number}", parsed.name or None, self.box_of(parsed), written=repr(line)))
        return self.image(without_suffix(path), file, objects, defects=defects)


class KittiReader(TextLinesReader):
    """A dataset as KITTI, DIGITS and TAO have it: `labels/x.txt` with `Car 0.00 0 0.0 x1 y1 x2 y2 ...` lines."""

    name = "kitti"
    form = BoxFormat()
    looks_like = "a text file for each image with lines such as `car 0.00 0 0.0 65.0 44.2 122.7 94.0 0 0 0 0 0 0 0`"

    @staticmethod
    def box_of(line: Line) -> tuple[float, float, float, float] | None:
        """See `TextLinesReader.box_of`."""
        return _in_pixels(line.numbers[3:7]) if line.name and len(line.numbers) in (7, 14, 15) else None

    @staticmethod
    def may_be(path: str) -> bool:
        """See `TextLinesReader.may_be`."""
        return True


class Oidv4Reader(TextLinesReader):
    """A dataset as the OIDv4 toolkit downloads it: `train/Apple/x.jpg` with `train/Apple/Label/x.txt`.

    An image that lies in the folders of several classes has the objects of all of them.
    """

    name = "oidv4"
    form = BoxFormat()
    looks_like = "folders of classes with images and `Label/*.txt` of `name x1 y1 x2 y2` lines"

    @staticmethod
    def box_of(line: Line) -> tuple[float, float, float, float] | None:
        """See `TextLinesReader.box_of`."""
        return _in_pixels(line.numbers) if line.name and len(line.numbers) == 4 else None

    @staticmethod
    def may_be(path: str) -> bool:
        """See `TextLinesReader.may_be`."""
        return "label" in path.lower().split("/")[:-1]

    def annotate(self) -> Iterator[Annotated | Defect]:
        """Read all texts, and join those about images of one name in one split."""
        first: dict[tuple[str, frozenset[str]], Annotated] = {}
        for item in super().annotate():
            if isinstance(item, Defect):
                yield item
                continue
            key = (item.image.image_id.rpartition("/")[2], item.splits)
            before = first.get(key)
            if before is None or before.image.image_path is None or item.image.image_path is None:
                first[key if before is None else (item.image.image_id, item.splits)] = item
                continue
            known = {(one.name, one.box) for one in before.image.objects}
            more = [one for one in item.image.objects if (one.name, one.box) not in known]
            image = before.image._replace(
                objects=[*before.image.objects, *more], defects=[*before.image.defects, *item.image.defects]
            )
            first[key] = Annotated(image, item.splits)
        yield from first.values()


def _in_pixels(corners: Sequence[float]) -> tuple[float, float, float, float] | None:
    """The corners of a box; None if three of them lie within the first pixel, as YOLO's fractions of an image do."""
    x1, y1, x2, y2 = corners
    return None if sum(value <= 1 for value in corners) > 2 else (x1, y1, x2, y2)


def parse_line(line: str) -> Line:
    """Split a line where its numbers begin; the name may have spaces."""
    words = line.split()
    numbers: list[float] = []
    while words:
        try:
            numbers.insert(0, float(words[-1]))
        except ValueError:
            break
        words.pop()
    if not words and numbers:  # a name that is a number itself
        words, numbers = [line.split()[0]], numbers[1:]
    return Line(" ".join(words), numbers)
