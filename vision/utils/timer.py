"""Stop watches."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

#: Passes of a stage that are remembered: a camera may run for months.
MAX_PASSES = 100_000


class Timer:
    """Measures wall-clock time under names of your choice."""

    def __init__(self) -> None:
        self._started: dict[str, float] = {}

    def start(self, key: str = "default") -> None:
        """Start or restart the watch `key`."""
        self._started[key] = time.perf_counter()

    def end(self, key: str = "default") -> float:
        """Stop the watch `key` and give its seconds.

        Raises:
            KeyError: that watch is not running.
        """
        if key not in self._started:
            raise KeyError(f"timer {key!r} was not started")
        return time.perf_counter() - self._started.pop(key)


class Stages:
    """Notes how long each stage of some work takes, each time.

    Attributes:
        seconds: by the name of the stage, in the order in which they were first passed; of each the last passes.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, deque[float]] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Context that is one pass of a stage."""
        times = self.seconds.setdefault(stage, deque(maxlen=MAX_PASSES))
        began = time.perf_counter()
        yield
        times.append(time.perf_counter() - began)

    def each(self, stage: str, values: Iterable[T]) -> Iterator[T]:
        """Give the same values, and note how long each takes to come."""
        iterator = iter(values)
        end: Any = object()
        while True:
            with self(stage):
                value = next(iterator, end)
            if value is end:
                self.seconds[stage].pop()  # there was none
                return
            yield value
