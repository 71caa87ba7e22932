"""The archives' own figures beside the published ones: which version of the paper do they agree with?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.declaration.configs import CLS_1_25MM, DET2D_1_25MM, DET3D_1_25MM, DET3D_5MM, LONGITUDINAL
from lung_nodule_ct.declaration.findings import Code, Finding
from lung_nodule_ct.declaration.labels import VALIDATION
from lung_nodule_ct.declaration.published import FIGURES, SIZE_GROUPS, Figure
from lung_nodule_ct.plan.units import ScanUnit, SliceUnit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lung_nodule_ct.plan import Plan


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure.

    Attributes:
        figure: What the paper's versions say.
        here: What the archives hold; ``None`` where they do not say.
        config: The config whose plan it was counted in.
        counted: What was counted, or why nothing was.
    """

    figure: Figure
    here: int | None
    config: str
    counted: str

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "figure": self.figure.name,
            "here": self.here,
            "preprint": self.figure.preprint,
            "published": self.figure.published,
            "agrees_with": None if self.here is None else self.figure.agreement(self.here),
            "counted": self.counted,
        }

    @property
    def finding(self) -> Finding | None:
        """A finding where it agrees with neither version."""
        if self.here is None or self.figure.agreement(self.here) != "neither":
            return None
        told = {"preprint": self.figure.preprint, "published": self.figure.published}
        said = ", ".join(f"{name} {value:,}" for name, value in told.items() if value is not None)
        return Finding(Code.FIGURE_MISMATCH, "reported", detail=f"{self.figure.name}: {said}, here {self.here:,}")


def compare_figures(plans: Mapping[str, Plan]) -> list[Comparison]:
    """The figures that some plans, by config name, say something of. Patients and scans need both MHD sets."""
    own: dict[str, tuple[int | None, str, str]] = {}
    thin, thick = (_scans(plans.get(config.name)) for config in (DET3D_1_25MM, DET3D_5MM))
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
        dates = {unit.scan_id for unit in _scans(plans[LONGITUDINAL.name])}
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


def _scans(plan: Plan | None) -> list[ScanUnit]:
    return [unit for unit in plan.units if isinstance(unit, ScanUnit)] if plan else []
