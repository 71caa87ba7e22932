"""Missing slices: gaps that the build found in slice numbers, and what a volume itself gives away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lung_nodule_ct.audit.check import Part, unknown
from lung_nodule_ct.declaration.configs import DET3D_BMP_1_25MM
from lung_nodule_ct.declaration.findings import Code
from lung_nodule_ct.read.audit_report import Check, Verdict

if TYPE_CHECKING:
    from lung_nodule_ct.audit.facts import Facts, ScanFacts, StackFacts

_STEP = 2.5
"""Largest difference of two neighbouring slices over the median one. docs/audit.md says what real scans came to, and without
some of their slices: small gaps pass unseen."""


def slices_part(facts: Facts) -> Part:
    """Gaps in numbered stacks, and slices of a volume that are blank, stand twice, or do not follow each other."""
    gaps = facts.findings(DET3D_BMP_1_25MM.name, (Code.SLICE_GAP,))
    everyone: list[ScanFacts | StackFacts] = [*facts.distinct_scans, *facts.stacks]
    volumes = [(f"{each.config} {each.split} row {each.row}", each.voxels) for each in everyone]
    steps = [voxels.step for _, voxels in volumes if voxels.step is not None]
    jumps = [place for place, voxels in volumes if voxels.step is not None and voxels.step > _STEP]
    numbers = {
        "slices": sum(voxels.shape[0] for _, voxels in volumes),
        "missing_in_stacks": gaps if DET3D_BMP_1_25MM.name in facts.build.configs else None,
        "constant": sum(voxels.constant for _, voxels in volumes),
        "repeated": sum(voxels.repeated for _, voxels in volumes),
        "largest_step_over_median": steps,
        "volumes_with_jump": len(jumps),
    }
    name, title, expected = "missing-slices", "Missing, blank or repeated slices", "none"
    if not volumes:
        return Part("slices", (unknown(name, title, "the build has no volume", expected),), numbers)
    detail = (
        f"{numbers['slices']:,} slices of {len(volumes):,} volumes. Stacks: gaps in the published slice numbers. Volumes have no "
        f"slice numbers: blank slices, neighbours that are equal, and neighbours that differ more than {_STEP:g} times as much as "
        f"the scan's median pair, which shows gaps of about three slices and more"
    )
    detail += f" (largest here {max(steps):.1f} times)" if steps else ""
    if jumps:
        detail += ": " + ", ".join(jumps[:5]) + (" and more" if len(jumps) > 5 else "")
    verdict = Verdict.WARN if gaps or numbers["constant"] or numbers["repeated"] or jumps else Verdict.PASS
    measured = f"{gaps:,} missing in stacks, {numbers['constant']:,} blank, {numbers['repeated']:,} repeated, {len(jumps):,} jumps"
    return Part("slices", (Check(name, title, verdict, measured, expected, detail),), numbers)
