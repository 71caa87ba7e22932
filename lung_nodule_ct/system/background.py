"""Work on the content of files in a background thread, while the next part of it is received or produced."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_READ_BYTES = 1 << 20
_WRITE_BACK_BYTES = 32 << 20
"""After how many bytes the system is asked to write a file to the disk."""


class BackgroundQueue:
    """Runs calls in one background thread, in their order.

    After a call has failed, no further call runs, and every use of the queue raises the error of the failed call.

    Args:
        limit: How many calls may be pending or running at a time.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pending: deque[Future[None]] = deque()
        self._pool = ThreadPoolExecutor(1)
        self._error: Exception | None = None

    def submit(self, call: Callable[..., object], *args: Any) -> None:
        """Add a call; wait first while as many calls as the limit allows are pending."""
        self._collect(self._limit - 1)
        self._pending.append(self._pool.submit(self._run, call, args))

    def check(self) -> None:
        """Raise the error of a call that has failed, if one has, without waiting."""
        self._collect(self._limit)

    def wait(self) -> None:
        """Wait until no call is pending."""
        self._collect(0)

    def close(self, *, cancel: bool = False) -> None:
        """Wait for the running call and for the pending ones, or cancel the pending ones. Raises no error of a call."""
        self._pool.shutdown(cancel_futures=cancel)

    def _collect(self, remaining: int) -> None:
        while self._pending and (len(self._pending) > remaining or self._pending[0].done()):
            self._pending.popleft().result()
        if self._error is not None:
            raise self._error

    def _run(self, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        if self._error is not None:
            raise self._error
        try:
            call(*args)
        except Exception as error:
            self._error = error
            raise


class HashingWriter:
    """Appends to a file, and hashes it and writes it back to the disk in the background. Used as a context manager.

    The write itself only copies to the page cache. It is not done in the background, so that hashing, which takes longest,
    has a separate thread, and so that a process that is killed leaves everything that it received.

    Args:
        file: Opened without a buffer, for reading and appending.
        algorithms: The hashes to compute, by the names that :mod:`hashlib` knows.

    Raises:
        OSError: The file cannot be written.
    """

    def __init__(self, file: IO[bytes], algorithms: Iterable[str]) -> None:
        self._file, self._algorithms = file, tuple(algorithms)
        self._queue = BackgroundQueue(32)
        self._reset()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.close(cancel=True)

    def hash_existing(self) -> int:
        """Hash what the file contains already, and return its length in bytes."""
        self._file.seek(0)
        while piece := self._file.read(_READ_BYTES):
            self._queue.submit(self._hash, piece)
        self._written_back = self._file.tell()
        return self._written_back

    def restart(self) -> None:
        """Remove everything from the file."""
        self._queue.wait()
        self._file.truncate(0)
        self._reset()

    def write(self, piece: bytes) -> None:
        """Append some bytes."""
        left = memoryview(piece)
        while left:  # an unbuffered write may stop halfway where the disk is full; the next one then fails
            left = left[self._file.write(left) :]
        self._queue.submit(self._hash, piece)
        end = self._file.tell()
        if end - self._written_back >= _WRITE_BACK_BYTES:
            self._queue.submit(_start_write_back, self._file.fileno(), self._written_back, end)
            self._written_back = end

    def finish(self) -> dict[str, str]:
        """Wait until the disk has everything, and return the hashes in hexadecimal by algorithm."""
        self._queue.wait()
        os.fsync(self._file.fileno())
        return {name: digest.hexdigest() for name, digest in zip(self._algorithms, self._digests, strict=True)}

    def _reset(self) -> None:
        self._digests = [hashlib.new(name, usedforsecurity=False) for name in self._algorithms]
        self._written_back = 0

    def _hash(self, piece: bytes) -> None:
        for digest in self._digests:
            digest.update(piece)


def _start_write_back(descriptor: int, start: int, end: int) -> None:
    """Start to write a range to the disk, without waiting, so that the fsync at the end has little left to do."""
    if hasattr(os, "posix_fadvise"):
        # Linux starts to write the pages that are still to be written, and removes only the others from its cache
        with suppress(OSError):
            os.posix_fadvise(descriptor, start, end - start, os.POSIX_FADV_DONTNEED)
