"""The training loop, as a generator: saving, logging and stopping stay visible in the script."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vision.boxes.coding import convert_boxes_to_locations
from vision.boxes.forms import center_form_to_corner_form, corner_form_to_center_form
from vision.boxes.matching import match_batch
from vision.engine.evaluate import Report, evaluate
from vision.engine.optim import ScheduleOptions, rate_factor, set_rates
from vision.nn.multibox_loss import Losses
from vision.ssd.predictor import detections_in_pixels
from vision.ssd.ssd import SSD, evaluating
from vision.structures import Annotation, Batch, DataError, Detections

logger = logging.getLogger(__name__)

#: Overlap from which a prior counts as an object in training (SSD paper, section 2.2).
MATCHING_THRESHOLD = 0.5

#: Pictures that may be unreadable in an epoch, as a number and per batch: the larger of both.
_FEW_UNREADABLE, _MOST_UNREADABLE = 10, 0.1

#: Wraps an iterable of batches, to show progress: (batches, what, how many) -> batches.
Progress = Callable[[Iterable, str, int], Iterable]


def no_progress(batches: Iterable, what: str, total: int) -> Iterable:
    """Show nothing."""
    return batches


@dataclass(frozen=True)
class RunOptions:
    """What the loop does besides steps.

    Attributes:
        validation_epochs: epochs between validations; the last epoch is always validated.
        debug_steps: steps between `StepResult`s.
        mean_ap: compute average precision when validating.
    """

    validation_epochs: int = 1
    debug_steps: int = 10
    mean_ap: bool = True


class MeanLosses(NamedTuple):
    """Losses averaged over steps, plain numbers."""

    regression: float
    classification: float

    @property
    def total(self) -> float:
        """The sum of the parts."""
        return self.regression + self.classification


class StepResult(NamedTuple):
    """The steps since the last result of this kind."""

    epoch: int
    step: int
    steps: int
    losses: MeanLosses
    learning_rates: dict[str, float]


class EpochResult(NamedTuple):
    """A finished epoch; `validation` and `report` are None where it was not validated, or without mean AP."""

    epoch: int
    losses: MeanLosses
    validation: MeanLosses | None
    report: Report | None
    unreadable: int = 0  # training pictures for which others stood


class _Average:
    """Sums losses where they are and reads them out late: each reading waits for the device."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._count = 0

    def add(self, losses: Losses) -> None:
        parts = torch.stack([losses.regression.detach(), losses.classification.detach()])
        self._sum = parts if self._sum is None else self._sum + parts
        self._count += 1

    def read(self) -> MeanLosses:
        if self._sum is None:
            return MeanLosses(math.nan, math.nan)
        return MeanLosses(*(self._sum / self._count).tolist())


class Objective(nn.Module):
    """From a batch to its losses: normalise, match, run the net, compare.

    Args:
        net: an `SSD` with a config.
        normaliser: turns uint8 images into the net's input.
        criterion: a `MultiboxLoss` or another of its signature.
    """

    def __init__(self, net: SSD, normaliser: nn.Module, criterion: nn.Module) -> None:
        super().__init__()
        self.net, self.normaliser, self.criterion = net, normaliser, criterion

    def targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Give locations (B, P, 4) and labels (B, P) of a batch of boxes on the net's device."""
        priors, config = self.net.priors, self.net.config
        boxes, labels = match_batch(batch.boxes, batch.labels, center_form_to_corner_form(priors), MATCHING_THRESHOLD)
        locations = convert_boxes_to_locations(
            corner_form_to_center_form(boxes), priors, config.center_variance, config.size_variance
        )
        return locations, labels

    def forward(self, batch: Batch) -> tuple[Losses, Tensor, Tensor]:
        """Give the losses, and the net's raw confidences and locations."""
        with torch.no_grad():
            locations, labels = self.targets(batch)
        confidences, predicted = self.net(self.normaliser(batch.images))
        return self.criterion(confidences, predicted, labels, locations), confidences, predicted


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move a batch."""
    images, boxes, labels = (part.to(device, non_blocking=True) for part in batch[:3])
    return Batch(images, boxes, labels, batch.notes)


def train_step(objective: Objective, batch: Batch, optimizer: torch.optim.Optimizer) -> Losses:
    """Take one step of the optimizer on a batch that is on the net's device; gives the losses before it."""
    losses, _, _ = objective(batch)
    optimizer.zero_grad(set_to_none=True)
    losses.total.backward()
    optimizer.step()
    return losses


class _Unreadable:
    """Says which pictures a loader could not read, counts them, and ends a run whose data have gone away.

    Args:
        batches: that the loader makes.
    """

    def __init__(self, batches: int) -> None:
        self.count = 0
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


def fit(
    objective: Objective,
    train_loader: DataLoader,
    val_loader: DataLoader | None,
    annotations: Sequence[Annotation],
    class_names: Sequence[str],
    optimizer: torch.optim.Optimizer,
    schedule: ScheduleOptions,
    run: RunOptions,
    *,
    frozen: Sequence[nn.Module] = (),
    first_epoch: int = 0,
    progress: Progress = no_progress,
) -> Iterator[StepResult | EpochResult]:
    """Train, and yield what happened at every `debug_steps` steps and after every epoch.

    Args:
        objective: of the net, on its device.
        train_loader: yields `Batch`es; its batch sampler's `epoch` is set before each epoch.
        val_loader: likewise, in the order of `annotations`; None for no validation.
        annotations: of the validation pictures.
        class_names: BACKGROUND first.
        optimizer: with `initial_lr` in each group.
        schedule: of the rates.
        run: see `RunOptions`.
        frozen: modules that stay in eval mode.
        first_epoch: where a resumed run goes on.
        progress: shows batches going by.

    Raises:
        ValueError: a loss is not finite, or hardly any picture can be read.
    """
    device = next(objective.net.parameters()).device
    steps = len(train_loader)
    for epoch in range(first_epoch, schedule.epochs):
        train_loader.batch_sampler.epoch = epoch
        objective.train()
        for module in frozen:
            module.eval()
        of_epoch, since_last = _Average(), _Average()
        unreadable = _Unreadable(steps)
        for step, batch in enumerate(progress(train_loader, f"Epoch {epoch}", steps), start=1):
            set_rates(optimizer, rate_factor(epoch * steps + step - 1, steps, schedule))
            unreadable.heed(batch)
            losses = train_step(objective, to_device(batch, device), optimizer)
            of_epoch.add(losses)
            since_last.add(losses)
            if step % run.debug_steps == 0:
                rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
                yield StepResult(epoch, step, steps, _finite(since_last.read(), epoch, step), rates)
                since_last = _Average()
        losses = _finite(of_epoch.read(), epoch, steps)
        validation = report = None
        if val_loader is not None and ((epoch + 1) % run.validation_epochs == 0 or epoch == schedule.epochs - 1):
            validation, found = validate(objective, val_loader, annotations if run.mean_ap else None, progress=progress)
            report = evaluate(found, annotations, class_names) if run.mean_ap else None
        yield EpochResult(epoch, losses, validation, report, unreadable.count)


def _finite(losses: MeanLosses, epoch: int, step: int) -> MeanLosses:
    if not math.isfinite(losses.total):
        raise ValueError(
            f"the loss is not finite at epoch {epoch}, step {step} (regression {losses.regression}, classification "
            f"{losses.classification}): training diverged; try a lower --lr and --base-net-lr, or a larger --batch-size"
        )
    return losses


def validate(
    objective: Objective,
    loader: DataLoader | Sequence[Batch],
    annotations: Sequence[Annotation] | None,
    *,
    progress: Progress = no_progress,
) -> tuple[MeanLosses, list[Detections]]:
    """Compute mean losses over batches and, given annotations (for the pictures' sizes), detections in pixels."""
    net = objective.net
    device = next(net.parameters()).device
    average, found = _Average(), []
    unreadable = _Unreadable(len(loader))
    with evaluating(net, is_test=False), torch.inference_mode():
        for batch in progress(loader, "Validation", len(loader)):
            unreadable.heed(batch)
            losses, confidences, locations = objective(to_device(batch, device))
            average.add(losses)
            if annotations is not None:
                for scores, boxes in zip(*net.decode(confidences.float(), locations.float()), strict=True):
                    size = annotations[len(found)].size
                    found.append(detections_in_pixels(scores, boxes, size, iou_threshold=net.config.iou_threshold))
    return average.read(), found
