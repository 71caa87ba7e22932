"""The report of a build: what its examples found, what they have in common across splits, and ``findings.json``.

The archives' own figures beside the published ones: which version of the paper do they agree with?
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

from lung_nodule_ct.declaration.configs import CLS_1_25MM, DET2D_1_25MM, DET3D_1_25MM, DET3D_5MM, LONGITUDINAL
from lung_nodule_ct.declaration.findings import Code, Finding, summarize
from lung_nodule_ct.declaration.labels import VALIDATION
from lung_nodule_ct.declaration.manifest import FORMAT_VERSION
from lung_nodule_ct.declaration.published import FIGURES, SIZE_GROUPS, Figure
from lung_nodule_ct.examples.family import ScanUnit, SliceUnit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lung_nodule_ct.examples.family import Example, Unit
    from lung_nodule_ct.examples.plan import Plan


class Pixels(NamedTuple):
    """Where an example's pixels stand, and the key that equal pixels share."""

    split: str
    archive: str
    name: str
    key: str

    @classmethod
    def of(cls, unit: Unit, example: Example) -> Pixels:
        """Those of an example."""
        return cls(unit.split, unit.members[0].archive, unit.source_name, example.pixels_key)


def same_pixels(pixels: Iterable[Pixels]) -> list[Finding]:
    """Findings for pixels that stand more than once among the examples of a config."""
    by_key: defaultdict[str, list[Pixels]] = defaultdict(list)
    for entry in pixels:
        by_key[entry.key].append(entry)
    findings = []
    for holders in by_key.values():
        if len(holders) < 2:
            continue
        across = len({holder.split for holder in holders}) > 1
        findings.append(
            Finding(
                Code.SAME_PIXELS_IN_TWO_SPLITS if across else Code.SAME_PIXELS,
                "kept as published",
                archive=", ".join(dict.fromkeys(holder.archive for holder in holders)),
                member=", ".join(f"{holder.name} ({holder.split})" for holder in holders),
                count=len(holders) - 1,
            )
        )
    return findings


def shared_patients(plan: Plan) -> dict[str, int]:
    """How many patients each pair of a plan's splits shares: ``{"train & validation": 3}``."""
    patients = {
        split: {unit.patient_id for unit in units if unit.patient_id is not None}
        for split, units in plan.splits.items()
    }
    return {f"{one} & {other}": len(patients[one] & patients[other]) for one, other in combinations(patients, 2)}


def report_document(
    findings: Mapping[str, Sequence[Finding]], *, generator: str, verbatim: bool, extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The content of ``findings.json``.

    Args:
        findings: By config.
        generator: Who writes it.
        verbatim: Whether members and rows stand as they are; else what could be a date is masked.
        extra: More top-level entries.
    """
    entries = [
        {"config": config, **(finding if verbatim else finding.redacted()).to_dict()}
        for config, own in findings.items()
        for finding in own
    ]
    return {
        "format_version": FORMAT_VERSION,
        "generator": generator,
        "names": "verbatim" if verbatim else "dates masked",
        **(extra or {}),
        "summary": summarize(finding for own in findings.values() for finding in own),
        "findings": entries,
    }


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure.

    Attributes:
        figure: What the paper's versions say.
        measured: What the archives hold; ``None`` where they do not say.
        config: The config whose plan it was counted in.
        counted: What was counted, or why nothing was.
    """

    figure: Figure
    measured: int | None
    config: str
    counted: str

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "figure": self.figure.name,
            "here": self.measured,
            "preprint": self.figure.preprint,
            "published": self.figure.published,
            "agrees_with": None if self.measured is None else self.figure.agreement(self.measured),
            "counted": self.counted,
        }

    @property
    def finding(self) -> Finding | None:
        """A finding where it agrees with neither version."""
        if self.measured is None or self.figure.agreement(self.measured) != "neither":
            return None
        told = {"preprint": self.figure.preprint, "published": self.figure.published}
        said = ", ".join(f"{name} {value:,}" for name, value in told.items() if value is not None)
        return Finding(Code.FIGURE_MISMATCH, "reported", detail=f"{self.figure.name}: {said}, here {self.measured:,}")


def compare_figures(plans: Mapping[str, Plan]) -> list[Comparison]:
    """The figures that some plans, by config name, say something of. Patients and scans need both MHD sets."""
    own: dict[str, tuple[int | None, str, str]] = {}
    thin, thick = (_scan_units(plans.get(config.name)) for config in (DET3D_1_25MM, DET3D_5MM))
    if DET3D_1_25MM.name in plans:
        sizes = [nodule.diameter_mm for unit in thin for nodule in unit.nodules]
        for group in SIZE_GROUPS:
            counted = "diameters of the 1.25 mm scans, the upper bound included"
            own[group.name] = sum(map(group.holds, sizes)), DET3D_1_25MM.name, counted
        if DET3D_5MM.name in plans:
            scans = (*thin, *thick)
            patients = {unit.patient_id for unit in scans} - {None}
            own["patients"] = len(patients), DET3D_1_25MM.name, "patients of both MHD sets"
            distinct = {unit.scan_id or unit.header for unit in scans}
            own["CT scans"] = len(distinct), DET3D_1_25MM.name, "a scan of both thicknesses is one"
    if LONGITUDINAL.name in plans:
        dates = {unit.scan_id for unit in _scan_units(plans[LONGITUDINAL.name])}
        counted = "dates of patients with two or more"
        own["scans in the cross spatio-temporal part"] = len(dates), LONGITUDINAL.name, counted
    if DET2D_1_25MM.name in plans:
        slices = [unit for unit in plans[DET2D_1_25MM.name].units if isinstance(unit, SliceUnit)]
        annotated = sum(unit.annotation is not None for unit in slices)
        counted = "slices with an annotation file, with a box in it or not"
        own["annotated nodules (slices)"] = annotated, DET2D_1_25MM.name, counted
    if CLS_1_25MM.name in plans:
        crops = plans[CLS_1_25MM.name].splits
        own["crops to validate on"] = len(crops.get(VALIDATION, ())), CLS_1_25MM.name, "crops of the split validation"
        for kind in ("malignant", "benign"):
            counted = "the archives class crops, and do not say which crops are one nodule"
            own[f"{kind} nodules"] = None, CLS_1_25MM.name, counted
    return [Comparison(figure, *own[figure.name]) for figure in FIGURES if figure.name in own]


def _scan_units(plan: Plan | None) -> list[ScanUnit]:
    return [unit for unit in plan.units if isinstance(unit, ScanUnit)] if plan else []
