"""Memory for arrays that live for one example, used again for the next: touching new pages costs more than to fill them.

Pages of a memory-mapped array asked of the disk before they are touched.

A page that is touched and not in memory is waited for, one after the other, and each time as much more is read as the
system reads ahead (often megabytes). A patch of a volume is many short runs of pages far apart, so on a cold file that
reads most of the volume. Asked for at once, only those pages are read, and side by side.
"""

from __future__ import annotations

import ctypes
import math
import mmap
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray


class BufferPool:
    """Arrays by purpose. An array is overwritten when its purpose is asked for again, so only one example may be alive."""

    def __init__(self) -> None:
        self._memory: dict[str, NDArray[np.uint8]] = {}

    def take(self, purpose: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array of any content."""
        wanted = np.dtype(dtype)
        size = math.prod(shape) * wanted.itemsize
        if self._memory.get(purpose, _NOTHING).size < size:
            self._memory.pop(purpose, None)  # first give back, then take: never both at once
            self._memory[purpose] = np.empty(size, np.uint8)
        return self._memory[purpose][:size].view(wanted).reshape(shape)

    def packed(self, size: int) -> NDArray[np.uint8]:
        """So many bytes for a member as it is packed."""
        return self.take("packed", (size,), np.uint8)

    def borrow(self, purpose: str, size: int) -> NDArray[np.uint8] | None:
        """So many bytes, to be used for something else before an array is taken for that purpose."""
        return self.take(purpose, (size,), np.uint8)


class NoReuse(BufferPool):
    """Every array is new and stays, for those who keep examples."""

    def take(self, purpose: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:  # noqa: ARG002
        """An array of any content."""
        return np.empty(shape, dtype)

    def borrow(self, purpose: str, size: int) -> NDArray[np.uint8] | None:  # noqa: ARG002
        """None: nothing is used again."""
        return None


_NOTHING = np.empty(0, np.uint8)

_WILL_NEED: Final = 3  # MADV_WILLNEED of Linux, macOS and the BSDs
_AXES: Final = 3
_LOOKS: Final = ((0, 0), (1, 2), (2, 1), (3, 3))  # slices and rows of four, so that one slice is seen all over, too


def _system() -> Any:
    """The C library, or ``None`` where it has no such calls (Windows)."""
    try:
        library = ctypes.CDLL(None)
        library.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
        library.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    except (OSError, TypeError, AttributeError):  # pragma: no cover - not on Linux and macOS
        return None
    return library


_SYSTEM = _system()


def read_ahead(view: NDArray[Any]) -> None:
    """Have the pages read that lie under a view and are not in memory.

    Whether they are is told by four of them, which takes microseconds; to ask after all would take as long as to copy them.

    Args:
        view: Part of a volume, axes (z, y, x), rows along x. Only of a memory-mapped one anything is read.
    """
    if _SYSTEM is None or view.ndim != _AXES or not view.size or min(view.strides) < 0:
        return
    begin: int = view.__array_interface__["data"][0]
    (depth, height, width), (slice_step, row_step, step) = view.shape, view.strides
    run = (height - 1) * row_step + width * step
    for k, j in _LOOKS:
        if _is_missing(begin + (depth - 1) * k // 3 * slice_step + (height - 1) * j // 3 * row_step):
            break
    else:
        return
    for index in range(depth):
        start = _page(begin + index * slice_step)
        _SYSTEM.madvise(start, begin + index * slice_step + run - start, _WILL_NEED)


def _page(address: int) -> int:
    return address // mmap.PAGESIZE * mmap.PAGESIZE


def _is_missing(address: int) -> bool:
    told = ctypes.c_ubyte(1)
    return _SYSTEM.mincore(_page(address), mmap.PAGESIZE, ctypes.byref(told)) == 0 and not told.value & 1
