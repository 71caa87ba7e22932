"""What names and rows say without any voxel: dates, patients and thicknesses that do not go together, and rows that cannot be right.

Findings never repeat a date. They name the member, and how many days apart two dates are.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from datetime import date
from itertools import product
from statistics import median
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.declaration.findings import Code, Finding
from lung_nodule_ct.declaration.identity import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from lung_nodule_ct.examples.scans.listing import ArchivedVolume, Nodule
    from lung_nodule_ct.geometry.frame import Frame

STUDY: Final = (date(2016, 1, 1), date(2023, 1, 31))
"""The months of the scans: January 2016 to January 2023 (Jian et al. 2024, "Methods")."""
NEAR_DAYS: Final = 14
LARGEST_MM: Final = 100.0
"""No nodule is larger than this: more than 30 mm is a mass."""
SMALLEST_MEDIAN_MM: Final = 2.0
"""Half of the nodules of a table are larger than this: smaller ones are not biopsied."""
NEAR_MM: Final = 1.0
_SAME_SIZE = 1.1
"""Two rows whose diameters differ by no more are near each other up to half of the smaller radius."""
ROUNDED_MM: Final = 5.0
_LEAST_ROWS = 5
_SMALLEST_LEVEL = 0
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
    findings += _small_diameters([row for row in every if row.diameter_mm is not None and row.diameter_mm > 0])
    if len(every) >= _LEAST_ROWS and all(_is_rounded(row) for row in every):
        detail = f"all {len(every):,} centres are multiples of {ROUNDED_MM:g} mm: coordinates in mm have decimals"
        findings += [Finding(Code.CENTRES_ROUNDED, _KEPT, row.place, detail) for row in every]
    return findings


def outside_hint(center: Sequence[float], frame: Frame, shape: Sequence[int]) -> str:
    """Name the mistakes that would explain a centre outside its volume; empty if none does.

    Args:
        center: x, y, z as in the table, in LPS mm.
        frame: The frame of the volume.
        shape: Its shape, z, y, x.
    """
    x, y, z = center
    readings = {
        "as voxels": center,
        "with x and y exchanged": frame.to_voxel((y, x, z)),
        "with x and z exchanged": frame.to_voxel((z, y, x)),
        "with y and z exchanged": frame.to_voxel((x, z, y)),
        "with the signs of x and y reversed": frame.to_voxel((-x, -y, z)),
        "with the sign of z reversed": frame.to_voxel((x, y, -z)),
        "in centimetres": frame.to_voxel((10 * x, 10 * y, 10 * z)),
    }
    fitting = [
        name
        for name, voxel in readings.items()
        if all(0 <= index <= size - 1 for index, size in zip(voxel, reversed(shape), strict=True))
    ]
    return f"; it would be inside if it were read {' or '.join(fitting)}" if fitting else ""


def _small_diameters(rows: Sequence[Nodule]) -> list[Finding]:
    """The rows of a table in which half of the diameters are too small."""
    usual = median(row.diameter_mm or 0.0 for row in rows) if len(rows) >= _LEAST_ROWS else SMALLEST_MEDIAN_MM
    if usual >= SMALLEST_MEDIAN_MM:
        return []
    detail = f"the median of {len(rows):,} diameters is {usual:.2g} mm, expected at least {SMALLEST_MEDIAN_MM:g} mm: they may be in cm"
    return [Finding(Code.DIAMETER_IMPLAUSIBLE, _KEPT, row.place, detail) for row in rows]


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
    on_day: defaultdict[date | None, list[ArchivedVolume]] = defaultdict(list)
    for other in others:
        if other.name.patient is not None and not own_days.get(other.name.patient):
            on_day[other.name.day].append(other)
    findings: list[Finding] = []
    for volume in own:
        patient, day = volume.name.patient, volume.name.day
        if patient is None or day is None or day in other_days[patient]:
            continue
        near = [
            (abs((other - day).days), found)
            for other, found in other_days[patient].items()
            if other not in own_days[patient] and (abs((other - day).days) <= NEAR_DAYS or _is_mistyped(day, other))
        ]
        if near:
            days, found = min(near, key=lambda entry: entry[0])
            unit = "day" if days == 1 else "days"
            detail = f"{quoted(found.header.name)} of {found.header.archive} is {days} {unit} apart, and neither has a partner"
            findings.append(Finding(Code.THICKNESSES_DISAGREE, _KEPT, volume.header.place, detail))
        elif not other_days[patient]:
            findings += _renumbered(volume, on_day.get(day, ()))
    return findings


def _is_mistyped(first: date, second: date) -> bool:
    """Whether two dates differ in one digit, or have two digits, or day and month, exchanged."""
    digits = f"{first:%Y%m%d}", f"{second:%Y%m%d}"
    differing = sum(one != other for one, other in zip(*digits, strict=True))
    same_digits = sorted(digits[0]) == sorted(digits[1])
    is_turned = (first.year, first.month, first.day) == (second.year, second.day, second.month)
    return differing == 1 or (differing == 2 and same_digits) or is_turned


def _renumbered(volume: ArchivedVolume, same_day: Sequence[ArchivedVolume]) -> list[Finding]:
    """A patient of one thickness only, whose date is that of a patient of the other thickness only."""
    if len(same_day) != 1:
        return []
    header = same_day[0].header
    detail = f"{quoted(header.name)} of {header.archive} has the same date, and each patient has one thickness only"
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
        candidates = (
            other
            for level in _levels(row)
            for cell in _around(_cell(row, level))
            for other in cells.get(cell, ())[:_LEAST_ROWS]
        )
        near = next((other for other in candidates if _is_near(row, other)), None)
        if near is not None:
            apart = math.dist(row.center_world, near.center_world)
            detail = f"{apart:.2g} mm from {near.place.row and quoted(near.place.row)}"
            findings.append(Finding(Code.DUPLICATE_ANNOTATION, "kept", row.place, detail))
        for level in {_SMALLEST_LEVEL, _level(row.diameter_mm or 0.0)}:
            cells[_cell(row, level)].append(row)
    return findings


def _is_near(row: Nodule, other: Nodule) -> bool:
    """Whether two rows, which are not equal, are about one nodule."""
    apart = math.dist(row.center_world, other.center_world)
    if apart == 0:
        return row.diameter_mm != other.diameter_mm
    smaller, larger = sorted((row.diameter_mm or 0.0, other.diameter_mm or 0.0))
    return apart <= NEAR_MM or (larger <= _SAME_SIZE * smaller and apart <= smaller / 4)


def _level(diameter: float) -> int:
    """Cells of side ``2 ** level`` hold the rows of a diameter: no less than half of its radius, and no less than ``NEAR_MM``."""
    return math.ceil(math.log2(min(max(diameter / 4, NEAR_MM), LARGEST_MM)))


def _levels(row: Nodule) -> set[int]:
    """The levels of the rows that may be near a row."""
    diameter = row.diameter_mm or 0.0
    return {_SMALLEST_LEVEL, _level(diameter / _SAME_SIZE), _level(diameter * _SAME_SIZE)}


def _cell(row: Nodule, level: int) -> tuple[int, ...]:
    return level, *(math.floor(value / 2**level) for value in row.center_world)


def _around(cell: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    level, *middle = cell
    for steps in product((-1, 0, 1), repeat=3):
        yield level, *(index + step for index, step in zip(middle, steps, strict=True))


def _is_rounded(row: Nodule) -> bool:
    return all(value % ROUNDED_MM == 0 for value in row.center_world)
