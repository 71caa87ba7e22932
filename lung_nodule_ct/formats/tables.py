"""Annotation tables (CSV, by header or by position, with ids as strings) and split lists."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from lung_nodule_ct.formats.text import decode_text, lines_of, read_numbers

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


MAX_TABLE_BYTES: Final = 64 << 20

RowT = TypeVar("RowT")

_IMAGE_PATH = re.compile(r"^(.*?\.(?:jpe?g|bmp|png|tiff?|xml))(?=$|[\s,;])", re.IGNORECASE)
_BOX = re.compile(r"(-?\d+(?:\.\d+)?),(-?\d+(?:\.\d+)?),(-?\d+(?:\.\d+)?),(-?\d+(?:\.\d+)?)(?:,\S*)?(?=\s|$)")
_DIAMETERS = ("diameter", "d", "diam", "直径")
_NODULE_COLUMNS = ("seriesuid", "coordx", "coordy", "coordz", "diameter_mm")
_NODULE_SYNONYMS = {
    "seriesuid": (
        "seriesuid",
        "series_uid",
        "scan",
        "scan_name",
        "name",
        "filename",
        "file",
        "id",
        "patient",
        "patient_id",
        "pid",
    ),
    "coordx": ("coordx", "x", "coord_x", "world_x", "x_mm"),
    "coordy": ("coordy", "y", "coord_y", "world_y", "y_mm"),
    "coordz": ("coordz", "z", "coord_z", "world_z", "z_mm"),
    "diameter_mm": ("diameter_mm", *_DIAMETERS, "size_mm"),
}
_BOX_COLUMNS = ("pid", "zmin", "zmax", "ymin", "ymax", "xmin", "xmax", "diameter")
_BOX_SYNONYMS = {
    "pid": ("pid", "id", "case", "case_id", "name", "patient", "patient_id"),
    **{
        f"{axis}{end}": (f"{axis}{end}", f"{axis}_{end}", f"{end}{axis}", f"{end}_{axis}")
        for axis in "zyx"
        for end in ("min", "max")
    },
    "diameter": (*_DIAMETERS, "diameter_mm", "直径_mm"),
    "augmented": ("augmented", "augment", "augmentation", "is_augmented", "aug"),
}


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a table.

    Attributes:
        line: Line number in the file, from 1.
        text: The line.
        cells: Cells by column name, without surrounding blanks; missing cells are empty.
    """

    line: int
    text: str
    cells: Mapping[str, str]

    @property
    def reference(self) -> str:
        """Line number and text, for findings: ``line 7: 80_20190314,1,2``."""
        return f"line {self.line}: {self.text[:200]}"


@dataclass(frozen=True, slots=True)
class Table:
    """A table with the names of its columns.

    Attributes:
        rows: The rows, without blank ones.
        columns: The names of the columns, from the header or by position.
        unknown_header: The header, if it has unknown words and lacks a column.
        guessed: Columns that were assigned by position, because the header does not name them.
    """

    rows: tuple[TableRow, ...]
    columns: tuple[str, ...]
    unknown_header: TableRow | None = None
    guessed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NoduleRow:
    """A nodule in the style of LUNA16: name of the scan, centre x, y, z in LPS mm, diameter in mm."""

    row: TableRow
    series_uid: str
    center: tuple[float, float, float]
    diameter: float


@dataclass(frozen=True, slots=True)
class BoxRow:
    """A nodule box of a slice stack: first and last voxel x, y, z as published (inclusive), diameter and flag."""

    row: TableRow
    pid: str
    low: tuple[int, int, int]
    high: tuple[int, int, int]
    diameter: float | None
    augmented: bool | None


@dataclass(frozen=True, slots=True)
class Parsed(Generic[RowT]):
    """The rows of a table, as records.

    Attributes:
        good: The rows that can be used.
        bad: The rows that cannot be read.
        unknown_header: The header, if it has unknown words and lacks a column.
        guessed: Columns that were assigned by position, because the header does not name them.
    """

    good: tuple[RowT, ...]
    bad: tuple[TableRow, ...]
    unknown_header: TableRow | None
    guessed: tuple[str, ...]


def parse_table(
    data: bytes, columns: Sequence[str], synonyms: Mapping[str, Sequence[str]], optional: Collection[str] = ()
) -> Table:
    """Parse a table with known columns, by its header if that names them, otherwise by position.

    Args:
        data: The file.
        columns: The columns in the order of a table without a header; the first is the id.
        synonyms: Spellings of each column in lower case; it may contain further columns.
        optional: Columns that a table may lack, so that an unknown word is not taken for one of them.
    """
    lines = decode_text(data).lstrip("\ufeff").splitlines()
    filled = [(number, line) for number, line in enumerate(lines, 1) if line.strip(" \t,;")]
    if not filled:
        return Table((), tuple(columns))
    delimiter = max(",;\t", key=filled[0][1].count)
    cells = [(number, line, _split(line, delimiter)) for number, line in filled]
    first = cells[0][2]
    header: Sequence[str] = columns
    guessed: Sequence[str] = ()
    unknown: TableRow | None = None
    names = _header(first, synonyms)
    if columns[0] in names or not any(_is_number(cell) for cell in first[1:]):
        header = _completed(names, first, columns, optional)
        guessed = [name for place, name in enumerate(header) if name and not names[place]]
        if guessed or (set(columns) - set(header) and _strange(first, names)):
            unknown = TableRow(cells[0][0], cells[0][1].strip(), {})
        cells = cells[1:]
    empty = dict.fromkeys(columns, "")
    rows = (TableRow(number, line.strip(), {**empty, **_named(header, row)}) for number, line, row in cells)
    return Table(tuple(rows), tuple(filter(None, header)), unknown, tuple(guessed))


def _completed(
    names: Sequence[str], cells: Sequence[str], columns: Sequence[str], optional: Collection[str]
) -> Sequence[str]:
    """A header with the columns that it does not name: all of them by position if nothing contradicts that, or the only one left."""
    missing = [name for name in columns if name not in names]
    strange = _strange(cells, names)
    places = [columns.index(name) for name in missing]
    wanted = [name for name in missing if name not in optional]
    in_order = all(not name or columns.index(name) == place for place, name in enumerate(names) if name in columns)
    if wanted and in_order and set(places) <= set(strange):
        return [columns[place] if place in places else name for place, name in enumerate(names)]
    if len(wanted) == len(strange) == 1:
        return [wanted[0] if place in strange else name for place, name in enumerate(names)]
    return names


def _strange(cells: Sequence[str], names: Sequence[str]) -> list[int]:
    """Positions of unknown words. A column of row numbers has no word, or the one that pandas writes."""
    return [
        place
        for place, (cell, name) in enumerate(zip(cells, names, strict=True))
        if not name and _spelled(cell) and not _spelled(cell).startswith("unnamed")
    ]


def parse_nodules(data: bytes) -> Parsed[NoduleRow]:
    r"""Parse the nodules of an ``annotations.csv``.

    Example:
        >>> table = parse_nodules(b"seriesuid,coordX,coordY,coordZ,diameter_mm\n80,-10.5,4,30,6.2\n")
        >>> table.good[0].series_uid, table.good[0].center, table.good[0].diameter
        ('80', (-10.5, 4.0, 30.0), 6.2)
    """
    table = parse_table(data, _NODULE_COLUMNS, _NODULE_SYNONYMS)
    good, bad = [], []
    for row in table.rows:
        numbers = read_numbers(row.cells[name] for name in _NODULE_COLUMNS[1:])
        if numbers is None or not row.cells["seriesuid"]:
            bad.append(row)
        else:
            x, y, z, diameter = numbers
            good.append(NoduleRow(row, row.cells["seriesuid"], (x, y, z), diameter))
    return Parsed(tuple(good), tuple(bad), table.unknown_header, table.guessed)


def parse_boxes(data: bytes) -> Parsed[BoxRow]:
    """Parse the nodules of an annotation table of slice stacks, in both spellings of its columns."""
    table = parse_table(data, _BOX_COLUMNS, _BOX_SYNONYMS, optional=_BOX_COLUMNS[7:])
    good, bad = [], []
    for row in table.rows:
        ends = read_numbers(row.cells[name] for name in _BOX_COLUMNS[1:7])
        if ends is None or any(end != int(end) for end in ends) or not row.cells["pid"]:
            bad.append(row)
            continue
        z0, z1, y0, y1, x0, x1 = map(int, ends)
        diameter = read_numbers([row.cells["diameter"]])
        good.append(
            BoxRow(
                row,
                row.cells["pid"],
                (x0, y0, z0),
                (x1, y1, z1),
                diameter[0] if diameter else None,
                _flag(row.cells.get("augmented", "")),
            )
        )
    return Parsed(tuple(good), tuple(bad), table.unknown_header, table.guessed)


def _split(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter))
    except csv.Error:  # for example a cell of more than 131,072 characters: the row cannot be read
        return []


def _header(cells: Sequence[str], synonyms: Mapping[str, Sequence[str]]) -> list[str]:
    """The name of each column, empty if it is unknown. Of two synonyms the exact spelling is used."""
    spelled = [_spelled(cell) for cell in cells]
    known = {spelling: name for name, spellings in synonyms.items() for spelling in spellings}
    names = [known.get(cell, "") for cell in spelled]
    chosen = {name: spelled.index(name) if name in spelled else names.index(name) for name in names if name}
    return [name if chosen.get(name) == place else "" for place, name in enumerate(names)]


def _named(header: Sequence[str], row: Sequence[str]) -> dict[str, str]:
    return {name: cell.strip() for name, cell in zip(header, row, strict=False) if name}


def _spelled(cell: str) -> str:
    """``"Diameter (mm)"`` becomes ``diameter_mm``."""
    return re.sub(r"[\W_]+", "_", cell.lower()).strip("_")


def _is_number(cell: str) -> bool:
    return read_numbers([cell]) is not None


def _flag(cell: str) -> bool | None:
    text = cell.strip().lower()
    if not text or text in ("nan", "null", "na", "unknown"):
        return None
    return text not in ("0", "0.0", "false", "no", "n", "none", "original")


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of a split list.

    Attributes:
        line: Line number in the file, from 1.
        text: The line.
        stem: Name of the image or case without folder and extension.
        boxes: The boxes after the name (xmin, ymin, xmax, ymax).
    """

    line: int
    text: str
    stem: str
    boxes: tuple[tuple[float, float, float, float], ...]

    @property
    def reference(self) -> str:
        """Line number and text, for findings: ``line 7: 80_20190314_003``."""
        return f"line {self.line}: {self.text[:200]}"


def parse_split_list(data: bytes) -> tuple[Listed, ...]:
    """Parse a split list: stems, paths, or paths with boxes. A path may contain blanks, backslashes, or another extension."""
    entries = []
    for number, line in enumerate(lines_of(data), 1):
        text = line.strip().lstrip("\ufeff").strip()
        if not text or text.startswith("#"):
            continue
        path = _IMAGE_PATH.match(text)
        name = path[1] if path else text.split()[0]
        rest = text[len(name) :]
        boxes = tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in _BOX.findall(rest)) or _bare_box(rest)
        file_name = name.replace("\\", "/").rpartition("/")[2]
        stem = file_name.rpartition(".")[0] if path else file_name
        entries.append(Listed(number, text, stem, boxes))
    return tuple(entries)


def _bare_box(rest: str) -> tuple[tuple[float, float, float, float], ...]:
    """One box with blanks between its numbers, optionally followed by the number of its class."""
    numbers = read_numbers(rest.split())
    return ((numbers[0], numbers[1], numbers[2], numbers[3]),) if numbers and len(numbers) in (4, 5) else ()
