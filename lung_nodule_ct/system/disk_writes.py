"""A file that goes to the disk while the next part of it is made, past the system's cache, by a thread of its own.

Written the usual way, a build fills the memory with pages that nobody reads. Each must be found first, in a virtual machine
asked of the host, and filled from afar; that can cost more than all else that a build does. What is written here is gathered
in a few pieces of memory that are used again and again, and the disk takes it from there (``O_DIRECT``, see open(2)). A file
system that has no such way, or another system than Linux, gets the same pieces the usual way.

Files that go to the disk while another writes them, and out of the system's cache.

For files that are written by a library, and not through :class:`~lung_nodule_ct.system.disk_writes.DirectFile`, which says why.
"""

from __future__ import annotations

import errno
import os
import sys
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


_PIECE = 4 << 20
_BLOCK = 4096
"""What the disk writes is a multiple of this in length and place, and so is its address in memory."""


class DirectFile:
    """A new file, written from its beginning to its end. Whole when it was closed without an error.

    It has of Python's files what pyarrow asks of one to write to. Where the block that it is opened for fails, the rest is
    not written.

    Args:
        path: The file, which is replaced.
        hashed: Is given all bytes in their order, as the ``update`` of a hash is.
        ahead: How many bytes may wait for the disk, at most.

    Raises:
        OSError: It cannot be written. What the disk does not take may come to light with a later write, or at the end.
    """

    def __init__(
        self, path: Path, hashed: Callable[[NDArray[np.uint8]], object] | None = None, *, ahead: int = 32 << 20
    ) -> None:
        self._file = path.open("wb", buffering=0)
        self._direct = _set_direct(self._file.fileno(), True)
        self._hashed = hashed
        pieces = max(2, ahead // _PIECE)
        memory = np.empty(pieces * _PIECE + _BLOCK, np.uint8)  # in large pages, which are touched as they are needed
        first = -memory.ctypes.data % _BLOCK
        self._free = [memory[first + number * _PIECE :][:_PIECE] for number in range(pieces)]
        self._filling, self._filled, self._size = self._free.pop(), 0, 0
        self._on_the_way: deque[tuple[Future[None], NDArray[np.uint8]]] = deque()
        self._pool = ThreadPoolExecutor(1)
        self._failure: OSError | None = None
        self.closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._end()

    def tell(self) -> int:
        """How many bytes were written so far."""
        return self._size

    def write(self, data: Any) -> int:
        """Take all of some bytes, or of a buffer; it may be used otherwise as soon as this returns.

        Raises:
            OSError: The disk did not take what came before.
            ValueError: The file is closed.
        """
        if self.closed:
            raise ValueError("write to a closed file")
        self._fail_again()
        new = np.frombuffer(data, np.uint8)
        position = 0
        while position < len(new):
            taken = min(len(new) - position, _PIECE - self._filled)
            self._filling[self._filled : self._filled + taken] = new[position : position + taken]
            self._filled, position = self._filled + taken, position + taken
            if self._filled == _PIECE:
                self._send()
        self._size += len(new)
        return len(new)

    def close(self) -> None:
        """Wait until the disk has everything.

        Raises:
            OSError: It did not take that.
        """
        if self.closed:
            return
        try:
            self._fail_again()
            if self._filled:
                self._send()
            while self._on_the_way:
                self._take_back()
            if self._direct:
                self._file.truncate(self._size)  # the last piece was written in whole blocks
        finally:
            self._end()

    def flush(self) -> None:
        """Nothing: what is not a whole piece yet goes when the file is closed."""

    def _send(self) -> None:
        piece, length = self._filling, self._filled
        self._on_the_way.append((self._pool.submit(self._take, piece, length), piece))
        while self._on_the_way and (not self._free or self._on_the_way[0][0].done()):
            self._take_back()
        self._filling, self._filled = self._free.pop(), 0

    def _take_back(self) -> None:
        future, piece = self._on_the_way.popleft()
        self._free.append(piece)
        try:
            future.result()
        except OSError as error:
            self._failure = error
            raise

    def _fail_again(self) -> None:
        """After a failure there is a hole, whatever may be written now."""
        if self._failure is not None:
            raise self._failure

    def _end(self) -> None:
        self.closed = True
        self._pool.shutdown(cancel_futures=True)
        self._file.close()

    def _take(self, piece: NDArray[np.uint8], length: int) -> None:
        """Hash and write one piece."""
        if self._hashed is not None:
            self._hashed(piece[:length])
        done = 0
        while done < length:
            end = -(-length // _BLOCK) * _BLOCK if self._direct else length
            try:
                done += self._file.write(piece[done:end].data)
            except OSError as error:
                if not (self._direct and error.errno == errno.EINVAL):
                    raise
                # it said that it could, and does not: blocks of another size, or no such way after all
                self._direct = _set_direct(self._file.fileno(), False)


def _set_direct(descriptor: int, wanted: bool) -> bool:
    """Whether an open file is written past the cache from now on."""
    if sys.platform != "linux":
        return False
    import fcntl  # noqa: PLC0415 -- there is none on Windows

    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~os.O_DIRECT
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT if wanted else flags)
    except OSError:  # a file system without
        return False
    return wanted


_ENOUGH = 32 << 20


class WriteBackThrottle:
    """Follows files that another writes, one after the other; one part settles while the next is written."""

    def __init__(self) -> None:
        self._path, self._seen = Path(), 0
        self._pool = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown()
        if kind is None:
            self._wait()

    def more(self, path: Path) -> None:
        """More was written to a file. Waits until the part before has settled.

        Raises:
            OSError: The disk did not take that.
        """
        if path != self._path:
            self._path, self._seen = path, 0
        size = path.stat().st_size
        if size - self._seen >= _ENOUGH:
            self._wait()
            self._seen = size
            self._pending = self._pool.submit(_settle, path, size)

    def _wait(self) -> None:
        if self._pending is not None:
            self._pending.result()


def _settle(path: Path, size: int) -> None:
    if hasattr(os, "posix_fadvise"):  # where nothing can be let go, nothing need be waited for
        with path.open("rb", buffering=0) as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, size, os.POSIX_FADV_DONTNEED)
