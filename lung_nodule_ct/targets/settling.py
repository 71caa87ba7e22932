"""Files that go to the disk while another writes them, and out of the system's cache.

For files that are written by a library, and not through :class:`~lung_nodule_ct.targets.direct_file.DirectFile`, which says why.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

_ENOUGH = 32 << 20


class Settling:
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
