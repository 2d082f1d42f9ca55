"""Files on check: how well they find the objects of annotated images, beside the checkpoint they were made from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from vision.boxes.choices import DEFAULT_IOU_THRESHOLD
from vision.boxes.overlaps import iou_of_arrays
from vision.deploy.choices import DEFAULT_THRESHOLD
from vision.deploy.export import ExportRejected
from vision.deploy.session import OnnxSession
from vision.deploy.torch_session import TorchSession
from vision.evaluation import Report, evaluate, number_text
from vision.ssd.ssd import SSD
from vision.structures import Annotation, DataError, Detections
from vision.utils.progress import ProgressBar, no_progress

#: Name of the checkpoint among the reports.
CHECKPOINT = "checkpoint"

#: Overlap from which two boxes are the same, and share of a checkpoint's detections that its file has to have.
SAME_PLACE, SHARE_ALIKE = 0.95, 0.99

Detector = Callable[[np.ndarray], Detections]


def count_alike(found: Detections, expected: Detections) -> int:
    """Count the expected detections that were found, of the same class and in the same place."""
    if not len(found.labels) or not len(expected.labels):
        return 0
    boxes, expected_boxes = np.asarray(found.boxes), np.asarray(expected.boxes)
    in_place = iou_of_arrays(expected_boxes[:, None], boxes[None]) > SAME_PLACE
    alike = in_place & (np.asarray(expected.labels)[:, None] == np.asarray(found.labels))
    return int(alike.any(axis=1).sum())


def _as_arguments(options: Mapping[str, float]) -> list[str]:
    return [f"--{name}={value:g}" for name, value in options.items()]


class AccuracyCheck:
    """Measures files on the same images.

    Args:
        images: each call starts from the first image: (H, W, 3) uint8 RGB with their annotations.
        count: how many there are, about.
        net: the checkpoint, with class names.
        progress: shows images going by.
        of_new_images: whether the net was trained on none of them, as far as known.

    Attributes:
        reports: figures by name, in the order of measuring.
        device_options: for detectnet's command line, where with them F1 on these images is higher than by its defaults.
    """

    def __init__(
        self,
        images: Callable[[], Iterable[tuple[np.ndarray, Annotation]]],
        count: int,
        net: SSD,
        progress: ProgressBar = no_progress,
        of_new_images: bool = True,
    ) -> None:
        self.of_new_images = of_new_images
        self._images = images
        self._count = count
        self.net = net
        self._progress = progress
        self.reports: dict[str, Report] = {}
        self.device_options: list[str] = []
        self._own_thresholds: dict[str, float] = {}  # of reports of what is cut off before it is measured

    def pixels(self, count: int) -> torch.Tensor:
        """Take the first images, at the net's size: (N, 3, H, W) uint8.

        Raises:
            DataError: there is none.
        """
        resized = [cv2.resize(image, self.net.config.width_height) for image, _ in islice(self._images(), count)]
        if not resized:
            raise DataError("--data: none of its test images can be read; name another dataset")
        return torch.from_numpy(np.stack(resized).transpose(0, 3, 1, 2).copy())

    def measure(self, detectors: Mapping[str, Detector]) -> dict[str, list[Detections]]:
        """Detect in all images, and note the figures; gives what was found."""
        found: dict[str, list[Detections]] = {name: [] for name in detectors}
        annotations = []
        for image, annotation in self._progress(self._images(), "Detecting", self._count):
            annotations.append(annotation)
            for name, detect in detectors.items():
                found[name].append(detect(image))
        for name, detections in found.items():
            self.reports[name] = evaluate(detections, annotations, self.net.class_names or ())
        return found

    def measure_plain(self, file: Path, name: str) -> None:
        """Measure the checkpoint and the file written from it."""
        self.measure({CHECKPOINT: TorchSession(self.net).detect, name: OnnxSession(file).detect})

    def measure_on_device(self, file: Path, name: str, across_classes: bool = False) -> tuple[int, int]:
        """Measure what a device's detectNet makes of a file, and compare with the checkpoint under its arithmetic.

        It is measured with detectNet's own settings, and with those that `device_options` knows then.

        Args:
            file: to measure.
            name: of it.
            across_classes: whether the device joins boxes by an older rule, see `vision.deploy.detectnet.postprocess`.

        Returns:
            how many of the checkpoint's detections the file has, and how many there are.

        Raises:
            ExportRejected: it has too few of them.
        """
        rules: dict[str, Any] = {"across_classes": True} if across_classes else {}
        device: Detector = partial(OnnxSession(file).detect_as_detectnet, **rules)
        checkpoint: Detector = partial(TorchSession(self.net).detect_as_detectnet, **rules)
        suited = self._suited_options(name)
        as_it_is = f"{name}, as detectnet"
        with_options = " ".join([as_it_is, *_as_arguments(suited)])
        found = self.measure({as_it_is: device, with_options: partial(device, **suited)})
        self._own_thresholds[as_it_is] = DEFAULT_THRESHOLD
        self._own_thresholds[with_options] = suited.get("threshold", DEFAULT_THRESHOLD)
        # Not by AP, which a lower threshold hardly ever harms: on a device false boxes count as they are.
        self.device_options = _as_arguments(suited) if self._f1(with_options) > self._f1(as_it_is) else []
        expected = [checkpoint(image) for image, _ in self._images()]
        agreeing = sum(map(count_alike, found[as_it_is], expected))
        total = sum(len(detections.labels) for detections in expected)
        if agreeing < SHARE_ALIKE * total:
            raise ExportRejected(
                f"of {total} detections that the checkpoint gives by detectnet's arithmetic {name} has {agreeing} only"
            )
        return agreeing, total

    def _suited_options(self, name: str) -> dict[str, float]:
        """The threshold at which a file's mean F1 is highest, and boxes joined as readily as suppression drops them."""
        threshold = self.reports[name].best_threshold
        options = {"clustering": DEFAULT_IOU_THRESHOLD}
        return options if math.isnan(threshold) else {"threshold": round(threshold, 2) or 0.01, **options}

    def _threshold(self, name: str) -> float:
        """That of a device for what it gave, else the one at which a report's mean F1 is highest."""
        return self._own_thresholds.get(name, self.reports[name].best_threshold)

    def _f1(self, name: str) -> float:
        """A report's mean F1 at its threshold."""
        return self.reports[name].mean_at(self._threshold(name)).f1

    def cost_of(self, name: str, file: Path) -> float:
        """Measure a file; gives what it has less than the checkpoint of AP50 or AP, whichever lost more."""
        self.measure({name: OnnxSession(file).detect})
        return self._lost(name)

    def _lost(self, name: str) -> float:
        before, after = self.reports[CHECKPOINT].coco, self.reports[name].coco
        return max(before.ap_50 - after.ap_50, before.ap - after.ap)

    def hold(self, name: str, tolerance: float) -> None:
        """Compare what was measured with the checkpoint's.

        Raises:
            ExportRejected: AP50 or AP is lower by more than allowed.
        """
        if not self._lost(name) <= tolerance:
            before, after = self.reports[CHECKPOINT].coco, self.reports[name].coco
            raise ExportRejected(
                f"{name} has an AP50 of {after.ap_50:.4f} and an AP of {after.ap:.4f}, the checkpoint has "
                f"{before.ap_50:.4f} and {before.ap:.4f}; allowed is a loss of {tolerance:g}"
            )

    def table(self) -> list[str]:
        """Lay the figures out, one line a file; a dash for the threshold of one that hits nothing."""
        width = max(map(len, self.reports))
        lines = [f"{'':{width}}    AP50      AP  mAP (11-point)      F1  at threshold"]
        for name, report in self.reports.items():
            values = (report.coco.ap_50, report.coco.ap, report.mean_ap_2007, self._f1(name))
            ap_50, ap, mean_ap, f1 = (f"{number_text(value):>6}" for value in values)
            threshold = number_text(self._threshold(name), ".2f")
            lines.append(f"{name:{width}}  {ap_50}  {ap}          {mean_ap}  {f1}          {threshold:>4}")
        return lines
