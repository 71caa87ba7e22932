"""Who stands in two splits, and the splits by fold in which nobody does.

The scans of a patient in time: their ranks, the days between them, and whether the two agree.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from lung_nodule_ct.audit.check import CheckGroup, unknown
from lung_nodule_ct.declaration.labels import SPLIT_OF_FOLD, TRAIN
from lung_nodule_ct.read.audit_report import Check, Verdict

if TYPE_CHECKING:
    from lung_nodule_ct.audit.facts import Facts, ImageFacts, ScanFacts


def splits_checks(facts: Facts) -> CheckGroup:
    """Patient leakage of each config with two splits or more, and what the folds give instead."""
    by_config: dict[str, list[ImageFacts | ScanFacts]] = {name: [] for name in facts.build.configs}
    everyone: list[ImageFacts | ScanFacts] = [*facts.images, *facts.scans]
    for row in everyone:
        by_config[row.config].append(row)
    checks: list[Check] = []
    leakage: dict[str, Any] = {}
    for config, splits in facts.build.configs.items():
        if len(splits) > 1:
            check, numbers = _leakage(config, by_config[config], str(facts.build.manifest["split_by"]))
            checks.append(check)
            leakage[config] = numbers
    check, folds = _folds(by_config)
    return CheckGroup(
        "splits", (*checks, check), {"split_by": facts.build.manifest["split_by"], "leakage": leakage, "by_fold": folds}
    )


def _leakage(config: str, rows: list[ImageFacts | ScanFacts], split_by: str) -> tuple[Check, dict[str, Any]]:
    name, title, expected = f"patient-leakage/{config}", f"Patient leakage, {config}", "0 patients"
    patients: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.patient_id is not None:
            patients[row.patient_id].add(row.split)
    if not patients:
        why = "no row says which patient it is of"
        return unknown(name, title, why, expected), {"patients": 0, "shared_patients": None, "leaking_rows": None}
    shared = {patient for patient, splits in patients.items() if len(splits) > 1}
    others = [row for row in rows if row.split != TRAIN]
    trained = {patient for patient, splits in patients.items() if TRAIN in splits}
    leaking = Counter(row.split for row in others if row.patient_id in trained)
    nameless = sum(row.patient_id is None for row in rows)
    numbers = {
        "patients": len(patients),
        "shared_patients": len(shared),
        "leaking_rows": dict(leaking),
        "rows": dict(Counter(row.split for row in rows)),
        "rows_without_patient": nameless,
    }
    rows_of = ", ".join(
        f"{count:,} of {sum(row.split == split for row in others):,} {split}" for split, count in leaking.items()
    )
    measured = f"{len(shared):,} of {len(patients):,} patients"
    measured += f"; {rows_of} rows" if rows_of else ""
    detail = f"split by: {split_by}; rows of patients that train holds, too"
    if nameless:
        detail += f"; {nameless:,} rows name no patient and may hide more"
    if shared:
        detail += "; use `fold`, or build with --split-by patient"
    return Check(name, title, Verdict.FAIL if shared else Verdict.PASS, measured, expected, detail), numbers


def _folds(by_config: dict[str, list[ImageFacts | ScanFacts]]) -> tuple[Check, dict[str, Any]]:
    name, title, expected = "leak-free", "Leak-free alternative: fold", "one fold a patient, in every config"
    folds: defaultdict[str, set[int | None]] = defaultdict(set)
    for row in chain.from_iterable(by_config.values()):
        if row.patient_id is not None:
            folds[row.patient_id].add(row.fold)
    by_split = {
        config: dict(Counter("without fold" if row.fold is None else SPLIT_OF_FOLD[row.fold] for row in rows))
        for config, rows in by_config.items()
        if rows
    }
    if not folds:
        return unknown(name, title, "no row says which patient it is of", expected), by_split
    torn = sum(len(own) > 1 or None in own for own in folds.values())
    detail = "--split-by patient would give " + "; ".join(
        f"{config}: "
        + ", ".join(
            f"{split} {own[split]:,}" for split in (*dict.fromkeys(SPLIT_OF_FOLD), "without fold") if split in own
        )
        for config, own in by_split.items()
    )
    measured = f"{len(folds):,} patients, {torn:,} in more than one fold"
    return Check(name, title, Verdict.FAIL if torn else Verdict.PASS, measured, expected, detail), by_split


def timeline_checks(facts: Facts) -> CheckGroup:
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
        return CheckGroup(name, (unknown(name, title, why, expected),), numbers)
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
    return CheckGroup(
        name, (Check(name, title, Verdict.FAIL if found else Verdict.PASS, measured, expected, detail),), numbers
    )
