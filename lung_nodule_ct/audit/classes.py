"""How the pathology classes are spread over splits, and over sizes where a nodule's class is known."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.audit.check import Part, unknown
from lung_nodule_ct.declaration.configs import CLS_1_25MM, DET3D_1_25MM
from lung_nodule_ct.declaration.labels import PATHOLOGY, PATHOLOGY_NAMES
from lung_nodule_ct.declaration.published import FIGURES, SIZE_GROUPS
from lung_nodule_ct.read.audit_report import Check, Verdict

if TYPE_CHECKING:
    from lung_nodule_ct.audit.facts import Facts


def classes_part(facts: Facts) -> Part:
    """Crops by class and split, and nodules by class and size."""
    crops = [image for image in facts.images if image.config == CLS_1_25MM.name]
    counts = Counter((image.split, image.label) for image in crops)
    by_split = {
        split: [counts[split, entry.index] for entry in PATHOLOGY]
        for split in facts.build.configs.get(CLS_1_25MM.name, ())
    }
    check = _balance(by_split)
    return Part("classes", (check,), {"names": list(PATHOLOGY_NAMES), "by_split": by_split, "by_size": _by_size(facts)})


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
