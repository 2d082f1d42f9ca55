"""One value that holds all of a run, from its options to how far it has come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn

from vision.engine.checkpoint import Checkpointer, DataOrder, RunState
from vision.engine.execution import ExecutionConfig
from vision.engine.faults import LoaderSettings
from vision.engine.loop import EpochResult, StepResult, TrainState
from vision.engine.process import SingleProcess
from vision.engine.step import TrainStep
from vision.options.training import Options
from vision.ssd.description import Results
from vision.ssd.ssd import SSD
from vision.structures import Annotation
from vision.utils.progress import ProgressBar, no_progress

if TYPE_CHECKING:
    from vision.datasets.base import DetectionDataset
    from vision.datasets.loading import Loaders


class Recorder(Protocol):
    """What writes down the results of a run as they come; a context."""

    def __enter__(self) -> Recorder: ...

    def __exit__(self, *_: object) -> None: ...

    def log(self, result: StepResult | EpochResult) -> None:
        """Log a result."""

    def write(self, result: EpochResult, is_best: bool) -> None:
        """Write an epoch's results where they are kept; its checkpoint is there. The best so far is marked."""

    def finish(self, best: Results | None) -> None:
        """Say at the end of a run what came out; the best results are those of its checkpointer."""


@dataclass
class Run:
    """All of a run. `main` of train_ssd.py fills it from top to bottom.

    Attributes:
        options: of the command line.
        argv: the arguments of the command line.
        process: this one; the main process alone writes.
        recorder: of results; None where another process has it.
        progress_bar: shows batches and images going by.
        device: of the net.
        source: file of weights or of a state to go on with; None for a run that begins.
        state: of the run that goes on; None for one that begins at epoch 0.
        seed: of weights, order and augmentation.
        stratified: whether images are held out by class as well; a run that goes on keeps the way it has.
        train_set: images to train on.
        val_set: images to validate on.
        repeats: times that an epoch goes through the training images.
        net: to be trained.
        frozen: modules of the net that stay in eval mode.
        execution: how the run computes.
        loaders: makes the loaders of images.
        data_order: what decides the order of images.
        train_step: takes the steps.
        train_state: how far the run has come.
        checkpointer: writes the checkpoints.
        settings: of the loaders; they are reduced where memory or processes are too few.
    """

    options: Options
    argv: Sequence[str]
    process: SingleProcess = field(default_factory=SingleProcess)
    recorder: Recorder | None = None
    progress_bar: ProgressBar = no_progress

    device: torch.device = field(init=False)
    source: Path | None = field(init=False)
    state: RunState | None = field(init=False)
    seed: int = field(init=False)
    stratified: bool = field(init=False)
    train_set: DetectionDataset = field(init=False)
    val_set: DetectionDataset = field(init=False)
    repeats: int = field(init=False)
    net: SSD = field(init=False)
    frozen: Sequence[nn.Module] = field(init=False)
    execution: ExecutionConfig = field(init=False)
    loaders: Loaders = field(init=False)
    data_order: DataOrder = field(init=False)
    train_step: TrainStep = field(init=False)
    train_state: TrainState = field(init=False, default_factory=TrainState)
    checkpointer: Checkpointer = field(init=False)
    settings: LoaderSettings = field(init=False)

    def __post_init__(self) -> None:
        # Several processes cannot try a step again with other settings, but all can wait.
        waits = self.process.world_size > 1
        options = self.options
        self.settings = LoaderSettings(options.batch_size, options.accumulate, options.workers, waits)

    @cached_property
    def annotations(self) -> list[Annotation]:
        """Annotations of the validation images."""
        return [self.val_set.annotation(index) for index in range(len(self.val_set))]

    @property
    def images_per_step(self) -> int:
        """Number of images that all processes learn from in a step."""
        return self.options.images_per_step(self.process.world_size)
