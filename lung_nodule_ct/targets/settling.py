"""A file that goes to the disk while another writes it, and out of the system's cache.

For files that are written by a library, and not through :class:`~lung_nodule_ct.targets.direct_file.DirectFile`, which says why.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path

_ENOUGH = 32 << 20


class Settling:
    """Follows a file that another writes from its beginning to its end; one part settles while the next is written.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = 0
        self._pool = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown()
        if kind is None and self._pending is not None:
            self._pending.result()

    def more(self) -> None:
        """More was written. Waits until the part before has settled.

        Raises:
            OSError: The disk did not take that.
        """
        size = self._path.stat().st_size
        if size - self._seen >= _ENOUGH:
            if self._pending is not None:
                self._pending.result()
            self._seen = size
            self._pending = self._pool.submit(self._settle, size)

    def _settle(self, size: int) -> None:
        if hasattr(os, "posix_fadvise"):  # where nothing can be let go, nothing need be waited for
            with self._path.open("rb", buffering=0) as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, size, os.POSIX_FADV_DONTNEED)
