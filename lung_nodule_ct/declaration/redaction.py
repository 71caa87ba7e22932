"""Texts about the source without its private names, so that they can leave the builder.

A finding names an archive, a member and a row. The names of the published layout are kept, the names of scans are kept without their
dates, and every other name is replaced by ``<name>``, because it can contain anything: the name of a person, a record number, or a date
in a form that no rule knows. Texts of the package itself are kept; what they repeat from the data is marked by :func:`quoted`.
"""

from __future__ import annotations

import re
from typing import Final

from lung_nodule_ct.declaration.archives import ARCHIVES
from lung_nodule_ct.declaration.dates import MASK, mask_dates
from lung_nodule_ct.declaration.identity import is_published_number, parse_image_name, parse_volume_name
from lung_nodule_ct.declaration.labels import SPLIT_ORDER

PRIVATE: Final = "<name>"

_WORDS: Final = """
    jpegimages annotations imagesets main images imgs train val valid validate validation test trainval class class_dataset
    voc_ct read_me readme annotation nodule image_annotation_augment_diameter train_anno val_anno test_anno anno_train anno_val
    anno_test seriesuid series_uid name coordx coordy coordz coord_x coord_y coord_z x y z diameter_mm diameter radius pid
    filename file_name width height xmin ymin zmin xmax ymax zmax x_min y_min z_min x_max y_max z_max augmented __macosx
    .ds_store thumbs.db desktop.ini
"""
_LAYOUT: Final = frozenset(_WORDS.split())
"""Words of the published layout, in lower case: folders, files without their extensions, and columns."""
_SUFFIX: Final = re.compile(
    r"\.(?:mhd|mha|raw|zraw|nrrd|bmp|jpe?g|png|tiff?|gif|xml|csv|tsv|txt|md|xlsx?|json|zip|rar|7z|tar|gz|dcm|db|ini|z?\d{2,3})",
    re.IGNORECASE,
)
_MORE: Final = re.compile(r"…|and [\d,]+ more")
_IN_SPLIT: Final = re.compile(rf" \((?:{'|'.join(SPLIT_ORDER)})\)$")
_NUMBER: Final = re.compile(r"[+-]?[0-9]{0,5}(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?|nan|[+-]?inf", re.IGNORECASE)
_QUOTED: Final = re.compile("“([^”]*)”")
_CELL: Final = re.compile(r"[^,;:|\t]+")
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
    return ", ".join("/".join(map(_redact_part, name.split("/"))) for name in names.split(", "))


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
    """A cell with blanks is private if any of its words is, because the others can be the rest of a date (03 Feb 2017)."""
    redacted = _WORD.sub(lambda match: "/".join(map(_redact_part, re.split(r"[/\\]", match[0]))), cell)
    return PRIVATE if PRIVATE in redacted and len(cell.split()) > 1 else redacted


def _redact_part(part: str) -> str:
    """One part of a path, or one cell of a table."""
    if not part or _MORE.fullmatch(part) or _NUMBER.fullmatch(part) or part.lower() in _LAYOUT:
        return part
    if any(spec.matches(part) or spec.matches(f"{part}.zip") for spec in ARCHIVES):
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
    if stem.lower() in _LAYOUT or is_published_number(stem):
        return stem
    for name in (parse_image_name(stem), parse_volume_name(stem)):
        if name.patient is not None:
            parts = (name.patient, MASK if name.day or name.bad_date else None, name.slice)
            return "_".join(part for part in parts if part)
    return PRIVATE
