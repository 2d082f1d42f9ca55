"""Training to the end or to a signal: checkpoints and state as results come, and another try with less memory."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from vision.engine import checkpoint
from vision.engine.dry_run import DryRunResult, dry_run
from vision.engine.faults import PeerProcessLost, StopRequested, StopSignal, is_dead_worker, reduced_settings
from vision.engine.loop import EpochResult, StepResult, train_epochs
from vision.engine.resume import program_of, resume_command
from vision.engine.run import Run
from vision.ssd.description import Results
from vision.utils.errors import error_line
from vision.utils.progress import NOT_ON_TERMINALS

if TYPE_CHECKING:
    from vision.datasets.batch_loader import BatchLoader

logger = logging.getLogger(__name__)


def train(run: Run) -> int:
    """Train to the end, or to a signal; returns the exit code."""
    if _patience_is_over(run):
        logger.info(
            "no better result for %d validations: the run has ended; a --patience above %d would go on with it",
            run.checkpointer.validations_since_best,
            run.options.patience,
        )
        return 0
    code = None
    with run.process.stop_signal() as stop, run.recorder or nullcontext():
        while code is None:  # with the loader settings as they are now; reduced ones need another try
            with _open_loaders(run) as (train_loader, val_loader):
                try:
                    _record_and_save(run, train_epochs(run, train_loader, val_loader, stop=stop), stop)
                    code = 0
                except StopRequested:
                    _save_state_and_say_how_to_resume(run)
                    code = stop.exit_code
                except PeerProcessLost:
                    _save_state_and_say_how_to_resume(run)
                    raise
                except (RuntimeError, MemoryError, OSError) as err:
                    _reduce_settings(run, err)
        if code == 0:
            if run.recorder is not None:
                run.recorder.finish(run.checkpointer.best)
            logger.info("Task done, exiting program.")
    run.process.all_gather(None)  # when one ends, torchrun ends all: wait for what the main process writes
    return code


def try_out(run: Run) -> DryRunResult:
    """Try a few steps; changes the net, writes nothing."""
    while True:
        with _open_loaders(run) as loaders:
            try:
                return dry_run(run, *loaders)
            except RuntimeError as err:
                if not is_dead_worker(err):
                    raise
                _reduce_settings(run, err)


def _open_loaders(run: Run) -> AbstractContextManager[tuple[BatchLoader, BatchLoader]]:
    settings, pin_memory = run.settings, run.device.type == "cuda"
    return run.loaders.open(settings.batch_size, settings.workers, pin_memory, settings.waits)


def _record_and_save(run: Run, results: Iterable[StepResult | EpochResult], stop: StopSignal) -> None:
    """Record results and save what they call for, to the end of the run.

    Raises:
        StopRequested: a signal asked for it.
    """
    for result in results:
        if run.recorder is not None:
            run.recorder.log(result)
        if isinstance(result, StepResult):
            # The state at the end of an epoch is saved with its results.
            every = run.options.checkpoint_steps
            if every and result.step % every == 0 and result.step < result.steps:
                save_state(run)
        else:
            is_best = _save_checkpoint(run, result)
            if run.recorder is not None:
                run.recorder.write(result, is_best)
            save_state(run)
            if _patience_is_over(run):
                logger.info(
                    "Epoch: %d, no better result for %d validations (--patience): ending",
                    result.epoch,
                    run.checkpointer.validations_since_best,
                )
                return
        stop.check()


def _patience_is_over(run: Run) -> bool:
    patience = run.options.patience
    return patience is not None and run.checkpointer.validations_since_best >= patience


def _save_checkpoint(run: Run, result: EpochResult) -> bool:
    """Save the net of a validated epoch; returns whether it is the best so far."""
    if result.validation is None:
        return False
    net, threshold = run.train_step.eval_net, math.nan if result.report is None else result.report.best_threshold
    net.threshold = None if math.isnan(threshold) else threshold
    results = Results(result.epoch, result.validation.total)
    if result.report is not None and np.isfinite(result.report.mean_ap_2007):
        results = replace(results, mean_ap=result.report.mean_ap_2007, ap_50_95=result.report.coco.ap)
    is_best = run.checkpointer.update_best(results)
    if run.process.is_main_process:
        path = run.checkpointer.save(net, results, is_best)
        logger.info("Saved model %s", path, extra=NOT_ON_TERMINALS)
    return is_best


def save_state(run: Run) -> None:
    """Write all that a resumed run needs."""
    if not run.process.is_main_process:
        return
    state = checkpoint.RunState(
        description=run.net.description(),
        training=run.train_step.state_dict(),
        progress=run.train_state,
        data_order=run.data_order,
        seed=run.seed,
        best=run.checkpointer.best,
        validations_since_best=run.checkpointer.validations_since_best,
        validation_fingerprint=run.checkpointer.validation_fingerprint,
        run=run.checkpointer.run,
        random=checkpoint.random_state(run.train_step.device),
        execution=run.execution.choice,
    )
    checkpoint.save_state(run.options.model_dir / checkpoint.STATE, state)


def _save_state_and_say_how_to_resume(run: Run) -> None:
    save_state(run)
    program = program_of(run.process.launcher, sys.argv[0])
    command = resume_command(program, run.argv, auto_resume=run.options.auto_resume)
    logger.info("Saved %s; go on with: %s", run.options.model_dir / checkpoint.STATE, command)


def _reduce_settings(run: Run, err: BaseException) -> None:
    """Choose smaller batches or fewer loader processes after an error, or raise it."""
    is_distributed = run.process.world_size > 1
    # The others wait within a step for this one's part, and cannot be told to try it otherwise.
    settings = None if is_distributed else reduced_settings(err, run.settings)
    if settings is None:
        if is_distributed and is_dead_worker(err):  # between two steps, so that the state is good
            _save_state_and_say_how_to_resume(run)
        raise err
    logger.warning(
        "%s; going on at epoch %d, step %d with batches of %d, %d of them a step, and %d loader processes",
        error_line(err),
        run.train_state.epoch,
        run.train_state.step,
        settings.batch_size,
        settings.accumulate,
        settings.workers,
    )
    run.settings = settings
