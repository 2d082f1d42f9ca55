"""Errors as people read them."""

from __future__ import annotations


def error_line(err: BaseException) -> str:
    """One line; of an error that a loader's worker wrapped in its traceback, the line that counts."""
    if isinstance(err, OSError) and err.filename:
        return f"{err.filename}: {err.strerror}"
    text = str(err).strip()
    if "Original Traceback" in text:
        text = text.splitlines()[-1].partition(": ")[2]
    return " ".join(text.split())
