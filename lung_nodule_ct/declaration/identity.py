"""Patients, dates and numbers in the names of the archives, and the ids that take the place of the names.

Names of the source contain calendar dates (``80_20190314``), so they stay in the builder. Examples carry sequence numbers: ``80-1`` is
the first scan of patient 80. No id is derived from a date by a hash or otherwise, because a date has so few values that every hash of it
can be reversed by trying them all. Only names of a known shape give a patient; all other names are treated as private.

Texts about the source leave the builder only without private names. A finding names an archive, a member and a row. The names of the published layout are kept, the names of scans are kept without their
dates, and every other name is replaced by ``<name>``, because it can contain anything: the name of a person, a record number, or a date
in a form that no rule knows. Texts of the package itself are kept; what they repeat from the data is marked by :func:`quoted`.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Final

from lung_nodule_ct.declaration.archives import ARCHIVES
from lung_nodule_ct.declaration.dates import MASK, count_dates, date_token, mask_dates, parse_date, spells_date
from lung_nodule_ct.declaration.labels import SPLIT_ORDER

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


@lru_cache(maxsize=16384)  # numbering, planning and the fingerprint of an archive parse the same names
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
    if rest and not spells_date(stem) and (_SLICE.fullmatch(rest) or token is not None):
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
    if not is_published_number(patient) or _YEAR.fullmatch(patient):  # no patient has a number over 1900
        return Name()
    known = _SLICE.fullmatch(slice_number) and not (
        _YEAR.match(slice_number) or (day is None and _may_be_date(patient, *re.split("[_-]", slice_number)))
    )
    return Name(patient, day, bad_date, part, slice_number if known else None)


def _may_be_date(*groups: str) -> bool:
    """Return whether neighbouring groups of digits could be a date with a year of two digits: ``3_2_17``, ``17_0203``, ``0302_17``."""
    pairs = [[group[at : at + 2] for at in range(0, len(group), 2)] if len(group) == 4 else [group] for group in groups]
    numbers = [number for pair in pairs for number in pair]
    return any(
        max(map(len, triple)) <= 2
        and any(
            1 <= int(month) <= 12 and 1 <= int(day) <= 31
            for month, day in (triple[:2], triple[1::-1], triple[1:])  # MMDDYY, DDMMYY, YYMMDD
        )
        for triple in (numbers[start : start + 3] for start in range(len(numbers) - 2))
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


PRIVATE: Final = "<name>"

_WORDS: Final = """
    jpegimages annotations imagesets main images imgs train val valid validate validation test trainval class class_dataset
    voc_ct read_me readme annotation nodule image_annotation_augment_diameter train_anno val_anno test_anno anno_train anno_val
    anno_test seriesuid series_uid name coordx coordy coordz coord_x coord_y coord_z x y z diameter_mm diameter radius pid
    filename file_name width height xmin ymin zmin xmax ymax zmax x_min y_min z_min x_max y_max z_max augmented __macosx
    .ds_store thumbs.db desktop.ini
    true false none cm um m inch meter meters centimeter centimeters micrometer micrometers ct mr pt met_mod_ct met_mod_mr met_short met_ushort
    met_char met_uchar met_int met_uint met_long met_ulong met_float met_double local list rai lps ras lpi rsa
    comment distanceunits anatomicalorientation modality elementspacing elementsize offset position origin transformmatrix rotation orientation
    centerofrotation dimsize ndims elementtype elementdatafile compresseddata compresseddatasize binarydata binarydatabyteordermsb objecttype
    object bndbox bounding_box polygon segmentation source owner folder size depth part truncated occluded difficult pose
"""
_LAYOUT: Final = frozenset(_WORDS.split())
"""Words of the published layout, in lower case: folders, files without their extensions, and columns."""
_SUFFIX: Final = re.compile(
    r"\.(?:mhd|mha|raw|zraw|nrrd|bmp|jpe?g|png|tiff?|gif|xml|csv|tsv|txt|md|xlsx?|json|zip|rar|7z|tar|gz|dcm|db|ini|z?\d{2,3})",
    re.IGNORECASE,
)
_ARCHIVE: Final = re.compile(
    rf"(?:{'|'.join(spec.stem_pattern for spec in ARCHIVES)})(?:[ _]?\([0-9]{{1,3}}\))?(?:\.zip)?", re.IGNORECASE
)
_MORE: Final = re.compile(r"…|and [\d,]+ more")
_IN_SPLIT: Final = re.compile(rf" \((?:{'|'.join(SPLIT_ORDER)})\)$")
_NUMBER: Final = re.compile(r"[+-]?[0-9]{0,5}(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?|nan|[+-]?inf", re.IGNORECASE)
_YEAR_AND_DAY: Final = re.compile(r"(?:19|20)[0-9]{2}\.[01][0-9][0-3][0-9]")
_QUOTED: Final = re.compile("“([^”]*)”")
_CELL: Final = re.compile(r"(?:[^,;:\t]|:(?=\S))+")
_REDACTED: Final = re.compile(rf"{PRIVATE}|[0-9]{{1,5}}_{MASK}(?:_[0-9]{{1,4}}(?:[_-][0-9]{{1,3}})?)?")
"""A stem that was redacted before, so that a kept finding does not change."""
_WORD: Final = re.compile(r"\S+")


def quoted(text: object) -> str:
    """Mark a text that comes from the data, within a text of the package.

    Example:
        >>> print(f"it names {quoted('ZhangSan.jpg')}")
        it names “ZhangSan.jpg”
    """
    return f"“{str(text).replace('”', '')}”"


def redact_text(text: str) -> str:
    """Return a text of the package with dates masked, and with what it quotes from the data redacted.

    Example:
        >>> redact_text(f"it names {quoted('ZhangSan.jpg')}, not {quoted('80_20190314_008.jpg')}")
        'it names “<name>.jpg”, not “80_<date>_008.jpg”'
    """
    return mask_dates(_QUOTED.sub(lambda match: f"“{redact_words(match[1])}”", text))


def redact_name(names: str) -> str:
    """Return the name of an archive or a member, or several separated by ``", "``, without private parts.

    Example:
        >>> redact_name("imgs/00001/3.bmp, imgs/ZhangSan/3.bmp")
        'imgs/00001/3.bmp, imgs/<name>/3.bmp'
    """
    return ", ".join(map(_redact_path, names.split(", ")))


def redact_row(row: str) -> str:
    """Return a row of a table (``line 3: 80,1,2``) with only numbers, known words and names of scans without their dates.

    Example:
        >>> redact_row("line 3: 80_20190314,-1.5,ZhangSan")
        'line 3: 80_<date>,-1.5,<name>'
    """
    position, separator, cells = row.partition(": ")
    return f"{redact_text(position)}{separator}{redact_words(cells)}"


def redact_words(text: str) -> str:
    """Return a text from the data with only numbers, known words and names of scans without their dates."""
    return mask_dates(_CELL.sub(lambda match: _redact_cell(match[0]), text))


def _redact_cell(cell: str) -> str:
    """A cell with blanks is private if any of its words is, or if it has several numbers: they can be a date (03 Feb 2017)."""
    words = cell.split()
    redacted = _WORD.sub(lambda match: _redact_path(match[0]), cell)
    several = sum(any(char.isdigit() for char in word) and "." not in word for word in words) > 1
    first = words[0] if words else ""
    is_path = bool(_SUFFIX.search(first)) and len(words) == 2  # the path of an image, and the first number of a box
    return PRIVATE if len(words) > 1 and (PRIVATE in redacted or (several and not is_path)) else redacted


def _redact_path(path: str) -> str:
    """The path of a file. Numbers separated by slashes can be a date, except for class and image, and case and slice."""
    parts = re.split(r"[/\\]", path)
    stems = [part.partition(".")[0].split(" (")[0] for part in parts]
    numbers = [stem.isdecimal() for stem in stems]
    dated = [
        (all(numbers[at : at + 3]) and len(numbers[at : at + 3]) == 3)
        or (all(numbers[at : at + 2]) and any(_YEAR.fullmatch(stem) for stem in stems[at : at + 2]))
        for at in range(len(parts) - 1)
    ]
    hidden = any(dated)
    return "/".join(
        PRIVATE if hidden and number else _redact_part(part) for part, number in zip(parts, numbers, strict=True)
    )


@lru_cache(maxsize=4096)  # the folders of an archive are few, and its fingerprint redacts every name
def _redact_part(part: str) -> str:
    """One part of a path, or one cell of a table."""
    if not part or _MORE.fullmatch(part) or part.lower() in _LAYOUT:
        return part
    if _NUMBER.fullmatch(part):
        return PRIVATE if _YEAR_AND_DAY.fullmatch(part) else part
    if _ARCHIVE.fullmatch(part):
        return part
    in_split = _IN_SPLIT.search(part)
    if in_split:
        return f"{_redact_part(part[: in_split.start()])}{in_split.group()}"
    if part.startswith("._"):
        return f"._{_redact_part(part[2:])}"
    stem, dot, extension = part.rpartition(".")
    suffix = f".{extension}" if dot and _SUFFIX.fullmatch(f".{extension}") else ""
    return f"{_redact_stem(stem if suffix else part)}{suffix}"


def _redact_stem(stem: str) -> str:
    if stem.lower() in _LAYOUT or is_published_number(stem) or _REDACTED.fullmatch(stem):
        return stem
    for name in (parse_image_name(stem), parse_volume_name(stem)):
        if name.patient is not None:
            parts = (name.patient, MASK if name.day or name.bad_date else None, name.slice)
            return "_".join(part for part in parts if part)
    return PRIVATE
