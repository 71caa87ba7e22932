"""Annotation tables (CSV): by header or by position, with names as strings, in the notations of programs and spreadsheets."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Final, Generic, TypeVar

from lung_nodule_ct.declaration.findings import MAX_PLACES
from lung_nodule_ct.declaration.identity import quoted
from lung_nodule_ct.formats.columns import HEADER_ROWS, MAX_CELLS, ColumnSpec, Header, find_header
from lung_nodule_ct.formats.text import NumberNotation, open_text

MAX_TABLE_BYTES: Final = 32 << 20
MAX_ROWS: Final = 1 << 20
"""The maximum number of rows of a table or a list, which is also that of a worksheet."""
MAX_LINE: Final = 1 << 16
"""The maximum length of a row in characters."""
_MAX_READABLE = 1 << 18
_MAX_PER_NAME = 10_000
"""The maximum number of rows about one scan or case."""

RowT = TypeVar("RowT")
_Cells = Sequence[str]

_DELIMITERS = (";", "\t", "|", ",")
_BLANK = ' \t,;|"'
COMMENTS: Final = ("#", "//")
"""What a comment in a table or a list starts with."""
_DECLARED_DELIMITER = re.compile(r'\s*"?sep=(.)"?\s*', re.IGNORECASE)
_DIAMETERS = ("diameter", "d", "diam", "直径")
_NODULES = ColumnSpec(
    columns=("seriesuid", "coordx", "coordy", "coordz", "diameter_mm"),
    synonyms={
        "seriesuid": (
            *("seriesuid", "series_uid", "scan", "scan_name", "scan_id", "name", "filename", "file_name", "file"),
            *("id", "case", "case_id", "case_number", "scan_number", "patient", "patient_id", "pid", "patient_number"),
        ),
        "coordx": ("coordx", "coord_x", "x", "world_x", "x_mm", "center_x", "centre_x"),
        "coordy": ("coordy", "coord_y", "y", "world_y", "y_mm", "center_y", "centre_y"),
        "coordz": ("coordz", "coord_z", "z", "world_z", "z_mm", "center_z", "centre_z"),
        "diameter_mm": ("diameter_mm", *_DIAMETERS, "size_mm"),
        "radius_mm": ("radius_mm", "radius", "半径_mm", "半径"),
    },
    optional=frozenset(),
    instead={"diameter_mm": "radius_mm"},
)
_BOXES = ColumnSpec(
    columns=("pid", "zmin", "zmax", "ymin", "ymax", "xmin", "xmax", "diameter"),
    synonyms={
        "pid": ("pid", "id", "case", "case_id", "case_number", "name", "patient", "patient_id", "patient_number"),
        **{
            f"{axis}{end}": (f"{axis}{end}", f"{axis}_{end}", f"{end}{axis}", f"{end}_{axis}")
            for axis in "zyx"
            for end in ("min", "max")
        },
        "diameter": (*_DIAMETERS, "diameter_mm", "直径_mm"),
        "augmented": ("augmented", "augment", "augmentation", "is_augmented", "aug"),
    },
    optional=frozenset({"diameter"}),
)
_ENDS = _BOXES.columns[1:7]
"""The columns of voxel numbers, which are whole."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a table or a list.

    Attributes:
        line: Line number in the file, from 1.
        text: The line, at most its first 200 characters.
        problem: Why it cannot be read; empty if it can.
    """

    line: int
    text: str
    problem: str = ""

    @property
    def reference(self) -> str:
        """Line number and text, for findings: ``line 7: 80_20190314,1,2``."""
        return f"line {self.line}: {self.text}"


@dataclass(frozen=True, slots=True)
class NoduleRow:
    """A nodule in the style of LUNA16: name of the scan, centre x, y, z in LPS mm, diameter in mm (``None`` without such a column)."""

    row: TableRow
    series_uid: str
    center: tuple[float, float, float]
    diameter: float | None


@dataclass(frozen=True, slots=True)
class BoxRow:
    """A nodule box of a slice stack.

    Attributes:
        row: The row.
        pid: The case.
        low: First voxel x, y, z as published.
        high: Last voxel, inclusive, likewise.
        diameter: As published, ``None`` if it is missing or cannot be read.
        augmented: Whether the case is marked as a flipped or rotated copy, ``None`` if the row does not say.
        is_diameter_unreadable: Whether there is a diameter that cannot be read.
    """

    row: TableRow
    pid: str
    low: tuple[int, int, int]
    high: tuple[int, int, int]
    diameter: float | None
    augmented: bool | None
    is_diameter_unreadable: bool = False


@dataclass(frozen=True, slots=True)
class Parsed(Generic[RowT]):
    """The rows of a table, as records.

    Attributes:
        good: The rows that can be used.
        bad: The first hundred rows that cannot be read.
        bad_count: Number of rows that cannot be read.
        bad_names: The names in these rows.
        unknown_header: The header, if it has unknown words and lacks a column.
        guessed: Columns that were assigned by position, because the header does not name them.
        skipped: The lines before the header, at most the first twenty.
        ignored: Number of lines of the heading, and of comments.
        converted: How a column was converted; empty if none was.
    """

    good: tuple[RowT, ...]
    bad: tuple[TableRow, ...]
    bad_count: int
    bad_names: frozenset[str]
    unknown_header: TableRow | None
    guessed: tuple[str, ...]
    skipped: tuple[TableRow, ...] = ()
    converted: str = ""
    ignored: int = 0


@dataclass(frozen=True, slots=True)
class _Table:
    """A table whose header was read, and whose rows can be read once."""

    header: Header
    header_row: TableRow | None
    skipped: tuple[TableRow, ...]
    heading: int
    notation: NumberNotation
    rows: Iterator[tuple[int, str, _Cells]]


def parse_nodules(data: bytes) -> Parsed[NoduleRow]:
    r"""Parse the nodules of an ``annotations.csv``.

    Raises:
        ValueError: The table exceeds a limit.

    Example:
        >>> table = parse_nodules(b"seriesuid,coordX,coordY,coordZ,diameter_mm\n80,-10.5,4,30,6.2\n")
        >>> table.good[0].series_uid, table.good[0].center, table.good[0].diameter
        ('80', (-10.5, 4.0, 30.0), 6.2)
    """
    table = _open_table(data, _NODULES)
    places, read_all = table.header.places, table.notation.read_all
    size = next((name for name in ("diameter_mm", "radius_mm") if name in places), None)
    numbers = [name for name in ("coordx", "coordy", "coordz", size) if name]
    factor = 2 if size == "radius_mm" else 1

    def read(line: int, text: str, name: str, cells: _Cells) -> NoduleRow | None:
        values = read_all(take(cells)) if take else None
        if values is None:
            return None
        diameter = factor * values[3] if size else None
        return NoduleRow(TableRow(line, text[:200]), name, (values[0], values[1], values[2]), diameter)

    take = _cells_of(numbers, places)
    return _parse(table, "seriesuid", numbers, read, "radius_mm is doubled" if factor == 2 else "")


def parse_boxes(data: bytes) -> Parsed[BoxRow]:
    """Parse the nodules of an annotation table of slice stacks, in both spellings of its columns.

    Raises:
        ValueError: The table exceeds a limit.
    """
    table = _open_table(data, _BOXES)
    places, notation = table.header.places, table.notation
    take = _cells_of(_ENDS, places)

    def read(line: int, text: str, name: str, cells: _Cells) -> BoxRow | None:
        ends = notation.read_all(take(cells)) if take else None
        if ends is None or any(end != int(end) for end in ends):
            return None
        z0, z1, y0, y1, x0, x1 = map(int, ends)
        written = cells[places["diameter"]].strip() if "diameter" in places else ""
        diameter = notation.read(written)
        augmented = _flag(cells[places["augmented"]]) if "augmented" in places else None
        unreadable = bool(written) and diameter is None
        row = TableRow(line, text[:200])
        return BoxRow(row, name, (x0, y0, z0), (x1, y1, z1), diameter, augmented, unreadable)

    return _parse(table, "pid", _ENDS, read)


def _cells_of(columns: Sequence[str], places: Mapping[str, int]) -> Callable[[_Cells], tuple[str, ...]] | None:
    """Return what takes the cells of some columns from a row; ``None`` if the table lacks one of them."""
    return itemgetter(*(places[name] for name in columns)) if all(name in places for name in columns) else None


def _parse(
    table: _Table,
    name_column: str,
    numbers: Sequence[str],
    read: Callable[[int, str, str, _Cells], RowT | None],
    converted: str = "",
) -> Parsed[RowT]:
    """Read all rows. What cannot be read is counted, and the first hundred are described."""
    good: list[RowT] = []
    bad: list[TableRow] = []
    bad_count, bad_names, ignored = 0, set(), table.heading
    per_name: dict[str, int] = {}
    width, name_place = table.header.width, table.header.places.get(name_column)
    for number, (line, text, cells) in enumerate(table.rows, 1):
        if number > MAX_ROWS:
            raise ValueError(f"it has more than {MAX_ROWS:,} rows")
        name = cells[name_place].strip() if name_place is not None and name_place < len(cells) else ""
        record = None
        if name and (len(cells) <= width or not any(cell.strip() for cell in cells[width:])):
            padded = cells if len(cells) >= width else [*cells, *[""] * (width - len(cells))]
            count = per_name.get(name, 0)
            record = read(line, text, name, padded) if count < _MAX_PER_NAME else None
        if record is not None:
            per_name[name] = count + 1
            good.append(record)
            if len(good) > _MAX_READABLE:
                raise ValueError(f"it has more than {_MAX_READABLE:,} rows that can be read")
        elif text.startswith(COMMENTS):
            ignored += 1
        else:
            bad_count += 1
            bad_names.add(name[:200])
            if len(bad) < MAX_PLACES:
                too_many = per_name.get(name, 0) >= _MAX_PER_NAME
                problem = (
                    f"more than {_MAX_PER_NAME:,} rows of {quoted(name)}"
                    if too_many
                    else _problem(table, cells, name, numbers)
                )
                bad.append(TableRow(line, text[:200], problem))
    header_row = table.header_row if table.header.is_unknown else None
    return Parsed(
        tuple(good),
        tuple(bad),
        bad_count,
        frozenset(bad_names),
        header_row,
        table.header.guessed,
        table.skipped,
        "; ".join([converted] * bool(converted) + [_DECIMAL_COMMAS] * (table.notation.comma == "decimal")),
        ignored,
    )


_DECIMAL_COMMAS = "commas are read as decimal marks"


def _problem(table: _Table, cells: _Cells, name: str, numbers: Sequence[str]) -> str:
    """What is wrong with a row."""
    places, width = table.header.places, table.header.width
    if not cells:
        return "it is too long"
    if any(cell.strip() for cell in cells[width:]):
        return f"expected {width} cells, got {len(cells)}"
    if missing := [column for column in numbers if column not in places]:
        return f"the table has no column {', '.join(missing)}"
    if not name:
        return "expected a name, got an empty cell"
    if len(cells) <= max(places[column] for column in numbers):
        return f"expected {width} cells, got {len(cells)}"
    written = [cells[places[column]].strip()[:40] for column in numbers]
    for text in written:
        if (value := table.notation.read(text)) is None:
            return f"expected a number, got {quoted(text)}"
        if numbers == _ENDS and value != int(value):
            return f"expected a whole number, got {quoted(text)}"
    return f"expected numbers, got {quoted(', '.join(written))}"


def _open_table(data: bytes, spec: ColumnSpec) -> _Table:
    """Find header and delimiter in the first lines, and return the rows that follow."""
    stream = open_text(data)
    delimiters: Sequence[str] = _DELIMITERS
    first: list[tuple[int, str]] = []
    number = declarations = 0
    while len(first) < HEADER_ROWS and (line := stream.readline()):
        number += 1
        declared = _DECLARED_DELIMITER.fullmatch(line) if not first else None
        if declared:
            delimiters = (declared[1],)
            declarations += 1
        elif not _is_blank(line):
            first.append((number, line.strip("\n")))
    score, delimiter, header = max((_layout(first, each, spec) for each in delimiters), key=lambda layout: layout[0])
    if not any(score):  # no delimiter makes columns: they may be aligned by blanks
        score, delimiter, header = max(
            ((score, delimiter, header), _layout(first, " ", spec)), key=lambda layout: layout[0]
        )
    body = first[header.row + 1 :]
    following = stream.read()
    notation = NumberNotation.of("\n".join([*(line for _, line in body), following]), delimiter)
    lines = chain(body, enumerate(io.StringIO(following), number + 1))
    row = TableRow(first[header.row][0], first[header.row][1].strip()[:200]) if header.row >= 0 else None
    skipped = tuple(TableRow(at, line.strip()[:200]) for at, line in first[: max(0, header.row)])
    return _Table(header, row, skipped, declarations + header.row + 1, notation, _rows(lines, delimiter))


def _rows(lines: Iterable[tuple[int, str]], delimiter: str) -> Iterator[tuple[int, str, _Cells]]:
    """Number, text and cells of the lines that are not blank."""
    for at, line in lines:
        text = line.strip()
        if text and (text[0] not in _BLANK or not _is_blank(text)):
            yield at, text, _split(line.rstrip("\n"), delimiter)


def _layout(first: Sequence[tuple[int, str]], delimiter: str, spec: ColumnSpec) -> tuple[tuple[int, int], str, Header]:
    """How well a delimiter fits: the columns that the header names, and the rows that are long enough."""
    rows = [_split(line, delimiter) for _, line in first]
    header = find_header(rows, spec)
    named = len(header.places) - len(header.guessed) if header.row >= 0 else 0
    return (named, sum(len(cells) >= len(spec.required) for cells in rows)), delimiter, header


def filled_lines(data: bytes) -> int:
    """Number of lines that are not blank: they hold more than white space, delimiters and quotes."""
    return sum(not _is_blank(line) for line in open_text(data))


def _is_blank(line: str) -> bool:
    return not line.strip().strip(_BLANK)


def _split(line: str, delimiter: str) -> _Cells:
    """The cells of a line, empty if it is too long. A quote that is not closed ends with its line."""
    if len(line) > MAX_LINE:
        return []
    if delimiter == " ":
        return line.split(None, MAX_CELLS)
    if '"' not in line:
        return line.split(delimiter, MAX_CELLS)
    try:
        return next(csv.reader([line], delimiter=delimiter))
    except (csv.Error, StopIteration):
        return []


def _flag(cell: str) -> bool | None:
    text = cell.strip().lower()
    if not text or text in ("nan", "null", "na", "unknown"):
        return None
    return text not in ("0", "0.0", "false", "no", "n", "none", "original")
