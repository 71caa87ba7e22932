"""The typed schema of a config: columns that each target (Arrow, Parquet, TFDS, Croissant, card) translates to its own types.

:func:`columns_to_json` and :func:`columns_from_json` write and read it in ``build.json``, so that readers of a build need no declaration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Text:
    """A UTF-8 string."""


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""


@dataclass(frozen=True, slots=True)
class Integer:
    """A signed integer."""

    bits: Literal[32, 64] = 32


@dataclass(frozen=True, slots=True)
class Real:
    """A floating-point number."""

    bits: Literal[32, 64] = 64


@dataclass(frozen=True, slots=True)
class Category:
    """One of several names, stored as its index."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) != len(self.names):
            raise ValueError(f"names: expected at least one name, each once, got {self.names}")


@dataclass(frozen=True, slots=True)
class Vector:
    """A fixed number of integers or reals."""

    item: Integer | Real
    length: int

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"length: expected at least 1, got {self.length}")


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded image (JPEG, BMP or PNG), as published."""


@dataclass(frozen=True, slots=True)
class Voxels:
    """A 3D array: ``bytes`` (little-endian, C order) and ``shape`` (z, y, x)."""

    dtype: Literal["int16", "uint8"]


@dataclass(frozen=True, slots=True)
class Records:
    """A list of records with named fields."""

    fields: tuple[Column, ...]

    def __post_init__(self) -> None:
        _check_names(self.fields)


ColumnType = Text | Flag | Integer | Real | Category | Vector | Picture | Voxels | Records


@dataclass(frozen=True, slots=True)
class Column:
    """One column, or one field of a record.

    Attributes:
        name: The column's name.
        type: The type of its values.
        doc: What it means, with units and axis order.
        nullable: Whether unknown values are null.
    """

    name: str
    type: ColumnType
    doc: str
    nullable: bool = False

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"name: expected an identifier, got {self.name!r}")
        if not self.doc:
            raise ValueError(f"doc: column {self.name} has no description")


@dataclass(frozen=True, slots=True)
class Schema:
    """The columns of a config, in their order."""

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        _check_names(self.columns)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(column.name for column in self.columns)

    @property
    def has_voxels(self) -> bool:
        """Whether an example holds a volume."""
        return any(isinstance(column.type, Voxels) for column in self.columns)

    @property
    def has_frame(self) -> bool:
        """Whether an example has origin, spacing and direction, so that its voxels have world coordinates."""
        return {"origin", "spacing", "direction"} <= set(self.names)

    def column(self, name: str) -> Column:
        """Return the column of a name.

        Raises:
            KeyError: The column is unknown.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    def with_column(self, column: Column) -> Schema:
        """The same schema with one more column at the end."""
        return Schema((*self.columns, column))


def _check_names(columns: tuple[Column, ...]) -> None:
    names = [column.name for column in columns]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"columns: expected at least one name, each once, got {names}")


_TYPES: Mapping[str, type[Any]] = {
    "text": Text,
    "flag": Flag,
    "integer": Integer,
    "real": Real,
    "category": Category,
    "vector": Vector,
    "picture": Picture,
    "voxels": Voxels,
    "records": Records,
}


def columns_to_json(columns: Iterable[Column]) -> list[dict[str, Any]]:
    """Return columns as JSON values.

    Example:
        >>> columns_to_json([Column("fold", Integer(), "0 to 4", nullable=True)])
        [{'name': 'fold', 'type': 'integer', 'bits': 32, 'doc': '0 to 4', 'nullable': True}]
    """
    return [
        {"name": column.name, **_type_to_json(column.type), "doc": column.doc, "nullable": column.nullable}
        for column in columns
    ]


def columns_from_json(entries: Iterable[Mapping[str, Any]]) -> tuple[Column, ...]:
    """Return the columns that :func:`columns_to_json` wrote.

    Raises:
        ValueError: An entry is not a column.
        KeyError: Likewise.
        TypeError: Likewise.
    """
    return tuple(
        Column(entry["name"], _type_from_json(entry), entry["doc"], nullable=bool(entry["nullable"]))
        for entry in entries
    )


def _type_to_json(type_: ColumnType) -> dict[str, Any]:
    name = next(name for name, known in _TYPES.items() if known is type(type_))
    match type_:
        case Vector(item, length):
            return {"type": name, "item": _type_to_json(item), "length": length}
        case Records(columns):
            return {"type": name, "fields": columns_to_json(columns)}
        case _:
            values = {field.name: getattr(type_, field.name) for field in fields(type_)}
            return {"type": name, **{key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}}


def _type_from_json(entry: Mapping[str, Any]) -> ColumnType:
    match entry["type"]:
        case "vector":
            item = _type_from_json(entry["item"])
            if not isinstance(item, Integer | Real):
                raise TypeError(f"item: expected integers or reals, got {entry['item']}")
            return Vector(item, int(entry["length"]))
        case "records":
            return Records(columns_from_json(entry["fields"]))
        case name:
            values = {field.name: entry[field.name] for field in fields(_TYPES[name])}
            made: ColumnType = _TYPES[name](
                **{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
            )
            return made
