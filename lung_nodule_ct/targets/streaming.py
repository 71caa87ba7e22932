"""What a stream of ``datasets`` reads at a time, and archives that stay open while it reads.

A stream reads shard by shard, in an order that it may shuffle, and divides its shards among processes. A volume is a shard. Pictures are small, so
that a shard holds neighbours: their bytes are next to each other in the archive, and one request gets all of them.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

import datasets

from lung_nodule_ct.errors import OptionError
from lung_nodule_ct.sources.source import ArchivePool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lung_nodule_ct.examples.family import Unit

NumberedUnits = tuple[tuple[int, "Unit"], ...]
"""Units with their positions in the plan, from 1."""

_MIN_SHARDS: Final = 32
_MAX_UNITS: Final = 64
_MAX_BYTES: Final = 2 << 20
"""A shard of pictures is fetched as a whole. A shuffled stream reads ten shards in turn, and 32 MiB of an archive on a server are kept."""


def deal_units(units: Sequence[tuple[int, Unit]]) -> list[NumberedUnits]:
    """Divide the units of a split into shards of neighbours, in their order.

    A shard has at most 64 units and 2 MiB, and there are at least 32 shards if there are as many units: workers share them, and a shuffled
    stream shuffles them.
    """
    largest = min(_MAX_UNITS, max(1, len(units) // _MIN_SHARDS))
    dealt: list[list[tuple[int, Unit]]] = []
    size = 0
    for position, unit in units:
        if not dealt or len(dealt[-1]) == largest or size + unit.packed_bytes > _MAX_BYTES:
            dealt.append([])
            size = 0
        dealt[-1].append((position, unit))
        size += unit.packed_bytes
    return [tuple(shard) for shard in dealt]


def require_streaming() -> None:
    """Refuse the versions of ``datasets`` whose streams cannot be used.

    Raises:
        OptionError: It is 5.0: a shuffled stream of 24 shards has only two.
    """
    if datasets.__version__.startswith("5.0."):
        raise OptionError(
            "streaming",
            "this version of datasets merges the shards of a shuffled stream into two",
            expected="datasets 4.8 or 4.9, or 5.1 or later",
            got=datasets.__version__,
            remedy="install another version: pip install 'datasets>=5.1'",
        )


class SharedArchives:
    """Archives that stay open from one shard of a stream to the next, in each process. Threads share them."""

    def __init__(self) -> None:
        self._pool: ArchivePool | None = None
        self._process = os.getpid()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy in another process opens the archives again."""
        return SharedArchives, ()

    def pool(self) -> ArchivePool:
        """Return the archives. They are closed when nothing refers to this object anymore."""
        if (
            self._process != os.getpid()
        ):  # connections must not be shared with a process that was forked, and its lock may be held
            self._pool, self._process, self._lock = None, os.getpid(), threading.Lock()
        with self._lock:
            if self._pool is None:
                self._pool = ArchivePool()
                weakref.finalize(self, self._pool.close)
            return self._pool
