"""Names in messages and names that people type: listing a few, shortening, and finding what is nearly the same."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

#: How many names of many a message lists.
EXAMPLES = 5


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return ", did you mean 'x'?" for the name that is nearest; "" if none is near."""
    near = nearest_name(name, known)
    return "" if near is None else f", did you mean {near!r}?"


def nearest_name(name: str, known: Sequence[str]) -> str | None:
    """Return the known name that is nearest to another, case and spaces apart; None if none is near."""
    by_folded = {fold_name(other): other for other in known}
    near = difflib.get_close_matches(fold_name(name), by_folded, n=1, cutoff=0.7)
    return by_folded[near[0]] if near else None


def fold_name(name: str) -> str:
    """Reduce a class name to what is the same in any case and with any spaces, hyphens or underscores."""
    return "".join(name.casefold().replace("_", " ").replace("-", " ").split())


def shorten(text: str, most: int = 120) -> str:
    """Cut a text that a file may have made very long."""
    return text if len(text) <= most else f"{text[:most]}..."


def first_few(names: Iterable[object], most: int = EXAMPLES) -> str:
    """List the first few names."""
    listed = [str(name) for name in names]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
