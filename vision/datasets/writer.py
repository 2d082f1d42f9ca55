"""What writes a dataset as a labelling tool opens it. The writer of each format is in the module of its reader."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import ClassVar, NamedTuple

import numpy as np

from vision.structures import DataError
from vision.utils.files import write_text


class WrittenImage(NamedTuple):
    """An image with the objects to be written.

    Attributes:
        name: path of its file below the folder of images, with suffix.
        size: (width, height) in pixels.
        boxes: (N, 4) corner form in pixels from 0, inside the image.
        names: classes of the objects.
        scores: of the objects, from 0 to 1.
        difficult: which objects are neither required nor counted; none where it is empty. Only VOC has room for that.
    """

    name: PurePosixPath
    size: tuple[int, int]
    boxes: np.ndarray
    names: Sequence[str]
    scores: Sequence[float]
    difficult: Sequence[bool] = ()

    def objects(self) -> Iterator[tuple[str, list[float], float]]:
        """Class, box and score of each object."""
        return zip(self.names, self.boxes.tolist(), self.scores, strict=True)


class AnnotationWriter(ABC):
    """Writes a dataset of one format, image by image; a context.

    What is there already is never written over, as a person may have corrected it.

    Args:
        root: folder of the dataset.
        class_names: all classes, without the background.
        writes_empty: whether images without objects are known to have none, and get a file that says so.

    Attributes:
        kept: annotations that were there already.
    """

    #: The format, as in `--dataset-type`.
    name: ClassVar[str]
    #: Folder of the images in the dataset.
    images_folder: ClassVar[str] = "images"

    def __init__(self, root: Path, class_names: Sequence[str], writes_empty: bool = False) -> None:
        self.root, self.class_names, self.writes_empty = root, list(class_names), writes_empty
        self.kept = 0
        self._contexts = ExitStack()

    def image_path(self, name: PurePosixPath) -> Path:
        """Say where the file of an image belongs; the caller puts it there."""
        return self.root / self.images_folder / name

    def __enter__(self) -> AnnotationWriter:
        self.root.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        self._contexts.close()

    @abstractmethod
    def add(self, image: WrittenImage) -> None:
        """Write the objects of an image."""


class FilePerImageWriter(AnnotationWriter):
    """Writes a file for each image in which something was found.

    Where nothing was found there is no file, unless a person has said that the images are empty.
    """

    def add(self, image: WrittenImage) -> None:
        """Write the objects of an image."""
        path = self.annotation_path(image.name)
        if path.exists():
            self.kept += 1
        elif image.names or self.writes_empty:
            write_text(path, self.text_of(image))

    @abstractmethod
    def annotation_path(self, name: PurePosixPath) -> Path:
        """Say where the annotation of an image belongs."""

    @abstractmethod
    def text_of(self, image: WrittenImage) -> str:
        """Write the annotation of an image."""


def write_class_list(path: Path, class_names: Sequence[str]) -> None:
    """Write class names, one a line; a list that is there already may go on with others.

    Raises:
        DataError: it begins with other classes, so that numbers would mean other ones.
    """
    if not path.exists():
        write_text(path, "".join(f"{name}\n" for name in class_names))
        return
    there = path.read_text(encoding="utf-8").splitlines()
    if there[: len(class_names)] != list(class_names):
        raise DataError(
            f"{path}: lists {there}, the model knows {list(class_names)}; name another --output, or move the folder"
        )


def refuse_existing(path: Path) -> None:
    """Raise DataError if the one file of all annotations is there already."""
    if path.exists():
        raise DataError(f"{path}: is there already, and may have been corrected; name another --output, or move it")
