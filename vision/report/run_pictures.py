"""Pictures that a run leaves in its folder, so that a wrong label or a run that learns nothing is seen at once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from vision.datasets import DetectionDataset
from vision.engine.checkpoint import Results, is_better
from vision.engine.loop import EpochResult
from vision.evaluation.image_matches import match_image
from vision.evaluation.report import Report
from vision.report.drawing import IGNORED, MATCH_KEY, Marks, color_of, match_marks
from vision.report.sheet import MAX_CELLS, Cell, contact_sheet, spread, with_all_classes, write_image
from vision.report.training_plots import PANELS, Rows, draw_runs, number_of
from vision.structures import Batch, DataError

logger = logging.getLogger(__name__)

#: Training images as the net sees them, what is found in validation images, and the run's curves.
TRAIN_BATCH, VAL_BATCH, RESULTS = "train_batch.jpg", "val_batch.jpg", "results.png"


def draw_training_batch(path: Path, batch: Batch, class_names: Sequence[str], names: Sequence[str]) -> None:
    """Draw a batch with its objects.

    Args:
        path: of a .jpg to write.
        batch: at the network's size, as one tensor on the CPU; its first images are drawn.
        class_names: BACKGROUND first.
        names: of the files of the dataset's images.
    """
    cells = []
    assert isinstance(batch.images, Tensor)  # they are put together
    height, width = batch.images.shape[-2:]
    scale = np.array([width, height] * 2, np.float32)
    for place, index in enumerate(batch.indices[:MAX_CELLS]):
        labels = batch.labels[place][batch.labels[place] > 0].tolist()
        boxes = [batch.boxes[place][: len(labels)]]
        colors, captions = [color_of(label) for label in labels], [class_names[label] for label in labels]
        if batch.ignored_boxes is not None and batch.ignored_labels is not None:
            boxes.append(batch.ignored_boxes[place][batch.ignored_labels[place] < 0])
            colors += [IGNORED] * len(boxes[1])
            captions += ["ignored"] * len(boxes[1])
        dashed = [number >= len(labels) for number in range(len(captions))]
        marks = Marks(np.concatenate([part.numpy() for part in boxes]) * scale, colors, captions, dashed)
        pixels = np.ascontiguousarray(batch.images[place].numpy().transpose(1, 2, 0))
        cells.append(Cell.of(pixels, marks, names[index]))
    texts = [f"the first {len(cells)} training images as the net sees them: augmented, {width}x{height} pixels"]
    write_image(path, contact_sheet(cells, texts))


def best_epoch(rows: Rows) -> int | None:
    """Find the epoch of the best results, as `best.pth` is chosen; None before the first validation."""
    best = None
    for row in rows:
        loss, mean_ap, coco_ap = (
            number_of(row.get(f"{name}/val")) for name in ("Loss", "Mean Average Precision", "COCO AP")
        )
        if loss is not None:
            results = Results(int(row["epoch"]), loss, mean_ap, None if mean_ap is None else coco_ap)
            best = results if is_better(results, best) else best
    return None if best is None else best.epoch


class RunPictures:
    """Draws what each validation gave.

    Args:
        folder: the model folder.
        val_set: the validation images. Evenly spread ones are shown, with each class among them if there is room.
    """

    def __init__(self, folder: Path, val_set: DetectionDataset) -> None:
        self.folder, self.val_set = folder, val_set
        self._shown = spread_over_classes(val_set, MAX_CELLS)
        self._draws_curves = True

    def draw(self, result: EpochResult, rows: Rows) -> None:
        """Draw an epoch's results.

        Args:
            result: with detections, if it was validated with them.
            rows: of all epochs up to it.
        """
        if result.report is not None and result.detections:
            self._draw_detections(result, result.report)
        if self._draws_curves and result.validation is not None:
            try:
                draw_runs(self.folder / RESULTS, {self.folder.resolve().name: rows}, PANELS, best_epoch(rows))
            except ImportError as err:
                self._draws_curves = False
                logger.warning("%s: not drawn, %s (pip install matplotlib)", self.folder / RESULTS, err)

    def _draw_detections(self, result: EpochResult, report: Report) -> None:
        threshold = report.usual_threshold
        cells = []
        for index in self._shown:
            try:
                image = self.val_set.get_image(index)
            except DataError:  # the loop has named it
                continue
            match = match_image(result.detections[index], self.val_set.annotation(index), threshold)
            name = self.val_set.records[index].image_path.name
            cells.append(Cell.of(image, match_marks(match, self.val_set.class_names), name))
        texts = [
            f"epoch {result.epoch}",
            f"{len(cells)} of {len(self.val_set)} validation images",
            f"threshold {threshold:g}{'' if np.isnan(report.best_threshold) else ', of the highest mean F1'}",
        ]
        write_image(self.folder / VAL_BATCH, contact_sheet(cells, texts, MATCH_KEY))


def distinct_images(dataset: DetectionDataset) -> list[int]:
    """Number the images of a dataset in their order, each once though it may be repeated."""
    first: dict[str, int] = {}
    for index, path in enumerate(dataset.records.texts("image_path")):
        first.setdefault(path, index)
    return list(first.values())


def spread_over_classes(dataset: DetectionDataset, most: int) -> list[int]:
    """Choose images evenly spread over a dataset, with each class among them if there is room; their numbers."""
    images = distinct_images(dataset)
    labels = {index: set(dataset.annotation(index).labels.tolist()) for index in images}
    return with_all_classes([images[place] for place in spread(len(images), most)], labels)
