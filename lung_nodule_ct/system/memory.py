"""Memory of volumes: arrays that are reused for the next example, copies of parts, and pages of a file that are prefetched.

Reuse: touching new pages costs more time than filling them.

Prefetch: a page of a memory-mapped file that is not in memory is read when it is touched, and the system then also reads
what follows, often megabytes. A patch of a volume consists of many short runs of pages that are far apart. If the file is
not in the page cache, reading a patch therefore reads most of the volume, one page after the other. If the pages are
requested before they are touched, the disk reads only these pages, and several at a time.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

_EMPTY: Final = np.empty(0, np.uint8)

_WILL_NEED: Final = 3  # MADV_WILLNEED of Linux, macOS and the BSDs
_VOLUME_AXES: Final = 3
_PROBES: Final = ((0, 0), (1, 2), (2, 1), (3, 3))
"""Slices and rows, in thirds of the view, whose pages are probed. A view of one slice is probed in four rows."""
_TRUSTED: Final = 16
"""Copies in a row whose pages were in memory, after which pages are not probed. A copy that is not probed follows at least so many."""
_SLOW_NS_PER_BYTE: Final = 2
_SHORT_NS: Final = 100_000
"""A copy from memory takes a quarter of a nanosecond per byte, from a disk more than two."""


class _RecentCopies:
    """What the last copies of this process found. Threads share it: it only decides about a hint."""

    all_in_memory = 0
    disk_waits = 0

    def waited_for_disk(self) -> bool:
        """Whether this process waited for pages since the last call, according to the system."""
        before, self.disk_waits = self.disk_waits, _disk_waits()
        return self.disk_waits != before


_recent = _RecentCopies()


class BufferPool:
    """Arrays by purpose, whose memory is reused.

    An array is overwritten when its purpose is requested again, so only one example can be alive at a time.
    """

    def __init__(self) -> None:
        self._memory: dict[str, NDArray[np.uint8]] = {}

    def take(self, purpose: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array of the given shape and type; its content is undefined."""
        wanted = np.dtype(dtype)
        size = math.prod(shape) * wanted.itemsize
        if self._memory.get(purpose, _EMPTY).size < size:
            self._memory.pop(purpose, None)  # the old memory is freed first, so that both never exist together
            self._memory[purpose] = np.empty(size, np.uint8)
        return self._memory[purpose][:size].view(wanted).reshape(shape)

    def packed(self, size: int) -> NDArray[np.uint8]:
        """Return ``size`` bytes for the compressed content of a member of an archive."""
        return self.take("packed", (size,), np.uint8)

    def borrow(self, purpose: str, size: int) -> NDArray[np.uint8] | None:
        """Return ``size`` bytes for temporary use until an array is taken for the same purpose, if there are such bytes."""
        return self.take(purpose, (size,), np.uint8)


class NoReuse(BufferPool):
    """A pool in which every array is new, for callers that keep examples."""

    def take(self, purpose: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:  # noqa: ARG002
        return np.empty(shape, dtype)

    def borrow(self, purpose: str, size: int) -> NDArray[np.uint8] | None:  # noqa: ARG002
        return None


def copy_part(view: NDArray[Any]) -> NDArray[Any]:
    """Return a copy of a part of a volume, axes (z, y, x), in C order. Pages that are not in memory are requested from the disk first.

    Asking for pages takes a tenth of the time of a copy. If the pages of the last copies were in memory, it is therefore left out until a copy
    waits for the disk.
    """
    if _SYSTEM is None:
        return _copy(view)
    if _recent.all_in_memory < _TRUSTED:
        _recent.all_in_memory = 0 if prefetch_pages(view) else _recent.all_in_memory + 1
        return _copy(view)
    start = time.perf_counter_ns()
    copy = _copy(view)
    if time.perf_counter_ns() - start > _SHORT_NS + view.nbytes * _SLOW_NS_PER_BYTE and _recent.waited_for_disk():
        _recent.all_in_memory = 0
    return copy


def _copy(view: NDArray[Any]) -> NDArray[Any]:
    """Copy rows along x as one element each, which is faster than voxel by voxel."""
    if not view.size or view.strides[-1] != view.itemsize:
        return view.copy()
    rows: NDArray[Any] = view.view(np.dtype((np.void, view.shape[-1] * view.itemsize))).copy()
    return rows.view(view.dtype)


def prefetch_pages(view: NDArray[Any]) -> bool:
    """Request the pages under a view that are not in memory from the disk, without waiting for them.

    Four pages are probed, which takes ten microseconds. If all four are in memory, nothing is requested; checking every page would take as
    long as copying them.

    Args:
        view: A part of a volume, axes (z, y, x), with rows along x. Pages are only read if its memory is a mapped file.

    Returns:
        Whether pages were requested.
    """
    if _SYSTEM is None or view.ndim != _VOLUME_AXES or not view.size or min(view.strides) < 0:
        return False
    begin: int = view.__array_interface__["data"][0]
    (depth, height, width), (slice_step, row_step, step) = view.shape, view.strides
    run = (height - 1) * row_step + width * step
    probes = (
        begin + (depth - 1) * slice_ // 3 * slice_step + (height - 1) * row // 3 * row_step for slice_, row in _PROBES
    )
    if not any(map(_is_missing, probes)):
        return False
    for index in range(depth):
        start = _page_of(begin + index * slice_step)
        _SYSTEM.madvise(start, begin + index * slice_step + run - start, _WILL_NEED)
    return True


def _load_system() -> Any:
    """Load the C library, ``None`` where it lacks the calls (Windows)."""
    try:
        library = ctypes.CDLL(None)
        library.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
        library.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    except (OSError, TypeError, AttributeError):  # pragma: no cover - not on Linux and macOS
        return None
    return library


_SYSTEM = _load_system()


def _disk_waits() -> int:
    """How often this process waited for a page of a file that was not in memory."""
    import resource  # noqa: PLC0415 -- not on Windows, where nothing is prefetched

    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt


def _page_of(address: int) -> int:
    return address // mmap.PAGESIZE * mmap.PAGESIZE


def _is_missing(address: int) -> bool:
    """Whether the page of an address belongs to a mapped file and is not in memory."""
    status = ctypes.c_ubyte(1)
    return _SYSTEM.mincore(_page_of(address), mmap.PAGESIZE, ctypes.byref(status)) == 0 and not status.value & 1
