"""What names and rows say without any voxel: dates, patients and thicknesses that do not go together, and rows that cannot be right.

Findings never repeat a date. They name the member, and how many days apart two dates are.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from datetime import date
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.declaration.findings import Code, Finding
from lung_nodule_ct.declaration.identity import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lung_nodule_ct.examples.scans.listing import ArchivedVolume, Nodule

STUDY: Final = (date(2016, 1, 1), date(2023, 1, 31))
"""The months of the scans: January 2016 to January 2023 (Jian et al. 2024, "Methods")."""
NEAR_DAYS: Final = 14
LARGEST_MM: Final = 100.0
"""No nodule is larger than this: more than 30 mm is a mass."""
NEAR_MM: Final = 1.0
ROUNDED_MM: Final = 5.0
_LEAST_ROWS = 5
_KEPT = "kept as it is"


def name_findings(own: Sequence[ArchivedVolume], others: Sequence[ArchivedVolume] | None) -> list[Finding]:
    """Compare the names of the volumes of a set with each other and with those of the other thickness.

    Args:
        own: The volumes of the set.
        others: Those of the other thickness, ``None`` if its archives are missing.
    """
    findings = [
        Finding(Code.DATE_OUTSIDE_STUDY, _KEPT, volume.header.place, "expected a date from 2016-01 to 2023-01")
        for volume in own
        if volume.name.day is not None and not STUDY[0] <= volume.name.day <= STUDY[1]
    ]
    findings += _same_day(own)
    findings += _spelled_differently(own, others or ())
    if others:
        findings += _some_days_apart(own, others)
    return findings


def row_findings(nodules: Mapping[str, Sequence[Nodule]]) -> list[Finding]:
    """Check the rows of an annotation table, scan by scan.

    Args:
        nodules: The nodules of each scan.
    """
    findings: list[Finding] = []
    for rows in nodules.values():
        findings += _near_rows(rows)
        findings += [
            Finding(
                Code.DIAMETER_IMPLAUSIBLE,
                _KEPT,
                row.place,
                f"expected at most {LARGEST_MM:g} mm, got {row.diameter_mm:g} mm",
            )
            for row in rows
            if row.diameter_mm is not None and row.diameter_mm > LARGEST_MM
        ]
    every = [row for rows in nodules.values() for row in rows]
    if len(every) >= _LEAST_ROWS and all(_is_rounded(row) for row in every):
        detail = f"all {len(every):,} centres are multiples of {ROUNDED_MM:g} mm: coordinates in mm have decimals"
        findings += [Finding(Code.CENTRES_ROUNDED, _KEPT, row.place, detail) for row in every]
    return findings


def _same_day(own: Iterable[ArchivedVolume]) -> list[Finding]:
    """Several volumes of a patient on one date at one thickness."""
    days: defaultdict[tuple[str, date], list[ArchivedVolume]] = defaultdict(list)
    for volume in own:
        if volume.name.patient is not None and volume.name.day is not None:
            days[volume.name.patient, volume.name.day].append(volume)
    return [
        Finding(
            Code.SCANS_ON_ONE_DATE,
            "kept as scans of their own",
            volume.header.place,
            f"the same date and thickness as {quoted(volumes[0].header.name)}",
        )
        for volumes in days.values()
        for volume in volumes[1:]
    ]


def _spelled_differently(own: Sequence[ArchivedVolume], others: Sequence[ArchivedVolume]) -> list[Finding]:
    """Numbers of patients that differ by leading zeros only."""
    spellings: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for volume in (*own, *others):
        if volume.name.patient is not None:
            spellings[int(volume.name.patient)][volume.name.patient] += 1
    findings = []
    for volume in own:
        patient = volume.name.patient
        counts = spellings[int(patient)] if patient is not None else Counter()
        usual = max(counts, key=lambda name: (counts[name], -len(name)), default=None)
        if len(counts) > 1 and patient != usual:
            detail = f"patient {patient}, elsewhere {usual}: the two are treated as two patients"
            findings.append(Finding(Code.PATIENT_SPELLED_TWICE, _KEPT, volume.header.place, detail))
    return findings


def _some_days_apart(own: Sequence[ArchivedVolume], others: Sequence[ArchivedVolume]) -> list[Finding]:
    """Volumes without a partner of the other thickness, where another one lacks its partner and nearly has its name."""
    own_days, other_days = _days(own), _days(others)
    findings = []
    for volume in own:
        patient, day = volume.name.patient, volume.name.day
        if patient is None or day is None or day in other_days[patient]:
            continue
        near = [
            (abs((other - day).days), found)
            for other, found in other_days[patient].items()
            if other not in own_days[patient] and abs((other - day).days) <= NEAR_DAYS
        ]
        if near:
            days, found = min(near, key=lambda entry: entry[0])
            unit = "day" if days == 1 else "days"
            detail = f"{quoted(found.header.name)} of {found.header.archive} is {days} {unit} apart, and neither has a partner"
            findings.append(Finding(Code.THICKNESSES_DISAGREE, _KEPT, volume.header.place, detail))
        elif not other_days[patient]:
            findings += _renumbered(volume, day, own_days, others)
    return findings


def _renumbered(
    volume: ArchivedVolume, day: date, own_days: Mapping[str, object], others: Sequence[ArchivedVolume]
) -> list[Finding]:
    """A patient of one thickness only, whose date is that of a patient of the other thickness only."""
    found = [
        other
        for other in others
        if other.name.day == day and other.name.patient is not None and not own_days.get(other.name.patient)
    ]
    if len(found) != 1:
        return []
    detail = f"{quoted(found[0].header.name)} of {found[0].header.archive} has the same date, and each patient has one thickness only"
    return [Finding(Code.THICKNESSES_DISAGREE, _KEPT, volume.header.place, detail)]


def _days(volumes: Iterable[ArchivedVolume]) -> defaultdict[str, dict[date, ArchivedVolume]]:
    days: defaultdict[str, dict[date, ArchivedVolume]] = defaultdict(dict)
    for volume in volumes:
        if volume.name.patient is not None and volume.name.day is not None:
            days[volume.name.patient].setdefault(volume.name.day, volume)
    return days


def _near_rows(rows: Sequence[Nodule]) -> list[Finding]:
    """Rows whose centres nearly agree. Centres are sorted into cells, so that the work is linear in the rows."""
    findings = []
    cells: defaultdict[tuple[int, ...], list[Nodule]] = defaultdict(list)
    for row in rows:
        cell = tuple(math.floor(value / NEAR_MM) for value in row.center_world)
        near = [
            other
            for x in (-1, 0, 1)
            for y in (-1, 0, 1)
            for z in (-1, 0, 1)
            for other in cells[cell[0] + x, cell[1] + y, cell[2] + z][:_LEAST_ROWS]
            if 0 < math.dist(row.center_world, other.center_world) <= NEAR_MM
            or (row.center_world == other.center_world and row.diameter_mm != other.diameter_mm)
        ]
        if near:
            apart = math.dist(row.center_world, near[0].center_world)
            detail = f"{apart:.2g} mm from {near[0].place.row and quoted(near[0].place.row)}"
            findings.append(Finding(Code.DUPLICATE_ANNOTATION, "kept", row.place, detail))
        cells[cell].append(row)
    return findings


def _is_rounded(row: Nodule) -> bool:
    return all(value % ROUNDED_MM == 0 for value in row.center_world)
