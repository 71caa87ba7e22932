"""The neutral schema as Arrow types: those that ``datasets`` gives the same features, without importing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    from lung_nodule_ct.declaration.schema import Kind


def to_arrow_schema(schema: Schema) -> pa.Schema:
    """The schema in its order, without metadata."""
    return pa.schema([pa.field(column.name, _type(column.kind, column.nullable)) for column in schema.columns])


def _type(kind: Kind, nullable: bool = False) -> pa.DataType:
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
            return pa.list_(pa.struct([pa.field(field.name, _type(field.kind, field.nullable)) for field in fields]))
