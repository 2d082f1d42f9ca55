"""What a run says of itself as it goes on: the documented lines, its table, and the names of its curves."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

from vision.engine.dry_run import DryRunResult
from vision.engine.loop import EpochResult, StepResult
from vision.evaluation import ap_text, number_text
from vision.evaluation.coco import FIGURE_NAMES
from vision.evaluation.metrics import CURVES
from vision.utils.progress import NOT_ON_TERMINALS

logger = logging.getLogger(__name__)

#: Share of its time that a run may wait for images without a word.
WAITING_WORTH_SAYING = 0.2


def log_steps(result: StepResult, pace: str) -> None:
    """Log the losses of some steps.

    Args:
        result: with losses.
        pace: how fast the run goes, see `pace_text`.
    """
    assert result.losses is not None  # else there is nothing to log
    logger.info(
        "Epoch: %d, Step: %d/%d, Avg Loss: %.4f, Avg Regression Loss %.4f, Avg Classification Loss: %.4f, %s",
        result.epoch,
        result.step,
        result.steps,
        result.losses.total,
        *result.losses,
        pace,
        extra=NOT_ON_TERMINALS,
    )


def pace_text(images_per_second: float, seconds_left: float) -> str:
    """Write how fast a run goes and how long it will still take: `21 images/s, 12 min left`."""
    speed = f"{images_per_second:.{0 if images_per_second >= 9.95 else 1}f} images/s"
    return speed if math.isnan(seconds_left) else f"{speed}, {format_duration(seconds_left)} left"


def log_epoch(result: EpochResult) -> None:
    """Log the results of an epoch."""
    for kind, losses in (("Training", result.losses), ("Validation", result.validation)):
        if losses is not None:
            logger.info(
                f"Epoch: %d, {kind} Loss: %.4f, {kind} Regression Loss %.4f, {kind} Classification Loss: %.4f",
                result.epoch,
                losses.total,
                *losses,
                extra=NOT_ON_TERMINALS,
            )
    if result.unreadable:
        logger.warning("Epoch: %d, %d images could not be read, others stood for them", result.epoch, result.unreadable)
    if result.report is not None:
        for of_class in result.report.classes:
            ap = ap_text(of_class.ap_2007)
            _log_figures("Epoch: %d, Average Precision %s: %s", result.epoch, of_class.name, ap)
        _log_figures("Epoch: %d, Mean Average Precision: %s", result.epoch, number_text(result.report.mean_ap_2007))
        figures = map(number_text, result.report.coco[:3])
        _log_figures("Epoch: %d, COCO AP: %s, AP50: %s, AP75: %s", result.epoch, *figures)
    if result.waiting >= WAITING_WORTH_SAYING:
        logger.info(
            "Epoch: %d, waited %.0f%% of the time for images: more --workers, --cache-images=ram or smaller files help",
            result.epoch,
            100 * result.waiting,
        )
    if result.skipped:
        logger.warning("Epoch: %d, %d steps left out, their losses were not finite", result.epoch, result.skipped)


def _log_figures(message: str, *values: object) -> None:
    """Log what a terminal shows as a row of the table."""
    logger.info(message, *values, extra=NOT_ON_TERMINALS)


def scalars_of(result: EpochResult) -> dict[str, float]:
    """An epoch's numbers by name, as TensorBoard and `results.csv` show them."""
    values = {}
    for kind, losses in (("train", result.losses), ("val", result.validation)):
        if losses is not None:
            values[f"Loss/{kind}"] = losses.total
            values[f"Regression Loss/{kind}"] = losses.regression
            values[f"Classification Loss/{kind}"] = losses.classification
    if result.report is not None:
        values["Mean Average Precision/val"] = result.report.mean_ap_2007
        values |= {f"COCO {name}/val": value for name, value in zip(FIGURE_NAMES, result.report.coco, strict=True)}
        values["Best Threshold/val"] = result.report.best_threshold
        for metric in CURVES:
            values |= {f"{metric.curve}/{c.name}": metric.of_class(c, math.nan) for c in result.report.classes}
    return values


#: What a line of the log shows of an epoch: head, column of `results.csv`, digits after the point.
_CELLS = (
    ("loss", "Loss/train", 4),
    ("val loss", "Loss/val", 4),
    ("mAP", "Mean Average Precision/val", 4),
    ("COCO AP", "COCO AP/val", 4),
    ("AP50", "COCO AP50/val", 4),
    ("seconds", "seconds", 1),
)


def log_row(row: Mapping[str, float], *, with_heads: bool, is_best: bool, seconds_left: float = math.nan) -> None:
    """Log an epoch as a row of a table.

    Args:
        row: of `results.csv`; what it does not have is a dash.
        with_heads: whether the heads of the table come first.
        is_best: whether it is the best epoch so far.
        seconds_left: that the run will still take; nan if that is not known.
    """
    if with_heads:
        logger.info("epoch  %s  %8s", "  ".join(f"{head:>8}" for head, _, _ in _CELLS), "left")
    cells = [f"{number_text(row.get(column, math.nan), f'.{digits}f'):>8}" for _, column, digits in _CELLS]
    left = "-" if math.isnan(seconds_left) else format_duration(seconds_left)
    logger.info("%5d  %s  %8s%s", row["epoch"], "  ".join(cells), left, "  best so far" if is_best else "")


def row_of(result: EpochResult, seconds: float) -> dict[str, float]:
    """Return an epoch's row of `results.csv`."""
    return {
        "epoch": result.epoch,
        "seconds": round(seconds, 3),
        **scalars_of(result),
        **{f"rate {name}": rate for name, rate in result.learning_rates.items()},
        "unreadable images": result.unreadable,
        "skipped steps": result.skipped,
    }


def log_dry_run(found: DryRunResult, epochs: int, validation_epochs: int) -> None:
    """Say what a run will cost.

    Args:
        found: by its first steps.
        epochs: that it will have.
        validation_epochs: epochs between validations.
    """
    logger.info("first losses: training %.4f, validation %.4f", found.losses.total, found.validation.total)
    memory = [
        f"{size / 2**20:.0f} MiB {where}"
        for size, where in ((found.peak_memory, "of memory"), (found.peak_device_memory, "on the GPU"))
        if size is not None
    ]
    logger.info("peak so far: %s, loader workers apart", ", ".join(memory) or "not known here")
    whole = found.training_seconds * epochs + found.validation_seconds * -(-epochs // validation_epochs)
    logger.info(
        "%.3f s per step: about %s per epoch and %s per validation, %s for %d epochs",
        found.seconds_per_step,
        format_duration(found.training_seconds),
        format_duration(found.validation_seconds),
        format_duration(whole),
        epochs,
    )


def format_duration(seconds: float) -> str:
    """Write a time for people: 40 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
