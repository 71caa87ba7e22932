"""The neutral typed schema: columns that every target (Arrow, Parquet, TFDS, Croissant, card) compiles for itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
    """One of a list of names, stored as its index."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) != len(self.names):
            raise ValueError(f"a category needs names, each once, got {self.names}")


@dataclass(frozen=True, slots=True)
class Vector:
    """A fixed number of integers or reals."""

    item: Integer | Real
    length: int

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"a vector needs at least one item, got length={self.length}")


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded image (JPEG, BMP or PNG), not encoded anew."""


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
        type: What it holds.
        doc: What it means, with units and axis order.
        nullable: Whether it is null where nothing is known.
    """

    name: str
    type: ColumnType
    doc: str
    nullable: bool = False

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"a column's name must be an identifier, got {self.name!r}")
        if not self.doc:
            raise ValueError(f"column {self.name}: say what it means")


@dataclass(frozen=True, slots=True)
class Schema:
    """The columns of a config, in their order."""

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        _check_names(self.columns)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(column.name for column in self.columns)

    @property
    def has_voxels(self) -> bool:
        """Whether an example is a whole volume."""
        return any(isinstance(column.type, Voxels) for column in self.columns)

    def with_column(self, column: Column) -> Schema:
        """The same schema with one more column at the end."""
        return Schema((*self.columns, column))


def _check_names(columns: tuple[Column, ...]) -> None:
    names = [column.name for column in columns]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"columns need names, each once, got {names}")
