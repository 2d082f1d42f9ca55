"""One image that shows detections at a glance: a grid of images with their boxes, names and scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from vision.report.audit_page import SHEET_COLUMNS, THUMBNAIL, contact_sheet
from vision.report.drawing import draw_detections
from vision.structures import Detections
from vision.utils.files import replacing

#: Images on a sheet at the most.
MOST_CELLS = 4 * SHEET_COLUMNS

#: White between images, in pixels.
_GAP = 8


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
        if len(self._cells) > 2 * MOST_CELLS:
            del self._cells[1::2]
            self._step *= 2

    def image(self) -> np.ndarray:
        """Lay the images out: (H, W, 3) uint8 RGB, up to `MOST_CELLS` in the order they came, on white."""
        count = min(len(self._cells), MOST_CELLS)
        places = np.linspace(0, len(self._cells) - 1, count).astype(int).tolist()
        return contact_sheet([self._cells[place] for place in places])

    def write(self, path: Path) -> None:
        """Write the sheet as a PNG file."""
        _, data = cv2.imencode(".png", cv2.cvtColor(self.image(), cv2.COLOR_RGB2BGR))
        with replacing(path) as temporary:
            temporary.write_bytes(data.tobytes())

    def _cell(self, rgb_image: np.ndarray, detections: Detections) -> np.ndarray:
        """Bring an image to the cell's size before drawing: captions are as large on each."""
        height, width = rgb_image.shape[:2]
        scale = (THUMBNAIL - _GAP) / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        resized = cv2.resize(rgb_image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        factors = detections.boxes.new_tensor([size[0] / width, size[1] / height] * 2)
        return draw_detections(resized, detections._replace(boxes=detections.boxes * factors), self.class_names)
