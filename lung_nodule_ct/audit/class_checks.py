"""How the pathology classes are spread over splits, and over sizes where a nodule's class is known.

The published figures beside the build's own, counted anew from its rows, for both versions of the paper.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.audit.check import CheckGroup, unknown
from lung_nodule_ct.declaration.configs import CLS_1_25MM, DET2D_1_25MM, DET3D_1_25MM, DET3D_5MM, LONGITUDINAL
from lung_nodule_ct.declaration.labels import PATHOLOGY, PATHOLOGY_NAMES, VALIDATION
from lung_nodule_ct.declaration.published import FIGURES, SIZE_GROUPS, Figure
from lung_nodule_ct.read.audit_report import Check, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lung_nodule_ct.audit.facts import Facts


def classes_checks(facts: Facts) -> CheckGroup:
    """Crops by class and split, and nodules by class and size."""
    crops = [image for image in facts.images if image.config == CLS_1_25MM.name]
    counts = Counter((image.split, image.label) for image in crops)
    by_split = {
        split: [counts[split, entry.index] for entry in PATHOLOGY]
        for split in facts.build.configs.get(CLS_1_25MM.name, ())
    }
    check = _balance(by_split)
    return CheckGroup(
        "classes", (check,), {"names": list(PATHOLOGY_NAMES), "by_split": by_split, "by_size": _by_size(facts)}
    )


def _balance(by_split: dict[str, list[int]]) -> Check:
    name, title, expected = "class-balance", "Class balance", "every class in every split"
    totals = [sum(own) for own in zip(*by_split.values(), strict=True)]
    if not sum(totals):
        return unknown(name, title, f"{CLS_1_25MM.name} is not in the build", expected)
    told = {figure.name: figure.preprint or 0 for figure in FIGURES}
    share = told["malignant nodules"] / (told["malignant nodules"] + told["benign nodules"])
    malignant = sum(totals[entry.index] for entry in PATHOLOGY if entry.malignant) / sum(totals)
    absent = [
        f"{entry.name} in {split}" for split, own in by_split.items() for entry in PATHOLOGY if not own[entry.index]
    ]
    ratio = f"{max(totals) / min(totals):.1f} : 1" if min(totals) else "a class without any"
    detail = "; ".join(
        f"{split}: " + ", ".join(f"{entry.letter} {own[entry.index]:,}" for entry in PATHOLOGY)
        for split, own in by_split.items()
    )
    if absent:
        detail += "; none of " + ", ".join(absent)
    return Check(
        name,
        title,
        Verdict.WARN if absent else Verdict.PASS,
        f"largest to smallest {ratio}, {100 * malignant:.1f} % malignant",
        f"{expected}; {100 * share:.1f} % malignant (preprint, of nodules)",
        detail,
    )


def _by_size(facts: Facts) -> dict[str, Any]:
    nodules = [nodule for scan in facts.scans if scan.config == DET3D_1_25MM.name for nodule in scan.nodules]
    return {
        "groups": [group.name for group in SIZE_GROUPS],
        "counts": {
            entry.name: [
                sum(nodule.pathology == entry.index and group.holds(nodule.diameter_mm) for nodule in nodules)
                for group in SIZE_GROUPS
            ]
            for entry in PATHOLOGY
        },
        "class_unknown": [
            sum(nodule.pathology is None and group.holds(nodule.diameter_mm) for nodule in nodules)
            for group in SIZE_GROUPS
        ],
    }


_TOLERANCE = 0.01  # of all nodules: the paper's own percentages and counts differ in the second decimal


def published_checks(facts: Facts) -> CheckGroup:
    """Each figure but those by size, which :func:`sizes_part` takes together."""
    own = _counted(facts)
    by_size = {group.name for group in SIZE_GROUPS}
    figures = [figure for figure in FIGURES if figure.name not in by_size]
    numbers = {
        figure.name: {
            "here": own[figure.name][0],
            "preprint": figure.preprint,
            "published": figure.published,
            "agrees_with": None if (here := own[figure.name][0]) is None else figure.agreement(here),
        }
        for figure in figures
    }
    return CheckGroup("published_figures", tuple(_check(figure, *own[figure.name]) for figure in figures), numbers)


def _check(figure: Figure, here: int | None, how: str) -> Check:
    name, title = "figure-" + re.sub(r"\W+", "-", figure.name.lower()).strip("-"), f"Published: {figure.name}"
    told = {"preprint": figure.preprint, "published": figure.published}
    expected = ", ".join(f"{source} {value:,}" for source, value in told.items() if value is not None)
    if here is None:
        return unknown(name, title, how, expected)
    agrees = figure.agreement(here)
    verdict = Verdict.WARN if agrees == "neither" else Verdict.PASS
    return Check(name, title, verdict, f"{here:,}", expected, f"agrees with {agrees}; {how}")


def _counted(facts: Facts) -> Mapping[str, tuple[int | None, str]]:
    """By figure: the count, and how it was made or why it was not."""
    built = facts.build.configs
    both = {DET3D_1_25MM.name, DET3D_5MM.name}
    scans = [scan for scan in facts.scans if scan.config in both]
    own: dict[str, tuple[int | None, str]] = {}
    if both <= set(built):
        how = f"counted over {' and '.join(sorted(both))}"
        own["patients"] = len({scan.patient_id for scan in scans} - {None}), how
        # a scan of both thicknesses is one scan
        own["CT scans"] = len({scan.scan_id or scan.key[0] for scan in scans}), how
    else:
        own |= dict.fromkeys(("patients", "CT scans"), (None, f"needs both {' and '.join(sorted(both))} in the build"))
    slices = [image for image in facts.images if image.config == DET2D_1_25MM.name]
    own["annotated nodules (slices)"] = (
        (sum(bool(image.boxes) for image in slices), f"slices of {DET2D_1_25MM.name} with a box that can be used")
        if DET2D_1_25MM.name in built
        else (None, f"needs {DET2D_1_25MM.name} in the build")
    )
    crops = [image for image in facts.images if image.config == CLS_1_25MM.name]
    own["crops to validate on"] = (
        (sum(image.split == VALIDATION for image in crops), f"crops of {CLS_1_25MM.name}")
        if CLS_1_25MM.name in built
        else (None, f"needs {CLS_1_25MM.name} in the build")
    )
    classes = Counter(image.label for image in crops)
    for kind, malignant in (("malignant", True), ("benign", False)):
        count = sum(classes[entry.index] for entry in PATHOLOGY if entry.malignant is malignant)
        said = f"; {CLS_1_25MM.name} has {count:,} {kind} crops" if CLS_1_25MM.name in built else ""
        own[f"{kind} nodules"] = (
            None,
            f"the archives class crops, not nodules, and do not say which crops are one nodule{said}",
        )
    if LONGITUDINAL.name in built:
        rows = [scan for scan in facts.scans if scan.config == LONGITUDINAL.name]
        patients = {scan.patient_id for scan in rows}
        how = f"dates of {len(patients):,} patients with two or more; they have {len(rows):,} volumes"
        own["scans in the cross spatio-temporal part"] = len({scan.scan_id for scan in rows}), how
    else:
        own["scans in the cross spatio-temporal part"] = None, f"needs {LONGITUDINAL.name} in the build"
    return own


def sizes_checks(facts: Facts) -> CheckGroup:
    """The nodules of the thin scans in the paper's four groups of diameters."""
    name, title = "sizes", "Sizes in the paper's four groups"
    told = [next(figure.preprint for figure in FIGURES if figure.name == group.name) or 0 for group in SIZE_GROUPS]
    expected = " / ".join(f"{100 * count / sum(told):.1f}" for count in told) + f" % of {sum(told):,} (preprint)"
    diameters = [
        nodule.diameter_mm for scan in facts.scans if scan.config == DET3D_1_25MM.name for nodule in scan.nodules
    ]
    counts = [sum(map(group.holds, diameters)) for group in SIZE_GROUPS]
    total = sum(counts)
    numbers = {
        "groups": [group.name for group in SIZE_GROUPS],
        "counts": counts,
        "preprint": told,
        "not_positive": sum(diameter <= 0 for diameter in diameters),
    }
    if not total:
        why = (
            f"{DET3D_1_25MM.name} is not in the build"
            if DET3D_1_25MM.name not in facts.build.configs
            else "it has no nodule"
        )
        return CheckGroup(name, (unknown(name, title, why, expected),), numbers)
    shares = [count / total for count in counts]
    agrees = all(abs(share - count / sum(told)) <= _TOLERANCE for share, count in zip(shares, told, strict=True))
    detail = "up to 10 / 20 / 30 mm and more, the upper bound included; diameters of " + DET3D_1_25MM.name
    if numbers["not_positive"]:
        detail += f"; {numbers['not_positive']:,} more are zero or negative"
    measured = " / ".join(f"{100 * share:.1f}" for share in shares) + f" % of {total:,}"
    check = Check(name, title, Verdict.PASS if agrees else Verdict.WARN, measured, expected, detail)
    return CheckGroup(name, (check,), numbers)
