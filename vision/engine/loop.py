"""The training loop, as a generator: who drives it saves, logs and stops between any two steps."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from vision.engine.schedule import lr_factor
from vision.engine.step import TrainingModel, to_device
from vision.evaluation import Report, evaluate
from vision.nn.multibox_loss import Losses
from vision.ssd.predictor import detections_in_pixels
from vision.ssd.ssd import SSD, evaluating
from vision.structures import Annotation, Batch, DataError, Detections
from vision.utils.progress import ProgressBar, no_progress

if TYPE_CHECKING:
    from vision.datasets.batch_loader import BatchLoader
    from vision.engine.faults import StopSignal
    from vision.engine.run import Run

logger = logging.getLogger(__name__)

#: Images that may be unreadable in an epoch, as a number and per batch: the larger of both.
_FEW_UNREADABLE, _MOST_UNREADABLE = 10, 0.1

#: Steps in a row that may give losses that are not finite.
MAX_SKIPPED_STEPS = 5


class MeanLosses(NamedTuple):
    """Losses averaged over steps or images, plain numbers."""

    regression: float
    classification: float

    @property
    def total(self) -> float:
        """The sum of the parts."""
        return self.regression + self.classification


class _RunningMean:
    """Mean of losses; sums them where they are and reads them out late: each reading waits for the device."""

    def __init__(self, total: Sequence[float] | None = None, count: int = 0) -> None:
        self._sum = None if total is None else torch.tensor(total)
        self._count = count

    def add(self, losses: Losses) -> None:
        parts = torch.stack([losses.regression.detach(), losses.classification.detach()])
        self._sum = parts if self._sum is None else self._sum.to(parts.device) + parts
        self._count += 1

    def read(self) -> MeanLosses:
        if self._sum is None or not self._count:
            return MeanLosses(math.nan, math.nan)
        return MeanLosses(*(self._sum / self._count).tolist())

    def as_values(self) -> list[Any]:
        return [None if self._sum is None else self._sum.tolist(), self._count]


@dataclass
class TrainState:
    """How far a run has come, and what it has summed up of the epoch it is in.

    Attributes:
        epoch: that is being trained, counted from 0.
        step: steps of it that are done.
        unreadable: training images of it for which others stood.
        skipped: steps of it that were left out because losses were not finite.
        skipped_in_a_row: how many of the last steps were left out without one between.
        epoch_losses: mean over the epoch's steps.
        logged_losses: mean over the steps since the last line of the log.
    """

    epoch: int = 0
    step: int = 0
    unreadable: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    epoch_losses: _RunningMean = field(default_factory=_RunningMean)
    logged_losses: _RunningMean = field(default_factory=_RunningMean)

    def begin_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch."""
        vars(self).update(vars(TrainState(epoch)))

    def as_values(self) -> dict[str, Any]:
        """Plain values, for a state file."""
        return {
            **vars(self),
            "epoch_losses": self.epoch_losses.as_values(),
            "logged_losses": self.logged_losses.as_values(),
        }

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> TrainState:
        """Read what `as_values` gave."""
        means = {key: _RunningMean(*values[key]) for key in ("epoch_losses", "logged_losses")}
        return cls(**{**values, **means})


class StepResult(NamedTuple):
    """A finished step; at every `debug_steps` with the losses of the steps since the last such result."""

    epoch: int
    step: int
    steps: int
    losses: MeanLosses | None


class EpochResult(NamedTuple):
    """A finished epoch; `validation` and `report` are None where it was not validated, or without mean AP."""

    epoch: int
    losses: MeanLosses
    validation: MeanLosses | None
    report: Report | None
    unreadable: int = 0  # training images for which others stood
    skipped: int = 0  # steps whose losses were not finite
    learning_rates: Mapping[str, float] = MappingProxyType({})  # of its last step
    detections: Sequence[Detections] = ()  # in the validation images, where there is a report
    waiting: float = 0.0  # share of the time of its steps in which there was no batch yet


@dataclass(frozen=True)
class ValidationSums:
    """Losses summed over validation images, and their detections; those of parts of a dataset can be merged.

    Attributes:
        regression: sum over the images, not divided by anything.
        classification: sum over the images, not divided by anything.
        loss_normalizer: by what both are to be divided.
        detections: in pixels, by index of the image; empty if they were not asked for.
    """

    regression: float = 0.0
    classification: float = 0.0
    loss_normalizer: float = 0.0
    detections: Mapping[int, Detections] = field(default_factory=dict)

    @property
    def losses(self) -> MeanLosses:
        """The losses of all images, as if they had been one batch."""
        if not self.loss_normalizer:
            return MeanLosses(math.nan, math.nan)
        return MeanLosses(self.regression / self.loss_normalizer, self.classification / self.loss_normalizer)

    @classmethod
    def merge(cls, parts: Sequence[ValidationSums]) -> ValidationSums:
        """Sum over parts of a dataset."""
        return cls(
            math.fsum(part.regression for part in parts),
            math.fsum(part.classification for part in parts),
            math.fsum(part.loss_normalizer for part in parts),
            {index: found for part in parts for index, found in part.detections.items()},
        )


class _UnreadableImages:
    """Logs which images a loader could not read, counts them, and ends a run whose data have gone away.

    Args:
        batches: that the loader makes.
        count: that are known of already.
    """

    def __init__(self, batches: int, count: int = 0) -> None:
        self.count = count
        self._told: set[str] = set()
        self._most = max(_FEW_UNREADABLE, _MOST_UNREADABLE * batches)

    def count_in(self, batch: Batch) -> None:
        """Log and count those of a batch.

        Raises:
            DataError: too many of its kind could not be read.
        """
        # An image may be met several times an epoch.
        new = [note for note in dict.fromkeys(batch.notes) if note not in self._told]
        for note in new:
            logger.warning("%s", note)
        self._told.update(new)
        self.count += len(new)
        if self.count > self._most:
            raise DataError(f"{self.count} images could not be read in one epoch, the last: {batch.notes[-1]}")


def steps_per_epoch(loader: BatchLoader, accumulate: int) -> int:
    """Number of optimizer steps of an epoch."""
    return -(-loader.batch_sampler.batches_of_epoch // accumulate)


def train_epochs(
    run: Run, train_loader: BatchLoader, val_loader: BatchLoader | None = None, *, stop: StopSignal | None = None
) -> Iterator[StepResult | EpochResult]:
    """Train, and yield after every step and every epoch.

    The run can be stopped at any result, and goes on from a copy of its `train_state` and the state of its
    `train_step` as if it had not been.

    Args:
        run: with all that it needs for a step; its `train_state` is kept up to date.
        train_loader: yields `Batch`es; its batch sampler is told the epoch, and which batch to begin with.
        val_loader: yields `Batch`es in the order of the run's annotations; None for no validation.
        stop: asks between two batches for the run to end.

    Raises:
        DataError: losses are not finite again and again, or hardly any image can be read.
        StopRequested: the run is to end.
    """
    options, train_step, state = run.options, run.train_step, run.train_state
    accumulate, all_gather = run.settings.accumulate, run.process.all_gather

    def progress_bar(items: Iterable, what: str, total: int | None) -> Iterable:
        return run.progress_bar(items if stop is None else stop.check_between(items), what, total)

    sampler = train_loader.batch_sampler
    steps = steps_per_epoch(train_loader, accumulate)
    while state.epoch < options.epochs:
        sampler.begin(state.epoch, state.step * accumulate)
        train_step.train()
        unreadable = _UnreadableImages(sampler.batches_of_epoch, state.unreadable)
        is_unfinished = state.step < steps
        batches = iter((train_loader if stop is None else stop.check_between(train_loader)) if is_unfinished else ())
        began, waited = perf_counter(), 0.0
        while True:
            asked = perf_counter()
            group = list(itertools.islice(batches, accumulate))
            waited += perf_counter() - asked
            if not group:
                break
            for batch in group:
                unreadable.count_in(batch)
            losses = train_step.step(group, state.epoch * steps + state.step, steps)
            state.step += 1
            state.unreadable = unreadable.count
            if losses is None:
                indices = all_gather([index for batch in group for index in batch.indices])
                _count_skipped(run, list(itertools.chain.from_iterable(indices)), steps)
            else:
                state.skipped_in_a_row = 0
                state.epoch_losses.add(losses)
                state.logged_losses.add(losses)
            shown = None
            if state.step % options.debug_steps == 0:
                shown, state.logged_losses = state.logged_losses.read(), _RunningMean()
            yield StepResult(state.epoch, state.step, steps, shown)
        waiting = waited / max(perf_counter() - began, 1e-9)
        validation = report = None
        found: list[Detections] = []
        is_last = state.epoch == options.epochs - 1
        if val_loader is not None and ((state.epoch + 1) % options.validation_epochs == 0 or is_last):
            annotations = run.annotations if options.validation_mean_ap else None
            with _evaluating_net(train_step.model, train_step.eval_net) as model:
                of_batches = val_loader.batch_sampler.batches_of_epoch
                part = validate(model, val_loader, annotations, of_batches=of_batches, progress_bar=progress_bar)
            whole = ValidationSums.merge(all_gather(part))
            validation = whole.losses
            if annotations is not None:
                found = [whole.detections[index] for index in range(len(annotations))]
                report = evaluate(found, annotations, train_step.net.known_class_names)
        factor = lr_factor((state.epoch + 1) * steps - 1, steps, options)
        rates = {group["name"]: group["initial_lr"] * factor for group in train_step.optimizer.param_groups}
        means = state.epoch_losses.read()
        counts = (state.unreadable, state.skipped)
        result = EpochResult(state.epoch, means, validation, report, *counts, rates, found, waiting)
        state.begin_epoch(state.epoch + 1)
        yield result


def _count_skipped(run: Run, indices: Sequence[int], steps: int) -> None:
    """Say that a step was left out, with the images it was about; give up after several in a row."""
    state, ids = run.train_state, run.train_set.ids
    state.skipped += 1
    state.skipped_in_a_row += 1
    images = ", ".join(ids[index] for index in indices)
    what = f"the loss is not finite at epoch {state.epoch}, step {state.step}/{steps}"
    if state.skipped_in_a_row >= MAX_SKIPPED_STEPS:
        raise DataError(
            f"{what}, for {state.skipped_in_a_row} steps in a row: training diverged; try a lower --lr and "
            f"--base-net-lr, --clip-grad, or a larger --batch-size; the images of the last step: {images}"
        )
    logger.warning("%s: step left out; its images: %s", what, images)


@contextmanager
def _evaluating_net(model: TrainingModel, net: SSD) -> Iterator[TrainingModel]:
    """Context in which the losses are those of another net."""
    trained = model.net
    model.net = net
    try:
        yield model
    finally:
        model.net = trained


def validate(
    model: TrainingModel,
    loader: BatchLoader | Sequence[Batch],
    annotations: Sequence[Annotation] | None,
    *,
    of_batches: int | None = None,
    progress_bar: ProgressBar = no_progress,
) -> ValidationSums:
    """Compute losses over batches and, given the dataset's annotations (for the images' sizes), detections.

    Args:
        model: of the net to validate.
        loader: of batches with indices of images.
        annotations: of the dataset; None for losses only.
        of_batches: of how many these are a part; None if they are all.
        progress_bar: shows batches going by.

    Raises:
        DataError: too many images cannot be read.
    """
    net = model.net
    device = next(net.parameters()).device
    sums, detections = [0.0, 0.0, 0.0], {}
    unreadable = _UnreadableImages(len(loader) if of_batches is None else of_batches)
    with evaluating(net, is_test=False), torch.inference_mode():
        for batch in progress_bar(loader, "Validation", len(loader)):
            unreadable.count_in(batch)
            moved = to_device(batch, device)
            targets = model.targets(moved)
            count = model.criterion.loss_normalizer(targets[1])
            losses, confidences, locations = model(moved, targets, torch.ones_like(count))
            of_batch = torch.stack([losses.regression, losses.classification, count.to(losses.regression)])
            sums = [total + value for total, value in zip(sums, of_batch.tolist(), strict=True)]
            if annotations is not None:
                decoded = net.decode(confidences.float(), locations.float())
                for index, scores, boxes in zip(batch.indices, *decoded, strict=True):
                    size = annotations[index].size
                    detections[index] = detections_in_pixels(
                        scores, boxes, size, iou_threshold=net.config.iou_threshold
                    )
    regression, classification, loss_normalizer = sums
    return ValidationSums(regression, classification, loss_normalizer, detections)
