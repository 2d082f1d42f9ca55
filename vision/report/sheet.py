"""Contact sheets: a grid of images on one, and the one that shows detections at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from vision.report.drawing import draw_detections
from vision.structures import Detections
from vision.utils.files import replacing

#: Images side by side on a sheet, and the longer side of each in pixels.
SHEET_COLUMNS, THUMBNAIL = 4, 360

#: Images on a sheet of detections at the most.
MAX_CELLS = 4 * SHEET_COLUMNS

#: White between images, in pixels.
_GAP = 8


def thumbnail(image: np.ndarray, longer_side: int) -> tuple[np.ndarray, np.ndarray]:
    """Resize an image (H, W, 3) uint8 to a longer side in pixels; returns the scale (2,) in x and y, too."""
    height, width = image.shape[:2]
    scale = longer_side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return resized, np.array([size[0] / width, size[1] / height], np.float32)


def contact_sheet(images: Sequence[np.ndarray]) -> np.ndarray:
    """Lay images (H, W, 3) uint8, all at most `THUMBNAIL` pixels wide and high, out on one, on white."""
    rows, columns = -(-len(images) // SHEET_COLUMNS), min(len(images), SHEET_COLUMNS)
    sheet = np.full((max(rows, 1) * THUMBNAIL, max(columns, 1) * THUMBNAIL, 3), 255, np.uint8)
    for number, image in enumerate(images):
        row, column = divmod(number, SHEET_COLUMNS)
        height, width = image.shape[:2]
        top = row * THUMBNAIL + (THUMBNAIL - height) // 2
        left = column * THUMBNAIL + (THUMBNAIL - width) // 2
        sheet[top : top + height, left : left + width] = image
    return sheet


def write_image(path: Path, rgb_image: np.ndarray) -> None:
    """Write an image (H, W, 3) uint8 RGB in the format of its suffix, whole or not at all."""
    _, data = cv2.imencode(path.suffix, cv2.cvtColor(rgb_image, cv2.COLOR_RGB2BGR))
    with replacing(path) as temporary:
        temporary.write_bytes(data.tobytes())


class Sheet:
    """Takes images with their detections, and keeps some, evenly spread over all: nobody knows how many a camera gives.

    Args:
        class_names: BACKGROUND first.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = class_names
        self._cells: list[np.ndarray] = []
        self._seen, self._step = 0, 1

    def add(self, rgb_image: np.ndarray, detections: Detections) -> None:
        """Take an image.

        Args:
            rgb_image: (H, W, 3) uint8, of any size; not written to.
            detections: boxes in pixels of it.
        """
        if self._seen % self._step == 0:
            self._cells.append(self._cell(rgb_image, detections))
        self._seen += 1
        if len(self._cells) > 2 * MAX_CELLS:
            del self._cells[1::2]
            self._step *= 2

    def image(self) -> np.ndarray:
        """Lay the images out: (H, W, 3) uint8 RGB, up to `MAX_CELLS` in the order they came, on white."""
        count = min(len(self._cells), MAX_CELLS)
        places = np.linspace(0, len(self._cells) - 1, count).astype(int).tolist()
        return contact_sheet([self._cells[place] for place in places])

    def write(self, path: Path) -> None:
        """Write the sheet as a PNG file."""
        write_image(path, self.image())

    def _cell(self, rgb_image: np.ndarray, detections: Detections) -> np.ndarray:
        """Bring an image to the cell's size before drawing: captions are as large on each."""
        resized, scale = thumbnail(rgb_image, THUMBNAIL - _GAP)
        boxes = detections.boxes * detections.boxes.new_tensor(np.tile(scale, 2))
        return draw_detections(resized, detections._replace(boxes=boxes), self.class_names)
