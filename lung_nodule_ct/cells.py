"""Voxel cells of an Arrow column as arrays that view its buffers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Cells:
    """The cells of a struct column {bytes, shape}.

    Args:
        column: A ``pyarrow.ChunkedArray``.
        dtype: The voxels' type, ``<i2`` or ``u1``.
    """

    def __init__(self, column: Any, dtype: str) -> None:
        self._chunks = column.chunks
        self._ends = np.cumsum([len(chunk) for chunk in self._chunks])
        self._dtype = np.dtype(dtype)

    def find(self, row: int) -> NDArray[Any] | None:
        """The voxels of a row, axes (z, y, x), or ``None`` where the cell is null."""
        number = int(np.searchsorted(self._ends, row, side="right"))
        chunk = self._chunks[number]
        place = row - (int(self._ends[number - 1]) if number else 0)
        # chunk[place] and its kin would copy the whole cell
        if chunk.null_count and not chunk.is_valid()[place].as_py():
            return None
        shape = chunk.field("shape")[place].as_py()
        content = chunk.field("bytes")
        _, offsets, values = content.buffers()
        start = int(np.frombuffer(offsets, np.int64, 1, 8 * (content.offset + place))[0])
        return np.frombuffer(values, self._dtype, math.prod(shape), start).reshape(shape)

    def __getitem__(self, row: int) -> NDArray[Any]:
        """The voxels of a row.

        Raises:
            ValueError: The cell is null.
        """
        array = self.find(row)
        if array is None:
            raise ValueError(f"row {row} has no such volume (null)")
        return array
