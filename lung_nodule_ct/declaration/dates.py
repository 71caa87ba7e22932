"""Calendar dates as people write them, told from other numbers."""

from __future__ import annotations

import re
from datetime import date

_SEPARATED = r"[-_./: ]"
_DATES = (
    re.compile(r"(?<![0-9A-Za-z])(?P<y>(?:19|20)\d\d)(?P<m>\d\d)(?P<d>\d\d)(?![0-9A-Za-z])"),
    re.compile(rf"(?<!\d)(?P<y>(?:19|20)\d\d)({_SEPARATED}|年)(?P<m>\d\d?)(?:\2|月)(?P<d>\d\d?)(?!\d)"),
    re.compile(rf"(?<!\d)(?P<d>\d\d?)({_SEPARATED})(?P<m>\d\d?)\2(?P<y>(?:19|20)\d\d)(?!\d)"),
    re.compile(rf"(?<!\d)(?P<m>\d\d?)({_SEPARATED})(?P<d>\d\d?)\2(?P<y>(?:19|20)\d\d)(?!\d)"),
)
_WITHIN_WORDS = re.compile(r"(?<!\d)(?P<y>(?:19|20)\d\d)(?P<m>\d\d)(?P<d>\d\d)(?!\d)")


def count_dates(text: str, *, within_words: bool = False) -> int:
    """How many calendar dates from 1900 to 2099 a text spells.

    Args:
        text: Any text.
        within_words: Whether eight digits between letters count, too; in hashes they stand by chance.
    """
    patterns = (*_DATES, _WITHIN_WORDS) if within_words else _DATES
    spans = {found.span() for pattern in patterns for found in pattern.finditer(text) if _is_date(found)}
    return len(spans)


def _is_date(found: re.Match[str]) -> bool:
    try:
        date(int(found["y"]), int(found["m"]), int(found["d"]))
    except ValueError:
        return False
    return True
