"""What can go wrong around a run, and what helps: signals, memory that runs out, loader processes that die."""

from __future__ import annotations

import errno
import logging
import os
import signal
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch

from vision.structures import LoaderProcessError, LoaderProcessesSilent

logger = logging.getLogger(__name__)

#: What a process gets whose terminal was closed, or whose connection was lost; Windows has no such signal.
_HANG_UP = getattr(signal, "SIGHUP", None)

#: Signals that end a run in good order: Ctrl-C, what service managers and `docker stop` send, and a lost terminal.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, *([] if _HANG_UP is None else [_HANG_UP]))


#: What PyTorch says where it has no exception of its own: on CPUs, on CUDA outside its allocator, on Apple's GPUs.
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


class StopRequested(BaseException):
    """A run was asked to end, and is between two steps.

    Not an `Exception`: it may come while an image is read, and is no defect of the image.
    """


class PeerProcessLost(RuntimeError):
    """Another process of the run has ended, so that no step can be taken together."""


class StopSignal:
    """Catches the signals that ask a run to end, so that it ends between two steps; the second one ends it at once.

    A run that waits for a batch, maybe in vain, is between two steps: there the first one ends it. That a terminal was
    lost is told by several at a time, by the system, the shell and service managers, so it never counts as the second.

    To be used as a context; the handlers of before are put back when it is left.

    Attributes:
        received: number of the signal that came, None for none.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._is_asked = False
        self._is_waiting = False
        self._pid = os.getpid()
        self._previous_handlers: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        for number in _SIGNALS:
            if number != _HANG_UP or signal.getsignal(number) is not signal.SIG_IGN:  # as nohup wants it
                self._previous_handlers[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: object) -> None:
        if os.getpid() != self._pid:  # a loader process that has only just begun
            return
        if number != _HANG_UP:
            if self._is_asked:
                raise KeyboardInterrupt
            self._is_asked = True
        if self.received is not None:
            return
        self.received = number
        how = "saving" if self._is_waiting else "finishing the step and saving"
        logger.warning("%s: %s; once more ends at once", signal.Signals(number).name, how)
        if self._is_waiting:
            raise StopRequested

    @property
    def exit_code(self) -> int:
        """What a shell expects of a program that a signal ended."""
        return 128 + (self.effective or 0)

    @property
    def effective(self) -> int | None:
        """The signal that the run is to end for, None for none."""
        return self.received

    def check(self) -> None:
        """Raise `StopRequested` if the run is to end."""
        if self.effective is not None:
            raise StopRequested

    def check_between(self, items: Iterable) -> Iterator:
        """Pass items on; a signal that comes before one of them is there is heeded at once.

        Raises:
            StopRequested: a signal came.
        """
        iterator = iter(items)
        while (item := self.wait_for_next(iterator)) is not None:
            yield item

    def wait_for_next(self, iterator: Iterator) -> Any:
        """Give the next item, None at the end.

        Raises:
            StopRequested: a signal came.
        """
        self._is_waiting = True
        try:
            if self.received is not None:
                raise StopRequested
            return next(iterator, None)
        finally:
            self._is_waiting = False


class LoaderSettings(NamedTuple):
    """What a run needs memory and processes for.

    Attributes:
        batch_size: images per batch, of each process.
        accumulate: batches per step.
        workers: loader processes.
        waits: for loader processes that give and compute nothing, instead of starting others.
    """

    batch_size: int
    accumulate: int
    workers: int
    waits: bool = False


def reduced_settings(err: BaseException, settings: LoaderSettings) -> LoaderSettings | None:
    """Settings with which a run that failed may be tried again: the same steps from smaller batches, or no workers.

    Loader processes that are silent are replaced once. If others are silent, too, what they read does not answer, and
    this process must not read it: it could then not even save.

    Args:
        err: what it failed with.
        settings: with which it failed.

    Returns:
        None if nothing helps.
    """
    if isinstance(err, LoaderProcessesSilent):
        return settings._replace(waits=True)
    if is_out_of_memory(err):
        size = settings.batch_size
        for parts in range(2, size // 2 + 1):
            if size % parts == 0:  # of equal batches, so that the steps stay the same
                return settings._replace(batch_size=size // parts, accumulate=settings.accumulate * parts)
    if settings.workers and (is_dead_worker(err) or is_out_of_memory(err)):
        return settings._replace(workers=0)
    return None


def is_out_of_memory(err: BaseException) -> bool:
    """Whether memory of the device or of the computer ran out."""
    if isinstance(err, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    if isinstance(err, OSError):
        return err.errno == errno.ENOMEM
    return isinstance(err, RuntimeError) and any(words in str(err).lower() for words in _OUT_OF_MEMORY)


def is_dead_worker(err: BaseException) -> bool:
    """Whether a loader's process died, or cannot be started or reached."""
    return isinstance(err, LoaderProcessError) or (isinstance(err, RuntimeError) and "DataLoader worker" in str(err))
