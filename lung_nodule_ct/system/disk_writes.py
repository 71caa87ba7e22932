"""Writing to the disk, and hashing, in a background thread while the next part of the content is received or produced.

:class:`HashingWriter` hashes a file that is downloaded. :class:`DirectFile` is a new file that goes to the disk past the page cache,
:class:`WriteBackThrottle` follows files that another library writes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray


_READ_BYTES = 1 << 20
_WRITE_BACK_BYTES = 32 << 20
"""How many bytes of a file are written back at a time."""
_PIECE_BYTES = 4 << 20
_BLOCK_BYTES = 4096
"""Direct writes need lengths, positions and memory addresses that are multiples of this."""


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


class DirectFile:
    """A new file that is written past the page cache, from its beginning to its end.

    A build that writes its shards the usual way fills the memory with pages that nobody reads. Each of them must be
    allocated, in a virtual machine from the host, and filled; that can take longer than everything else in a build. Here the
    content is copied into a few pieces of memory that are reused, and the disk reads it from there (``O_DIRECT``, see
    open(2)). On a file system without direct writes, or on another system than Linux, the same pieces are written the usual
    way.

    It has the methods that pyarrow needs of a file. The file is complete once it was closed without an error; if the block
    that it is opened for fails, the rest is not written.

    Args:
        path: The file, which is replaced.
        hashed: Is called with all bytes in their order, as the ``update`` method of a hash would be.
        ahead: How many bytes may wait for the disk, at most.

    Raises:
        OSError: The file cannot be written. The error of one write is raised by a later write or at the end.
    """

    def __init__(
        self, path: Path, hashed: Callable[[NDArray[np.uint8]], object] | None = None, *, ahead: int = 32 << 20
    ) -> None:
        self._file = path.open("wb", buffering=0)
        self._direct = _set_direct(self._file.fileno(), True)
        self._hashed = hashed
        pieces = max(2, ahead // _PIECE_BYTES)
        memory = np.empty(pieces * _PIECE_BYTES + _BLOCK_BYTES, np.uint8)  # huge pages, allocated when first touched
        first = -memory.ctypes.data % _BLOCK_BYTES
        self._free = [memory[first + number * _PIECE_BYTES :][:_PIECE_BYTES] for number in range(pieces)]
        self._filling, self._filled, self._size = self._free.pop(), 0, 0
        self._queue = BackgroundQueue(pieces - 1)  # so that a piece is always free after a submit
        self._hashing = BackgroundQueue(1)  # one piece is hashed while it is written
        self.closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._end()

    def tell(self) -> int:
        """Return how many bytes were passed to :meth:`write` so far."""
        return self._size

    def write(self, data: Any) -> int:
        """Write bytes or a buffer, which can be changed as soon as this returns.

        Raises:
            OSError: The disk did not accept earlier bytes.
            ValueError: The file is closed.
        """
        if self.closed:
            raise ValueError("write to a closed file")
        self._queue.check()
        new = np.frombuffer(data, np.uint8)
        position = 0
        while position < len(new):
            taken = min(len(new) - position, _PIECE_BYTES - self._filled)
            self._filling[self._filled : self._filled + taken] = new[position : position + taken]
            self._filled, position = self._filled + taken, position + taken
            if self._filled == _PIECE_BYTES:
                self._submit()
        self._size += len(new)
        return len(new)

    def close(self) -> None:
        """Wait until the disk has everything.

        Raises:
            OSError: The disk did not accept it.
        """
        if self.closed:
            return
        try:
            if self._filled:
                self._submit()
            self._queue.wait()
            if self._direct:
                self._file.truncate(self._size)  # the last piece was written in complete blocks
        finally:
            self._end()

    def flush(self) -> None:
        """Do nothing: an incomplete piece is written when the file is closed."""

    def _submit(self) -> None:
        self._queue.submit(self._write_piece, self._filling, self._filled)
        self._filling, self._filled = self._free.pop(), 0

    def _end(self) -> None:
        self.closed = True
        self._queue.close(cancel=True)
        self._hashing.close()
        self._file.close()

    def _write_piece(self, piece: NDArray[np.uint8], length: int) -> None:
        if self._hashed is not None:
            self._hashing.submit(self._hashed, piece[:length])
        done = 0
        while done < length:
            end = -(-length // _BLOCK_BYTES) * _BLOCK_BYTES if self._direct else length
            try:
                done += self._file.write(piece[done:end].data)
            except OSError as error:
                if not (self._direct and error.errno == errno.EINVAL):
                    raise
                # the disk has blocks of another size, or the file system does not support direct writes after all
                self._direct = _set_direct(self._file.fileno(), False)
        self._hashing.wait()
        self._free.append(piece)


class WriteBackThrottle:
    """Limits how much of the files that another library writes is in memory and not on the disk.

    One part of a file is written back and removed from the page cache while the library writes the next part. The reason is
    that of :class:`DirectFile`. The library must append to its files, and write one after the other.

    Args:
        hashed: Is called in the background with the path and all bytes of each file in their order, while they are in the page cache.
    """

    def __init__(self, hashed: Callable[[Path, bytes], object]) -> None:
        self._hashed = hashed
        self._path: Path | None = None
        self._seen = 0
        self._queue = BackgroundQueue(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish_file()
                self._queue.wait()
        finally:
            self._queue.close()

    def more(self, path: Path) -> None:
        """Note that more was written to a file. A file is complete when the next one is named, or the block ends.

        Waits until the previous part has been written back.

        Raises:
            OSError: The disk did not accept an earlier part.
        """
        if path != self._path:
            self._finish_file()
            self._path, self._seen = path, 0
        size = path.stat().st_size
        if size - self._seen >= _WRITE_BACK_BYTES:
            self._queue.submit(self._write_back, path, self._seen, size)
            self._seen = size

    def _finish_file(self) -> None:
        if self._path is not None:
            self._queue.submit(self._hash, self._path, self._seen, self._path.stat().st_size)

    def _write_back(self, path: Path, start: int, end: int) -> None:
        self._hash(path, start, end)
        if hasattr(os, "posix_fadvise"):  # where pages cannot be removed from the cache, waiting has no use
            with path.open("rb", buffering=0) as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, end, os.POSIX_FADV_DONTNEED)

    def _hash(self, path: Path, start: int, end: int) -> None:
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            while start < end and (piece := file.read(min(_READ_BYTES, end - start))):
                self._hashed(path, piece)
                start += len(piece)


def _set_direct(descriptor: int, wanted: bool) -> bool:
    """Turn direct writes of an open file on or off, and return whether they are on."""
    if sys.platform != "linux":
        return False
    import fcntl  # noqa: PLC0415 -- does not exist on Windows

    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~os.O_DIRECT
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT if wanted else flags)
    except OSError:  # the file system does not support them
        return False
    return wanted
