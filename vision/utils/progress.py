"""What shows work going by; those who do the work are handed it, and know no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable

#: Wraps an iterable: (items, what they are, how many or None) -> the same items.
ProgressBar = Callable[[Iterable, str, int | None], Iterable]


def no_progress(items: Iterable, what: str, total: int | None) -> Iterable:
    """Show nothing."""
    return items
