"""Patient and date from a name, and the stable ids that replace the name.

Source names contain calendar dates (``80_20190314``), so they stay in the builder. Examples carry join keys instead: a fixed hash
of the name, the same in every config and build. A key is not an anonymisation, since patient and date can be guessed and hashed. It
only contains no date in plain text: base32 has none of the digits 0, 1, 8 and 9, without which no year from 1900 to 2099 can be written.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.declaration.dates import date_token, parse_date, spells_date

if TYPE_CHECKING:
    from datetime import date

FOLDS: Final = 5
"""Number of folds that the patients are divided into."""

_NAMESPACE = "lung_nodule_ct/1"


@dataclass(frozen=True, slots=True)
class Name:
    """What the stem of a file name states.

    Attributes:
        patient: The patient as a string, with leading zeros; ``None`` if the stem names none.
        day: The calendar date of the scan; ``None`` if there is none, or if it is not a date.
        scan_token: What distinguishes the scans of a patient: the date as it is written, and for a volume the rest of the name.
        bad_date: Digits in the position of a date that are not a date.
    """

    patient: str | None
    day: date | None
    scan_token: str
    bad_date: str | None = None

    @property
    def scan_id(self) -> str | None:
        """The join key of the scan, ``None`` without a patient."""
        return None if self.patient is None else _key("scan", self.patient, self.scan_token)

    @property
    def fold(self) -> int | None:
        """The fold of the patient, 0 to 4, ``None`` without a patient."""
        return None if self.patient is None else fold_of(self.patient)


def parse_volume_name(stem: str) -> Name:
    """Parse the name of a volume: ``<patient>_<YYYYMMDD>``, or ``<patient>`` alone.

    Example:
        >>> name = parse_volume_name("80_20190314")
        >>> name.patient, name.day
        ('80', datetime.date(2019, 3, 14))
    """
    token = date_token(stem)
    if token is not None:
        patient, rest = _strip(stem[: token.start()]), _strip(stem[token.end() :])
        day = parse_date(token.group())
        if patient or day:
            written = day.strftime("%Y%m%d") if day else token.group()
            return _named(patient, day, f"{written}_{rest}" if rest else written, None if day else token.group())
    patient, _, rest = _strip(stem).partition("_")
    if rest.isdecimal():  # a number that is not a date follows the patient: 80_201903
        return _named(patient, None, rest, rest)
    return _named(_strip(stem), None, "", None)


def parse_image_name(stem: str) -> Name:
    """Parse the name of a slice or a crop: ``<patient>_<YYYYMMDD>_<slice>`` or ``<patient>_<slice>``.

    A number alone is not a patient.
    """
    token = date_token(stem)
    if token is not None:
        patient, rest = _strip(stem[: token.start()]), _strip(stem[token.end() :])
        day = parse_date(token.group())
        if day or (patient and rest):  # eight digits at the very end may also be the number of the slice
            written = day.strftime("%Y%m%d") if day else token.group()
            return _named(patient, day, written, None if day else token.group())
    patient, _, rest = _strip(stem).partition("_")
    # "img_0001" numbers an image and "80_0001" a slice of a patient: the name of a patient has a digit
    if not rest or not any(char.isdigit() for char in patient):
        return Name(None, None, "")
    return _named(patient, None, "", None)


def image_id(source_name: str) -> str:
    """Return the stable key of an image or a case: a fixed hash of its name in the archives."""
    return _key("image", source_name)


def fold_of(patient: str) -> int:
    """Return the fold of a patient, 0 to 4: a fixed hash, the same in every config and build."""
    digest = hashlib.sha256(f"{_NAMESPACE}/fold/{patient}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % FOLDS


def _named(patient: str, day: date | None, token: str, bad_date: str | None) -> Name:
    # the name of a patient that contains a date would carry it out of the builder
    return Name(None if spells_date(patient) or not patient else patient, day, token, bad_date)


def _strip(text: str) -> str:
    return text.strip("_-. ")


def _key(*parts: str) -> str:
    digest = hashlib.sha256("\x1f".join((_NAMESPACE, *parts)).encode("utf-8", "surrogateescape")).digest()
    return base64.b32encode(digest[:10]).decode().lower()
