"""How fast a run goes, and how long it will still take."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from vision.engine.loop import EpochResult, StepResult


class Pace:
    """Measures images per second and the time left, by when results come.

    What is between two steps counts as training: a saved state, the start of loader processes. What is between the last
    step of an epoch and its result counts as validation.

    Args:
        epochs: of the run.
        validation_epochs: epochs between two validations; the last epoch is always validated.
        images_per_step: that all processes learn from.
        clock: gives seconds.
    """

    def __init__(
        self,
        epochs: int,
        validation_epochs: int,
        images_per_step: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.epochs, self.validation_epochs, self.images_per_step = epochs, validation_epochs, images_per_step
        self._clock = clock
        self._last = clock()
        self._training, self._validation = _Mean(), _Mean()
        self._since_shown = _Mean()
        self._steps = 0

    def count_step(self, result: StepResult) -> None:
        """Count a step that has just been done."""
        seconds = self._lap()
        self._training.add(seconds)
        self._since_shown.add(seconds)
        self._steps = result.steps

    def count_epoch(self, result: EpochResult) -> None:
        """Count an epoch that has just ended; one that was not validated counts as time of training."""
        seconds = self._lap()
        if result.validation is not None:
            self._validation.add(seconds)
        else:
            self._training.seconds += seconds

    def images_per_second(self) -> float:
        """Images per second since this was asked last; nan without a step since then."""
        mean, self._since_shown = self._since_shown, _Mean()
        return mean.count * self.images_per_step / mean.seconds if mean.seconds else math.nan

    def seconds_left(self, epoch: int, step: int) -> float:
        """Seconds that the rest of the run will take; nan before the first step.

        The first validation is not expected in this: how long it takes is not known before.

        Args:
            epoch: that is under way, counted from 0; the number of epochs once all are done.
            step: steps of it that are done.
        """
        if not self._training.count:
            return math.nan
        steps = (self.epochs - epoch) * self._steps - step
        every = self.validation_epochs
        after_last = epoch < self.epochs and self.epochs % every > 0
        validations = self.epochs // every - epoch // every + after_last
        return max(steps, 0) * self._training.mean + validations * self._validation.mean

    def _lap(self) -> float:
        last, self._last = self._last, self._clock()
        return self._last - last


class _Mean:
    """A sum of seconds, and of how many times."""

    def __init__(self) -> None:
        self.seconds, self.count = 0.0, 0

    def add(self, seconds: float) -> None:
        self.seconds += seconds
        self.count += 1

    @property
    def mean(self) -> float:
        return self.seconds / self.count if self.count else 0.0
