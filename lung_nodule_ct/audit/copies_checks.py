"""Copies of pictures, stacks and scans, and pictures that are blank or unusual."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.audit.facts import ScanFacts, VolumeFacts
from lung_nodule_ct.declaration.configs import Kind
from lung_nodule_ct.declaration.findings import Grade
from lung_nodule_ct.imaging.likeness import find_alike
from lung_nodule_ct.imaging.thumbnails import SYMMETRIES
from lung_nodule_ct.read.audit_report import Check, CheckGroup, Flag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lung_nodule_ct.audit.facts import ExampleFacts, Facts
    from lung_nodule_ct.imaging.likeness import Likeness, Pair
    from lung_nodule_ct.imaging.thumbnails import Thumbnail

_LEAST: Final[dict[str, float]] = {Kind.CROP: 0.9, Kind.SLICE: 0.9, Kind.STACK: 0.995, Kind.SCAN: 0.9995}
"""The least correlation of copies. It decides alone for stacks and scans: different ones had at most 0.905 and 0.966, copies at least 0.9995,
also where two slices are missing."""
_FINE: Final = 0.98
"""Fine detail of a copy of a picture. Neighbouring slices of one scan, and crops of them, had at most 0.966 (8 scans)."""
_MIDDLE: Final[dict[str, tuple[float, float]]] = {Kind.CROP: (0.998, 0.996), Kind.SLICE: (0.9, 0.998)}
"""Correlation and middle detail of a copy that was compressed again, which changes its fine detail. Neighbours had at most 0.996 in slices
(quality 50: at least 0.9996) and 0.9945 in crops."""
_MIDDLE_OF_OTHERS: Final = 0.9
"""The same for pictures of two patients, which had at most 0.63."""
_BLANK = 3.0
"""Least standard deviation of the grey values of a picture."""
_MOST = 0.6
"""The share of the pictures that have the usual size."""


def copies_checks(facts: Facts) -> CheckGroup:
    """Copies across splits, patients, dates and classes, in every config; and blank or unusual pictures."""
    flags: list[Flag] = []
    within = 0
    compared = 0
    distinct = {id(scan) for scan in facts.distinct_scans}
    for config in facts.build.configs:
        # a scan that two configs contain is compared once
        listed = [row for row in facts.of(config) if not isinstance(row, ScanFacts) or id(row) in distinct]
        rows = [(row, thumbnail) for row in listed if (thumbnail := thumbnail_of(row)) is not None]
        compared += len(rows)
        kind = facts.build.config(config).kind
        alike = find_alike([thumbnail for _, thumbnail in rows], _LEAST.get(kind, _LEAST[Kind.SLICE]))
        copies = [pair for pair in alike if _is_copy(kind, pair.likeness)]
        for pair in copies:
            first, second = rows[pair.first][0], rows[pair.second][0]
            differs = _difference(first, second)
            if differs is None:
                within += 1
            else:
                flags.append(_flag(first, second, pair, f"a copy in two {differs}"))
        if kind not in (Kind.STACK, Kind.SCAN):
            for pair in _same_scan_of_two_patients([row for row, _ in rows], alike, copies):
                text = "the same or a neighbouring slice under two patients"
                flags.append(_flag(rows[pair.first][0], rows[pair.second][0], pair, text))
    check = Check.of_flags(
        "turned-copies",
        "No copies across splits, patients or classes",
        flags,
        compared,
        "rows",
        f"also turned, mirrored, brighter or compressed again; {within:,} pairs within one split, patient and class are not flagged",
    )
    content, content_flags = _content(facts)
    return CheckGroup(
        "copies", (check, *content), {"pairs": len(flags), "pairs_within": within}, (*flags, *content_flags)
    )


def thumbnail_of(row: ExampleFacts) -> Thumbnail | None:
    """The thumbnail of a row, ``None`` if nothing was measured or it is blank."""
    if isinstance(row, ScanFacts):
        return row.measures.thumbnail if row.measures is not None else None
    if isinstance(row, VolumeFacts):
        return row.stack.thumbnail if row.stack is not None else None
    return row.picture.thumbnail if row.picture is not None else None


def _is_copy(kind: str, likeness: Likeness) -> bool:
    if kind in (Kind.STACK, Kind.SCAN) or (likeness.fine is not None and likeness.fine >= _FINE):
        return True
    correlation, middle = _MIDDLE.get(kind, _MIDDLE[Kind.SLICE])
    return likeness.middle is not None and likeness.correlation >= correlation and likeness.middle >= middle


def _same_scan_of_two_patients(
    rows: Sequence[ExampleFacts], alike: Sequence[Pair], copies: Sequence[Pair]
) -> list[Pair]:
    """The pictures of two patients that are no copies but too alike for two patients, each with the one most like it."""
    used = {number for pair in copies for number in (pair.first, pair.second)}
    found = []
    for pair in sorted(alike, key=lambda each: -(each.likeness.middle or 0)):
        patients = {rows[pair.first].patient_id, rows[pair.second].patient_id}
        if (pair.likeness.middle or 0) < _MIDDLE_OF_OTHERS:
            break
        if len(patients) == 2 and None not in patients and not used & {pair.first, pair.second}:
            used |= {pair.first, pair.second}
            found.append(pair)
    return sorted(found, key=lambda each: (each.first, each.second))


def _difference(first: ExampleFacts, second: ExampleFacts) -> str | None:
    """In what two rows differ that must not be copies, ``None`` if in nothing."""
    if first.split != second.split:
        return "splits"
    if first.pathology != second.pathology:
        return "classes"
    if first.patient_id != second.patient_id:
        return "patients"
    return "scans" if first.scan_id != second.scan_id else None


def _flag(first: ExampleFacts, second: ExampleFacts, pair: Pair, text: str) -> Flag:
    changes = [] if pair.likeness.symmetry == SYMMETRIES[0] else [pair.likeness.symmetry]
    changes += ["with the slices in reverse order"] if pair.likeness.is_reversed else []
    measured = ", ".join([text, *changes, f"correlation {pair.likeness.correlation:.4f}"])
    return Flag("turned-copies", Grade.WARNING, first.row_key, measured, "different images", other=second.row_key)


def _content(facts: Facts) -> tuple[list[Check], list[Flag]]:
    """Blank pictures, and crops of another size than most."""
    flags: list[Flag] = []
    count = 0
    for config in (*facts.configs(Kind.CROP), *facts.configs(Kind.SLICE)):
        rows = [row for row in facts.of(config) if row.picture is not None]
        count += len(rows)
        shapes = Counter(row.picture.shape for row in rows if row.picture is not None)
        usual = shapes.most_common(1)[0][0] if shapes else None
        for row in rows:
            assert row.picture is not None  # noqa: S101 -- selected above
            if row.picture.deviation < _BLANK:
                measured = f"standard deviation of the grey values {row.picture.deviation:.1f}"
                flags.append(Flag("picture-content", Grade.WARNING, row.row_key, measured, f"at least {_BLANK:g}"))
            elif usual is not None and row.picture.shape != usual and shapes[usual] >= _MOST * len(rows):
                sizes = [f"{width} x {height}" for height, width in (row.picture.shape, usual)]
                flags.append(
                    Flag(
                        "picture-content",
                        Grade.WARNING,
                        row.row_key,
                        f"{sizes[0]} pixels",
                        f"{sizes[1]} pixels, as most",
                    )
                )
    if not count:
        return [], []
    check = Check.of_flags(
        "picture-content",
        "Pictures are not blank and have one size",
        flags,
        count,
        "pictures",
        "standard deviation of grey values, and size",
    )
    return [check], flags
