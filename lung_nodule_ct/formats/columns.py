"""The columns of a table: its header, wherever that is, and what each of its words means.

A column is found by its name. A word that means something else (a radius, a class, a score) is never taken for a column that is missing;
a word that nobody knows is, if it is in the right place, and that is reported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from lung_nodule_ct.formats.text import NumberNotation

HEADER_ROWS: Final = 20
"""Rows in which a header is searched, so that a title may precede it."""
MAX_CELLS: Final = 256
"""The maximum number of cells of a row."""

_ANY_NOTATION = NumberNotation(comma="decimal")
_OTHER_WORD = re.compile(
    r"(?:radi|class|categ|label|prob|scor|confid|volum|stat|stage|grad|level|rating|malign|benign|patholog|diagnos|subtl|spheric|margin|lobul"
    r"|spicul|textur|calcif|dens|intens|area|width|height|depth|length|thick|spacing|weight|count|numb|freq|rank|index|slice|frame|colum|gender"
    r"|date|time|year|comment|remark|note|flag|type|kind|fold|split|subset|predict|target|pixel|vox|percent|ratio|angle|rotat|flip|scale|shift"
    r"|is|has).*"
    r"|r|rad|cls|cat|conf|vol|p|pred|gt|hu|mean|std|var|min|max|num|idx|rows?|col|age|sex|day|month|path|url|true|cm|um|inch(?:es)?|px|w|order"
    r"|long|short"
)
"""Words of tables in this field that are neither a name nor a position nor a diameter in millimetres."""
_OTHER_CHARACTERS = re.compile(
    "半径|类|概率|得分|评分|体积|面积|标签|状态|等级|级别|密度|厚度|年龄|性别|日期|时间|备注|序号|像素|体素|厘米|良恶性|恶性|良性|长|宽|高"
)


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """The columns that a kind of table has.

    Attributes:
        columns: In the order of a table without a header; the first is the name.
        synonyms: The spellings of each column in lower case, the best first; it may contain further columns.
        optional: Columns that a table may lack, so that an unknown word is not taken for one of them.
        instead: A further column that can take the place of a column.
    """

    columns: tuple[str, ...]
    synonyms: Mapping[str, Sequence[str]]
    optional: frozenset[str] = frozenset()
    instead: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if missing := [name for name in self.columns if name not in self.synonyms]:
            raise ValueError(f"synonyms: expected spellings of every column, got none of {', '.join(missing)}")

    @property
    def required(self) -> tuple[str, ...]:
        """The columns that a table must have."""
        return tuple(name for name in self.columns if name not in self.optional)


@dataclass(frozen=True, slots=True)
class Header:
    """Which column is where.

    Attributes:
        row: Index of the row of the header among those that were searched, -1 if there is none.
        places: Index of each column that is there.
        width: Number of cells of a row.
        guessed: Columns that were assigned by position, because the header does not name them.
        is_unknown: Whether a column is missing while the header has words that are not known.
    """

    row: int
    places: Mapping[str, int]
    width: int
    guessed: tuple[str, ...] = ()
    is_unknown: bool = False


def find_header(rows: Sequence[Sequence[str]], spec: ColumnSpec) -> Header:
    """Return the columns of a table from its first rows, by its header if it has one, otherwise by position.

    Example:
        >>> spec = ColumnSpec(("name", "x"), {"name": ("name", "scan"), "x": ("x", "coordx")})
        >>> find_header([["all nodules"], ["x", "", "scan"], ["1.5", "0", "80"]], spec).places
        {'x': 0, 'name': 2}
    """
    unnamed: int | None = None
    for number, cells in enumerate(rows[:HEADER_ROWS]):
        names = _names(cells, spec)
        known = sum(bool(name) for name in names)
        if known >= 2:
            return _header(number, cells, names, spec)
        if len(cells) >= len(spec.required):
            if any(_ANY_NOTATION.read(cell) is not None for cell in cells[1:]):
                break  # the first row of data
            unnamed = number if unnamed is None and any(map(spelled, cells)) else unnamed
    if unnamed is not None:
        return _header(unnamed, rows[unnamed], _names(rows[unnamed], spec), spec)
    return Header(-1, {name: place for place, name in enumerate(spec.columns)}, len(spec.columns))


def spelled(cell: str) -> str:
    """``"Diameter (mm)"`` becomes ``diameter_mm``."""
    return re.sub(r"[\W_]+", "_", cell.lower()).strip("_")


def _names(cells: Sequence[str], spec: ColumnSpec) -> list[str]:
    """The column of each cell, empty if it is none. Of two synonyms the better one is used, then the first."""
    known = {spelling: (rank, name) for name, all_ in spec.synonyms.items() for rank, spelling in enumerate(all_)}
    best: dict[str, tuple[int, int]] = {}
    for place, cell in enumerate(cells):
        rank, name = known.get(spelled(cell), (0, ""))
        if name:
            best[name] = min(best.get(name, (rank, place)), (rank, place))
    names = [""] * len(cells)
    for name, (_, place) in best.items():
        names[place] = name
    return names


def _header(number: int, cells: Sequence[str], names: Sequence[str], spec: ColumnSpec) -> Header:
    unknown, other = _unknown_places(cells, names)
    completed = _completed(names, unknown, spec, may_eliminate=not other)
    missing = [name for name in spec.columns if name not in completed and spec.instead.get(name) not in completed]
    guessed = tuple(name for place, name in enumerate(completed) if name != names[place])
    return Header(
        row=number,
        places={name: place for place, name in enumerate(completed) if name},
        width=len(cells),
        guessed=guessed,
        is_unknown=bool(guessed) or bool(missing and (unknown or other)),
    )


def _unknown_places(cells: Sequence[str], names: Sequence[str]) -> tuple[list[int], list[int]]:
    """Positions of words that are not known, and of words that are known to mean something else.

    A column of row numbers has no word, or the one that pandas writes.
    """
    unknown: list[int] = []
    other: list[int] = []
    for place, (cell, name) in enumerate(zip(cells, names, strict=True)):
        if name or not spelled(cell) or spelled(cell).startswith("unnamed"):
            continue
        words = spelled(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cell)).split("_")
        means_other = any(map(_OTHER_WORD.fullmatch, words))
        (other if means_other or _OTHER_CHARACTERS.search(cell) else unknown).append(place)
    return unknown, other


def _completed(names: Sequence[str], unknown: Sequence[int], spec: ColumnSpec, *, may_eliminate: bool) -> Sequence[str]:
    """The columns with those that the header does not name: by position if nothing contradicts that, or the only one left."""
    columns = spec.columns
    missing = [name for name in columns if name not in names and spec.instead.get(name) not in names]
    wanted = [name for name in missing if name not in spec.optional]
    in_order = all(not name or columns.index(name) == place for place, name in enumerate(names) if name in columns)
    if wanted and in_order and {columns.index(name) for name in wanted} <= set(unknown):
        by_place = {columns.index(name): name for name in missing}
        return [by_place.get(place, name) if place in unknown else name for place, name in enumerate(names)]
    if may_eliminate and len(wanted) == len(unknown) == 1:
        return [wanted[0] if place in unknown else name for place, name in enumerate(names)]
    return names
