"""Reading and writing beside computing: decoders, encoders and disks let other threads run meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

#: Values that are made before they are asked for: one may take longer than the work on the one before.
DEPTH = 2


def read_ahead(values: Iterable[T], depth: int = DEPTH) -> Iterator[T]:
    """Give the same values, of which the next are made in a thread meanwhile.

    Args:
        values: what is raised in there is raised where the value would have come.
        depth: how many are made ahead.
    """
    iterator = iter(values)
    end: Any = object()
    with ThreadPoolExecutor(1) as pool:
        pending = deque(pool.submit(next, iterator, end) for _ in range(depth))
        try:
            while (value := pending.popleft().result()) is not end:
                pending.append(pool.submit(next, iterator, end))
                yield value
        finally:
            for future in pending:
                future.cancel()


class WriteBehind:
    """Calls a function in a thread, one call after the other; use it in a `with` statement, whose end waits for all.

    Args:
        function: what it raises is raised at one of the next calls, or at the end.
        depth: calls that may wait; the next one waits until there are fewer.
    """

    def __init__(self, function: Callable[..., Any], depth: int = DEPTH) -> None:
        self._function, self._depth = function, depth
        self._pool = ThreadPoolExecutor(1)
        self._pending: deque[Future] = deque()

    def __enter__(self) -> WriteBehind:
        return self

    def __call__(self, *args: Any) -> None:
        """Call the function soon."""
        while len(self._pending) >= self._depth:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._function, *args))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown()
        if kind is None:
            for future in self._pending:
                future.result()
