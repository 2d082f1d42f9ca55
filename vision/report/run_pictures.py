"""Pictures that a run leaves in its folder, so that a wrong label or a run that learns nothing is seen at once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vision.datasets import DetectionDataset
from vision.engine.loop import EpochResult
from vision.evaluation.image_matches import match_image
from vision.evaluation.report import DEFAULT_THRESHOLD
from vision.report.drawing import color_of, draw_boxes, draw_match
from vision.report.evaluation_images import shrink
from vision.report.sheet import MAX_CELLS, THUMBNAIL, contact_sheet, thumbnail, write_image
from vision.report.training_plots import PANELS, Rows, draw_runs
from vision.structures import Batch, DataError

logger = logging.getLogger(__name__)

#: Training images as the net sees them, what is found in validation images, and the run's curves.
TRAIN_BATCH, VAL_BATCH, RESULTS = "train_batch.jpg", "val_batch.jpg", "results.png"

#: White between images, in pixels.
_GAP = 8


def draw_training_batch(path: Path, batch: Batch, class_names: Sequence[str]) -> None:
    """Draw a batch with its objects.

    Args:
        path: of a .jpg to write.
        batch: at the network's size, on the CPU; its first images are drawn.
        class_names: BACKGROUND first.
    """
    cells = []
    for pixels, relative_boxes, padded_labels in list(zip(*batch[:3], strict=True))[:MAX_CELLS]:
        image, _ = thumbnail(np.ascontiguousarray(pixels.numpy().transpose(1, 2, 0)), THUMBNAIL - _GAP)
        height, width = image.shape[:2]
        labels = padded_labels[padded_labels > 0].tolist()
        boxes = relative_boxes[: len(labels)].numpy() * np.array([width, height, width, height], np.float32)
        colors, captions = [color_of(label) for label in labels], [class_names[label] for label in labels]
        cells.append(draw_boxes(image, boxes, colors, captions))
    write_image(path, contact_sheet(cells))


class RunPictures:
    """Draws what each validation gave.

    Args:
        folder: the model folder.
        val_set: the validation images, evenly spread ones of which are shown.
    """

    def __init__(self, folder: Path, val_set: DetectionDataset) -> None:
        self.folder, self.val_set = folder, val_set
        count = min(MAX_CELLS, len(val_set))
        self._shown = np.linspace(0, len(val_set) - 1, count).astype(int).tolist()
        self._draws_curves = True

    def draw(self, result: EpochResult, rows: Rows) -> None:
        """Draw an epoch's results.

        Args:
            result: with detections, if it was validated with them.
            rows: of all epochs up to it.
        """
        if result.report is not None and result.detections:
            self._draw_detections(result)
        if self._draws_curves and result.validation is not None:
            try:
                draw_runs(self.folder / RESULTS, {self.folder.name: rows}, PANELS)
            except ImportError as err:
                self._draws_curves = False
                logger.warning("%s: not drawn, %s (pip install matplotlib)", self.folder / RESULTS, err)

    def _draw_detections(self, result: EpochResult) -> None:
        best = np.nan if result.report is None else result.report.best_threshold
        threshold = DEFAULT_THRESHOLD if np.isnan(best) else best
        cells = []
        for index in self._shown:
            try:
                image = self.val_set.get_image(index)
            except DataError:  # the loop has named it
                continue
            match = match_image(result.detections[index], self.val_set.annotation(index), threshold)
            cells.append(draw_match(*shrink(image, match, THUMBNAIL - _GAP), self.val_set.class_names))
        write_image(self.folder / VAL_BATCH, contact_sheet(cells))
