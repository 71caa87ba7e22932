"""The schema as Hugging Face features in the forms that ``datasets`` reads: JSON, YAML, and the metadata of Arrow.

They are created without ``datasets``, whose import takes as long as a small build.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
from lung_nodule_ct.targets.arrow_columns import to_arrow_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import datasets
    import pyarrow as pa

    from lung_nodule_ct.declaration.schema import Column, ColumnType


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
