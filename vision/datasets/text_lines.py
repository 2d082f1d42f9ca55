"""What formats share that have a text file per image with a line per object, by name and pixels."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from vision.datasets.annotated_folder import LABEL_FILES, Annotated, SelfDescribedReader, without_suffix
from vision.datasets.defects import Defect
from vision.datasets.labels import read_lines, read_text
from vision.datasets.records import RawImage, RawObject
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

    #: How many numbers may stand behind a name, and which of them is the first of an object's corners.
    lengths: tuple[int, ...] = (4,)
    first_corner = 0
    #: The folder that the texts of an image lie in, in lower case; "" for any.
    folder = ""
    #: The name of regions that count as nothing.
    not_counted = ""

    @classmethod
    def box_of(cls, line: Line) -> tuple[float, float, float, float] | None:
        """The corners of an object's box in pixels; None if the line is not as the format has it.

        Of a box in pixels at most two corners lie within the first pixel; YOLO's fractions of an image all do.
        """
        if not line.name or len(line.numbers) not in cls.lengths:
            return None
        x1, y1, x2, y2 = line.numbers[cls.first_corner : cls.first_corner + 4]
        return None if sum(value <= 1 for value in (x1, y1, x2, y2)) > 2 else (x1, y1, x2, y2)

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
            if (not cls.folder or cls.folder in path.lower().split("/")[:-1])
            and not path.rpartition("/")[2].lower().startswith(_OTHER_TEXTS)
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
            where, parsed = f"line {number}", parse_line(line)
            if self.not_counted and parsed.name == self.not_counted:
                detail = f"{where}: a region that KITTI marks as not to be counted, neither trained on nor counted"
                defects.append(Defect("group", file, detail))
                continue
            objects.append(RawObject(where, parsed.name or None, self.box_of(parsed), written=repr(line)))
        return self.image(without_suffix(path), file, objects, defects=defects)


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
