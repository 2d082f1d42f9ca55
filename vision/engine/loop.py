"""The training loop, as a generator: saving, logging and stopping stay visible in the script."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader

from vision.engine.evaluate import Report, evaluate
from vision.engine.learner import Learner, Objective, to_device
from vision.engine.optim import rate_factor
from vision.nn.multibox_loss import Losses
from vision.ssd.predictor import detections_in_pixels
from vision.ssd.ssd import SSD, evaluating
from vision.structures import Annotation, Batch, DataError, Detections
from vision.utils.progress import Progress, no_progress

logger = logging.getLogger(__name__)

#: Pictures that may be unreadable in an epoch, as a number and per batch: the larger of both.
_FEW_UNREADABLE, _MOST_UNREADABLE = 10, 0.1

#: Steps in a row that may give losses that are not finite.
MOST_SKIPPED = 5


@dataclass(frozen=True)
class RunOptions:
    """What the loop does besides steps.

    Attributes:
        validation_epochs: epochs between validations; the last epoch is always validated.
        debug_steps: steps between `StepResult`s that have losses.
        mean_ap: compute average precision when validating.
        accumulate: batches that make one step.
    """

    validation_epochs: int = 1
    debug_steps: int = 10
    mean_ap: bool = True
    accumulate: int = 1


class MeanLosses(NamedTuple):
    """Losses averaged over steps or pictures, plain numbers."""

    regression: float
    classification: float

    @property
    def total(self) -> float:
        """The sum of the parts."""
        return self.regression + self.classification


class _Average:
    """Sums losses where they are and reads them out late: each reading waits for the device."""

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
class Position:
    """How far a run has come, and what it has gathered of the epoch it is in.

    Attributes:
        epoch: that is being trained, counted from 0.
        step: steps of it that are done.
        unreadable: training pictures of it for which others stood.
        skipped: steps of it that were left out because losses were not finite.
        skipped_in_a_row: likewise, up to now.
    """

    epoch: int = 0
    step: int = 0
    unreadable: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    of_epoch: _Average = field(default_factory=_Average)
    since_last: _Average = field(default_factory=_Average)

    def begin_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch."""
        vars(self).update(vars(Position(epoch)))

    def as_values(self) -> dict[str, Any]:
        """Give plain values, for a state file."""
        return {
            **vars(self),
            "of_epoch": self.of_epoch.as_values(),
            "since_last": self.since_last.as_values(),
        }

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Position:
        """Read what `as_values` gave."""
        averages = {key: _Average(*values[key]) for key in ("of_epoch", "since_last")}
        return cls(**{**values, **averages})


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
    unreadable: int = 0  # training pictures for which others stood
    skipped: int = 0  # steps whose losses were not finite
    learning_rates: Mapping[str, float] = MappingProxyType({})  # of its last step


@dataclass(frozen=True)
class Validation:
    """What looking at validation pictures gave; parts of a dataset can be joined, in any order.

    Attributes:
        regression: sum over the pictures, not divided by anything.
        classification: likewise.
        normaliser: by what both are to be divided.
        detections: in pixels, by index of the picture; empty if they were not asked for.
    """

    regression: float = 0.0
    classification: float = 0.0
    normaliser: float = 0.0
    detections: Mapping[int, Detections] = field(default_factory=dict)

    @property
    def losses(self) -> MeanLosses:
        """The losses of all pictures, as if they had been one batch."""
        if not self.normaliser:
            return MeanLosses(math.nan, math.nan)
        return MeanLosses(self.regression / self.normaliser, self.classification / self.normaliser)

    @classmethod
    def join(cls, parts: Sequence[Validation]) -> Validation:
        """Put parts together."""
        return cls(
            math.fsum(part.regression for part in parts),
            math.fsum(part.classification for part in parts),
            math.fsum(part.normaliser for part in parts),
            {index: found for part in parts for index, found in part.detections.items()},
        )


class _Unreadable:
    """Says which pictures a loader could not read, counts them, and ends a run whose data have gone away.

    Args:
        batches: that the loader makes.
        count: that are known of already.
    """

    def __init__(self, batches: int, count: int = 0) -> None:
        self.count = count
        self._most = max(_FEW_UNREADABLE, _MOST_UNREADABLE * batches)

    def heed(self, batch: Batch) -> None:
        """Look at a batch.

        Raises:
            DataError: too many of its kind could not be read.
        """
        for note in batch.notes:
            logger.warning("%s", note)
        self.count += len(batch.notes)
        if self.count > self._most:
            raise DataError(f"{self.count} pictures could not be read in one epoch, the last: {batch.notes[-1]}")


def steps_of(loader: DataLoader, accumulate: int) -> int:
    """Give the number of steps of an epoch."""
    return -(-loader.batch_sampler.batches_of_epoch // accumulate)


def fit(
    learner: Learner,
    train_loader: DataLoader,
    val_loader: DataLoader | None,
    annotations: Sequence[Annotation],
    class_names: Sequence[str],
    run: RunOptions,
    *,
    train_ids: Sequence[str] = (),
    position: Position | None = None,
    progress: Progress = no_progress,
    everyone: Callable[[Any], list[Any]] = lambda value: [value],
) -> Iterator[StepResult | EpochResult]:
    """Train, and yield after every step and every epoch.

    The run can be stopped at any result, and goes on from a copy of `position` and the learner's state as if nothing
    had been.

    Args:
        learner: takes the steps.
        train_loader: yields `Batch`es; its batch sampler is told the epoch, and which batch to begin with.
        val_loader: likewise, in the order of `annotations`; None for no validation.
        annotations: of the validation pictures.
        class_names: BACKGROUND first.
        run: see `RunOptions`.
        train_ids: names of the training pictures, for messages.
        position: where to go on; is kept up to date.
        progress: shows batches going by.
        everyone: gives what each of the processes that train together passes to it; there is one.

    Raises:
        ValueError: losses are not finite again and again, or hardly any picture can be read.
    """
    here = Position() if position is None else position
    schedule = learner.schedule
    sampler = train_loader.batch_sampler
    steps = steps_of(train_loader, run.accumulate)
    while here.epoch < schedule.epochs:
        sampler.begin(here.epoch, here.step * run.accumulate)
        learner.train()
        unreadable = _Unreadable(sampler.batches_of_epoch, here.unreadable)
        batches = iter(progress(train_loader, f"Epoch {here.epoch}", len(sampler)) if here.step < steps else ())
        while group := list(itertools.islice(batches, run.accumulate)):
            for batch in group:
                unreadable.heed(batch)
            losses = learner.step(group, here.epoch * steps + here.step, steps)
            here.step += 1
            here.unreadable = unreadable.count
            if losses is None:
                indices = everyone([index for batch in group for index in batch.indices])
                _skip(here, list(itertools.chain.from_iterable(indices)), steps, train_ids)
            else:
                here.skipped_in_a_row = 0
                here.of_epoch.add(losses)
                here.since_last.add(losses)
            shown = None
            if here.step % run.debug_steps == 0:
                shown, here.since_last = here.since_last.read(), _Average()
            yield StepResult(here.epoch, here.step, steps, shown)
        validation = report = None
        if val_loader is not None and (
            (here.epoch + 1) % run.validation_epochs == 0 or here.epoch == schedule.epochs - 1
        ):
            with _in_place_of(learner.objective, learner.result) as objective:
                found_annotations = annotations if run.mean_ap else None
                part = validate(
                    objective,
                    val_loader,
                    found_annotations,
                    of_batches=val_loader.batch_sampler.batches_of_epoch,
                    progress=progress,
                )
            whole = Validation.join(everyone(part))
            validation = whole.losses
            if run.mean_ap:
                found = [whole.detections[index] for index in range(len(annotations))]
                report = evaluate(found, annotations, class_names)
        factor = rate_factor((here.epoch + 1) * steps - 1, steps, schedule)
        rates = {group["name"]: group["initial_lr"] * factor for group in learner.optimizer.param_groups}
        losses = here.of_epoch.read()
        result = EpochResult(here.epoch, losses, validation, report, here.unreadable, here.skipped, rates)
        here.begin_epoch(here.epoch + 1)
        yield result


def _skip(here: Position, indices: Sequence[int], steps: int, train_ids: Sequence[str]) -> None:
    """Say that a step was left out, with the pictures it was about; give up after several in a row."""
    here.skipped += 1
    here.skipped_in_a_row += 1
    pictures = ", ".join(train_ids[index] for index in indices) if train_ids else f"{len(indices)} pictures"
    what = f"the loss is not finite at epoch {here.epoch}, step {here.step}/{steps}"
    if here.skipped_in_a_row >= MOST_SKIPPED:
        raise DataError(
            f"{what}, for {here.skipped_in_a_row} steps in a row: training diverged; try a lower --lr and "
            f"--base-net-lr, --clip-grad, or a larger --batch-size; the pictures of the last step: {pictures}"
        )
    logger.warning("%s: step left out; its pictures: %s", what, pictures)


@contextmanager
def _in_place_of(objective: Objective, net: SSD) -> Iterator[Objective]:
    """Let an objective look at another net for a while."""
    own = objective.net
    objective.net = net
    try:
        yield objective
    finally:
        objective.net = own


def validate(
    objective: Objective,
    loader: DataLoader | Sequence[Batch],
    annotations: Sequence[Annotation] | None,
    *,
    of_batches: int | None = None,
    progress: Progress = no_progress,
) -> Validation:
    """Compute losses over batches and, given the dataset's annotations (for the pictures' sizes), detections.

    Args:
        objective: of the net to validate.
        loader: of batches with indices of pictures.
        annotations: of the dataset; None for losses only.
        of_batches: of how many these are a part; None if they are all.
        progress: shows batches going by.

    Raises:
        DataError: too many pictures cannot be read.
    """
    net = objective.net
    device = next(net.parameters()).device
    sums, detections = [0.0, 0.0, 0.0], {}
    unreadable = _Unreadable(len(loader) if of_batches is None else of_batches)
    with evaluating(net, is_test=False), torch.inference_mode():
        for batch in progress(loader, "Validation", len(loader)):
            unreadable.heed(batch)
            moved = to_device(batch, device)
            targets = objective.targets(moved)
            count = objective.criterion.normaliser(targets[1])
            losses, confidences, locations = objective(moved, targets, torch.ones_like(count))
            of_batch = torch.stack([losses.regression, losses.classification, count.to(losses.regression)])
            sums = [total + value for total, value in zip(sums, of_batch.tolist(), strict=True)]
            if annotations is not None:
                decoded = net.decode(confidences.float(), locations.float())
                for index, scores, boxes in zip(batch.indices, *decoded, strict=True):
                    size = annotations[index].size
                    detections[index] = detections_in_pixels(
                        scores, boxes, size, iou_threshold=net.config.iou_threshold
                    )
    return Validation(*sums, detections)
