"""Patients, dates and numbers in the names of the archives, and the ids that take the place of the names.

Names of the source contain calendar dates (``80_20190314``), so they stay in the builder. Examples carry sequence numbers: ``80-1`` is
the first scan of patient 80. No id is derived from a date by a hash or otherwise, because a date has so few values that every hash of it
can be reversed by trying them all. Only names of a known shape give a patient; all other names are treated as private.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from lung_nodule_ct.declaration.dates import count_dates, date_token, parse_date

FOLDS: Final = 5
"""Number of folds that the patients are divided into."""

# five digits, as the longest published number (09184) has; six digits could be a date (YYMMDD)
_PATIENT = re.compile(r"[0-9]{1,5}")
_SLICE = re.compile(r"([0-9]{1,4})(?:[_-]([0-9]{1,3}))?")
_YEAR = re.compile(r"(?:19|20)[0-9]{2}")


@dataclass(frozen=True, slots=True)
class Name:
    """What the stem of a file name states. A name of unknown shape states nothing.

    Attributes:
        patient: The patient as a string of one to five digits, with leading zeros; ``None`` if the name has another shape.
        day: The calendar date of the scan; ``None`` if there is none, or if it is not a date.
        bad_date: Digits in the position of a date that are not a date.
        part: What follows the date in the name of a volume; it distinguishes the volumes of one day.
        slice: Number of the slice, and of the crop if there is one, as written; ``None`` if the name has none.
    """

    patient: str | None = None
    day: date | None = None
    bad_date: str | None = None
    part: str = ""
    slice: str | None = None

    @property
    def fold(self) -> int | None:
        """The fold of the patient, 0 to 4, ``None`` without a patient."""
        return None if self.patient is None else fold_of(self.patient)

    @property
    def scan(self) -> tuple[str | None, date | None, str, str]:
        """Equal for two names of the same scan of a patient. It contains the date and stays in the builder."""
        return (self.patient, self.day, self.bad_date or "", self.part)


def parse_volume_name(stem: str) -> Name:
    """Parse the name of a volume: ``<patient>_<YYYYMMDD>``, or ``<patient>`` alone. More may follow the date.

    Example:
        >>> name = parse_volume_name("80_20190314")
        >>> name.patient, name.day
        ('80', datetime.date(2019, 3, 14))
        >>> parse_volume_name("80_14Mar2019").patient is None
        True
    """
    token = date_token(stem)
    if token is not None:
        day = parse_date(token.group())
        part = _strip(stem[token.end() :])
        return _name_of(_strip(stem[: token.start()]), day, None if day else token.group(), part)
    patient, _, rest = _strip(stem).partition("_")
    if rest.isdecimal():  # a number that is not a date follows the patient: 80_201903
        return _name_of(patient, None, rest, "")
    return Name() if rest else _name_of(patient, None, None, "")


def parse_image_name(stem: str) -> Name:
    """Parse the name of a slice or a crop: ``<patient>_<YYYYMMDD>_<slice>`` or ``<patient>_<slice>``.

    A number alone is not a patient. The number of a crop may follow that of its slice.

    Example:
        >>> name = parse_image_name("80_20190314_008_02")
        >>> name.patient, name.slice
        ('80', '008_02')
    """
    token = date_token(stem)
    if token is not None:
        patient, rest = _strip(stem[: token.start()]), _strip(stem[token.end() :])
        day = parse_date(token.group())
        if day or rest:
            return _name_of(patient, day, None if day else token.group(), "", rest)
    patient, _, rest = _strip(stem).partition("_")
    # eight digits at the very end that are not a date may also be the number of the slice
    if rest and (_SLICE.fullmatch(rest) or token is not None):
        return _name_of(patient, None, None, "", rest)
    return Name()


def fold_of(patient: str) -> int:
    """Return the fold of a patient, 0 to 4: a fixed hash, the same in every config and build."""
    digest = hashlib.sha256(f"lung_nodule_ct/1/fold/{patient}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % FOLDS


class ScanNumbers:
    """The number of every scan among the scans of its patient, by date.

    Args:
        names: The names of all volumes and images of a source.

    Example:
        >>> names = [parse_volume_name(stem) for stem in ("80_20190314", "80_20200611", "80_20200611_2", "7")]
        >>> numbers = ScanNumbers(names)
        >>> [numbers.scan_id(name) for name in names]
        ['80-1', '80-2', '80-2b', '7-1']
    """

    def __init__(self, names: Iterable[Name]) -> None:
        days: defaultdict[str, set[date]] = defaultdict(set)
        scans: defaultdict[tuple[str, date | None], set[tuple[str, str]]] = defaultdict(set)
        for name in names:
            if name.patient is None:
                continue
            if name.day is not None:
                days[name.patient].add(name.day)
            scans[name.patient, name.day].add((name.bad_date or "", name.part))
        self._ranks = {patient: {day: rank for rank, day in enumerate(sorted(own), 1)} for patient, own in days.items()}
        self._scans = {
            key: {scan: index for index, scan in enumerate(sorted(own, key=lambda scan: natural_key(" ".join(scan))))}
            for key, own in scans.items()
        }

    def scan_id(self, name: Name) -> str | None:
        """Return the id of a scan, ``None`` without a patient.

        It is the patient and the rank of the scan's date among the patient's distinct dates, from 1 (``80-1``). A second scan of one
        day has the suffix ``b`` (``80-1b``), a third ``c``. A scan without a date is ``1-1`` if it is the only scan of its patient;
        otherwise its rank is not known, and it is ``1-0``.

        Raises:
            KeyError: The name is not one of those that were counted.
        """
        if name.patient is None:
            return None
        scans = self._scans[name.patient, name.day]
        if name.day is not None:
            rank = self._ranks[name.patient][name.day]
        else:
            rank = 1 if name.patient not in self._ranks and len(scans) == 1 else 0
        return f"{name.patient}-{rank}{_letters(scans[name.bad_date or '', name.part])}"

    def image_ids(self, images: Sequence[tuple[str, Name]]) -> list[str]:
        """Return the ids of the images of an archive.

        An id is that of the scan, and the slice (``80-1_008``). Images of which scan or slice are not known are numbered in the natural
        order of the archive, from 1 (``image-17``). A second image of the same scan and slice has the suffix ``b``.

        Args:
            images: The name of each image in the archive, its folder included, and what it states.

        Raises:
            KeyError: A name is not one of those that were counted.
        """
        ids = [""] * len(images)
        seen: Counter[str] = Counter()
        for number, index in enumerate(sorted(range(len(images)), key=lambda index: natural_key(images[index][0])), 1):
            name = images[index][1]
            own = f"{self.scan_id(name)}_{name.slice.replace('-', '_')}" if name.patient and name.slice else ""
            if not own or count_dates(own, within_words=True):
                own = f"image-{number}"
            ids[index] = f"{own}{_letters(seen[own])}"
            seen[own] += 1
        return ids


def is_published_number(text: str) -> bool:
    """Return whether a text is a number as the archives have them: one to five digits.

    Example:
        >>> is_published_number("09184"), is_published_number("20190314"), is_published_number("LIDC-0001")
        (True, False, False)
    """
    return _PATIENT.fullmatch(text) is not None


def natural_key(text: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Return a key that sorts numbers by value: ``2.bmp`` before ``10.bmp``. Different texts have different keys.

    Example:
        >>> sorted(["10.bmp", "2.bmp"], key=natural_key)
        ['2.bmp', '10.bmp']
    """
    words = re.findall(r"[0-9]+|[^0-9]+", text)
    values = (word.lstrip("0") if word[0] in "0123456789" else None for word in words)
    # by length and digits and not as integers, because a name may have thousands of digits
    numbers = (
        (1, 0, word) if value is None else (0, len(value), value) for word, value in zip(words, values, strict=True)
    )
    return tuple(numbers), text


def _name_of(patient: str, day: date | None, bad_date: str | None, part: str, slice_number: str = "") -> Name:
    if not is_published_number(patient):
        return Name()
    known = _SLICE.fullmatch(slice_number) and not (
        _YEAR.match(slice_number) or (day is None and _is_short_date(slice_number))
    )
    return Name(patient, day, bad_date, part, slice_number if known else None)


def _is_short_date(text: str) -> bool:
    """Return whether six digits (0302_17) could be a date: day and month in either order before the year, or YYMMDD."""
    digits = re.sub("[^0-9]", "", text)
    if len(digits) != 6:
        return False
    first, second, third = (int(digits[start : start + 2]) for start in (0, 2, 4))
    return any(
        1 <= month <= 12 and 1 <= day <= 31 for month, day in ((first, second), (second, first), (second, third))
    )


def _letters(index: int) -> str:
    """Nothing for the first of several, then ``b``, ``c``, …, ``z``, ``ba``: letters, because numbers could spell a date."""
    letters = ""
    while index > 0:
        index, letter = divmod(index, 26)
        letters = chr(ord("a") + letter) + letters
    return letters


def _strip(text: str) -> str:
    return text.strip("_-. ")
