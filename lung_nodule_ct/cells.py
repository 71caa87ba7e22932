"""Arrow tables of ours as rows: voxel cells as arrays that view the buffers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lung_nodule_ct.spec.schema import Picture, Voxels

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from lung_nodule_ct.spec.schema import Column


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


def rows_of(
    table: pa.Table, columns: Sequence[Column], places: Iterable[int] | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of a table.

    Args:
        table: As a build writes it.
        columns: Which columns, as they were declared.
        places: Which rows, all by default.

    Yields:
        Voxels as an array (z, y, x) that views the table, pictures as their encoded ``bytes``, categories as their index,
        null as ``None``.
    """
    heavy = {
        column.name: Cells(table.column(column.name), "<i2" if column.kind.dtype == "int16" else "u1")
        for column in columns
        if isinstance(column.kind, Voxels)
    }
    light = table.select([column.name for column in columns if column.name not in heavy])
    pictures = [column.name for column in columns if isinstance(column.kind, Picture)]
    for place in range(table.num_rows) if places is None else places:
        row = light.slice(place, 1).to_pylist()[0] if light.num_columns else {}
        row |= {name: row[name]["bytes"] for name in pictures}
        row |= {name: cells.find(place) for name, cells in heavy.items()}
        yield {column.name: row[column.name] for column in columns}
