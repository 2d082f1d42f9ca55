"""What a detector found, as annotations that a labelling tool opens, for a person to correct."""

from __future__ import annotations

import filecmp
import logging
import os
import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path, PurePosixPath

import numpy as np

from vision.datasets.images import read_image_info
from vision.datasets.writer import AnnotationWriter, WrittenImage
from vision.report.sheet import encode_image
from vision.structures import DataError, Detections
from vision.utils.files import replacing

logger = logging.getLogger(__name__)


class Suggestions:
    """Writes images with what was found in them as a dataset; a context.

    Args:
        writer: of the dataset.
        class_names: BACKGROUND first.
    """

    def __init__(self, writer: AnnotationWriter, class_names: Sequence[str]) -> None:
        self.writer, self.class_names = writer, class_names
        self.images = 0
        self.began = datetime.now()

    def __enter__(self) -> Suggestions:
        self.writer.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.writer.__exit__(*exception)  # type: ignore[arg-type]  # those of a context
        logger.info("Saved %d images with suggestions for labelling: %s", self.images, self.writer.root)
        if self.writer.kept:
            logger.info("%d annotations were there already, and stay as they are", self.writer.kept)

    def add_image(self, name: PurePosixPath, path: Path, rgb_image: np.ndarray, found: Detections) -> None:
        """Add an image of a file, which is linked or copied. One that its EXIF turns is written upright.

        Args:
            name: below the folder of images.
            path: of the file.
            rgb_image: (H, W, 3) uint8, upright.
            found: boxes in pixels.

        Raises:
            DataError: another picture has its name in the dataset.
        """
        self.add_labels(path, rgb_image, self._as_written(name, rgb_image, found))

    def add_labels(self, path: Path, rgb_image: np.ndarray, image: WrittenImage) -> None:
        """Add an image of a file with labels, see `add_image`. One whose name no annotation can hold is warned of."""
        if _has_other_bytes(image.name):
            logger.warning(
                "%s: left out of %s, its name has bytes that are not UTF-8; rename it", path, self.writer.root
            )
            return
        place = self.writer.image_path(image.name)
        if read_image_info(path).orientation != 1:  # tools differ in whether they turn it
            self._write_picture(place, rgb_image)
        elif not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(path, place)
        elif not filecmp.cmp(path, place, shallow=False):
            raise _of_another_picture(place)
        self._write(image)

    def add_frame(self, name: PurePosixPath, rgb_image: np.ndarray, found: Detections) -> None:
        """Add a frame of a video.

        Args:
            name: below the folder of images.
            rgb_image: (H, W, 3) uint8.
            found: boxes in pixels.

        Raises:
            DataError: another picture has its name in the dataset.
        """
        self._write_picture(self.writer.image_path(name), rgb_image)
        self._write(self._as_written(name, rgb_image, found))

    @staticmethod
    def _write_picture(place: Path, rgb_image: np.ndarray) -> None:
        data = encode_image(rgb_image, place.suffix)
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            with replacing(place) as temporary:
                temporary.write_bytes(data)
        elif place.read_bytes() != data:
            raise _of_another_picture(place)

    def _as_written(self, name: PurePosixPath, rgb_image: np.ndarray, found: Detections) -> WrittenImage:
        height, width = rgb_image.shape[:2]
        names = [self.class_names[label] for label in found.labels.tolist()]
        return WrittenImage(name, (width, height), np.asarray(found.boxes), names, found.scores.tolist())

    def _write(self, image: WrittenImage) -> None:
        self.writer.add(image)
        self.images += 1


def _of_another_picture(place: Path) -> DataError:
    return DataError(f"{place}: is there already, and is another picture; name another --output, or move the folder")


def _has_other_bytes(name: PurePosixPath) -> bool:
    """Whether a name has bytes that are not UTF-8; Python stands surrogates in for them."""
    return any("\ud800" <= character <= "\udfff" for character in str(name))


def _link_or_copy(path: Path, place: Path) -> None:
    """Link a file, or copy it to another file system."""
    try:
        os.link(path.resolve(), place)
    except OSError:
        with replacing(place) as temporary:
            shutil.copyfile(path, temporary)
