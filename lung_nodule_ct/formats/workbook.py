"""``VOC_CT.xlsx``: file name, xmin, ymin, xmax, ymax. It repeats the boxes of the XML files and is read as a cross-check.

An .xlsx file is a zip archive. It passes the same checks as any other archive before openpyxl reads it, and the number of rows and columns
is limited.
"""

from __future__ import annotations

import io
import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.sources.byte_sources import MemoryFile
from lung_nodule_ct.sources.source import ArchivePool
from lung_nodule_ct.sources.zip_directory import read_directory
from lung_nodule_ct.sources.zip_member import read_member

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_WORKBOOK_BYTES: Final = 64 << 20
_MAX_PART_BYTES = 256 << 20
_MAX_ROWS = 1_000_000
_MAX_COLUMNS = 16


@dataclass(frozen=True, slots=True)
class WorkbookRow:
    """One box: the file name of the image, and xmin, ymin, xmax, ymax; ``None`` if a cell is not a number."""

    line: int
    name: str
    box: tuple[float, float, float, float] | None

    @property
    def reference(self) -> str:
        """Line number and text, for findings: ``line 7: 80_20190314_003.jpg 1 2 3 4``."""
        return f"line {self.line}: {self.name} {' '.join(f'{end:g}' for end in self.box or ())}".rstrip()


def parse_workbook(data: bytes, name: str) -> tuple[WorkbookRow, ...]:
    """Parse the rows of the first sheet, without its header.

    Raises:
        ValueError: The file is not a workbook, or exceeds a limit.
    """
    _refuse_bombs(data, name)
    from openpyxl import load_workbook  # noqa: PLC0415 -- a third of the start-up time, for one config

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of openpyxl about styles and extensions
            book = load_workbook(io.BytesIO(data), read_only=True, data_only=True)
            sheet = book.worksheets[0]
            rows = [
                parsed
                for line, cells in enumerate(
                    sheet.iter_rows(max_row=_MAX_ROWS, max_col=_MAX_COLUMNS, values_only=True), 1
                )
                if (parsed := _row(line, cells)) is not None
            ]
            book.close()
    except Exception as error:  # openpyxl raises many types: KeyError, TypeError, BadZipFile, ParseError, ...
        raise ValueError(f"{name} is not a workbook ({type(error).__name__}: {error})") from error
    return tuple(rows)


def _row(line: int, cells: Sequence[object]) -> WorkbookRow | None:
    filled = [cell for cell in cells if cell is not None and str(cell).strip()]
    if not filled:
        return None
    numbers = [_number(cell) for cell in cells[1:5]]
    if line == 1 and all(number is None for number in numbers):
        return None  # the header
    box = None
    if len(numbers) == 4 and None not in numbers:
        xmin, ymin, xmax, ymax = (number for number in numbers if number is not None)
        box = (xmin, ymin, xmax, ymax)
    return WorkbookRow(line, str(cells[0] or "").strip(), box)


def _number(cell: object) -> float | None:
    try:
        value = float(str(cell))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _refuse_bombs(data: bytes, name: str) -> None:
    """Inflate each part of the workbook within limits, before openpyxl does so without any."""
    with ArchivePool({name: MemoryFile(data)}) as archives:
        for member in read_directory(archives[name], name, name).members:
            read_member(member, archives, limit=_MAX_PART_BYTES)
