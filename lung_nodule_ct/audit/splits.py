"""Who stands in two splits, and the splits by fold in which nobody does."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import chain
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.audit.check import Part, unknown
from lung_nodule_ct.declaration.labels import SPLIT_OF_FOLD, TRAIN
from lung_nodule_ct.read.audit_report import Check, Verdict

if TYPE_CHECKING:
    from lung_nodule_ct.audit.facts import Facts, ImageFacts, ScanFacts


def splits_part(facts: Facts) -> Part:
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
    return Part(
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
