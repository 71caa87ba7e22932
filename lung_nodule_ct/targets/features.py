"""The neutral schema as Hugging Face features, in the forms that ``datasets`` reads: JSON, YAML, and the metadata of Arrow.

They are made without ``datasets``, whose import would be half of what a small build costs.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.declaration.configs import SOURCE_NAME
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
from lung_nodule_ct.targets.arrow_types import to_arrow_schema

if TYPE_CHECKING:
    from collections.abc import Iterable

    import datasets
    import pyarrow as pa

    from lung_nodule_ct.declaration.configs import Config
    from lung_nodule_ct.declaration.schema import Column, Kind


def built_schema(config: Config, *, keep_source_names: bool) -> Schema:
    """The columns of a build: those of the config, and the source name where it is asked for."""
    return config.schema.with_column(SOURCE_NAME) if keep_source_names else config.schema


def to_features(schema: Schema) -> datasets.Features:
    """The schema as features, in its order."""
    import datasets  # noqa: PLC0415 -- only who hands it to datasets needs it

    return datasets.Features.from_dict(features_json(schema.columns))


def to_hub_schema(schema: Schema) -> pa.Schema:
    """The schema as Arrow types, with the metadata by which ``datasets`` knows its features."""
    metadata = {"huggingface": json.dumps({"info": {"features": features_json(schema.columns)}})}
    return to_arrow_schema(schema).with_metadata(metadata)


def features_json(columns: Iterable[Column]) -> dict[str, Any]:
    """What ``datasets.Features.to_dict`` gives."""
    return {column.name: _json(column.kind, column.nullable) for column in columns}


def features_yaml(columns: Iterable[Column]) -> list[dict[str, Any]]:
    """Features as the YAML of a card has them, as ``push_to_hub`` writes it."""
    return _fields(features_json(columns))


def _json(kind: Kind, nullable: bool = False) -> dict[str, Any]:
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
            # A struct, because a top-level binary column loses trailing NULs under the numpy and jax formats.
            return {"bytes": _value("large_binary"), "shape": _vector(_value("int32"), 3, nullable)}
        case Records(fields):
            return {"feature": features_json(fields), "_type": "List"}


def _value(dtype: str) -> dict[str, Any]:
    return {"dtype": dtype, "_type": "Value"}


def _vector(item: dict[str, Any], length: int, nullable: bool) -> dict[str, Any]:
    # Parquet files with a null in a list of fixed length cannot be read by pyarrow before 26 ("Expected all lists to be
    # of size=3 but index 1 had size=0"), so what may be null has lists without a stated length.
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
