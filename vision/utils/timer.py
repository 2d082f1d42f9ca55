"""A stop watch."""

from __future__ import annotations

import time


class Timer:
    """Measures wall-clock time under names of your choice."""

    def __init__(self) -> None:
        self._started: dict[str, float] = {}

    def start(self, key: str = "default") -> None:
        """Start, or start anew, the watch `key`."""
        self._started[key] = time.perf_counter()

    def end(self, key: str = "default") -> float:
        """Stop the watch `key` and give its seconds.

        Raises:
            KeyError: that watch is not running.
        """
        if key not in self._started:
            raise KeyError(f"timer {key!r} was not started")
        return time.perf_counter() - self._started.pop(key)
