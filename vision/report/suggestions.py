"""What a detector found, as annotations that a labelling tool opens, for a person to correct."""

from __future__ import annotations

import filecmp
import logging
import os
import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from vision.datasets.images import read_image_info
from vision.datasets.writer import AnnotationWriter, WrittenImage
from vision.report.sheet import encode_image
from vision.structures import DataError, Detections
from vision.utils.files import replacing

logger = logging.getLogger(__name__)

#: Side of the gray thumbnails that tell near-twins, and the mean difference of their pixels (of 255) below which two
#: frames are near-twins: that of the noise of a camera that does not move.
_TWIN_SIDE, _TWIN_DIFFERENCE = 32, 3.0


class Suggestions:
    """Writes images with what was found in them as a dataset; a context.

    Args:
        writer: of the dataset.
        class_names: BACKGROUND first.
        frames_per_second: highest number of frames taken of a second of video.
        frame_rate: of the video.
    """

    def __init__(
        self,
        writer: AnnotationWriter,
        class_names: Sequence[str],
        frames_per_second: float = 1.0,
        frame_rate: float = 30.0,
    ) -> None:
        self.writer, self.class_names = writer, class_names
        self._frames_between = frame_rate / frames_per_second
        self._next_frame = 0.0
        self._last_thumbnail: np.ndarray | None = None
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
        place = self.writer.image_path(name)
        if read_image_info(path).orientation != 1:  # tools differ in whether they turn it
            self._write_picture(place, rgb_image)
        elif not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(path, place)
        elif not filecmp.cmp(path, place, shallow=False):
            raise _of_another_picture(place)
        self._write(name, rgb_image, found)

    def add_frame(self, name: PurePosixPath, number: int, rgb_image: np.ndarray, found: Detections) -> None:
        """Add a frame of a video, unless the last one was a moment ago or looked the same.

        Args:
            name: below the folder of images.
            number: of the frame.
            rgb_image: (H, W, 3) uint8.
            found: boxes in pixels.

        Raises:
            DataError: another picture has its name in the dataset.
        """
        if number < self._next_frame:
            return
        side = (_TWIN_SIDE, _TWIN_SIDE)
        gray = cv2.cvtColor(cv2.resize(rgb_image, side, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
        thumbnail = gray.astype(np.float32)
        last, self._next_frame = self._last_thumbnail, number + self._frames_between
        if last is not None and np.abs(thumbnail - last).mean() < _TWIN_DIFFERENCE:
            return
        self._last_thumbnail = thumbnail
        self._write_picture(self.writer.image_path(name), rgb_image)
        self._write(name, rgb_image, found)

    @staticmethod
    def _write_picture(place: Path, rgb_image: np.ndarray) -> None:
        data = encode_image(rgb_image, place.suffix)
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            with replacing(place) as temporary:
                temporary.write_bytes(data)
        elif place.read_bytes() != data:
            raise _of_another_picture(place)

    def _write(self, name: PurePosixPath, rgb_image: np.ndarray, found: Detections) -> None:
        height, width = rgb_image.shape[:2]
        names = [self.class_names[label] for label in found.labels.tolist()]
        self.writer.add(WrittenImage(name, (width, height), np.asarray(found.boxes), names, found.scores.tolist()))
        self.images += 1


def _of_another_picture(place: Path) -> DataError:
    return DataError(f"{place}: is there already, and is another picture; name another --output, or move the folder")


def _link_or_copy(path: Path, place: Path) -> None:
    """Link a file, or copy it to another file system."""
    try:
        os.link(path.resolve(), place)
    except OSError:
        with replacing(place) as temporary:
            shutil.copyfile(path, temporary)
