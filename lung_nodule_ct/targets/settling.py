"""A file that goes to the disk while it is written, and out of the system's cache.

Written and left, a build fills the memory with pages that nobody reads. Each must be found first and, in a virtual machine,
asked of the host, which can cost more than all else that a build does. Settled, the same few are used again and again.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path

_ENOUGH = 32 << 20
_PIECE = 1 << 20


class Settling:
    """Follows a file that another writes from its beginning to its end; one part settles while the next is written.

    Args:
        path: The file.
        hashed: Whether its SHA-256 is wanted; it is taken as the bytes come by.
    """

    def __init__(self, path: Path, *, hashed: bool) -> None:
        self._path = path
        self._hash = hashlib.sha256() if hashed else None
        self._hashed = self._seen = 0
        self._pool = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def more(self) -> None:
        """More was written. Waits until the part before has settled.

        Raises:
            OSError: The disk did not take that.
        """
        size = self._path.stat().st_size
        if size - self._seen >= _ENOUGH:
            self._wait()
            self._seen = size
            self._pending = self._pool.submit(self._settle, size)

    def digest(self) -> str | None:
        """The SHA-256 of the whole file in hex, if it was wanted.

        Raises:
            OSError: The disk did not take the file, or does not give it back.
        """
        self._wait()
        if self._hash is None:
            return None
        self._take(self._path.stat().st_size)
        return self._hash.hexdigest()

    def _wait(self) -> None:
        if self._pending is not None:
            self._pending.result()

    def _settle(self, size: int) -> None:
        self._take(size)
        if hasattr(os, "posix_fadvise"):  # where nothing can be let go, nothing need be waited for
            with self._path.open("rb", buffering=0) as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, size, os.POSIX_FADV_DONTNEED)

    def _take(self, size: int) -> None:
        """Hash up to there."""
        if self._hash is None:
            return
        with self._path.open("rb", buffering=0) as file:
            file.seek(self._hashed)
            while self._hashed < size and (piece := file.read(min(_PIECE, size - self._hashed))):
                self._hash.update(piece)
                self._hashed += len(piece)
