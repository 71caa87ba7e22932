"""Calendar dates in names and texts: the one parser that names, findings, the audit and publishing rely on.

A date is a day from 1900 to 2099. :func:`parse_date` decides whether digits are one. The patterns below only say where to look:
:func:`date_token` in the name of a scan, :func:`spells_date` anywhere in a name, :func:`count_dates` in texts that leave the
builder. :func:`mask_dates` is wider on purpose: it also masks what could be part of a date (``201903``, any eight digits).
"""

from __future__ import annotations

import re
from datetime import date
from typing import Final

MASK: Final = "<date>"

_CENTURY = r"(?:19|20)"
_YEAR = rf"{_CENTURY}\d\d"
_MONTH = r"(?:0[1-9]|1[0-2])"
_DAY = r"(?:0[1-9]|[12]\d|3[01])"
_SEPARATOR = r"[-_./: ]"

_TOKEN = re.compile(rf"(?<!\d)(\d{{8}}|{_YEAR}-\d\d-\d\d)(?!\d)")
_ANYWHERE = (
    re.compile(rf"(?=(?P<y>{_YEAR})(?P<m>\d\d)(?P<d>\d\d))"),
    re.compile(rf"(?<!\d)(?P<y>{_YEAR})[-_. ](?P<m>\d{{1,2}})[-_. ](?P<d>\d{{1,2}})(?!\d)"),
)
_SEPARATED = (
    re.compile(rf"(?<!\d)(?P<y>{_YEAR})({_SEPARATOR}|年)(?P<m>\d\d?)(?:\2|月)(?P<d>\d\d?)(?!\d)"),
    re.compile(rf"(?<!\d)(?P<d>\d\d?)({_SEPARATOR})(?P<m>\d\d?)\2(?P<y>{_YEAR})(?!\d)"),
    re.compile(rf"(?<!\d)(?P<m>\d\d?)({_SEPARATOR})(?P<d>\d\d?)\2(?P<y>{_YEAR})(?!\d)"),
)
_ALONE = re.compile(rf"(?<![0-9A-Za-z])(?P<y>{_YEAR})(?P<m>\d\d)(?P<d>\d\d)(?![0-9A-Za-z])")
_WITHIN_WORDS = re.compile(rf"(?<!\d)(?P<y>{_YEAR})(?P<m>\d\d)(?P<d>\d\d)(?!\d)")
_POSSIBLE = re.compile(
    rf"(?<![\d.])(?:\d{{8,}}|{_YEAR}{_MONTH}|\d\d{_MONTH}{_DAY})(?!\d)"
    rf"|(?<!\d){_YEAR}{_MONTH}{_DAY}(?!\d)"  # after a dot, too, unless it is a decimal of other digits
    rf"|(?<!\d){_YEAR}\s?([-_./ ]|年)\s?\d{{1,2}}\s?(?:\1|月)\s?\d{{1,2}}(?!\d)"
    rf"|(?<!\d)\d{{1,2}}([-_./])\d{{1,2}}\2{_YEAR}(?!\d)"
)


def parse_date(text: str) -> date | None:
    """Return the date that eight digits spell (year, month, day; with or without separators), or ``None``.

    Example:
        >>> parse_date("20190314"), parse_date("2019-03-14"), parse_date("20191314")
        (datetime.date(2019, 3, 14), datetime.date(2019, 3, 14), None)
    """
    digits = re.sub("[-_. ]", "", text)
    return _date(digits[:4], digits[4:6], digits[6:]) if len(digits) == 8 and digits.isdecimal() else None


def date_token(stem: str) -> re.Match[str] | None:
    """Return the first part of a name that is written like a date: eight digits, or ``YYYY-MM-DD``. It may not be a date."""
    return _TOKEN.search(stem)


def spells_date(text: str) -> bool:
    """Return whether a date occurs anywhere in a text, within longer runs of digits, too.

    Example:
        >>> spells_date("patient7x20190314"), spells_date("80")
        (True, False)
    """
    return any(_is_date(match) for pattern in _ANYWHERE for match in pattern.finditer(text))


def count_dates(text: str, *, within_words: bool = False) -> int:
    """Return the number of dates in a text.

    Args:
        text: Any text.
        within_words: Whether eight digits between letters count. In hashes they occur by chance.

    Example:
        >>> count_dates("scanned 14.03.2019, again 2020-09-05")
        2
    """
    patterns = (_ALONE, *_SEPARATED, *((_WITHIN_WORDS,) if within_words else ()))
    return len({match.span() for pattern in patterns for match in pattern.finditer(text) if _is_date(match)})


def mask_dates(text: str) -> str:
    """Return ``text`` with everything that could be a date, or the year and month of one, replaced by ``<date>``.

    Example:
        >>> mask_dates("line 3: 80_20190314,1.5")
        'line 3: 80_<date>,1.5'
    """
    return _POSSIBLE.sub(MASK, text)


def _is_date(match: re.Match[str]) -> bool:
    return _date(match["y"], match["m"], match["d"]) is not None


def _date(year: str, month: str, day: str) -> date | None:
    try:
        parsed = date(int(year), int(month), int(day))
    except ValueError:
        return None
    return parsed if 1900 <= parsed.year < 2100 else None
