"""Rows of annotation tables against each other: a nodule at both slice thicknesses, and the diameters of stacks against their boxes."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.declaration.findings import Grade
from lung_nodule_ct.read.audit_report import Check, CheckGroup, Flag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lung_nodule_ct.audit.facts import Facts, ScanFacts, VolumeFacts

DISTANCE_MM: Final = 1.0
RATIO: Final = 1.1
"""Two rows of one nodule may differ by this, or by five times as much as half of the pairs of the build do."""
_ROBUST = 5.0
_MOST_MM, _MOST_RATIO = 5.0, 1.5
"""The bounds never exceed these: one thick slice, and the same mistake in every row would hide itself."""
_PAIR_MM = 30.0
_PIXEL_MM: Final = (0.4, 1.2)
"""Diameter in mm divided by the side of the box in pixels: the size of a pixel of chest CT, with a margin."""
_OWN_RATIO: Final = (0.6, 1.6)
"""The same for one case, divided by the median of the table."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """A nodule of the thin scan, its index, and the nearest one of the thick scan."""

    thin: ScanFacts
    thick: ScanFacts
    number: int
    distance: float
    ratio: float


def rows_checks(facts: Facts) -> CheckGroup:
    """The tables of the two thicknesses, scan by scan, and the diameters of stacks."""
    tables, counted = _thickness_flags(facts.distinct_scans)
    stacks = [volume for volume in facts.volumes if volume.boxes]
    diameters = _stack_flags(stacks)
    checks = []
    if counted:
        checks.append(
            Check.of_flags(
                "thickness-tables",
                "Both tables give the same nodules",
                tables,
                counted,
                "scans",
                "number of rows, centres and diameters of a scan in the 1.25 mm and the 5 mm table",
            )
        )
    if stacks:
        checks.append(
            Check.of_flags(
                "stack-diameters",
                "Diameters of stacks fit their boxes",
                diameters,
                len(stacks),
                "stacks",
                "mm per pixel: the diameter divided by the mean side of the box, for each case and for the table",
            )
        )
    return CheckGroup("rows", tuple(checks), {"scans": counted, "stacks": len(stacks)}, (*tables, *diameters))


def _thickness_flags(scans: Sequence[ScanFacts]) -> tuple[list[Flag], int]:
    """The flags, and the number of scans that two tables list."""
    by_id: defaultdict[str, list[ScanFacts]] = defaultdict(list)
    for scan in scans:
        if scan.scan_id is not None:
            by_id[scan.scan_id].append(scan)
    flags: list[Flag] = []
    pairs: list[_Pair] = []
    count = 0
    for same in by_id.values():
        for thin, thick in pairwise(sorted(same, key=lambda scan: scan.slice_thickness_mm)):
            count += 1
            if len(thin.nodules) != len(thick.nodules):
                measured = f"{len(thin.nodules)} rows at {thin.slice_thickness_mm:g} mm, {len(thick.nodules)} at {thick.slice_thickness_mm:g} mm"
                flags.append(
                    Flag("thickness-tables", Grade.WARNING, thin.row_key, measured, "as many", other=thick.row_key)
                )
            pairs += _pairs(thin, thick)
    usual = median(pair.distance for pair in pairs) if pairs else 0.0
    spread = median(abs(math.log(pair.ratio)) for pair in pairs) if pairs else 0.0
    distance = min(max(DISTANCE_MM, _ROBUST * usual), _MOST_MM)
    ratio = min(max(RATIO, math.exp(_ROBUST * spread)), _MOST_RATIO)
    for pair in pairs:
        if pair.distance > distance or not 1 / ratio <= pair.ratio <= ratio:
            flags.append(
                Flag(
                    "thickness-tables",
                    Grade.WARNING,
                    pair.thin.row_key,
                    f"centres {pair.distance:.1f} mm apart, ratio of diameters {pair.ratio:.2f}",
                    f"up to {distance:.1f} mm, ratio {1 / ratio:.2f} to {ratio:.2f}",
                    annotation=pair.number,
                    other=pair.thick.row_key,
                )
            )
    return flags, count


def _pairs(thin: ScanFacts, thick: ScanFacts) -> list[_Pair]:
    """Each nodule of a thin scan with the nearest one of the thick scan, if that is near."""
    found = []
    for number, nodule in enumerate(thin.nodules):
        near = min(thick.nodules, key=lambda other: math.dist(nodule.center_world, other.center_world), default=None)
        if near is None:
            continue
        distance = math.dist(nodule.center_world, near.center_world)
        known = nodule.diameter_mm and near.diameter_mm and min(nodule.diameter_mm, near.diameter_mm) > 0
        ratio = (near.diameter_mm or 1) / (nodule.diameter_mm or 1) if known else 1.0
        if distance <= _PAIR_MM or len(thin.nodules) == len(thick.nodules) == 1:
            found.append(_Pair(thin, thick, number, distance, ratio))
    return found


def _stack_flags(stacks: Sequence[VolumeFacts]) -> list[Flag]:
    sizes = [
        (stack, number, box[0] / box[1])
        for stack in stacks
        for number, box in enumerate(stack.boxes)
        if box is not None and box[1] > 0
    ]
    if not sizes:
        return []
    usual = median(size for _, _, size in sizes)
    is_table = not _PIXEL_MM[0] <= usual <= _PIXEL_MM[1]
    flags = []
    for stack, number, size in sizes:
        if is_table:
            bound = f"{_PIXEL_MM[0]:g} to {_PIXEL_MM[1]:g} mm per pixel in the median of the table, got {usual:.2f}"
            hint = "the diameters of the table are in another unit, or are radii"
        elif not _OWN_RATIO[0] <= size / usual <= _OWN_RATIO[1]:
            bound = f"{_OWN_RATIO[0] * usual:.2f} to {_OWN_RATIO[1] * usual:.2f} mm per pixel"
            hint = None
        else:
            continue
        measured = f"{size:.2f} mm per pixel of the box"
        flags.append(
            Flag("stack-diameters", Grade.WARNING, stack.row_key, measured, bound, annotation=number, hint=hint)
        )
    return flags
