"""Voxel columns of Arrow tables as arrays that view the buffers, and tables as rows.

A cell is a struct ``{bytes, shape}``. Its bytes are raw little-endian voxels in C order, or a contiguous frame (cframe) of C-Blosc2 with
its n-dimensional layer (b2nd, github.com/Blosc/c-blosc2, README_B2ND_METALAYER). b2nd is smaller than zstd, and a patch decodes only the
blocks that it touches; reading it needs the package blosc2.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lung_nodule_ct.declaration.schema import Picture, Voxels
from lung_nodule_ct.system.imports import optional_imports

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from lung_nodule_ct.declaration.schema import Column

_CHUNKS: Final = (32, 128, 128)
_BLOCKS: Final = (8, 64, 64)
_MAGIC: Final = b"b2frame\0"


class VoxelColumn:
    """The cells of a voxel column.

    Args:
        column: A ``pyarrow.ChunkedArray`` of structs ``{bytes, shape}``.
    """

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._chunks = column.chunks
        self._ends = np.cumsum([len(chunk) for chunk in self._chunks])

    def find(self, row: int) -> Any:
        """Return the voxels of a row, axes (z, y, x), or ``None`` if the cell is null.

        Returns:
            An array that views the buffers; of a b2nd cell a ``blosc2.NDArray``, which decodes what is sliced.
        """
        number = int(np.searchsorted(self._ends, row, side="right"))
        chunk = self._chunks[number]
        index = row - (int(self._ends[number - 1]) if number else 0)
        # chunk[index] and similar calls would copy the complete cell
        if chunk.null_count and not chunk.is_valid()[index].as_py():
            return None
        shape = chunk.field("shape")[index].as_py()
        content = chunk.field("bytes")
        _, offsets, values = content.buffers()
        start, end = np.frombuffer(offsets, np.int64, 2, 8 * (content.offset + index)).tolist()
        return decode_cell(memoryview(values)[start:end], shape)

    def __getitem__(self, row: int) -> Any:
        """Return the voxels of a row.

        Raises:
            ValueError: The cell is null.
        """
        array = self.find(row)
        if array is None:
            raise ValueError(f"row {row} has no such volume (null)")
        return array


def decode_cell(cell: memoryview, shape: Sequence[int]) -> Any:
    """Return the content of a cell as an array (z, y, x), without a copy: int16 or uint8, or a ``blosc2.NDArray``.

    Raises:
        ValueError: The number of bytes does not fit the shape.
        MissingExtraError: The cell is b2nd, and blosc2 is not installed.
    """
    count = math.prod(shape)
    if len(cell) == 2 * count:
        return np.frombuffer(cell, "<i2").reshape(shape)
    if is_b2nd(cell):
        return open_b2nd(cell)
    if len(cell) == count:
        return np.frombuffer(cell, "u1").reshape(shape)
    raise ValueError(f"expected {count:,} or {2 * count:,} bytes for shape {tuple(shape)}, got {len(cell):,}")


def table_rows(
    table: pa.Table, columns: Sequence[Column], indices: Iterable[int] | None = None
) -> Iterator[dict[str, Any]]:
    """Iterate over the rows of a table.

    Args:
        table: A table as a build writes it.
        columns: The columns to return.
        indices: The rows to return, by default all.

    Yields:
        Voxels as an array (z, y, x) that views the table, pictures as their encoded ``bytes``, categories as their index, null as
        ``None``.
    """
    voxels = {column.name: VoxelColumn(table.column(column.name)) for column in columns if _has_voxels(column)}
    other = table.select([column.name for column in columns if column.name not in voxels])
    pictures = [column.name for column in columns if isinstance(column.type, Picture)]
    for index in range(table.num_rows) if indices is None else indices:
        row = other.slice(index, 1).to_pylist()[0] if other.num_columns else {}
        row |= {name: row[name]["bytes"] for name in pictures}
        for name, cells in voxels.items():
            array = cells.find(index)
            row[name] = None if array is None else array[...]
        yield {column.name: row[column.name] for column in columns}


def to_b2nd(volume: NDArray[Any]) -> bytes:
    """Return a volume, axes (z, y, x), as one b2nd frame: byte-shuffled and zstd 1, lossless.

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
    """Return whether a cell is a b2nd frame."""
    return bytes(cell[2:10]) == _MAGIC


def open_b2nd(cell: memoryview) -> Any:
    """Return the volume in a cell as a ``blosc2.NDArray``; slicing decodes the blocks that the slice touches.

    Raises:
        MissingExtraError: blosc2 is not installed.
    """
    return _blosc2().ndarray_from_cframe(cell)


def _has_voxels(column: Column) -> bool:
    return isinstance(column.type, Voxels)


def _blosc2() -> Any:
    with optional_imports("b2nd", "a volume stored as b2nd"):
        import blosc2  # noqa: PLC0415 -- an extra

    return blosc2
