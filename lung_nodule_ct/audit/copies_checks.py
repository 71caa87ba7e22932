"""Who is who: copies of pictures, stacks and scans, and pictures that show another scan than their name says."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from lung_nodule_ct.audit.facts import ScanFacts, VolumeFacts
from lung_nodule_ct.declaration.configs import Kind
from lung_nodule_ct.declaration.findings import Grade
from lung_nodule_ct.imaging.likeness import SYMMETRIES, Copy, Thumbnail, find_copies, find_slice
from lung_nodule_ct.read.audit_report import Check, CheckGroup, Flag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lung_nodule_ct.audit.facts import ExampleFacts, Facts

LEAST: dict[str, float] = {Kind.CROP: 0.998, Kind.SLICE: 0.9997, Kind.STACK: 0.995, Kind.SCAN: 0.9995}
"""The least correlation of copies. Different images of one nodule or patient had at most 0.969 (crops), 0.9988 (neighbouring slices),
0.905 (stacks) and 0.966 (scans). Copies that were turned, mirrored, compressed with quality 50 or changed in brightness by 10 % had at least
0.9986 (crops) and 0.9998 (slices); stacks and scans 0.9997, also where two slices are missing."""
_BLANK = 3.0
"""Least standard deviation of the grey values of a picture."""
_OWN, _OTHER = 0.9, 0.95
"""A picture shows another patient if its best correlation is below the first with its own scans and above the second with another's.
Pictures had 0.974 with their own scan, and at most 0.80 with others."""
_MOST_OF_A_SCAN = 0.6


def copies_checks(facts: Facts) -> CheckGroup:
    """Copies across splits, patients, dates and classes, in every config; and blank or unusual pictures."""
    flags: list[Flag] = []
    within = 0
    compared = 0
    distinct = {id(scan) for scan in facts.distinct_scans}
    for config in facts.build.configs:
        # a scan that two configs contain is compared once
        listed = [row for row in facts.of(config) if not isinstance(row, ScanFacts) or id(row) in distinct]
        rows = [(row, thumbnail) for row in listed if (thumbnail := _thumbnail(row)) is not None]
        compared += len(rows)
        thumbnails = [thumbnail for _, thumbnail in rows]
        for copy in find_copies(thumbnails, LEAST.get(facts.build.config(config).kind, LEAST[Kind.SLICE])):
            first, second = rows[copy.first][0], rows[copy.second][0]
            differs = _difference(first, second)
            if differs is None:
                within += 1
            else:
                flags.append(_flag(first, second, copy, differs))
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


def identity_checks(facts: Facts) -> CheckGroup:
    """Whether each slice shows the patient that its name says, in the same position as the other slices of its scan."""
    volumes: defaultdict[str, list[ScanFacts]] = defaultdict(list)
    for scan in facts.distinct_scans:
        if scan.measures is not None and scan.patient_id is not None and scan.slice_thickness_mm < 2:
            volumes[scan.patient_id].append(scan)
    flags: list[Flag] = []
    compared = 0
    positions: defaultdict[str, list[tuple[ExampleFacts, int, float]]] = defaultdict(list)
    for row in facts.of(*facts.configs(Kind.SLICE)):
        thumbnail = _thumbnail(row)
        if thumbnail is None or row.patient_id is None or row.patient_id not in volumes:
            continue
        compared += 1
        own, symmetry, _ = _best(thumbnail, volumes[row.patient_id])
        if own >= _OWN:
            positions[row.scan_key].append((row, symmetry, own))
            continue
        others = [scan for patient, scans in volumes.items() if patient != row.patient_id for scan in scans]
        other, _, shown = _best(thumbnail, others)
        if other >= _OTHER and shown is not None:
            measured = f"correlation {own:.2f} with the scans of its patient, {other:.2f} with {shown.scan_key}"
            hint = f"the picture shows a slice of {shown.scan_key}"
            bound = f"at least {_OWN:g}"
            flags.append(
                Flag("slice-identity", Grade.WARNING, row.row_key, measured, bound, hint=hint, other=shown.row_key)
            )
    for found in positions.values():
        usual, count = Counter(symmetry for _, symmetry, _ in found).most_common(1)[0]
        for row, symmetry, own in found:
            if symmetry != usual and count >= _MOST_OF_A_SCAN * len(found):
                measured = f"{SYMMETRIES[symmetry]} against its scan, correlation {own:.2f}"
                bound = f"as the other slices of the scan: {SYMMETRIES[usual]}"
                flags.append(Flag("slice-identity", Grade.WARNING, row.row_key, measured, bound))
    if not compared:
        return CheckGroup("identity", ())
    check = Check.of_flags(
        "slice-identity",
        "Slices show the patient of their name",
        flags,
        compared,
        "slices",
        "each slice is searched in the thin scans of its patient, in eight positions, and in other scans if it is not there",
    )
    return CheckGroup("identity", (check,), {"slices": compared}, tuple(flags))


def _thumbnail(row: ExampleFacts) -> Thumbnail | None:
    if isinstance(row, ScanFacts):
        return row.measures.thumbnail if row.measures is not None else None
    if isinstance(row, VolumeFacts):
        return row.stack.thumbnail if row.stack is not None else None
    return row.picture.thumbnail if row.picture is not None else None


def _difference(first: ExampleFacts, second: ExampleFacts) -> str | None:
    """In what two rows differ that must not be copies, ``None`` if in nothing."""
    if first.split != second.split:
        return "splits"
    if first.pathology != second.pathology:
        return "classes"
    if first.patient_id != second.patient_id:
        return "patients"
    return "scans" if first.scan_id != second.scan_id else None


def _flag(first: ExampleFacts, second: ExampleFacts, copy: Copy, differs: str) -> Flag:
    turned = "" if copy.symmetry == SYMMETRIES[0] else f", {copy.symmetry}"
    return Flag(
        "turned-copies",
        Grade.WARNING,
        first.row_key,
        f"a copy in two {differs}{turned}, correlation {copy.correlation:.4f}",
        "different images",
        other=second.row_key,
    )


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
            elif usual is not None and row.picture.shape != usual and shapes[usual] >= _MOST_OF_A_SCAN * len(rows):
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


def _best(thumbnail: Thumbnail, scans: Sequence[ScanFacts]) -> tuple[float, int, ScanFacts | None]:
    """The best correlation of a picture with a slice of some scans, its symmetry, and the scan."""
    best: tuple[float, int, ScanFacts | None] = (-1.0, 0, None)
    for scan in scans:
        assert scan.measures is not None  # noqa: S101 -- the caller selects
        correlation, _, symmetry = find_slice(thumbnail, scan.measures.thumbnail)
        if correlation > best[0]:
            best = correlation, symmetry, scan
    return best
