"""What libraries written in C say on standard error, where nobody knows which file it is about."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: As much as a pipe holds.
_MOST_BYTES = 1 << 16


class _Catcher:
    """Stands for standard error while a function is called. Its pipe stays open, as opening one takes longer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Where a standard stream is closed the next file would take its place, and get these words.
        while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(spare)
        self._reading, self._writing = os.pipe()
        for end in (self._reading, self._writing):  # more than a pipe holds is lost rather than waited for
            os.set_blocking(end, False)

    def catch(self, call: Callable[[], T], words: re.Pattern[bytes]) -> tuple[T, str]:
        """See `catch_words`."""
        with self._lock:
            before = os.dup(2)
            os.dup2(self._writing, 2)
            try:
                result = call()
            finally:
                os.dup2(before, 2)
                os.close(before)
                written = self._written()
        if not written:
            return result, ""
        if rest := words.sub(b"", written):
            with contextlib.suppress(OSError):
                os.write(2, rest)
        caught = words.search(written)
        return result, caught[0].decode(errors="replace").strip() if caught else ""

    def _written(self) -> bytes:
        try:
            return os.read(self._reading, _MOST_BYTES)
        except BlockingIOError:  # nothing was said
            return b""


#: By process, as standard error is: one that is forked while a thread of the other decodes would wait for its lock.
_CATCHERS: dict[int, _Catcher] = {}


def catch_words(call: Callable[[], T], words: re.Pattern[bytes]) -> tuple[T, str]:
    """Call a function that may write to the standard error of C, one thread after the other.

    Args:
        call: the function.
        words: what is caught; whatever else comes meanwhile, from other threads too, is passed on.

    Returns:
        what it returned, and the first text that was caught, "" for none.
    """
    if os.name == "nt":  # where C libraries have a standard error that is not Python's
        return call(), ""
    process = os.getpid()
    return (_CATCHERS.get(process) or _CATCHERS.setdefault(process, _Catcher())).catch(call, words)
