"""The schema as Arrow types, and Python values as Arrow arrays built from buffers.

The types are those that ``datasets`` gives the same features, without importing it. ``pyarrow.array`` imports pandas, if it is installed,
only to check whether a value is one of its types. That takes as long as inflating two scans, in every process of a build.
"""

from __future__ import annotations

from array import array
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lung_nodule_ct.declaration.schema import (
    Category,
    Flag,
    Integer,
    Picture,
    Real,
    Records,
    Schema,
    Text,
    Vector,
    Voxels,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lung_nodule_ct.declaration.schema import ColumnType


def to_arrow_schema(schema: Schema) -> pa.Schema:
    """Return the schema as Arrow types, in order, without metadata."""
    return pa.schema([pa.field(column.name, _type(column.type, column.nullable)) for column in schema.columns])


def _type(kind: ColumnType, nullable: bool = False) -> pa.DataType:
    match kind:
        case Text():
            return pa.string()
        case Flag():
            return pa.bool_()
        case Integer(bits):
            return pa.int32() if bits == 32 else pa.int64()
        case Real(bits):
            return pa.float32() if bits == 32 else pa.float64()
        case Category():
            return pa.int64()
        case Vector(item, length):
            return pa.list_(_type(item), -1 if nullable else length)
        case Picture():
            return pa.struct({"bytes": pa.binary(), "path": pa.string()})
        case Voxels():
            return pa.struct({"bytes": pa.large_binary(), "shape": pa.list_(pa.int32(), -1 if nullable else 3)})
        case Records(fields):
            return pa.list_(pa.struct([pa.field(field.name, _type(field.type, field.nullable)) for field in fields]))


_CODES = {pa.int32(): "i", pa.int64(): "q", pa.float32(): "f", pa.float64(): "d"}


def to_column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return values as ``pyarrow.array(values, kind)`` does, for the types that schemas contain.

    Args:
        values: A number, a flag, text, a flat bytes-like object, a sequence, a mapping by field, or None for each row.
        kind: The Arrow type. The bytes of a column with one row are not copied.

    Raises:
        TypeError: A value is not of this type, or no schema contains the type.
        ValueError: A vector has another length.
        OverflowError: A number does not fit the type.
    """
    known = [value is not None for value in values]
    valid = None if all(known) else _bits(known)
    if pa.types.is_struct(kind):
        fields = ([None if value is None else value[field.name] for value in values] for field in kind)
        children = [to_column(own, field.type) for own, field in zip(fields, kind, strict=True)]
        return pa.Array.from_buffers(kind, len(values), [valid], children=children)
    if pa.types.is_fixed_size_list(kind):
        rows = [(None,) * kind.list_size if value is None else value for value in values]
        if wrong := [len(row) for row in rows if len(row) != kind.list_size]:
            raise ValueError(f"expected vectors of {kind.list_size} numbers, got {wrong[0]}")
        children = [to_column(list(chain.from_iterable(rows)), kind.value_type)]
        return pa.Array.from_buffers(kind, len(values), [valid], children=children)
    if pa.types.is_list(kind):
        rows = [() if value is None else value for value in values]
        children = [to_column(list(chain.from_iterable(rows)), kind.value_type)]
        return pa.Array.from_buffers(kind, len(values), [valid, _offsets("i", rows)], children=children)
    if pa.types.is_string(kind):
        return _of_bytes([None if value is None else value.encode() for value in values], kind, "i", valid)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return _of_bytes(values, kind, "i" if pa.types.is_binary(kind) else "q", valid)
    if pa.types.is_boolean(kind):
        return pa.Array.from_buffers(kind, len(values), [valid, _bits(values)])
    if kind not in _CODES:
        raise TypeError(f"no schema contains the type {kind}")
    numbers = array(_CODES[kind], [0 if value is None else value for value in values])
    return pa.Array.from_buffers(kind, len(values), [valid, pa.py_buffer(numbers)])


def _of_bytes(values: Sequence[Any], kind: pa.DataType, code: str, valid: pa.Buffer | None) -> pa.Array:
    rows = [b"" if value is None else value for value in values]
    content = pa.py_buffer(rows[0] if len(rows) == 1 else b"".join(rows))
    return pa.Array.from_buffers(kind, len(rows), [valid, _offsets(code, rows), content])


def _offsets(code: str, rows: Sequence[Any]) -> pa.Buffer:
    return pa.py_buffer(array(code, accumulate(map(len, rows), initial=0)))


def _bits(flags: Sequence[Any]) -> pa.Buffer:
    """One bit per value, the lowest first, as Arrow stores flags and validity."""
    return pa.py_buffer(np.packbits(np.array(flags, np.bool_), bitorder="little"))
