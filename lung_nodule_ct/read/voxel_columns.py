"""Arrow tables of ours as rows: voxel cells as arrays that view the buffers.

Volumes as blosc2 b2nd cells, an opt-in of published shards: smaller than zstd, and a patch decodes only what it touches.

Format: a contiguous frame (cframe) of C-Blosc2 with its n-dimensional layer, github.com/Blosc/c-blosc2, README_B2ND_METALAYER.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lung_nodule_ct.declaration.schema import Picture, Voxels
from lung_nodule_ct.system.imports import needing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pyarrow as pa
    from numpy.typing import DTypeLike, NDArray

    from lung_nodule_ct.declaration.schema import Column


class VoxelColumn:
    """The cells of a struct column {bytes, shape}.

    Args:
        column: A ``pyarrow.ChunkedArray``.
        dtype: The voxels' type, ``int16`` (little-endian) or ``uint8``.
    """

    def __init__(self, column: Any, dtype: str) -> None:
        self._chunks = column.chunks
        self._ends = np.cumsum([len(chunk) for chunk in self._chunks])
        self._dtype = np.dtype(dtype).newbyteorder("<")

    def find(self, row: int) -> Any:
        """The voxels of a row, axes (z, y, x), or ``None`` where the cell is null.

        Returns:
            An array that views the buffers; where they are stored as b2nd, one of blosc2, which decodes what is sliced.
        """
        number = int(np.searchsorted(self._ends, row, side="right"))
        chunk = self._chunks[number]
        place = row - (int(self._ends[number - 1]) if number else 0)
        # chunk[place] and its kin would copy the whole cell
        if chunk.null_count and not chunk.is_valid()[place].as_py():
            return None
        shape = chunk.field("shape")[place].as_py()
        content = chunk.field("bytes")
        _, offsets, values = content.buffers()
        start, end = np.frombuffer(offsets, np.int64, 2, 8 * (content.offset + place)).tolist()
        return decode_cell(memoryview(values)[start:end], self._dtype, shape)

    def __getitem__(self, row: int) -> Any:
        """The voxels of a row.

        Raises:
            ValueError: The cell is null.
        """
        array = self.find(row)
        if array is None:
            raise ValueError(f"row {row} has no such volume (null)")
        return array


def decode_cell(cell: memoryview, dtype: DTypeLike, shape: Sequence[int]) -> Any:
    """The content of a cell as an array (z, y, x), not copied: a view, or what :func:`open_b2nd` gives."""
    if len(cell) != math.prod(shape) * np.dtype(dtype).itemsize and is_b2nd(cell):
        return open_b2nd(cell)
    return np.frombuffer(cell, dtype).reshape(shape)


def table_rows(
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
        column.name: VoxelColumn(table.column(column.name), column.type.dtype)
        for column in columns
        if isinstance(column.type, Voxels)
    }
    light = table.select([column.name for column in columns if column.name not in heavy])
    pictures = [column.name for column in columns if isinstance(column.type, Picture)]
    for place in range(table.num_rows) if places is None else places:
        row = light.slice(place, 1).to_pylist()[0] if light.num_columns else {}
        row |= {name: row[name]["bytes"] for name in pictures}
        for name, cells in heavy.items():
            found = cells.find(place)
            row[name] = None if found is None else found[...]
        yield {column.name: row[column.name] for column in columns}


_CHUNKS: Final = (32, 128, 128)
_BLOCKS: Final = (8, 64, 64)
_MAGIC: Final = b"b2frame\0"


def to_b2nd(volume: NDArray[Any]) -> bytes:
    """A volume, axes (z, y, x), as one frame: byte-shuffled and zstd 1, without loss.

    Raises:
        MissingExtraError: blosc2 is not installed.
    """
    blosc2 = _blosc2()
    chunks = tuple(min(chunk, size) for chunk, size in zip(_CHUNKS, volume.shape, strict=True))
    blocks = tuple(min(block, size) for block, size in zip(_BLOCKS, volume.shape, strict=True))
    params = {"codec": blosc2.Codec.ZSTD, "clevel": 1, "filters": [blosc2.Filter.SHUFFLE], "nthreads": 1}
    frame: bytes = blosc2.asarray(volume, chunks=chunks, blocks=blocks, cparams=params).to_cframe()
    return frame


def is_b2nd(cell: memoryview) -> bool:
    """Whether a cell holds a frame."""
    return bytes(cell[2:10]) == _MAGIC


def open_b2nd(cell: memoryview) -> Any:
    """The volume in a cell, as a ``blosc2.NDArray``: to slice it decodes the blocks that the slice touches.

    Raises:
        MissingExtraError: blosc2 is not installed.
    """
    return _blosc2().ndarray_from_cframe(cell)


def _blosc2() -> Any:
    with needing("b2nd", "a volume stored as b2nd"):
        import blosc2  # noqa: PLC0415

    return blosc2
