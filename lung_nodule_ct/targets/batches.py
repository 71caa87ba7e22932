"""Examples as Arrow record batches. A volume's voxels are not copied: the batch holds the array that was read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lung_nodule_ct.spec.schema import Picture, Schema, Voxels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lung_nodule_ct.spec.schema import Column

PICTURES_A_BATCH = 100


def to_batch(rows: Sequence[dict[str, Any]], schema: Schema, arrow_schema: pa.Schema) -> pa.RecordBatch:
    """Some rows as one record batch.

    Args:
        rows: By column name; columns that the schema does not have are left out.
        schema: The neutral schema.
        arrow_schema: What :func:`to_features` makes of it.
    """
    columns = [_column(column, rows, arrow_schema.field(column.name).type) for column in schema.columns]
    return pa.RecordBatch.from_arrays(columns, schema=arrow_schema)


def _column(column: Column, rows: Sequence[dict[str, Any]], kind: pa.DataType) -> pa.Array:
    values = [row[column.name] for row in rows]
    if isinstance(column.kind, Picture):
        return pa.array([{"bytes": value, "path": None} for value in values], kind)
    if isinstance(column.kind, Voxels):
        return _voxels(column.kind, values, kind)
    return pa.array(values, kind)


def _voxels(voxels: Voxels, values: Sequence[Any], kind: pa.StructType) -> pa.Array:
    stored = np.dtype(voxels.dtype).newbyteorder("<")
    for value in values:
        if value is not None and (value.dtype != stored or value.ndim != 3 or not value.flags.c_contiguous):
            raise TypeError(f"expected a contiguous 3D array of {stored}, got {value.dtype} of shape {value.shape}")
    if len(values) != 1 or values[0] is None:
        return pa.array([None if v is None else {"bytes": v.tobytes(), "shape": v.shape} for v in values], kind)
    (array,) = values
    offsets = pa.py_buffer(np.array([0, array.nbytes], np.int64))
    content = pa.Array.from_buffers(
        kind.field("bytes").type, 1, [None, offsets, pa.py_buffer(array.reshape(-1).view(np.uint8))]
    )
    shape = pa.array([array.shape], kind.field("shape").type)
    return pa.StructArray.from_arrays([content, shape], fields=list(kind))
