"""Fetching files by HTTP: retries, resumption, a check of the length, and a rename when all of it is there."""

from __future__ import annotations

import base64
import binascii
import http.client
import logging
import os
import queue
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from vision.utils.files import PART, parts_of
from vision.utils.progress import ProgressBar

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

_CHUNK = 1 << 18
_LONGEST_NAME = 255

#: Refusals that pass: the request timed out, came too early, or was one of too many.
_PASSING = (408, 425, 429)
#: The server does not know the method.
_NO_SUCH_METHOD = (405, 501)


class DownloadError(RuntimeError):
    """A file could not be had; the message is one line that begins with its URL.

    Attributes:
        status: the server's answer, None where none came or where what came was not whole.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status

    @property
    def permanent(self) -> bool:
        """Whether asking again would give the same answer."""
        return self.status is not None and self.status < 500 and self.status not in _PASSING


class Fetcher:
    """Gets files, patiently.

    Args:
        timeout: seconds without a byte after which a connection counts as dead.
        retries: how often a request is repeated that failed in a way that may pass.
        first_pause: seconds before the first repetition; each pause is twice as long as the one before.
        longest_pause: seconds at which pauses stop growing.
    """

    def __init__(
        self, timeout: float = 30, retries: int = 10, first_pause: float = 0.5, longest_pause: float = 30
    ) -> None:
        self.timeout = timeout
        self.retries = retries
        self.first_pause = first_pause
        self.longest_pause = longest_pause
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Make every transfer, in any thread, fail at its next chunk or pause."""
        self._stopped.set()

    def fetch(
        self,
        url: str,
        path: Path,
        *,
        resume: bool = False,
        check: Callable[[Path], str | None] | None = None,
        progress: ProgressBar | None = None,
        note: Callable[..., None] = logger.debug,
    ) -> None:
        """Download a file to a temporary name beside `path`, and rename it when all of it is there.

        Args:
            url: of the file, http or https.
            path: to write; an older file of that name stays until the new one is whole.
            resume: continue what an earlier call or process left, if the server still has the same file. Else what
                is left of a failed download is removed.
            check: given the temporary name, says what is wrong with the file ("is no image"), None if nothing.
            progress: given chunks, a title and how many there will be (None if nobody knows), shows a bar.
            note: how to log a line about a repetition; called like `logger.warning`.

        Raises:
            DownloadError: the file cannot be had, or not as a whole.
            OSError: it cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        part = _Part(path, resume)

        def attempt() -> None:
            self._transfer(url, part, progress)
            complaint = check(part.path) if check else None
            if complaint:
                part.drop()
                raise DownloadError(f"{url}: what came {complaint}")

        try:
            self._insist(attempt, note)
        except BaseException:
            if not resume:
                part.drop()
            raise
        os.replace(part.path, path)
        part.drop()

    def size(self, url: str, note: Callable[..., None] = logger.debug) -> int | None:
        """Ask the server how many bytes a file has; None if it does not say.

        Raises:
            DownloadError: the server refuses, or cannot be reached.
        """
        return self._insist(lambda: self._size(url), note)

    def _insist(self, action: Callable[[], Result], note: Callable[..., None]) -> Result:
        attempt = 0
        while True:
            try:
                return action()
            except DownloadError as err:
                if err.permanent or attempt == self.retries or self._stopped.is_set():
                    raise
                # The exponent is bounded, as floats are.
                pause = min(self.first_pause * 2 ** min(attempt, 30), self.longest_pause)
                attempt += 1
                note("%s; trying again in %g s (%d of %d)", err, pause, attempt, self.retries)
            self._stopped.wait(pause)

    def _size(self, url: str) -> int | None:
        try:
            response = self._open(url, method="HEAD")
        except DownloadError as err:
            if err.status not in _NO_SUCH_METHOD:
                raise
            response = self._open(url)
        with response:
            return _length(response)

    def _transfer(self, url: str, part: _Part, progress: ProgressBar | None) -> None:
        with self._open_at(url, part) as response:
            offset = part.size()
            if offset and response.status == http.client.PARTIAL_CONTENT:
                logger.info("%s: continuing at byte %d", url, offset)
            else:
                offset = 0
                part.begin(response)
            length = _length(response)
            chunks: Iterable[bytes] = self._chunks(url, response)
            if progress is not None:
                chunks = progress(chunks, "Download", None if length is None else -(-length // _CHUNK))
            try:
                with open(part.path, "ab") as file:
                    for chunk in chunks:
                        file.write(chunk)
            except OSError as err:
                raise OSError(err.errno, err.strerror, str(part.path)) from err
        if length is not None and (size := part.path.stat().st_size) != offset + length:
            raise DownloadError(f"{url}: the connection ended after {size} of {offset + length} bytes")

    def _open_at(self, url: str, part: _Part) -> http.client.HTTPResponse:
        """Ask for the rest of a file; where the rest would not fit what is there, for all of it."""
        offset = part.size()
        if offset == 0 or part.validator is None:
            return self._open(url)
        try:
            response = self._open(url, {"Range": f"bytes={offset}-", "If-Range": part.validator})
        except DownloadError as err:
            if err.status != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise
        else:
            if response.status != http.client.PARTIAL_CONTENT or part.is_continued_by(response, offset):
                return response
            response.close()
        part.drop()
        return self._open(url)

    def _open(self, url: str, headers: dict[str, str] | None = None, method: str = "GET") -> http.client.HTTPResponse:
        if self._stopped.is_set():
            raise DownloadError(f"{url}: stopped")
        request = urllib.request.Request(url, headers=headers or {}, method=method)
        try:
            return urllib.request.urlopen(request, timeout=self.timeout)
        except urllib.error.HTTPError as err:
            err.close()
            raise DownloadError(f"{url}: the server answers {err.code} ({err.reason})", err.code) from err
        except (http.client.HTTPException, OSError) as err:
            raise self._failure(url, err) from err

    def _chunks(self, url: str, response: http.client.HTTPResponse) -> Iterator[bytes]:
        while True:
            if self._stopped.is_set():
                raise DownloadError(f"{url}: stopped")
            try:
                chunk = response.read(_CHUNK)
            except (http.client.HTTPException, OSError) as err:
                raise self._failure(url, err) from err
            if not chunk:
                return
            yield chunk

    def _failure(self, url: str, err: Exception) -> DownloadError:
        cause = getattr(err, "reason", err)
        if isinstance(cause, TimeoutError):
            return DownloadError(f"{url}: no answer within {self.timeout:g} s")
        return DownloadError(f"{url}: {str(cause) or type(cause).__name__}")


class _Part:
    """The beginning of a file, under a temporary name.

    One that shall be resumed carries in its name what the server calls this version of the file (its ETag or date), so
    that name and content cannot disagree whenever the process is killed.
    """

    def __init__(self, target: Path, resume: bool) -> None:
        self._target = target
        self._resume = resume
        self.path = target.with_name(f".{target.name}{PART}")
        self.validator: str | None = None
        for path in parts_of(target.parent, f"{target.name}.") if resume else ():
            token = path.name[len(target.name) + 2 : -len(PART)]
            with suppress(binascii.Error, UnicodeDecodeError):
                validator = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
                if validator and path == self._path_of(validator):
                    self.path, self.validator = path, validator

    def size(self) -> int:
        """Count the bytes that can be built on."""
        return self.path.stat().st_size if self.validator and self.path.exists() else 0

    def begin(self, response: http.client.HTTPResponse) -> None:
        """Start over, with the file that this response has."""
        self.drop()
        etag = response.headers.get("ETag", "")
        # A weak ETag does not promise the same bytes.
        validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
        if self._resume and validator and len(self._path_of(validator).name) <= _LONGEST_NAME:
            self.path, self.validator = self._path_of(validator), validator

    def is_continued_by(self, response: http.client.HTTPResponse, offset: int) -> bool:
        """Whether a partial response begins at this byte of this very file."""
        same = self.validator in (response.headers.get("ETag"), response.headers.get("Last-Modified"))
        place = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        return same and place is not None and int(place[1]) == offset

    def drop(self) -> None:
        """Remove what is there, of any version."""
        for path in (self.path, *(parts_of(self._target.parent, f"{self._target.name}.") if self._resume else ())):
            path.unlink(missing_ok=True)

    def _path_of(self, validator: str) -> Path:
        token = base64.urlsafe_b64encode(validator.encode()).decode().rstrip("=")
        return self._target.with_name(f".{self._target.name}.{token}{PART}")


def _length(response: http.client.HTTPResponse) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep a second process out of a folder while the block runs; temporary names are no one else's then.

    Raises:
        ValueError: another process is in there.
    """
    try:
        import fcntl
    except ImportError:
        # Windows has no such lock.
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems cannot lock folders; that is no reason to refuse them.
        with suppress(OSError):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"{folder}: another download works in this folder; wait for its end") from None
        yield
    finally:
        os.close(handle)


def in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Generator[tuple[Item, Result], None, None]:
    """Call a function on each item, several at a time, and yield (item, result) as they come.

    Items are drawn as needed, so there may be any number of them. What the function raises is raised here. The threads
    do not keep the program from ending: Ctrl-C need not wait for a connection to time out.
    """
    todo: queue.SimpleQueue = queue.SimpleQueue()
    done: queue.SimpleQueue = queue.SimpleQueue()

    def work() -> None:
        while (item := todo.get()) is not None:
            try:
                done.put((item, function(item), None))
            except BaseException as err:
                done.put((item, None, err))

    def next_done() -> tuple[Item, Result]:
        item, result, error = done.get()
        if error is not None:
            raise error
        return item, result

    threads = [threading.Thread(target=work, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    running = 0
    try:
        for item in items:
            todo.put(item)
            running += 1
            # As many wait as are at work, so that no thread waits for this one.
            if running == 2 * workers:
                yield next_done()
                running -= 1
        for _ in range(running):
            yield next_done()
    finally:
        for _ in threads:
            todo.put(None)
    for thread in threads:
        thread.join()
