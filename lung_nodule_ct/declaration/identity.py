"""Who and when: patient and date from a name, and the stable ids that stand for them.

Source names carry calendar dates (``80_20190314``), so they stay in the builder. What leaves it are join keys: a fixed
hash, the same in every config and build. A key is no anonymisation (patient and date can be guessed and hashed); it only
spells no date: base32 has none of the digits 0, 1, 8 and 9, without which no year from 1900 to 2099 can be written.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

FOLDS: Final = 5
"""How many folds the patients are dealt into."""

_NAMESPACE = "lung_nodule_ct/1"
_DATE_TOKEN = re.compile(r"(?<!\d)(\d{8}|(?:19|20)\d\d-\d\d-\d\d)(?!\d)")
_DATE_WITHIN = re.compile(r"(?=((?:19|20)\d{6}))|(?<!\d)((?:19|20)\d\d)[-_. ](\d{1,2})[-_. ](\d{1,2})(?!\d)")


@dataclass(frozen=True, slots=True)
class Name:
    """What a file's stem says.

    Attributes:
        patient: The patient, as a string with its zeros; ``None`` where the stem names none.
        day: The calendar date of the scan; ``None`` where there is none or it is no date.
        scan_token: What, beside the patient, tells the patient's scans apart: the date as it is written, and for a
            volume whatever follows it.
        bad_date: What stands in the place of a date and is none.
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
        """The patient's fold, 0 to 4, ``None`` without a patient."""
        return None if self.patient is None else fold_of(self.patient)


def parse_volume_name(stem: str) -> Name:
    """The name of a volume: ``<patient>_<YYYYMMDD>``, or ``<patient>`` alone."""
    found = _DATE_TOKEN.search(stem)
    if found is not None:
        patient, rest = _strip(stem[: found.start()]), _strip(stem[found.end() :])
        day = _as_date(found.group())
        if patient or day:
            token = day.strftime("%Y%m%d") if day else found.group()
            return _named(patient, day, f"{token}_{rest}" if rest else token, None if day else found.group())
    patient, _, rest = _strip(stem).partition("_")
    if rest.isdecimal():  # a number follows the patient, and it is no date: 80_201903, say
        return _named(patient, None, rest, rest)
    return _named(_strip(stem), None, "", None)


def parse_image_name(stem: str) -> Name:
    """The name of a slice or a crop: ``<patient>_<YYYYMMDD>_<slice>`` or ``<patient>_<slice>``; a bare number is no patient."""
    found = _DATE_TOKEN.search(stem)
    if found is not None:
        patient, rest = _strip(stem[: found.start()]), _strip(stem[found.end() :])
        day = _as_date(found.group())
        if day or (patient and rest):  # eight digits at the very end may as well number the slice
            token = day.strftime("%Y%m%d") if day else found.group()
            return _named(patient, day, token, None if day else found.group())
    patient, _, rest = _strip(stem).partition("_")
    # "img_0001" numbers an image and "80_0001" a slice of a patient: a patient's name has a digit
    if not rest or not any(char.isdigit() for char in patient):
        return Name(None, None, "")
    return _named(patient, None, "", None)


def image_id(source_name: str) -> str:
    """The stable key of an image or a case: a fixed hash of its name in the archives."""
    return _key("image", source_name)


def fold_of(patient: str) -> int:
    """The patient's fold, 0 to 4: a fixed hash, the same in every config and build."""
    digest = hashlib.sha256(f"{_NAMESPACE}/fold/{patient}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % FOLDS


def _named(patient: str, day: date | None, token: str, bad_date: str | None) -> Name:
    # a patient's name that holds a date would carry it out of the builder
    dated = any(
        _as_date(found[1] or f"{found[2]}{found[3]:0>2}{found[4]:0>2}") for found in _DATE_WITHIN.finditer(patient)
    )
    return Name(None if dated or not patient else patient, day, token, bad_date)


def _strip(text: str) -> str:
    return text.strip("_-. ")


def _as_date(text: str) -> date | None:
    digits = re.sub("[-_.]", "", text)
    try:
        day = datetime.strptime(digits, "%Y%m%d").date()
    except ValueError:
        return None
    return day if 1900 <= day.year < 2100 else None


def _key(*parts: str) -> str:
    digest = hashlib.sha256("\x1f".join((_NAMESPACE, *parts)).encode("utf-8", "surrogateescape")).digest()
    return base64.b32encode(digest[:10]).decode().lower()
