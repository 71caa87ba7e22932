"""What was wrong with the data, and what was done about it.

Bad data does not stop a build and does not vanish: each case is a :class:`Finding` with a code. Every code has a grade:

- ``error``: part of the data contradicts itself or could not be used as published (``--strict`` makes these fatal),
- ``warning``: used, but a careful reader wants to know,
- ``note``: a fact about the archives, or a repair that loses nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from lung_nodule_ct.errors import printable


class Grade(StrEnum):
    """How much a finding matters."""

    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


class Code(StrEnum):
    """What can be found; :data:`GRADES` and :data:`MEANINGS` say how much it matters and what it means."""

    ANNOTATION_WITHOUT_IMAGE = "annotation-without-image"
    ARCHIVE_EMPTY = "archive-empty"
    BAD_ROW = "bad-row"
    BOX_INVERTED = "box-inverted"
    BOX_OUTSIDE = "box-outside"
    BOX_PARTLY_OUTSIDE = "box-partly-outside"
    CONTEXT_MISSING = "context-missing"
    COUNT_MISMATCH = "count-mismatch"
    CROSS_CHECK_IMPOSSIBLE = "cross-check-impossible"
    DATA_FILE_RENAMED = "data-file-renamed"
    DATA_FILE_TOO_LONG = "data-file-too-long"
    DIAMETER_UNREADABLE = "diameter-unreadable"
    DIAMETER_NOT_POSITIVE = "diameter-not-positive"
    DIRECTION_NOT_ORTHONORMAL = "direction-not-orthonormal"
    DUPLICATE_ANNOTATION = "duplicate-annotation"
    DUPLICATE_ID = "duplicate-id"
    GEOMETRY_MISSING = "geometry-missing"
    FIGURE_MISMATCH = "figure-mismatch"
    HEADER_CONFLICT = "header-conflict"
    HEADER_KEY_IGNORED = "header-key-ignored"
    HEADER_REPAIRED = "header-repaired"
    IMAGE_SIZE_MISMATCH = "image-size-mismatch"
    IMAGE_WITHOUT_ANNOTATION = "image-without-annotation"
    INTENSITY_CLIPPED = "intensity-clipped"
    INTENSITY_ROUNDED = "intensity-rounded"
    INVALID_DATE = "invalid-date"
    LISTED_BUT_MISSING = "listed-but-missing"
    LISTED_TWICE = "listed-twice"
    MASK_LABEL_7 = "mask-label-7"
    MASK_LABEL_UNKNOWN = "mask-label-unknown"
    MASK_MISSING = "mask-missing"
    MASK_SHAPE = "mask-shape"
    MASK_VALUES = "mask-values"
    MASK_WITHOUT_SCAN = "mask-without-scan"
    MEMBER_UNUSED = "member-unused"
    NEGATIVE_SPACING = "negative-spacing"
    NO_FOLD = "no-fold"
    NO_PATIENT = "no-patient"
    NODULE_BETWEEN_VOXELS = "nodule-between-voxels"
    NODULE_OUTSIDE_VOLUME = "nodule-outside-volume"
    NOT_LISTED = "not-listed"
    OBJECT_UNKNOWN = "object-unknown"
    PATHOLOGY_NOT_JOINED = "pathology-not-joined"
    PICTURE_METADATA_REMOVED = "picture-metadata-removed"
    SAME_PIXELS = "same-pixels"
    SAME_PIXELS_IN_TWO_SPLITS = "same-pixels-in-two-splits"
    SLICE_GAP = "slice-gap"
    SPLIT_LISTS_DISAGREE = "split-lists-disagree"
    STALE_FILE_NAME = "stale-file-name"
    TABLE_EMPTY = "table-empty"
    TABLE_HEADER_UNKNOWN = "table-header-unknown"
    TABLE_STANDS_IN = "table-stands-in"
    TABLES_DISAGREE = "tables-disagree"
    UNDATED_SCAN = "undated-scan"
    ZEROS_LOST = "zeros-lost"


_E, _W, _N = Grade.ERROR, Grade.WARNING, Grade.NOTE

#: Grade and meaning of every code; ``docs/findings.md`` is made from it.
_DECLARED: dict[Code, tuple[Grade, str]] = {
    Code.ANNOTATION_WITHOUT_IMAGE: (_E, "an annotation names a scan, an image or a case that is not in the archives"),
    Code.ARCHIVE_EMPTY: (_W, "an archive holds none of what it should hold"),
    Code.BAD_ROW: (_E, "a row of a table cannot be read"),
    Code.BOX_INVERTED: (_E, "a box has no extent, or its ends are exchanged"),
    Code.BOX_OUTSIDE: (_E, "a box lies wholly outside its image"),
    Code.BOX_PARTLY_OUTSIDE: (_W, "a box reaches over the border of its image"),
    Code.CONTEXT_MISSING: (_W, "an archive that gives context (timepoints, pathology) is not there"),
    Code.COUNT_MISMATCH: (_W, "a count that is published inside an archive differs from what the archive holds"),
    Code.CROSS_CHECK_IMPOSSIBLE: (_N, "a table that only serves as a cross-check is missing or cannot be read"),
    Code.DATA_FILE_RENAMED: (_W, "a header names a data file that is not there; one with the header's own name is"),
    Code.DATA_FILE_TOO_LONG: (_E, "a volume's data are longer than its header says"),
    Code.DIAMETER_NOT_POSITIVE: (_E, "a nodule's diameter is zero or negative"),
    Code.DIAMETER_UNREADABLE: (_W, "what stands in the place of a diameter is no number"),
    Code.DIRECTION_NOT_ORTHONORMAL: (_W, "a direction matrix is no rotation"),
    Code.DUPLICATE_ANNOTATION: (_W, "the same annotation stands twice"),
    Code.DUPLICATE_ID: (_E, "two members claim the same identity"),
    Code.FIGURE_MISMATCH: (_N, "a figure agrees with neither version of the paper"),
    Code.GEOMETRY_MISSING: (
        _E,
        "a header gives no spacing or no origin, so world coordinates rest on the format's defaults",
    ),
    Code.HEADER_CONFLICT: (_W, "a header says the same thing twice, differently"),
    Code.HEADER_KEY_IGNORED: (_W, "a header has keys after ElementDataFile, which ends a MetaImage header"),
    Code.HEADER_REPAIRED: (_N, "a header is written in a way that other readers refuse"),
    Code.IMAGE_SIZE_MISMATCH: (_W, "an annotation gives another image size than the image has"),
    Code.IMAGE_WITHOUT_ANNOTATION: (_W, "a scan, an image or a case has no annotation"),
    Code.INTENSITY_CLIPPED: (_E, "intensities do not fit int16"),
    Code.INTENSITY_ROUNDED: (_W, "intensities have fractions"),
    Code.INVALID_DATE: (_E, "what stands in the place of a date is none"),
    Code.LISTED_BUT_MISSING: (_E, "a split list names an image or a case that is not in the archives"),
    Code.LISTED_TWICE: (_E, "two splits claim the same image or case"),
    Code.MASK_LABEL_7: (_W, "a lung mask has voxels labelled 7, where hole filling made the two lungs overlap"),
    Code.MASK_LABEL_UNKNOWN: (_W, "a lung mask has labels other than 0, 3, 4 and 7"),
    Code.MASK_MISSING: (_N, "a scan has no lung mask"),
    Code.MASK_SHAPE: (_E, "a lung mask has another shape than its scan"),
    Code.MASK_VALUES: (_E, "a lung mask has values that are no labels (outside 0 to 255, or fractions)"),
    Code.MASK_WITHOUT_SCAN: (_W, "a lung mask has no scan"),
    Code.MEMBER_UNUSED: (_N, "an archive holds files that no rule of its layout claims"),
    Code.NEGATIVE_SPACING: (_W, "a header gives a negative spacing, which turns that axis round"),
    Code.NO_FOLD: (_W, "examples without a patient have no fold, so a split by patient cannot place them"),
    Code.NO_PATIENT: (_N, "names from which no patient can be read"),
    Code.NODULE_BETWEEN_VOXELS: (_W, "a nodule is so small that no voxel's centre lies inside it"),
    Code.NODULE_OUTSIDE_VOLUME: (_E, "a nodule has no voxel inside its volume"),
    Code.NOT_LISTED: (_W, "images or cases that no split list names"),
    Code.OBJECT_UNKNOWN: (_E, "an annotated object is no nodule"),
    Code.PATHOLOGY_NOT_JOINED: (_N, "nodules whose pathology cannot be known from the archives"),
    Code.PICTURE_METADATA_REMOVED: (_W, "a picture's metadata spell a calendar date"),
    Code.SAME_PIXELS: (_W, "the same pixels stand more than once in a split"),
    Code.SAME_PIXELS_IN_TWO_SPLITS: (_E, "the same pixels stand in two splits"),
    Code.SLICE_GAP: (_W, "a stack of slices has a gap in its numbers"),
    Code.SPLIT_LISTS_DISAGREE: (_W, "the places where a split is listed disagree"),
    Code.STALE_FILE_NAME: (_N, "an annotation names another file than the one it stands beside"),
    Code.TABLES_DISAGREE: (_W, "two tables give different annotations"),
    Code.TABLE_EMPTY: (_E, "a table has no row that can be read"),
    Code.TABLE_HEADER_UNKNOWN: (_W, "a table has a header with words that are not known"),
    Code.TABLE_STANDS_IN: (_W, "a table is missing or empty, and others that say less are used"),
    Code.UNDATED_SCAN: (_W, "a scan has no date although its patient has other scans"),
    Code.ZEROS_LOST: (_W, "an id has lost its leading zeros"),
}

GRADES: dict[Code, Grade] = {code: grade for code, (grade, _) in _DECLARED.items()}
MEANINGS: dict[Code, str] = {code: meaning for code, (_, meaning) in _DECLARED.items()}

_MONTH, _DAY, _YEAR = r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])", r"(?:19|20)\d\d"
_DATE = re.compile(
    rf"(?<![\d.])(?:\d{{8,}}|{_YEAR}{_MONTH}|\d\d{_MONTH}{_DAY})(?!\d)"
    rf"|(?<!\d){_YEAR}{_MONTH}{_DAY}(?!\d)"  # behind a dot, too, unless it is a decimal of other digits
    rf"|(?<!\d){_YEAR}\s?([-_./ ]|年)\s?\d{{1,2}}\s?(?:\1|月)\s?\d{{1,2}}(?!\d)"
    rf"|(?<!\d)\d{{1,2}}([-_./])\d{{1,2}}\2{_YEAR}(?!\d)"
)


def without_dates(text: str) -> str:
    """``text`` with everything that could be a calendar date (eight digits and more, 201903, 190314, 2019-03-14) as ``<date>``."""
    return _DATE.sub("<date>", text)


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault or oddity in the data.

    Attributes:
        code: What it is.
        action: What was done about it.
        archive: File name of the archive.
        member: Member name inside the archive, as published.
        row: The line of a table and its text, as ``line 3: 80_20190314,1,2``.
        detail: What was expected and what came.
        count: How many cases this one finding stands for.
    """

    code: Code
    action: str
    archive: str | None = None
    member: str | None = None
    row: str | None = None
    detail: str | None = None
    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"a finding stands for at least one case, got count={self.count}")

    @property
    def grade(self) -> Grade:
        """How much it matters."""
        return GRADES[self.code]

    def redacted(self) -> Finding:
        """The same finding with the dates in its texts masked, fit to leave the builder."""

        def masked(text: str | None) -> str | None:
            return None if text is None else without_dates(text)

        return replace(
            self,
            action=without_dates(self.action),
            archive=masked(self.archive),
            member=masked(self.member),
            row=masked(self.row),
            detail=masked(self.detail),
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, with the grade."""
        return {"grade": str(self.grade), **asdict(self), "code": str(self.code)}

    def __str__(self) -> str:
        place = " > ".join(part for part in (self.archive, self.member, self.row) if part)
        detail = f" ({self.detail})" if self.detail else ""
        times = f" [{self.count} times]" if self.count > 1 else ""
        return printable(f"{self.grade} {self.code}: {place}: {MEANINGS[self.code]}{detail}; {self.action}{times}")


def summarize(findings: Iterable[Finding]) -> dict[str, dict[str, Any]]:
    """Counts by code, the gravest first: ``{code: {"grade", "count", "meaning"}}``."""
    counts: Counter[Code] = Counter()
    for finding in findings:
        counts[finding.code] += finding.count
    order = [Grade.ERROR, Grade.WARNING, Grade.NOTE]
    codes = sorted(counts, key=lambda code: (order.index(GRADES[code]), code))
    return {str(code): {"grade": str(GRADES[code]), "count": counts[code], "meaning": MEANINGS[code]} for code in codes}


def gravest(findings: Sequence[Finding]) -> Grade | None:
    """The highest grade among ``findings``, ``None`` where there is none."""
    for grade in (Grade.ERROR, Grade.WARNING, Grade.NOTE):
        if any(finding.grade is grade for finding in findings):
            return grade
    return None
