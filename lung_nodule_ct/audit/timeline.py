"""The scans of a patient in time: their ranks, the days between them, and whether the two agree."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from lung_nodule_ct.audit.check import Part, unknown
from lung_nodule_ct.read.audit_report import Check, Verdict

if TYPE_CHECKING:
    from lung_nodule_ct.audit.facts import Facts


def timeline_part(facts: Facts) -> Part:
    """Timepoints and intervals of every patient that the scan configs name."""
    name, title, expected = "timepoints", "Timepoints and intervals", "days rise with the rank, from 0"
    patients: dict[str, dict[int, set[int | None]]] = {}
    ranks: dict[str, set[int | None]] = {}
    placeless = 0
    for scan in facts.distinct_scans:
        if scan.patient_id is None or scan.timepoint is None:
            placeless += 1
            continue
        patients.setdefault(scan.patient_id, {}).setdefault(scan.timepoint, set()).add(scan.days_since_first)
        ranks.setdefault(scan.patient_id, set()).add(scan.num_timepoints)
    intervals: list[int] = []
    faults: Counter[str] = Counter()
    for patient, points in patients.items():
        days = [next(iter(points[rank])) for rank in sorted(points) if len(points[rank]) == 1]
        known = [day for day in days if day is not None]
        own = [later - earlier for earlier, later in pairwise(known)]
        intervals += own
        faults["two days at one timepoint"] += sum(len(day) > 1 for day in points.values())
        faults["days that do not rise"] += sum(interval <= 0 for interval in own)
        faults["a first scan that is not on day 0"] += bool(points.get(0, {0}) - {0, None})
        faults["ranks that pass the number of timepoints"] += len(ranks[patient]) > 1 or max(points) >= (
            next(iter(ranks[patient])) or 0
        )
    found = {fault: count for fault, count in faults.items() if count}
    counts = Counter(next(iter(ranks[patient])) or 0 for patient in patients)
    numbers = {
        "patients_by_timepoints": {str(number): counts[number] for number in sorted(counts)},
        "intervals_days": intervals,
        "scans_without_timepoint": placeless,
        "faults": found,
    }
    if not patients:
        why = "no scan has a timepoint: the build has no scan config, or lacked the archives that give context"
        return Part(name, (unknown(name, title, why, expected),), numbers)
    several = sum(count for number, count in counts.items() if number > 1)
    measured = f"{several:,} of {len(patients):,} patients with two or more"
    if intervals:
        measured += f"; {min(intervals):,} to {max(intervals):,} days apart, median {np.median(intervals):,.0f}"
    detail = ", ".join(f"{count:,} with {number}" for number, count in sorted(counts.items()))
    detail = f"patients by timepoints: {detail}"
    if placeless:
        detail += f"; {placeless:,} scans have no place in time"
    if found:
        detail += "; faults: " + ", ".join(f"{fault} ({count:,})" for fault, count in found.items())
    return Part(
        name, (Check(name, title, Verdict.FAIL if found else Verdict.PASS, measured, expected, detail),), numbers
    )
