"""``VOC_CT.xlsx``: file name, xmin, ymin, xmax, ymax. It repeats the boxes of the XML files and is read as a cross-check.

An .xlsx file is a zip archive. It passes the same checks as any other archive before openpyxl reads it, and the number of rows and columns
is limited.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final

from defusedxml.ElementTree import DefusedXMLParser

from lung_nodule_ct.declaration.identity import quoted
from lung_nodule_ct.formats.columns import HEADER_ROWS, ColumnSpec, Header, find_header
from lung_nodule_ct.formats.text import NumberNotation
from lung_nodule_ct.sources.byte_sources import MemoryFile
from lung_nodule_ct.sources.source import ArchivePool
from lung_nodule_ct.sources.zip_directory import read_directory
from lung_nodule_ct.sources.zip_member import read_member

MAX_WORKBOOK_BYTES: Final = 16 << 20
MAX_WORKBOOK_ROWS: Final = 40_000
_MAX_SHEET_BYTES = 16 << 20
_MAX_PART_BYTES = 4 << 20
"""The maximum size of the parts that are neither sheets nor their texts."""
_MAX_COLUMNS = 64
_MAX_SHEETS = 100
_MAX_PROLOGUE_BYTES = 4096
_ROOT = re.compile(rb"<(?:[\w.-]+:)?(worksheet|sst)[\s>/]")

_BOX = ("xmin", "ymin", "xmax", "ymax")
_SPEC = ColumnSpec(
    columns=("image", *_BOX),
    synonyms={
        "image": (
            *(
                "image",
                "image_name",
                "filename",
                "file_name",
                "file",
                "name",
                "img",
                "img_name",
                "picture",
                "stem",
                "image_id",
                "id",
            ),
            *("图像", "图像名", "图像名称", "图片", "图片名", "图片名称", "文件名", "文件", "名称"),
        ),
        **{
            end: (end, f"{end[0]}_{end[1:]}", f"{end[1:]}{end[0]}", f"{end[1:]}_{end[0]}", number)
            for end, number in zip(_BOX, ("x1", "y1", "x2", "y2"), strict=True)
        },
    },
)


@dataclass(frozen=True, slots=True)
class WorkbookRow:
    """One box: the file name of the image, and xmin, ymin, xmax, ymax; ``None`` if a cell is not a number."""

    line: int
    name: str
    box: tuple[float, float, float, float] | None
    sheet: str = ""

    @property
    def reference(self) -> str:
        """Line number and text, for findings: ``line 7: 80_20190314_003.jpg 1 2 3 4``, with the sheet if there are several."""
        where = f"sheet {quoted(self.sheet)}, " if self.sheet else ""
        return f"{where}line {self.line}: {', '.join([self.name, *(f'{end:g}' for end in self.box or ())])}"


@dataclass(frozen=True, slots=True)
class Workbook:
    """The boxes of all sheets.

    Attributes:
        rows: In the order of the sheets.
        unread: Name of each sheet that has no such table, and why it is not read; blank sheets of several are left out.
        guessed: Name of each sheet whose header has unknown words, and the columns that are taken by their position.
        num_headings: Number of headers, and of rows before them.
        num_unread: Number of rows in sheets that are not read.
        num_filled: Number of rows with content in all sheets, counted in their XML and not by the reader of the rows.
    """

    rows: tuple[WorkbookRow, ...]
    unread: tuple[tuple[str, str], ...] = ()
    guessed: tuple[tuple[str, tuple[str, ...]], ...] = ()
    num_headings: int = 0
    num_unread: int = 0
    num_filled: int = 0


def parse_workbook(data: bytes, name: str) -> Workbook:
    """Parse the boxes of all sheets, by the names of their columns, or by position in a sheet without a header.

    Raises:
        ValueError: The file is not a workbook, or exceeds a limit.
    """
    parts = _read_parts(data, name)
    from openpyxl import load_workbook  # noqa: PLC0415 -- a third of the start-up time, for one config

    rows: list[WorkbookRow] = []
    unread: list[tuple[str, str]] = []
    guessed: list[tuple[str, tuple[str, ...]]] = []
    headings = others = 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of openpyxl about styles and extensions
            book = load_workbook(io.BytesIO(data), read_only=True, data_only=True)
            sheets = book.worksheets
            if len(sheets) > _MAX_SHEETS:
                raise _LimitError(f"more than {_MAX_SHEETS} sheets")
            for sheet in sheets:
                limit = MAX_WORKBOOK_ROWS - len(rows) - others
                cells = sheet.iter_rows(max_row=limit + 1, max_col=_MAX_COLUMNS, values_only=True)
                lines = _limited(cells, limit)
                first = list(islice(lines, HEADER_ROWS))
                header = find_header([texts for _, texts in first], _SPEC)
                if header.guessed:
                    guessed.append((sheet.title, header.guessed))
                if problem := _problem(header, first):
                    if not first and len(sheets) > 1:
                        continue
                    unread.append((sheet.title, problem))
                    others += len(first) + sum(1 for _ in lines)
                else:
                    headings += header.row + 1
                    following = chain(first[header.row + 1 :], lines)
                    rows += _rows(following, header, sheet.title if len(sheets) > 1 else "")
            book.close()
        filled = _count_filled_rows(parts)
    except _LimitError as error:
        raise ValueError(f"{name} exceeds a limit: {error}") from error
    except Exception as error:  # openpyxl raises many types: KeyError, TypeError, BadZipFile, ParseError, ...
        raise ValueError(f"{name} is not a workbook ({type(error).__name__}: {error})") from error
    return Workbook(tuple(rows), tuple(unread), tuple(guessed), headings, others, filled)


class _LimitError(ValueError):
    """A workbook exceeds a limit."""


def _limited(rows: Iterable[Sequence[object]], limit: int) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of the rows that are not blank, as text."""
    for line, cells in enumerate(rows, 1):
        if line > limit:
            raise _LimitError(f"more than {MAX_WORKBOOK_ROWS:,} rows")
        texts = ["" if cell is None else str(cell).strip() for cell in cells]
        while texts and not texts[-1]:
            texts.pop()
        if texts:
            yield line, texts


def _rows(lines: Iterable[tuple[int, list[str]]], header: Header, sheet: str) -> Iterator[WorkbookRow]:
    for line, cells in lines:
        padded = [*cells, *[""] * (_MAX_COLUMNS - len(cells))]
        ends = NumberNotation().read_all([padded[header.places[name]] for name in _BOX])
        box = None if ends is None else (ends[0], ends[1], ends[2], ends[3])
        yield WorkbookRow(line, padded[header.places["image"]], box, sheet)


def _problem(header: Header, first: Sequence[tuple[int, list[str]]]) -> str | None:
    """Why a sheet cannot be read."""
    if not first:
        return "it is empty"
    expected = f"expected columns named {', '.join(_SPEC.columns)}"
    if missing := [name for name in _SPEC.columns if name not in header.places]:
        return f"{expected}, got none named {', '.join(missing)}"
    if header.row < 0 and not any(len(cells) == len(_SPEC.columns) for _, cells in first):
        return f"{expected}, or rows of a file name and four numbers without a header"
    return None


def _read_parts(data: bytes, name: str) -> list[bytes]:
    """Inflate each part of the workbook within limits, before openpyxl does so without any."""
    parts = []
    with ArchivePool({name: MemoryFile(data)}) as archives:
        for member in read_directory(archives[name], name, name).members:
            is_sheet = member.name.startswith("xl/worksheets/") or member.stem == "sharedStrings"
            parts.append(read_member(member, archives, limit=_MAX_SHEET_BYTES if is_sheet else _MAX_PART_BYTES))
    return parts


def _count_filled_rows(parts: Sequence[bytes]) -> int:
    """Number of rows with a cell that is not blank, in all parts that are sheets."""
    roots = [(part, found[1]) for part in parts if (found := _ROOT.search(part[:_MAX_PROLOGUE_BYTES]))]
    texts = _BlankTexts()
    rows = _FilledRows(texts.blank)
    for target, name in ((texts, b"sst"), (rows, b"worksheet")):
        for part, root in roots:
            if root == name:
                parser = DefusedXMLParser(target=target)
                parser.feed(part)
                parser.close()
    return rows.count


class _BlankTexts:
    """Finds the numbers of the shared texts that are blank. The cells of a workbook contain these numbers in place of texts."""

    def __init__(self) -> None:
        self.blank: set[int] = set()
        self._number, self._is_blank, self._is_read = 0, True, False

    def start(self, tag: str, _attributes: Mapping[str, str]) -> None:
        self._is_read = _local(tag) == "t"
        if _local(tag) == "si":
            self._is_blank = True

    def data(self, text: str) -> None:
        if self._is_read and text.strip():
            self._is_blank = False

    def end(self, tag: str) -> None:
        self._is_read = False
        if _local(tag) == "si":
            if self._is_blank:
                self.blank.add(self._number)
            self._number += 1

    def close(self) -> None:
        """All texts were read."""


class _FilledRows:
    """Counts the rows that have a cell with a value.

    Args:
        blank_texts: The numbers of the shared texts that are blank.
    """

    def __init__(self, blank_texts: Container[int]) -> None:
        self.count = 0
        self._blank_texts = blank_texts
        self._is_filled, self._is_read = False, False
        self._type, self._value = "", list[str]()

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        name = _local(tag)
        if name == "row":
            self._is_filled = False
        elif name == "c":
            self._type, self._value = attributes.get("t", ""), []
        self._is_read = name == ("t" if self._type == "inlineStr" else "v")

    def data(self, text: str) -> None:
        if self._is_read:
            self._value.append(text)

    def end(self, tag: str) -> None:
        self._is_read = False
        name = _local(tag)
        if name == "c" and (value := "".join(self._value).strip()):
            self._is_filled |= not (self._type == "s" and int(value) in self._blank_texts)
        elif name == "row":
            self.count += self._is_filled

    def close(self) -> None:
        """A sheet was read."""


def _local(tag: str) -> str:
    """The name of an element without its namespace."""
    return tag.rpartition("}")[2]
