"""Patients: who occurs in two splits, whether folds avoid that, and the scans of each patient in time."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lung_nodule_ct.declaration.labels import SPLIT_OF_FOLD, TRAIN
from lung_nodule_ct.read.audit_report import Check, CheckGroup, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lung_nodule_ct.audit.facts import ExampleFacts, Facts, ScanFacts

_NO_PATIENT = "no row has a patient"
SHRINKS: Final = 0.7
"""Diameters that become smaller than this share are reported: RECIST 1.1 calls it a response to treatment."""


def splits_checks(facts: Facts) -> CheckGroup:
    """Patient leakage of each config that has two or more splits, and the folds, which avoid it."""
    by_config: dict[str, list[ExampleFacts]] = {
        name: facts.of(name) if "patient_id" in facts.build.config(name).schema.names else []
        for name in facts.build.configs
    }
    split_by = str(facts.build.manifest["split_by"])
    checks: list[Check] = []
    leakage: dict[str, Any] = {}
    for config, splits in facts.build.configs.items():
        if len(splits) > 1:
            check, leakage[config] = _leakage(config, by_config[config], split_by)
            checks.append(check)
    check, by_fold = _folds(by_config)
    return CheckGroup("splits", (*checks, check), {"split_by": split_by, "leakage": leakage, "by_fold": by_fold})


def timeline_checks(facts: Facts) -> CheckGroup:
    """Timepoints and intervals of every patient of the scan configs."""
    name, title, expected = "timepoints", "Timepoints and intervals", "days increase with the timepoint, from 0"
    patients: defaultdict[str, list[ScanFacts]] = defaultdict(list)
    without_timepoint = 0
    for scan in facts.distinct_scans:
        if scan.patient_id is None or scan.timepoint is None:
            without_timepoint += 1
        else:
            patients[scan.patient_id].append(scan)
    intervals: list[int] = []
    faults: Counter[str] = Counter()
    for scans in patients.values():
        own_intervals, own_faults = _timeline(scans)
        intervals += own_intervals
        faults += own_faults
    counts = Counter(scans[0].num_timepoints or 0 for scans in patients.values())
    numbers = {
        "patients_by_timepoints": {str(number): counts[number] for number in sorted(counts)},
        "intervals_days": intervals,
        "scans_without_timepoint": without_timepoint,
        "faults": dict(faults),
        "patients_with_shrinking_nodules": sum(map(_shrinks, patients.values())),
    }
    if not patients:
        reason = (
            "no scan has a timepoint: the build has no config of scans, or was made without the archives for context"
        )
        return CheckGroup(name, (Check.unknown(name, title, reason, expected),), numbers)
    several = sum(count for number, count in counts.items() if number > 1)
    measured = f"{several:,} of {len(patients):,} patients with two or more"
    if intervals:
        measured += f"; {min(intervals):,} to {max(intervals):,} days apart, median {np.median(intervals):,.0f}"
    detail = "patients by number of timepoints: "
    detail += ", ".join(f"{count:,} with {number}" for number, count in sorted(counts.items()))
    if without_timepoint:
        detail += f"; {without_timepoint:,} scans have no timepoint"
    if numbers["patients_with_shrinking_nodules"]:
        detail += (
            f"; in {numbers['patients_with_shrinking_nodules']:,} patients the largest nodule loses more than "
            f"{100 * (1 - SHRINKS):.0f} % of its diameter from one timepoint to the next: treatment, or exchanged dates"
        )
    if faults:
        detail += "; faults: " + ", ".join(f"{fault} ({count:,})" for fault, count in faults.items())
    verdict = Verdict.FAIL if faults else Verdict.PASS
    return CheckGroup(name, (Check(name, title, verdict, measured, expected, detail),), numbers)


def _leakage(config: str, rows: Sequence[ExampleFacts], split_by: str) -> tuple[Check, dict[str, Any]]:
    name, title, expected = f"patient-leakage/{config}", f"Patient leakage, {config}", "0 patients"
    patients: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.patient_id is not None:
            patients[row.patient_id].add(row.split)
    if not patients:
        numbers: dict[str, Any] = {"patients": 0, "shared_patients": None, "leaking_rows": None}
        return Check.unknown(name, title, _NO_PATIENT, expected), numbers
    shared = {patient for patient, splits in patients.items() if len(splits) > 1}
    others = [row for row in rows if row.split != TRAIN]
    trained = {patient for patient, splits in patients.items() if TRAIN in splits}
    leaking = Counter(row.split for row in others if row.patient_id in trained)
    unnamed = sum(row.patient_id is None for row in rows)
    numbers = {
        "patients": len(patients),
        "shared_patients": len(shared),
        "leaking_rows": dict(leaking),
        "rows": dict(Counter(row.split for row in rows)),
        "rows_without_patient": unnamed,
    }
    totals = Counter(row.split for row in others)
    by_split = ", ".join(f"{count:,} of {totals[split]:,} {split}" for split, count in leaking.items())
    measured = f"{len(shared):,} of {len(patients):,} patients" + (f"; {by_split} rows" if by_split else "")
    detail = f"split by: {split_by}; rows of patients that also occur in train"
    if unnamed:
        detail += f"; {unnamed:,} rows have no patient and may hide more"
    if shared:
        detail += "; use `fold`, or build with --split-by patient"
    return Check(name, title, Verdict.FAIL if shared else Verdict.PASS, measured, expected, detail), numbers


def _folds(by_config: Mapping[str, Sequence[ExampleFacts]]) -> tuple[Check, dict[str, Any]]:
    name, title, expected = "leak-free", "Leak-free alternative: fold", "one fold per patient, in every config"
    folds: defaultdict[str, set[int | None]] = defaultdict(set)
    for row in (row for rows in by_config.values() for row in rows):
        if row.patient_id is not None:
            folds[row.patient_id].add(row.fold)
    by_split = {
        config: dict(Counter("without fold" if row.fold is None else SPLIT_OF_FOLD[row.fold] for row in rows))
        for config, rows in by_config.items()
        if rows
    }
    if not folds:
        return Check.unknown(name, title, _NO_PATIENT, expected), by_split
    inconsistent = sum(len(values) > 1 or None in values for values in folds.values())
    order = (*dict.fromkeys(SPLIT_OF_FOLD), "without fold")
    detail = "--split-by patient would give " + "; ".join(
        f"{config}: " + ", ".join(f"{split} {counts[split]:,}" for split in order if split in counts)
        for config, counts in by_split.items()
    )
    measured = f"{len(folds):,} patients, {inconsistent:,} not in exactly one fold"
    return Check(name, title, Verdict.FAIL if inconsistent else Verdict.PASS, measured, expected, detail), by_split


def _shrinks(scans: Sequence[ScanFacts]) -> bool:
    """Whether the largest nodule of a patient becomes much smaller from one timepoint to the next."""
    largest: dict[int, float] = {}
    for scan in scans:
        diameters = [nodule.diameter_mm for nodule in scan.nodules if nodule.diameter_mm is not None]
        if diameters:
            largest[scan.timepoint or 0] = max(*diameters, largest.get(scan.timepoint or 0, 0.0))
    sizes = [largest[rank] for rank in sorted(largest)]
    return any(later < SHRINKS * earlier for earlier, later in pairwise(sizes))


def _timeline(scans: Sequence[ScanFacts]) -> tuple[list[int], Counter[str]]:
    """The intervals in days between the timepoints of a patient, and the faults in them."""
    points: defaultdict[int, set[int | None]] = defaultdict(set)
    for scan in scans:
        points[scan.timepoint or 0].add(scan.days_since_first)
    unique = [next(iter(points[rank])) for rank in sorted(points) if len(points[rank]) == 1]
    known = [day for day in unique if day is not None]
    intervals = [later - earlier for earlier, later in pairwise(known)]
    totals = {scan.num_timepoints for scan in scans}
    faults = {
        "two days at one timepoint": sum(len(days) > 1 for days in points.values()),
        "days that do not rise": sum(interval <= 0 for interval in intervals),
        "a first scan that is not on day 0": int(bool(points.get(0, {0}) - {0, None})),
        "ranks that pass the number of timepoints": int(
            len(totals) > 1 or max(points) >= (scans[0].num_timepoints or 0)
        ),
    }
    return intervals, Counter({fault: count for fault, count in faults.items() if count})
