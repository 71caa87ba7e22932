"""The neutral schema as Hugging Face ``Features``; the Arrow schema, with their metadata, follows from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lung_nodule_ct.spec.configs import SOURCE_NAME
from lung_nodule_ct.spec.schema import Category, Flag, Integer, Picture, Real, Records, Schema, Text, Vector, Voxels

if TYPE_CHECKING:
    import datasets

    from lung_nodule_ct.spec.configs import Config
    from lung_nodule_ct.spec.schema import Kind


def built_schema(config: Config, *, keep_source_names: bool) -> Schema:
    """The columns of a build: those of the config, and the source name where it is asked for."""
    return config.schema.with_column(SOURCE_NAME) if keep_source_names else config.schema


def to_features(schema: Schema) -> datasets.Features:
    """The schema as features, in its order."""
    import datasets  # noqa: PLC0415 -- half of the start and a third of the memory of a build that needs no features

    return datasets.Features({column.name: _feature(column.kind, column.nullable) for column in schema.columns})


def _feature(kind: Kind, nullable: bool = False) -> Any:
    # Parquet files with a null in a list of fixed length cannot be read by pyarrow before 26 ("Expected all lists to be
    # of size=3 but index 1 had size=0"), so what may be null has lists without a stated length.
    import datasets  # noqa: PLC0415 -- as above

    match kind:
        case Text():
            return datasets.Value("string")
        case Flag():
            return datasets.Value("bool")
        case Integer(bits):
            return datasets.Value(f"int{bits}")
        case Real(bits):
            return datasets.Value(f"float{bits}")
        case Category(names):
            return datasets.ClassLabel(names=list(names))
        case Vector(item, length):
            return datasets.List(_feature(item), length=-1 if nullable else length)
        case Picture():
            return datasets.Image()
        case Voxels():
            # A struct, because a top-level binary column loses trailing NULs under the numpy and jax formats.
            shape = datasets.List(datasets.Value("int32"), length=-1 if nullable else 3)
            return {"bytes": datasets.Value("large_binary"), "shape": shape}
        case Records(fields):
            return datasets.List({field.name: _feature(field.kind, field.nullable) for field in fields})
