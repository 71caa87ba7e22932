"""Findings: what was wrong with the data, and what was done about it.

Bad data neither stops a build nor is dropped silently. Each case is a :class:`Finding` with a code, and every code has a grade:

- ``error``: part of the data contradicts itself or could not be used as published (``--strict`` makes these fatal),
- ``warning``: the data are used, but a careful reader wants to know,
- ``note``: a fact about the archives, or a repair that loses nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Protocol

from lung_nodule_ct.declaration.identity import redact_name, redact_row, redact_text
from lung_nodule_ct.errors import NOWHERE, Place, printable

MAX_PLACES: Final = 100
"""Findings of one code and archive that are kept; further ones are counted."""
_MAX_TEXT = 2000
"""The maximum length of each text of a finding."""


class Grade(StrEnum):
    """How much a finding matters."""

    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


class Code(StrEnum):
    """What can be found; :data:`GRADES` and :data:`MEANINGS` say how much it matters and what it means."""

    ANNOTATION_UNREADABLE = "annotation-unreadable"
    ANNOTATION_UNUSUAL = "annotation-unusual"
    ANNOTATION_WITHOUT_IMAGE = "annotation-without-image"
    ARCHIVE_BYTES_UNLISTED = "archive-bytes-unlisted"
    ARCHIVE_EMPTY = "archive-empty"
    BAD_ROW = "bad-row"
    BOX_IMPLAUSIBLE = "box-implausible"
    BOX_INVERTED = "box-inverted"
    BOX_OUTSIDE = "box-outside"
    BOX_PARTLY_OUTSIDE = "box-partly-outside"
    CENTRES_ROUNDED = "centres-rounded"
    CLASS_NAME_MISMATCH = "class-name-mismatch"
    CONTEXT_MISSING = "context-missing"
    COUNT_MISMATCH = "count-mismatch"
    CROSS_CHECK_IMPOSSIBLE = "cross-check-impossible"
    DATA_FILE_OF_ANOTHER_NAME = "data-file-of-another-name"
    DATA_FILE_RENAMED = "data-file-renamed"
    DATA_FILE_TOO_LONG = "data-file-too-long"
    DATE_OUTSIDE_STUDY = "date-outside-study"
    DIAMETER_IMPLAUSIBLE = "diameter-implausible"
    DIAMETER_UNREADABLE = "diameter-unreadable"
    DIAMETER_NOT_POSITIVE = "diameter-not-positive"
    DIRECTION_NOT_ORTHONORMAL = "direction-not-orthonormal"
    DUPLICATE_ANNOTATION = "duplicate-annotation"
    DUPLICATE_ID = "duplicate-id"
    FILE_UNRECOGNISED = "file-unrecognised"
    GEOMETRY_MISSING = "geometry-missing"
    FIGURE_MISMATCH = "figure-mismatch"
    HEADER_CONFLICT = "header-conflict"
    HEADER_KEY_IGNORED = "header-key-ignored"
    HEADER_KEY_NOT_APPLIED = "header-key-not-applied"
    HEADER_REPAIRED = "header-repaired"
    IMAGE_SIZE_MISMATCH = "image-size-mismatch"
    IMAGE_WITHOUT_ANNOTATION = "image-without-annotation"
    INTENSITY_CLIPPED = "intensity-clipped"
    INTENSITY_ROUNDED = "intensity-rounded"
    INVALID_DATE = "invalid-date"
    LIMITED = "limited"
    LISTED_BUT_MISSING = "listed-but-missing"
    LISTED_TWICE = "listed-twice"
    LUNG_MASK_MADE = "lung-mask-made"
    LUNG_MASK_NOT_MADE = "lung-mask-not-made"
    MASK_FRAME = "mask-frame"
    MASK_LABEL_7 = "mask-label-7"
    MASK_LABEL_UNKNOWN = "mask-label-unknown"
    MASK_MISSING = "mask-missing"
    MASK_SHAPE = "mask-shape"
    MASK_TURNED = "mask-turned"
    MASK_VALUES = "mask-values"
    MASK_WITHOUT_SCAN = "mask-without-scan"
    MEMBER_UNUSED = "member-unused"
    NEGATIVE_SPACING = "negative-spacing"
    NOT_ACCOUNTED_FOR = "not-accounted-for"
    NO_FOLD = "no-fold"
    NO_PATIENT = "no-patient"
    NODULE_BETWEEN_VOXELS = "nodule-between-voxels"
    NODULE_OUTSIDE_VOLUME = "nodule-outside-volume"
    NOT_LISTED = "not-listed"
    NOT_TRACKED = "not-tracked"
    OBJECT_UNKNOWN = "object-unknown"
    PATHOLOGY_NOT_JOINED = "pathology-not-joined"
    PATIENT_SPELLED_TWICE = "patient-spelled-twice"
    PICTURE_CONVERTED = "picture-converted"
    PICTURE_METADATA_REMOVED = "picture-metadata-removed"
    PICTURE_ORIENTATION = "picture-orientation"
    SAME_PIXELS = "same-pixels"
    SAME_PIXELS_IN_TWO_SPLITS = "same-pixels-in-two-splits"
    SCANS_ON_ONE_DATE = "scans-on-one-date"
    SCAN_NOT_SELECTED = "scan-not-selected"
    SLICE_GAP = "slice-gap"
    SPLIT_LISTS_DISAGREE = "split-lists-disagree"
    STALE_FILE_NAME = "stale-file-name"
    TABLE_COLUMN_CONVERTED = "table-column-converted"
    TABLE_EMPTY = "table-empty"
    TABLE_HEADER_UNKNOWN = "table-header-unknown"
    TABLE_LINES_SKIPPED = "table-lines-skipped"
    TABLE_STANDS_IN = "table-stands-in"
    THICKNESSES_DISAGREE = "thicknesses-disagree"
    TABLES_DISAGREE = "tables-disagree"
    UNDATED_SCAN = "undated-scan"
    ZEROS_LOST = "zeros-lost"


_E, _W, _N = Grade.ERROR, Grade.WARNING, Grade.NOTE

#: Grade and meaning of every code; a test compares ``docs/findings.md`` with it.
_DECLARED: dict[Code, tuple[Grade, str]] = {
    Code.ANNOTATION_UNREADABLE: (_E, "an annotation file cannot be read, so its image is left out"),
    Code.ANNOTATION_UNUSUAL: (_W, "an annotation file has content that Pascal VOC does not define"),
    Code.ANNOTATION_WITHOUT_IMAGE: (_E, "an annotation names a scan, an image or a case that is not in the archives"),
    Code.ARCHIVE_BYTES_UNLISTED: (
        _N,
        "an archive has bytes before, between or behind the files that its directory lists",
    ),
    Code.ARCHIVE_EMPTY: (_E, "an archive contains nothing of what it should contain"),
    Code.BAD_ROW: (_E, "a row of a table cannot be read"),
    Code.BOX_IMPLAUSIBLE: (_W, "a box covers more than half of its image"),
    Code.BOX_INVERTED: (_E, "a box has no extent, or its ends are swapped"),
    Code.BOX_OUTSIDE: (_E, "a box lies entirely outside its image"),
    Code.BOX_PARTLY_OUTSIDE: (_W, "a box extends beyond the border of its image"),
    Code.CENTRES_ROUNDED: (_W, "all centres of a table are rounded to several millimetres"),
    Code.CLASS_NAME_MISMATCH: (_W, "a class has the name of another class inside an archive"),
    Code.CONTEXT_MISSING: (_W, "an archive that provides context (timepoints, pathology) is missing"),
    Code.COUNT_MISMATCH: (_W, "a count that is published inside an archive differs from what the archive holds"),
    Code.CROSS_CHECK_IMPOSSIBLE: (_N, "a table that only serves as a cross-check is missing or cannot be read"),
    Code.DATA_FILE_OF_ANOTHER_NAME: (
        _W,
        "a header names the data file of another header, or not the one that has its own name",
    ),
    Code.DATA_FILE_RENAMED: (
        _W,
        "a header names a data file that is missing; the file with the name of the header is used",
    ),
    Code.DATA_FILE_TOO_LONG: (_E, "the data of a volume are longer than its header states"),
    Code.DATE_OUTSIDE_STUDY: (_W, "a scan has a date outside the months of the study"),
    Code.DIAMETER_IMPLAUSIBLE: (
        _W,
        "a diameter is larger than that of any nodule, or half of those of a table are smaller than 2 mm",
    ),
    Code.DIAMETER_NOT_POSITIVE: (_E, "a nodule's diameter is zero or negative"),
    Code.DIAMETER_UNREADABLE: (_W, "the diameter of a nodule is missing or is not a number"),
    Code.DIRECTION_NOT_ORTHONORMAL: (_W, "a direction matrix is not a rotation"),
    Code.DUPLICATE_ANNOTATION: (_W, "the same annotation occurs twice, or nearly"),
    Code.DUPLICATE_ID: (_E, "two members claim the same identity"),
    Code.FIGURE_MISMATCH: (_N, "a figure agrees with neither version of the paper"),
    Code.FILE_UNRECOGNISED: (_W, "the source has a file that may belong to the dataset and is not one of its archives"),
    Code.GEOMETRY_MISSING: (
        _E,
        "a header gives no spacing or no origin, so world coordinates use the format's defaults",
    ),
    Code.HEADER_CONFLICT: (
        _W,
        "a header gives the same property twice, with different values, or contradicts its archive",
    ),
    Code.HEADER_KEY_IGNORED: (_W, "a header has keys after ElementDataFile, which ends a MetaImage header"),
    Code.HEADER_KEY_NOT_APPLIED: (_E, "a header says that its numbers mean something else than what is read from them"),
    Code.HEADER_REPAIRED: (_N, "a header is written in a way that other readers refuse"),
    Code.IMAGE_SIZE_MISMATCH: (_W, "an annotation gives another image size than the image has"),
    Code.IMAGE_WITHOUT_ANNOTATION: (_W, "a scan, an image or a case has no annotation"),
    Code.INTENSITY_CLIPPED: (_E, "intensities do not fit int16"),
    Code.INTENSITY_ROUNDED: (_W, "intensities have fractions"),
    Code.INVALID_DATE: (_E, "the value in the position of a date is not a date"),
    Code.LIMITED: (_W, "examples were left out on request (--limit)"),
    Code.LISTED_BUT_MISSING: (_E, "a split list names an image or a case that is not in the archives"),
    Code.LISTED_TWICE: (_E, "two splits claim the same image or case"),
    Code.LUNG_MASK_MADE: (_N, "a lung mask was made from the voxels, because the archives have none that can be used"),
    Code.LUNG_MASK_NOT_MADE: (_W, "no lungs were found in a scan for which a mask was to be made"),
    Code.MASK_FRAME: (
        _N,
        "the header of a lung mask has a slightly different direction, or another spacing, than that of its scan",
    ),
    Code.MASK_LABEL_7: (_W, "a lung mask has voxels labelled 7, where hole filling made the two lungs overlap"),
    Code.MASK_LABEL_UNKNOWN: (_W, "a lung mask has labels other than 0, 3, 4 and 7"),
    Code.MASK_MISSING: (_N, "a scan has no lung mask"),
    Code.MASK_TURNED: (_W, "the axes of a lung mask point in other directions than those of its scan"),
    Code.MASK_SHAPE: (_E, "a lung mask has another shape than its scan"),
    Code.MASK_VALUES: (_E, "a lung mask has values that are not labels (outside 0 to 255, or fractions)"),
    Code.MASK_WITHOUT_SCAN: (_W, "a lung mask has no scan"),
    Code.MEMBER_UNUSED: (_N, "an archive contains files that its layout does not describe"),
    Code.NEGATIVE_SPACING: (_W, "a header gives a negative spacing, which turns that axis round"),
    Code.NOT_ACCOUNTED_FOR: (_E, "an item of the archives is neither part of an example nor in a finding"),
    Code.NO_FOLD: (_W, "examples without a patient have no fold, so a split by patient leaves them out"),
    Code.NO_PATIENT: (_N, "names that contain no patient number"),
    Code.NODULE_BETWEEN_VOXELS: (_W, "a nodule is so small that no voxel centre lies inside it"),
    Code.NODULE_OUTSIDE_VOLUME: (_E, "a nodule has no voxel inside its volume"),
    Code.NOT_LISTED: (_W, "images or cases that no split list names"),
    Code.NOT_TRACKED: (_N, "nodules that could not be followed to another scan of the patient"),
    Code.OBJECT_UNKNOWN: (_E, "an annotated object is not a nodule"),
    Code.PATHOLOGY_NOT_JOINED: (_N, "nodules whose pathology cannot be derived from the archives"),
    Code.PATIENT_SPELLED_TWICE: (_W, "the number of a patient is written with and without leading zeros"),
    Code.PICTURE_CONVERTED: (_W, "the pixels of an image are not grey or RGB values (CMYK, transparency)"),
    Code.PICTURE_METADATA_REMOVED: (_W, "an image contains more than its pixels (comments, EXIF, text, other data)"),
    Code.PICTURE_ORIENTATION: (_W, "the metadata of an image ask viewers to turn or mirror it"),
    Code.SAME_PIXELS: (_W, "the same pixels occur more than once in a split"),
    Code.SAME_PIXELS_IN_TWO_SPLITS: (_E, "the same pixels occur in two splits"),
    Code.SCANS_ON_ONE_DATE: (_W, "a patient has two scans of one thickness on the same date"),
    Code.SCAN_NOT_SELECTED: (_N, "scans that a config leaves out by its definition"),
    Code.SLICE_GAP: (_W, "a stack of slices has a gap in its numbers"),
    Code.SPLIT_LISTS_DISAGREE: (_W, "the lists of a split disagree"),
    Code.STALE_FILE_NAME: (_N, "an annotation names another file than the one it belongs to"),
    Code.TABLES_DISAGREE: (_W, "two tables give different annotations"),
    Code.TABLE_COLUMN_CONVERTED: (_W, "a column gives a quantity in another form and is converted"),
    Code.TABLE_EMPTY: (_E, "a table has no row that can be read"),
    Code.TABLE_HEADER_UNKNOWN: (_W, "a table has a header with unknown words"),
    Code.TABLE_LINES_SKIPPED: (_N, "a table has lines or sheets that are not rows of it"),
    Code.TABLE_STANDS_IN: (_W, "a table is missing or empty, and less detailed tables are used instead"),
    Code.THICKNESSES_DISAGREE: (
        _W,
        "a scan lacks its other thickness, and a scan of the other thickness with nearly the same name lacks its own",
    ),
    Code.UNDATED_SCAN: (_W, "a scan has no date although its patient has other scans"),
    Code.ZEROS_LOST: (_W, "an id has lost its leading zeros, or has become a decimal number"),
}

GRADES: dict[Code, Grade] = {code: grade for code, (grade, _) in _DECLARED.items()}
MEANINGS: dict[Code, str] = {code: meaning for code, (_, meaning) in _DECLARED.items()}


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault or oddity in the data.

    Attributes:
        code: What it is.
        resolution: What was done about it.
        place: Archive, member and row, as published.
        detail: What was expected, and what was read instead.
        count: Number of cases that this finding covers.

    Raises:
        ValueError: ``count`` is less than one.

    Example:
        >>> finding = Finding(Code.BAD_ROW, "left out", Place("a.zip", "annotations.csv", "line 3: 80,x"), "expected a number")
        >>> str(finding.grade)
        'error'
    """

    code: Code
    resolution: str
    place: Place = NOWHERE
    detail: str | None = None
    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count: a finding covers at least one case, got {self.count}")

    @property
    def grade(self) -> Grade:
        """How much it matters."""
        return GRADES[self.code]

    def redacted(self) -> Finding:
        """The same finding without private names and dates, so that it can leave the builder."""
        archive, member, row = self.place.archive, self.place.member, self.place.row
        place = Place(archive and redact_name(archive), member and redact_name(member), row and redact_row(row))
        return replace(
            self,
            resolution=redact_text(self.resolution),
            place=place,
            detail=self.detail and redact_text(self.detail),
        )

    def to_dict(self) -> dict[str, Any]:
        """The finding as JSON values, as ``findings.json`` lists it."""
        return {
            "grade": str(self.grade),
            "code": str(self.code),
            "action": self.resolution,
            "archive": self.place.archive,
            "member": self.place.member,
            "row": self.place.row,
            "detail": self.detail,
            "count": self.count,
        }

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Finding:
        """The finding that :meth:`to_dict` wrote."""
        place = Place(entry["archive"], entry["member"], entry["row"])
        return cls(Code(entry["code"]), entry["action"], place, entry["detail"], entry["count"])

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        cases = f" [{self.count} times]" if self.count > 1 else ""
        text = f"{self.grade} {self.code}: {self.place}: {MEANINGS[self.code]}{detail}; {self.resolution}{cases}"
        return printable(text)


class Row(Protocol):
    """A row of a table or a list."""

    @property
    def reference(self) -> str:
        """Its number and text: ``line 7: 80_20190314,1,2``."""


class FindingCollector:
    """Collects the findings of one piece of work, in the order in which they are made.

    Of each code and archive the first hundred are kept. The others are counted in one finding at the end, so that neither the memory
    nor the report grows with the number of bad rows. The texts of a finding are shortened to 2,000 characters.

    Example:
        >>> collector = FindingCollector()
        >>> for line in range(1000):
        ...     collector.add(Code.BAD_ROW, "left out", Place("a.zip", "annotations.csv", f"line {line}: 80,x"))
        >>> len(collector.findings), collector.findings[-1].count
        (101, 900)
    """

    def __init__(self) -> None:
        self._findings: list[Finding] = []
        self._kept: Counter[tuple[Code, str | None]] = Counter()
        self._more: Counter[tuple[Code, str | None]] = Counter()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings so far, and one for all further places of a code in an archive."""
        more = (
            Finding(
                code,
                "as in the cases that are listed",
                Place(archive),
                "further cases, whose places are not listed",
                count,
            )
            for (code, archive), count in self._more.items()
        )
        return (*self._findings, *more)

    def add(
        self, code: Code, resolution: str, place: Place = NOWHERE, detail: str | None = None, count: int = 1
    ) -> None:
        """Add one finding; the arguments are the attributes of :class:`Finding`."""
        key = (code, place.archive)
        if self._kept[key] >= MAX_PLACES:
            self._more[key] += count
            return
        self._kept[key] += 1
        place = Place(_shortened(place.archive), _shortened(place.member), _shortened(place.row))
        self._findings.append(Finding(code, resolution[:_MAX_TEXT], place, _shortened(detail), count))

    def add_row(self, code: Code, resolution: str, table: Place, row: Row, detail: str | None = None) -> None:
        """Add a finding about a row of a table or a list. The text of the row is only made if the finding is kept."""
        kept = self._kept[code, table.archive] < MAX_PLACES
        place = Place(table.archive, table.member, row.reference) if kept else table
        self.add(code, resolution, place, detail)

    def extend(self, findings: Iterable[Finding]) -> None:
        """Add findings that were made elsewhere."""
        for finding in findings:
            self.add(finding.code, finding.resolution, finding.place, finding.detail, finding.count)


def _shortened(text: str | None) -> str | None:
    return text if text is None or len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"


def summarize(findings: Iterable[Finding]) -> dict[str, dict[str, Any]]:
    """Counts by code, the highest grade first: ``{code: {"grade", "count", "meaning"}}``."""
    counts: Counter[Code] = Counter()
    for finding in findings:
        counts[finding.code] += finding.count
    order = [Grade.ERROR, Grade.WARNING, Grade.NOTE]
    codes = sorted(counts, key=lambda code: (order.index(GRADES[code]), code))
    return {str(code): {"grade": str(GRADES[code]), "count": counts[code], "meaning": MEANINGS[code]} for code in codes}
