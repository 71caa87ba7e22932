"""Text and numbers as this field writes them: UTF-8 with or without a byte order mark, otherwise GB18030 (a superset of GBK, GB2312)."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from typing import Final

LARGEST: Final = 1e9
"""No distance in a chest is larger, in millimetres or in pixels. A larger number is not a measurement, and could overflow."""

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decode_text(data: bytes) -> str:
    """Return a text without its byte order mark. Bytes that are neither UTF-8 nor GB18030 become replacement characters."""
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return data.decode(encoding, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("gb18030", "replace")


def lines_of(data: bytes) -> list[str]:
    """Return the lines of a text, without line ends and trailing blanks."""
    return [line.rstrip() for line in decode_text(data).splitlines()]


def read_numbers(texts: Iterable[str]) -> tuple[float, ...] | None:
    """Return texts as numbers, or ``None`` if one of them is not a finite number of at most :data:`LARGEST`.

    Example:
        >>> read_numbers(["1.5", "-2"]), read_numbers(["1.5", "n/a"])
        ((1.5, -2.0), None)
    """
    try:
        # underscores are valid in numbers of Python only ("1_000")
        values = tuple(float(text.replace("_", "?")) for text in texts)
    except ValueError:
        return None
    return values if all(abs(value) <= LARGEST for value in values) else None
