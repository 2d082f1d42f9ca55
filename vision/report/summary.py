"""The end of a run in words: its best epoch, what was found of each class, why some are weak, and what to do next."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from vision.engine.loop import EpochResult
from vision.evaluation import findings, number_text
from vision.evaluation.image_matches import match_image
from vision.evaluation.metrics import aligned
from vision.evaluation.report import Report
from vision.report.training_plots import number_of
from vision.ssd.description import Results
from vision.structures import Annotation

logger = logging.getLogger(__name__)

#: Classes in the table of a log; of more the weakest are shown.
MAX_CLASSES = 20

#: Change of AP that is more than chance, for advice on the number of epochs.
NOTABLE_CHANGE = 0.01

#: By how much the loss of validation has risen above its lowest where a net learns the training images by heart.
LEARNT_BY_HEART = 1.1

#: Column of `results.csv` that advice on epochs goes by.
_AP, _TRAIN_LOSS, _VAL_LOSS = "COCO AP/val", "Loss/train", "Loss/val"


class RunSummary:
    """Remembers the best epoch of a run, and says at the end what came out.

    Args:
        best_path: the file of the best epoch.
        training_objects: number of objects to train on, by class name.
        annotations: of the validation images.
        input_size: (width, height) of the net in pixels.
        next_commands: what to do next, a command by what it is for.
    """

    def __init__(
        self,
        best_path: Path,
        training_objects: Mapping[str, int],
        annotations: Sequence[Annotation],
        input_size: tuple[int, int],
        next_commands: Mapping[str, str],
    ) -> None:
        self.best_path, self.training_objects = best_path, training_objects
        self.annotations, self.input_size = annotations, input_size
        self.next_commands = next_commands
        self._report: Report | None = None
        self._findings = findings.Findings()

    def take_best(self, result: EpochResult) -> None:
        """Remember the report of an epoch that is the best so far."""
        self._report = result.report
        if result.report is None:
            return
        threshold = result.report.usual_threshold
        pairs = zip(result.detections, self.annotations, strict=True)
        matches = [match_image(found, annotation, threshold) for found, annotation in pairs]
        self._findings = findings.find(result.report, matches, self.input_size, self.training_objects)

    def log(self, best: Results | None, rows: Sequence[Mapping[str, float]], epochs: int) -> None:
        """Say what came out.

        Args:
            best: results of the best epoch; None where none was validated.
            rows: of `results.csv`.
            epochs: of the run.
        """
        if best is not None:
            logger.info("best: epoch %d of 0 to %d, %s: %s", best.epoch, epochs - 1, _figures_of(best), self.best_path)
        if self._report is not None:
            for line in aligned(self._class_rows(self._report)):
                logger.info("%s", line)
        advice = [] if self._findings.learnt_little else advice_on_epochs(rows, epochs)
        for line in (*self._findings.lines(), *advice):
            logger.info("%s", line)
        for purpose, command in self.next_commands.items():
            logger.info("%s: %s", purpose, command)

    def _class_rows(self, report: Report) -> list[list[str]]:
        rows = [["class", "objects trained on", "validated on", "AP", "AP50", "best threshold"]]
        results = report.classes
        if len(results) > MAX_CLASSES:
            logger.info("the %d weakest of %d classes:", MAX_CLASSES, len(results))
            results = tuple(sorted(report.with_objects, key=lambda result: result.coco.ap_50)[:MAX_CLASSES])
        for result in results:
            figures = number_text(result.coco.ap, ".3f"), number_text(result.coco.ap_50, ".3f")
            trained_on = str(self.training_objects.get(result.name, 0))
            threshold = number_text(result.best.threshold, ".2f")
            rows.append([result.name, trained_on, str(result.objects), *figures, threshold])
        return rows


def _figures_of(best: Results) -> str:
    if best.mean_ap is None or best.ap_50_95 is None:
        return f"validation loss {best.loss:.4f}"
    return f"mAP {best.mean_ap:.3f}, COCO AP {best.ap_50_95:.3f}"


def advice_on_epochs(rows: Sequence[Mapping[str, float]], epochs: int) -> list[str]:
    """Say whether more epochs may help, from how AP and losses went.

    Args:
        rows: of `results.csv`, numbers or their texts.
        epochs: of the run.
    """
    validated = [row for row in rows if not math.isnan(_number(row, _AP))]
    early = [row for row in validated if _number(row, "epoch") < 0.75 * epochs]
    late = [row for row in validated if _number(row, "epoch") >= 0.75 * epochs]
    if not early or not late:
        return []
    lines = []
    risen = max(_number(row, _AP) for row in late) - max(_number(row, _AP) for row in early)
    if risen > NOTABLE_CHANGE:
        lines.append(f"epochs: AP still rose by {risen:.3f} in the last quarter; --epochs={2 * epochs} may give more")
    else:
        lines.append(
            f"epochs: AP rose by no more than {NOTABLE_CHANGE:g} in the last quarter; more images help more than epochs"
        )
    lowest = min(validated, key=lambda row: _number(row, _VAL_LOSS))
    last = validated[-1]
    ratio = _number(last, _VAL_LOSS) / _number(lowest, _VAL_LOSS)
    if ratio > LEARNT_BY_HEART and _number(last, _TRAIN_LOSS) < _number(lowest, _TRAIN_LOSS):
        lines.append(
            f"epochs: the validation loss rose by {ratio - 1:.0%} after epoch {_number(lowest, 'epoch'):g} while the "
            "training loss fell: the net learns the training images by heart"
        )
    return lines


def _number(row: Mapping[str, float], column: str) -> float:
    """A cell; nan for an empty one."""
    number = number_of(row.get(column))
    return math.nan if number is None else number
