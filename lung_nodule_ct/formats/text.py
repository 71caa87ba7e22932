"""Text as it comes in this field: UTF-8 with or without a byte order mark, else GB18030 (which holds GBK and GB2312).

Numbers as tables and annotations write them.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from typing import Final

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decode_text(data: bytes) -> str:
    """The text, with its byte order mark gone. Bytes that are neither UTF-8 nor GB18030 become replacement characters."""
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return data.decode(encoding, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("gb18030", "replace")


def lines_of(data: bytes) -> list[str]:
    """The lines of a text, without their ends and without trailing blanks."""
    return [line.rstrip() for line in decode_text(data).splitlines()]


#: Nothing in a chest is further away, in millimetres or in pixels; what is larger is no measurement, and could overflow.
LARGEST: Final = 1e9


def read_numbers(texts: Iterable[str]) -> tuple[float, ...] | None:
    """The numbers; ``None`` where one of them is none, is not finite, or is larger than :data:`LARGEST`."""
    try:
        # Python's own underscores ("1_000") are no part of a number anywhere else
        values = tuple(float(text.replace("_", "?")) for text in texts)
    except ValueError:
        return None
    return values if all(abs(value) <= LARGEST for value in values) else None
