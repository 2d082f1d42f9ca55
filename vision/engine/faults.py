"""What can go wrong around a run, and what helps: signals, memory that runs out, loader processes that die."""

from __future__ import annotations

import errno
import logging
import signal
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch

logger = logging.getLogger(__name__)

#: Signals that end a run in good order: Ctrl-C, and what service managers and `docker stop` send.
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """A run was asked to end, and is between two steps."""


class ProcessLost(RuntimeError):
    """Another process of the run has ended, so that no step can be taken together."""


class Stop:
    """Takes down that a signal asked the run to end, so that it ends between two steps; the second time at once.

    To be used as a context; signals mean again what they meant before when it is left.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        self._before = {number: signal.signal(number, self._heed) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _heed(self, number: int, _: object) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number
        logger.warning("%s: finishing the step and saving; once more ends at once", signal.Signals(number).name)

    @property
    def exit_code(self) -> int:
        """What a shell expects of a program that a signal ended."""
        return 128 + (self.decisive or 0)

    @property
    def decisive(self) -> int | None:
        """The signal that the run is to end for, None for none."""
        return self.signal

    def check(self) -> None:
        """Raise `Stopped` if the run is to end."""
        if self.decisive is not None:
            raise Stopped

    def between(self, items: Iterable) -> Iterator:
        """Pass items on, and check before each."""
        for item in items:
            self.check()
            yield item


class Means(NamedTuple):
    """What a run may use up, and can make do with less of."""

    batch_size: int
    accumulate: int
    workers: int


def with_less(err: BaseException, means: Means) -> Means | None:
    """Say with what a run that has failed may be tried again: the same steps from smaller batches, or fewer processes.

    Args:
        err: what it failed with.
        means: with which it failed.

    Returns:
        other means, None if nothing helps.
    """
    if is_out_of_memory(err) and means.batch_size >= 4 and means.batch_size % 2 == 0:
        return means._replace(batch_size=means.batch_size // 2, accumulate=means.accumulate * 2)
    if means.workers and (is_dead_worker(err) or is_out_of_memory(err)):
        return means._replace(workers=0)
    return None


def is_out_of_memory(err: BaseException) -> bool:
    """Tell whether memory of the device or of the computer ran out."""
    if isinstance(err, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    if isinstance(err, OSError):
        return err.errno == errno.ENOMEM
    return isinstance(err, RuntimeError) and ("can't allocate memory" in str(err) or "not enough memory" in str(err))


def is_dead_worker(err: BaseException) -> bool:
    """Tell whether a loader's process died."""
    return isinstance(err, RuntimeError) and "DataLoader worker" in str(err)
