"""Text and numbers as this field writes them: UTF-8 with or without a byte order mark, otherwise GB18030 (a superset of GBK, GB2312)."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from lung_nodule_ct.declaration.names import FULL_WIDTH

LARGEST: Final = 1e6
"""No distance in a chest is larger, in millimetres or in pixels. A larger number is not a measurement; it can be a date (20190314)."""

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

Mark = Literal["decimal", "groups", "unknown"]

_COMMA_GROUPS = re.compile(r"\d{1,3}(?:,\d{3})+\.\d|(?<![\d,.])\d{1,3}(?:,\d{3}){2,}(?![\d,.])")
_COMMA_DECIMALS = re.compile(r"(?<![\d,.])(?:\d{1,3}(?:\.\d{3})+|\d+),(?!\d{3}(?!\d))\d+(?![\d,.])|\d\.\d{3},\d")
_POINT_GROUPS = re.compile(r"\d\.\d{3},\d|(?<![\d,.])\d{1,3}(?:\.\d{3}){2,}(?![\d,.])")
_POINT_DECIMALS = re.compile(r"(?<![\d.])\d+\.(?!\d{3}(?!\d))\d+(?![\d.])|\d,\d{3}\.\d")
_GROUP_BLANKS = re.compile(r"(?<=\d)[ \u00a0\u2009\u202f'\u2019](?=\d{3}(?!\d))")
_NUMBER_CHARACTERS = re.compile(r"[0-9eE+\-.,'\s]*")
_MARKED = re.compile(r"\d[,.' \u00a0\u2009\u202f\u2019]\d|\u2212\d")
_QUOTED_CELL = re.compile(r'"[^"\n]*"')


def decode_text(data: bytes) -> str:
    """Return a text without its byte order mark. Bytes that are neither UTF-8 nor GB18030 become replacement characters."""
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return data.decode(encoding, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("gb18030", "replace")


def open_text(data: bytes) -> io.StringIO:
    """Return a text as a stream of lines with universal line ends, without byte order marks."""
    return io.StringIO(decode_text(data).lstrip("\ufeff"), newline=None)


def lines_of(data: bytes) -> list[str]:
    """Return the lines of a text, without line ends and trailing blanks."""
    return [line.rstrip() for line in decode_text(data).splitlines()]


def read_numbers(texts: Iterable[str]) -> tuple[float, ...] | None:
    """Return texts as numbers, or ``None`` if one of them is not a finite number of at most :data:`LARGEST`.

    Example:
        >>> read_numbers(["1.5", "-2"]), read_numbers(["1.5", "n/a"])
        ((1.5, -2.0), None)
    """
    values = []
    for text in texts:
        value = _plain_number(text)
        if value is None:
            return None
        values.append(value)
    return tuple(values)


@dataclass(frozen=True, slots=True)
class NumberNotation:
    """How a table writes its numbers.

    Attributes:
        comma: What one comma before three digits is, as in ``1,234``: a decimal mark, a mark of thousands, or unknown.
        point: What one point before three digits is, as in ``1.234``.
    """

    comma: Mark = "unknown"
    point: Mark = "decimal"

    @classmethod
    def of(cls, text: str, delimiter: str) -> NumberNotation:
        """Return the notation of a table. The numbers of one table are written alike, so an unambiguous one decides for all.

        Example:
            >>> NumberNotation.of("3;1,5;-1.020,25", ";").read("-123,456")
            -123.456
            >>> NumberNotation.of('3,1.5,"1,020"', ",").read("1,020")
            1020.0
        """
        # in a table that is divided by commas, a comma is part of a number in quotes only
        cells = text if delimiter != "," else " ".join(_QUOTED_CELL.findall(text)) if '"' in text else ""
        if "," not in cells:
            return cls()
        comma_decimals, comma_groups = _COMMA_DECIMALS.search(cells), _COMMA_GROUPS.search(cells)
        point_decimals, point_groups = _POINT_DECIMALS.search(text), _POINT_GROUPS.search(cells)
        comma: Mark = "unknown"
        if comma_groups or (point_decimals and not comma_decimals):
            comma = "unknown" if comma_decimals else "groups"
        elif comma_decimals or (delimiter != "," and not point_decimals):
            comma = "unknown" if point_decimals else "decimal"
        return cls(comma, "groups" if point_groups and not point_decimals else "decimal")

    def read(self, text: str) -> float | None:
        """Return the number, or ``None`` if the text is not one, or if it is unknown which."""
        if not text.isascii():
            text = text.translate(FULL_WIDTH)
        if (self.point == "decimal" or "." not in text) and (value := _plain_number(text)) is not None:
            return value
        if not _MARKED.search(text):  # most cells that are not numbers, quickly
            return None
        number = _GROUP_BLANKS.sub("", text.strip().replace("\u2212", "-"))
        marks = [char for char in number if char in ",."]
        if not marks:
            return _plain_number(number)
        last = marks[-1]
        other = "," if last == "." else "."
        if len(set(marks)) == 2:
            whole, _, rest = number.rpartition(last)
            return (
                None
                if last in whole or not _in_groups(whole, other)
                else _plain_number(f"{whole.replace(other, '')}.{rest}")
            )
        if len(marks) > 1:
            return _plain_number(number.replace(last, "")) if _in_groups(number, last) else None
        if _in_groups(number, last):
            mark = self.comma if last == "," else self.point
            return None if mark == "unknown" else _plain_number(number.replace(last, "" if mark == "groups" else "."))
        return _plain_number(number.replace(last, "."))

    def read_all(self, texts: Sequence[str]) -> tuple[float, ...] | None:
        """Return the numbers, or ``None`` if one of them cannot be read."""
        if "" in texts:
            return None
        written = " ".join(texts)
        if not written.isascii():
            texts = [text.translate(FULL_WIDTH) for text in texts]
        if written.isascii() and not _NUMBER_CHARACTERS.fullmatch(written):  # most rows that cannot be read, quickly
            return None
        if self.point == "decimal" and "_" not in written:  # most rows that can be read
            try:
                numbers = tuple(map(float, texts))
            except ValueError:
                if not _MARKED.search(written):
                    return None
            else:
                return numbers if all(-LARGEST <= number <= LARGEST for number in numbers) else None
        values = []
        for text in texts:
            value = self.read(text)
            if value is None:
                return None
            values.append(value)
        return tuple(values)


def _plain_number(text: str) -> float | None:
    """A finite number of at most :data:`LARGEST` with a decimal point. Underscores are valid in numbers of Python only."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) <= LARGEST and "_" not in text else None


def _in_groups(number: str, mark: str) -> bool:
    """Whether the marks separate groups of three digits: ``1,234`` or ``-12.345.678``, and not ``0,123``."""
    first, *groups = number.lstrip("+-").split(mark)
    return (
        1 <= len(first) <= 3
        and first.isdecimal()
        and not first.startswith("0")
        and all(len(group) == 3 and group.isdecimal() for group in groups)
    )
