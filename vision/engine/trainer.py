"""A whole run: training to the end or to a signal, checkpoints and state, and another try with less memory."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import nn
from torch.utils.data import DataLoader

from vision.engine import checkpoint, optim
from vision.engine.compute import Compute
from vision.engine.dry_run import DryRunResult, dry_run
from vision.engine.faults import (
    LoaderSettings,
    PeerProcessLost,
    StopRequested,
    StopSignal,
    is_dead_worker,
    reduced_settings,
)
from vision.engine.loop import EpochResult, LoopOptions, StepResult, TrainProgress, fit
from vision.engine.process import SingleProcess
from vision.engine.step import NetWithLoss, StepTrainer
from vision.nn.multibox_loss import MultiboxLoss
from vision.ssd.description import Results
from vision.ssd.device_augmentation import AugmentingNormaliser
from vision.ssd.ssd import SSD, place
from vision.structures import Annotation
from vision.utils.errors import error_line
from vision.utils.progress import ProgressBar, no_progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOptions:
    """How a run goes about training, and where its files go.

    Attributes:
        model_dir: folder of its files.
        batch_size: images per batch, of each process.
        accumulate: batches that make one step.
        workers: loader processes.
        cache_images: one of `vision.datasets.image_cache.CHOICES`.
        validation_epochs: epochs between validations; the last epoch is always validated.
        mean_ap: compute average precision when validating.
        debug_steps: steps between log lines of losses.
        patience: validations without a better one after which the run ends, None for no end.
        checkpoint_steps: steps after which the state is saved within an epoch, None for not.
        keep_checkpoints: how many of the newest files of epochs stay, None for all.
        amp: one of `vision.engine.precision.AMP_CHOICES`.
        augment_on: one of `vision.engine.compute.AUGMENT_ON`.
        seed: of weights, order and augmentation; None for a new one.
        sync_bn: batch norm sees the images of all processes.
        resume: file or folder to go on with, "" for `model_dir`, None to start anew.
        auto_resume: go on with `model_dir` if it holds a run.
        dry_run: everything but the training.
        plots: draw images and curves into the folder.
    """

    model_dir: Path = Path("models")
    batch_size: int = 4
    accumulate: int = 1
    workers: int = 2
    cache_images: str = "auto"
    validation_epochs: int = 1
    mean_ap: bool = True
    debug_steps: int = 10
    patience: int | None = None
    checkpoint_steps: int | None = None
    keep_checkpoints: int | None = None
    amp: str = "auto"
    augment_on: str = "auto"
    seed: int | None = None
    sync_bn: bool = False
    resume: str | None = None
    auto_resume: bool = False
    dry_run: bool = False
    plots: bool = True

    def images_per_step(self, world_size: int) -> int:
        """Number of images that all processes learn from in a step."""
        return self.batch_size * self.accumulate * world_size


class Recorder(Protocol):
    """What writes down the results of a run as they come; a context."""

    def __enter__(self) -> Recorder: ...

    def __exit__(self, *_: object) -> None: ...

    def log(self, result: StepResult | EpochResult) -> None:
        """Log a result."""

    def write(self, result: EpochResult) -> None:
        """Write an epoch's results where they are kept; its checkpoint is there."""


#: (batch size, workers, whether to pin memory, whether to wait for silent workers) -> context of the loaders of
#: training and validation images.
OpenLoaders = Callable[[int, int, bool, bool], AbstractContextManager[tuple[DataLoader, DataLoader]]]


class Trainer:
    """Trains, and keeps the files from which the run can go on at any moment.

    Args:
        step_trainer: takes the steps.
        open_loaders: see `OpenLoaders`.
        annotations: of the validation images.
        train_ids: names of the training images, for messages.
        options: see `RunOptions`.
        checkpointer: writes the checkpoints.
        data_order: what decides the order of images within an epoch.
        compute: what a resumed run keeps.
        progress: where to begin; is kept up to date.
        process: this one; the main process alone writes.
        recorder: of results; None where another process has it.
        resume_command: with which the run can be gone on with.
        progress_bar: shows batches going by.
    """

    def __init__(
        self,
        step_trainer: StepTrainer,
        open_loaders: OpenLoaders,
        annotations: Sequence[Annotation],
        train_ids: Sequence[str],
        options: RunOptions,
        *,
        checkpointer: checkpoint.Checkpointer,
        data_order: checkpoint.DataOrder,
        compute: checkpoint.ComputeChoice,
        progress: TrainProgress,
        process: SingleProcess,
        recorder: Recorder | None,
        resume_command: str,
        progress_bar: ProgressBar = no_progress,
    ) -> None:
        self.step_trainer, self.open_loaders = step_trainer, open_loaders
        self.annotations, self.train_ids = annotations, train_ids
        self.options, self.checkpointer = options, checkpointer
        self.data_order, self.compute, self.progress = data_order, compute, progress
        self.process, self.recorder = process, recorder
        self.resume_command, self.progress_bar = resume_command, progress_bar
        # Several processes cannot try a step again, see `_reduce_settings`, but all can wait.
        waits = process.world_size > 1
        self.settings = LoaderSettings(options.batch_size, options.accumulate, options.workers, waits)

    def dry_run(self) -> DryRunResult:
        """Try a few steps; changes the net, writes nothing."""
        while True:
            with self._loaders() as (train_loader, val_loader):
                try:
                    return dry_run(
                        self.step_trainer,
                        train_loader,
                        val_loader,
                        self.annotations,
                        self.settings.accumulate,
                        self.process.all_gather,
                    )
                except RuntimeError as err:
                    if not is_dead_worker(err):
                        raise
                    self._reduce_settings(err)

    def _loaders(self) -> AbstractContextManager[tuple[DataLoader, DataLoader]]:
        pin_memory = self.step_trainer.device.type == "cuda"
        return self.open_loaders(self.settings.batch_size, self.settings.workers, pin_memory, self.settings.waits)

    def train(self) -> int:
        """Train to the end, or to a signal; returns the exit code."""
        if self._patience_is_over():
            logger.info(
                "no better result for %d validations: the run has ended; a --patience above %d would go on with it",
                self.checkpointer.validations_since_best,
                self.options.patience,
            )
            return 0
        code = None
        with self.process.stop_signal() as stop, self.recorder or nullcontext():
            while code is None:
                code = self._train_with_settings(stop)
        self.process.all_gather(None)  # when one ends, torchrun ends all: wait for what the main process writes
        return code

    def _train_with_settings(self, stop: StopSignal) -> int | None:
        """Go on with the present loader settings; returns the exit code, None to try again with reduced ones."""
        with self._loaders() as (train_loader, val_loader):
            options = self.options
            results = fit(
                self.step_trainer,
                train_loader,
                val_loader,
                self.annotations,
                self.step_trainer.net.class_names,
                LoopOptions(options.validation_epochs, options.debug_steps, options.mean_ap, self.settings.accumulate),
                train_ids=self.train_ids,
                progress=self.progress,
                progress_bar=lambda items, what, total: self.progress_bar(stop.check_between(items), what, total),
                all_gather=self.process.all_gather,
            )
            try:
                self._follow(results, stop)
            except StopRequested:
                self._save_state_and_say_how_to_resume()
                return stop.exit_code
            except PeerProcessLost:
                self._save_state_and_say_how_to_resume()
                raise
            except (RuntimeError, MemoryError, OSError) as err:
                self._reduce_settings(err)
                return None
        logger.info("Task done, exiting program.")
        return 0

    def _follow(self, results: Iterable[StepResult | EpochResult], stop: StopSignal) -> None:
        """Record results and save what they call for, to the end of the run.

        Raises:
            StopRequested: a signal asked for it.
        """
        for result in results:
            if self.recorder is not None:
                self.recorder.log(result)
            if isinstance(result, StepResult):
                # The state at the end of an epoch is saved with its results.
                every = self.options.checkpoint_steps
                if every and result.step % every == 0 and result.step < result.steps:
                    self.save_state()
            else:
                self._save_checkpoint(result)
                if self.recorder is not None:
                    self.recorder.write(result)
                self.save_state()
                if self._patience_is_over():
                    logger.info(
                        "Epoch: %d, no better result for %d validations (--patience): ending",
                        result.epoch,
                        self.checkpointer.validations_since_best,
                    )
                    return
            stop.check()

    def _patience_is_over(self) -> bool:
        patience = self.options.patience
        return patience is not None and self.checkpointer.validations_since_best >= patience

    def _save_checkpoint(self, result: EpochResult) -> None:
        if result.validation is None:
            return
        net, threshold = self.step_trainer.eval_net, math.nan if result.report is None else result.report.best_threshold
        net.threshold = None if math.isnan(threshold) else threshold
        results = Results(result.epoch, result.validation.total)
        if result.report is not None and np.isfinite(result.report.mean_ap_2007):
            results = replace(results, mean_ap=result.report.mean_ap_2007, ap_50_95=result.report.coco.ap)
        is_best = self.checkpointer.compare(results)
        if self.process.is_main_process:
            path = self.checkpointer.save(net, results, is_best)
            logger.info("Saved model %s", path)

    def save_state(self) -> None:
        """Write all that a resumed run needs."""
        if not self.process.is_main_process:
            return
        state = checkpoint.RunState(
            description=self.step_trainer.net.description(),
            training=self.step_trainer.state_dict(),
            progress=self.progress,
            data_order=self.data_order,
            seed=self.data_order.seed,
            best=self.checkpointer.best,
            validations_since_best=self.checkpointer.validations_since_best,
            validation=self.checkpointer.validation,
            run=self.checkpointer.run,
            random=checkpoint.random_state(self.step_trainer.device),
            compute=self.compute,
        )
        checkpoint.save_state(self.options.model_dir / checkpoint.STATE, state)

    def _save_state_and_say_how_to_resume(self) -> None:
        self.save_state()
        state = self.options.model_dir / checkpoint.STATE
        logger.info("Saved %s; go on with: %s", state, self.resume_command)

    def _reduce_settings(self, err: BaseException) -> None:
        """Choose smaller batches or fewer loader processes after an error, or raise it."""
        is_distributed = self.process.world_size > 1
        # The others wait within a step for this one's part, and cannot be told to try it otherwise.
        settings = None if is_distributed else reduced_settings(err, self.settings)
        if settings is None:
            if is_distributed and is_dead_worker(err):  # between two steps, so that the state is good
                self._save_state_and_say_how_to_resume()
            raise err
        logger.warning(
            "%s; going on at epoch %d, step %d with batches of %d, %d of them a step, and %d loader processes",
            error_line(err),
            self.progress.epoch,
            self.progress.step,
            settings.batch_size,
            settings.accumulate,
            settings.workers,
        )
        self.settings = settings


def build_step_trainer(
    net: SSD,
    frozen: Sequence[nn.Module],
    options: optim.OptimOptions,
    schedule: optim.ScheduleOptions,
    compute: Compute,
    *,
    sync_bn: bool,
    process: SingleProcess,
) -> StepTrainer:
    """Put a net on its device and make what trains it.

    Args:
        net: with its starting weights.
        frozen: its modules that stand still, see `optim.freeze`.
        options: of optimizer and loss, see `OptimOptions.scaled_to`.
        schedule: of the rates.
        compute: device, precision, memory format.
        sync_bn: batch norm sees the images of all processes.
        process: this one; all take their steps together.
    """
    place(net, compute.device, compute.channels_last)
    average = optim.WeightAverage(net) if options.ema else None
    if sync_bn:
        process.convert_sync_batchnorm(net)
    config = net.config
    normaliser = AugmentingNormaliser(config.image_size, config.image_mean, config.image_std)
    criterion = MultiboxLoss(beta=options.smooth_l1_beta)
    return process.make_step_trainer(
        NetWithLoss(net, normaliser, criterion, compute.precision).to(compute.device),
        optim.make_optimizer(net, options),
        schedule,
        frozen=frozen,
        clip_grad=options.clip_grad,
        average=average,
    )
