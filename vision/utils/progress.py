"""What shows work going by; those who do the work are handed it, and know no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

#: Wraps an iterable: (items, what they are, how many or None) -> the same items.
ProgressBar = Callable[[Iterable, str, int | None], Iterable]

#: For `extra` of a log call: files and pipes get the line; a terminal shows the same in a bar or in a row of a table.
NOT_ON_TERMINALS = {"not_on_terminals": True}


def no_progress(items: Iterable, what: str, total: int | None) -> Iterable:
    """Show nothing."""
    return items


class StepBar(Protocol):
    """A bar that is told how far the work is."""

    def show(self, step: int, note: str) -> None:
        """Show how many steps are done; the note stands behind them, "" keeps the last one."""

    def close(self) -> None:
        """Take the bar away."""


class NoStepBar:
    """Shows nothing."""

    def __init__(self, what: str, steps: int) -> None:
        pass

    def show(self, step: int, note: str) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
