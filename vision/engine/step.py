"""One optimizer step, whatever it is made of: several batches, mixed precision, clipped gradients, an EMA."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vision.boxes.coding import convert_boxes_to_locations
from vision.boxes.forms import center_form_to_corner_form, corner_form_to_center_form
from vision.boxes.matching import MATCHING_THRESHOLD, find_ignored_priors, match_batch
from vision.engine.model_ema import ModelEma
from vision.engine.optim import restore
from vision.engine.precision import Precision
from vision.engine.process import SingleProcess
from vision.engine.schedule import lr_factor, set_learning_rates
from vision.nn.multibox_loss import Losses, MultiboxLoss
from vision.options.training import Options
from vision.ssd.device_augmentation import AugmentingPreprocess
from vision.ssd.ssd import SSD
from vision.structures import CROWD, IGNORED, Batch, ImageParts

logger = logging.getLogger(__name__)


class TrainingModel(nn.Module):
    """From a batch to its losses: normalize, match, run the net, compare.

    Args:
        net: an `SSD` with a config.
        preprocess: turns the batch's images into the net's input.
        criterion: a `MultiboxLoss`, or what derives from it.
        precision: of the forward pass; None for float32.
    """

    def __init__(
        self, net: SSD, preprocess: AugmentingPreprocess, criterion: MultiboxLoss, precision: Precision | None = None
    ) -> None:
        super().__init__()
        self.net, self.preprocess, self.criterion = net, preprocess, criterion
        self.precision = precision

    @torch.no_grad()
    def targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Encoded locations (B, P, 4) and labels (B, P) of a batch on the net's device."""
        priors, config = self.net.priors, self.net.config
        corner_form_priors = center_form_to_corner_form(priors)
        boxes, labels = match_batch(batch.boxes, batch.labels, corner_form_priors, MATCHING_THRESHOLD)
        if batch.ignored_boxes is not None and batch.ignored_labels is not None:
            ignored = find_ignored_priors(
                batch.ignored_boxes,
                batch.ignored_labels == IGNORED,
                batch.ignored_labels == CROWD,
                corner_form_priors,
                MATCHING_THRESHOLD,
            )
            labels = labels.masked_fill(ignored & (labels == 0), IGNORED)
        locations = convert_boxes_to_locations(
            corner_form_to_center_form(boxes), priors, config.center_variance, config.size_variance
        )
        return locations, labels

    def forward(
        self, batch: Batch, targets: tuple[Tensor, Tensor] | None = None, loss_normalizer: Tensor | None = None
    ) -> tuple[Losses, Tensor, Tensor]:
        """Losses, and the net's raw confidences (B, P, C) and locations (B, P, 4) in float32.

        Args:
            batch: on the net's device.
            targets: of the batch, where they are known already.
            loss_normalizer: of the losses, where the batch is part of a larger one.
        """
        locations, labels = self.targets(batch) if targets is None else targets
        images = self.preprocess(batch.images)
        if self.precision is None:
            confidences, predicted = self.net(images)
        else:
            with self.precision.autocast():
                confidences, predicted = self.net(images)
            confidences, predicted = confidences.float(), predicted.float()
        return self.criterion(confidences, predicted, labels, locations, loss_normalizer), confidences, predicted


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move a batch."""

    def move(tensor: Tensor) -> Tensor:
        return tensor.to(device, non_blocking=True)

    images = batch.images
    if isinstance(images, ImageParts):
        images = images._replace(pixels=move(images.pixels), colors=move(images.colors))
    else:
        images = move(images)
    return batch._replace(
        images=images,
        boxes=move(batch.boxes),
        labels=move(batch.labels),
        ignored_boxes=None if batch.ignored_boxes is None else move(batch.ignored_boxes),
        ignored_labels=None if batch.ignored_labels is None else move(batch.ignored_labels),
    )


class _Buffers:
    """Snapshot of a module's buffers, grouped by dtype: one copy kernel per dtype instead of one per buffer."""

    def __init__(self, net: nn.Module) -> None:
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for buffer in net.buffers():
            by_type.setdefault(buffer.dtype, []).append(buffer)
        self._pairs = [(buffers, [buffer.clone() for buffer in buffers]) for buffers in by_type.values()]

    def keep(self) -> None:
        """Copy them."""
        for buffers, copies in self._pairs:
            torch._foreach_copy_(copies, buffers)

    def put_back(self) -> None:
        """Make them what they were."""
        for buffers, copies in self._pairs:
            torch._foreach_copy_(buffers, copies)


class TrainStep:
    """Takes optimizer steps; with its `state_dict` training goes on as if it had not been interrupted.

    All processes of a run take each step together, as if their batches were one. Batch norm sees the images of its own
    process; its statistics are averaged after each step, so that all nets stay equal.

    Args:
        model: on its device.
        optimizer: with `initial_lr` in each group.
        options: schedule of the rates, and limit of the gradients.
        frozen: modules that stay in eval mode.
        average: exponential moving average of the net's weights; None for none.
        process: this one; None for a single one.
    """

    def __init__(
        self,
        model: TrainingModel,
        optimizer: torch.optim.Optimizer,
        options: Options,
        *,
        frozen: Sequence[nn.Module] = (),
        average: ModelEma | None = None,
        process: SingleProcess | None = None,
    ) -> None:
        self.model, self.optimizer, self.options = model, optimizer, options
        self.frozen, self.average = frozen, average
        self.process = SingleProcess() if process is None else process
        half = model.precision is not None and model.precision.dtype is torch.float16
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half)
        self._parallel_model = self.process.parallel(model)
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._buffers = _Buffers(self.net)

    @property
    def net(self) -> SSD:
        """The net that takes steps."""
        return self.model.net

    @property
    def eval_net(self) -> SSD:
        """The net to validate and save: the moving average where there is one."""
        return self.net if self.average is None else self.average.net

    @property
    def device(self) -> torch.device:
        """Where the net is."""
        return next(self.net.parameters()).device

    def train(self) -> None:
        """Put everything that is trained into training mode."""
        self.model.train()
        for module in self.frozen:
            module.eval()

    def step(self, batches: Sequence[Batch], iteration: int, steps_per_epoch: int) -> Losses | None:
        """Take one step on one or several batches, which count as one large batch but for batch norm.

        Args:
            batches: to learn from.
            iteration: counted from 0 over the whole run; decides the rates.
            steps_per_epoch: decides the rates, too.

        Returns:
            the losses before the step; None if they or their gradients are not finite, and nothing has changed.

        Raises:
            PeerProcessLost: another process has ended; nothing has changed.
        """
        set_learning_rates(self.optimizer, lr_factor(iteration, steps_per_epoch, self.options))
        self._buffers.keep()  # the forward pass updates the running statistics of batch norm already
        self.optimizer.zero_grad(set_to_none=True)
        is_good = False
        try:
            with self.process.detecting_lost_peer():
                moved = [to_device(batch, self.device) for batch in batches]
                targets = [self.model.targets(batch) for batch in moved]
                counts = [self.model.criterion.loss_normalizer(labels) for _, labels in targets]
                loss_normalizer = self.process.sum_over_ranks(torch.stack(counts).sum())
                parts = []
                for number, (batch, target) in enumerate(zip(moved, targets, strict=True), start=1):
                    with self.process.accumulating(self._parallel_model, is_last=number == len(moved)):
                        # `TrainingModel.forward`, with several processes by DistributedDataParallel.
                        losses, _, _ = self._parallel_model(batch, target, loss_normalizer)
                        self.scaler.scale(self.process.summed_by_average(losses.total)).backward()
                    parts.append(torch.stack([losses.regression.detach(), losses.classification.detach()]))
                self.process.average_batch_norm(self.net)
                total = Losses(*self.process.sum_over_ranks(torch.stack(parts).sum(dim=0)))
            self.scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(self._parameters, self.options.clip_grad or math.inf)
            # With a scaler gradients may well overflow; it leaves out such a step itself, and scales less from then on.
            is_good = bool(total.total.isfinite() & (norm.isfinite() | self.scaler.is_enabled()))
        finally:
            if not is_good:  # not finite, or out of memory
                self.optimizer.zero_grad(set_to_none=True)
                self._buffers.put_back()
        if is_good:
            self.scaler.step(self.optimizer)
            if self.average is not None:
                self.average.update(self.net)
        self.scaler.update()
        return total if is_good else None

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs; see `load_state_dict`."""
        return {
            "weights": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a state was made; rates and weight decay stay as they were asked for now.

        Raises:
            DataError: it was made with other parts of the net frozen, or with another optimizer.
        """
        self.net.load_state_dict(state["weights"])
        restore(self.optimizer, state["optimizer"])
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            if state["average"] is None:
                logger.warning("--ema: the run to go on with had none, averaging begins with its weights")
                self.average.load_state_dict({"weights": self.net.state_dict(), "updates": 0})
            else:
                self.average.load_state_dict(state["average"])
