"""The schema as Arrow types and as Hugging Face features, and Python values as Arrow arrays built from buffers.

The types are those that ``datasets`` gives the same features, without importing it. ``pyarrow.array`` imports pandas, if it is installed,
only to check whether a value is one of its types. That takes as long as inflating two scans, in every process of a build.

Features have the forms that ``datasets`` reads: JSON, YAML, and the metadata of Arrow. They, too, are created without ``datasets``, whose
import takes as long as a small build.
"""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass
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
from lung_nodule_ct.read.voxel_columns import VoxelColumn, to_b2nd

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import datasets

    from lung_nodule_ct.declaration.schema import Column, ColumnType
_CODES = {pa.int32(): "i", pa.int64(): "q", pa.float32(): "f", pa.float64(): "d"}


def to_arrow_schema(schema: Schema) -> pa.Schema:
    """Return the schema as Arrow types, in order, without metadata."""
    return pa.schema([pa.field(column.name, _arrow_type(column.type, column.nullable)) for column in schema.columns])


def _arrow_type(kind: ColumnType, nullable: bool = False) -> pa.DataType:
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
            return pa.list_(_arrow_type(item), -1 if nullable else length)
        case Picture():
            return pa.struct({"bytes": pa.binary(), "path": pa.string()})
        case Voxels():
            return pa.struct({"bytes": pa.large_binary(), "shape": pa.list_(pa.int32(), -1 if nullable else 3)})
        case Records(fields):
            return pa.list_(
                pa.struct([pa.field(field.name, _arrow_type(field.type, field.nullable)) for field in fields])
            )


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


def with_b2nd(table: pa.Table, columns: Iterable[str]) -> pa.Table:
    """Return the same rows with the voxels of some columns as b2nd frames.

    Raises:
        MissingExtraError: blosc2 is not installed.
    """
    for name in columns:
        field = table.schema.field(name)
        cells = VoxelColumn(table.column(name))
        values = []
        for row in range(table.num_rows):
            array = cells.find(row)
            values.append(None if array is None else {"bytes": to_b2nd(array), "shape": array.shape})
        table = table.set_column(table.schema.get_field_index(name), field, to_column(values, field.type))
    return table


def to_features(schema: Schema) -> datasets.Features:
    """Return the schema as features, in order."""
    import datasets  # noqa: PLC0415 -- only needed by users of datasets

    return datasets.Features.from_dict(features_json(schema.columns))


def to_hub_schema(schema: Schema) -> pa.Schema:
    """Return the schema as Arrow types, with the metadata from which ``datasets`` reads the features."""
    metadata = {"huggingface": json.dumps({"info": {"features": features_json(schema.columns)}})}
    return to_arrow_schema(schema).with_metadata(metadata)


def features_json(columns: Iterable[Column]) -> dict[str, Any]:
    """Return the result of ``datasets.Features.to_dict``."""
    return {column.name: _json(column.type, column.nullable) for column in columns}


def features_yaml(columns: Iterable[Column]) -> list[dict[str, Any]]:
    """Return features as in the YAML of a card, as ``push_to_hub`` writes it."""
    return _fields(features_json(columns))


def _json(kind: ColumnType, nullable: bool = False) -> dict[str, Any]:
    match kind:
        case Text():
            return _value("string")
        case Flag():
            return _value("bool")
        case Integer(bits):
            return _value(f"int{bits}")
        case Real(bits):
            return _value(f"float{bits}")
        case Category(names):
            return {"names": list(names), "_type": "ClassLabel"}
        case Vector(item, length):
            return _vector(_json(item), length, nullable)
        case Picture():
            return {"_type": "Image"}
        case Voxels():
            # a struct, because a top-level binary column loses trailing NUL bytes under the numpy and jax formats
            return {"bytes": _value("large_binary"), "shape": _vector(_value("int32"), 3, nullable)}
        case Records(fields):
            return {"feature": features_json(fields), "_type": "List"}


def _value(dtype: str) -> dict[str, Any]:
    return {"dtype": dtype, "_type": "Value"}


def _vector(item: dict[str, Any], length: int, nullable: bool) -> dict[str, Any]:
    # Parquet files with a null in a list of fixed length cannot be read by pyarrow before 26 ("Expected all lists to be
    # of size=3 but index 1 had size=0"), so nullable columns have lists without a stated length.
    return {"feature": item, **({} if nullable else {"length": length}), "_type": "List"}


def _yaml(feature: dict[str, Any]) -> dict[str, Any]:
    match feature:
        case {"_type": "Value", "dtype": dtype}:
            return {"dtype": dtype}
        case {"_type": "ClassLabel", "names": names}:
            return {"dtype": {"class_label": {"names": {str(number): name for number, name in enumerate(names)}}}}
        case {"_type": "Image"}:
            return {"dtype": "image"}
        case {"_type": "List", "feature": {"_type": "Value", "dtype": dtype}, **more}:
            return {"list": dtype, **more}
        case {"_type": "List", "feature": fields}:
            return {"list": _fields(fields)}
        case fields:
            return {"struct": _fields(fields)}


def _fields(fields: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, **_yaml(feature)} for name, feature in fields.items()]


@dataclass(frozen=True)
class InfoOfConfig:
    """The content of ``datasets.DatasetInfo`` for a config, in the forms in which it is stored in files.

    Attributes:
        columns: The columns.
        rows: Number of examples by split.
        files: Split, bytes in Arrow and bytes on disk of each shard.
    """

    columns: Sequence[Column]
    rows: Mapping[str, int]
    files: Sequence[tuple[str, int, int]]

    def to_json(self) -> dict[str, Any]:
        """The content of ``dataset_info.json``."""
        splits = {split["name"]: {**split, "dataset_name": None} for split in self._splits()}
        words = dict.fromkeys(("description", "citation", "homepage", "license"), "")
        return {**words, "features": features_json(self.columns), "splits": splits, **self._sizes()}

    def to_yaml(self) -> dict[str, Any]:
        """An entry of ``dataset_info`` in a card, without the name of the config."""
        return {"features": features_yaml(self.columns), "splits": self._splits(), **self._sizes()}

    def _splits(self) -> list[dict[str, Any]]:
        sizes = {split: sum(size for own, size, _ in self.files if own == split) for split in self.rows}
        return [{"name": split, "num_bytes": sizes[split], "num_examples": count} for split, count in self.rows.items()]

    def _sizes(self) -> dict[str, int]:
        return {
            "download_size": sum(file_bytes for *_, file_bytes in self.files),
            "dataset_size": sum(arrow_bytes for _, arrow_bytes, _ in self.files),
        }
