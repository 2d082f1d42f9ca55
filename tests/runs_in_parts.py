"""Runs without datasets, loaders or files, for tests of what a run goes through."""

from vision.engine.process import SingleProcess
from vision.engine.run import Run
from vision.engine.step import TrainStep
from vision.options.training import Options


def run_of(train_step: TrainStep, annotations=(), process: SingleProcess | None = None, **options) -> Run:
    """A run that takes its steps by `train_step`, with some options and the annotations of its validation images."""
    run = Run(Options(**options), (), process or SingleProcess())
    run.train_step = train_step
    run.annotations = list(annotations)
    return run
