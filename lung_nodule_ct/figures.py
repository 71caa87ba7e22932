"""The archives' own figures beside the published ones: which version of the paper do they agree with?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.findings import Code, Finding
from lung_nodule_ct.plan.units import ScanUnit, SliceUnit
from lung_nodule_ct.spec.configs import DET2D_1_25MM, DET3D_1_25MM, DET3D_5MM
from lung_nodule_ct.spec.published import FIGURES, SIZE_GROUPS, Figure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lung_nodule_ct.plan import Plan


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure.

    Attributes:
        figure: What the paper's versions say.
        here: What the archives hold.
        config: The config whose plan it was counted in.
    """

    figure: Figure
    here: int
    config: str

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "figure": self.figure.name,
            "here": self.here,
            "preprint": self.figure.preprint,
            "published": self.figure.published,
            "agrees_with": self.figure.agreement(self.here),
        }

    @property
    def finding(self) -> Finding | None:
        """A finding where it agrees with neither version."""
        if self.figure.agreement(self.here) != "neither":
            return None
        told = {"preprint": self.figure.preprint, "published": self.figure.published}
        said = ", ".join(f"{name} {value:,}" for name, value in told.items() if value is not None)
        return Finding(Code.FIGURE_MISMATCH, "reported", detail=f"{self.figure.name}: {said}, here {self.here:,}")


def compare_figures(plans: Mapping[str, Plan]) -> list[Comparison]:
    """The figures that can be counted in some plans, by config name. Patients and scans need both MHD sets."""
    own: dict[str, tuple[int, str]] = {}
    if DET3D_1_25MM.name in plans:
        thin = _scans(plans[DET3D_1_25MM.name])
        sizes = [nodule.diameter_mm for unit in thin for nodule in unit.nodules]
        for group in SIZE_GROUPS:
            own[group.name] = sum(map(group.holds, sizes)), DET3D_1_25MM.name
        if DET3D_5MM.name in plans:
            scans = (*thin, *_scans(plans[DET3D_5MM.name]))
            own["patients"] = len({unit.patient_id for unit in scans} - {None}), DET3D_1_25MM.name
            own["CT scans"] = len({unit.scan_id or unit.header for unit in scans}), DET3D_1_25MM.name
    if DET2D_1_25MM.name in plans:
        slices = [unit for unit in plans[DET2D_1_25MM.name].units if isinstance(unit, SliceUnit)]
        own["annotated nodules (slices)"] = sum(unit.annotation is not None for unit in slices), DET2D_1_25MM.name
    return [Comparison(figure, *own[figure.name]) for figure in FIGURES if figure.name in own]


def _scans(plan: Plan) -> list[ScanUnit]:
    return [unit for unit in plan.units if isinstance(unit, ScanUnit)]
