"""Two images of the same lungs: each scan at both slice thicknesses, and each lung mask with a segmentation of our own."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

from lung_nodule_ct.declaration.findings import Grade
from lung_nodule_ct.imaging.comparison import compare_scans
from lung_nodule_ct.read.audit_report import Check, CheckGroup, Flag

if TYPE_CHECKING:
    from lung_nodule_ct.audit.facts import Facts, ScanFacts
    from lung_nodule_ct.imaging.comparison import Agreement, MaskAgreement

_CORRELATION = 0.98
"""Sound pairs had 0.989 to 0.998; 3 mm in the plane or 5 mm between slices gave at most 0.978."""
_OTHER = 0.9
"""Below this, the two are not the same scan, or do not lie in the same way: another scan had at most 0.34, a mirrored one 0.88."""
_SLOPES = (0.93, 1.07)
_OFFSET_HU = 25.0
_DICE = 0.955
"""Sound masks had 0.977 to 0.990, also in tight crops; a shift of 3.5 mm gave at most 0.95."""
_WORST_SLICE = 0.85
_OTHER_DICE = 0.7
_MASK_SHIFT_MM = 2.0
"""Sound masks were 0.2 to 0.9 mm off."""
_SMALLER_SHARE = 0.1


def thickness_checks(facts: Facts) -> CheckGroup:
    """The voxels of scans that occur at two slice thicknesses."""
    scans: defaultdict[str, list[ScanFacts]] = defaultdict(list)
    for scan in facts.distinct_scans:
        if scan.measures is not None and scan.scan_id is not None:
            scans[scan.scan_id].append(scan)
    flags: list[Flag] = []
    correlations = []
    for same in scans.values():
        for thin, thick in pairwise(sorted(same, key=lambda scan: scan.slice_thickness_mm)):
            assert thin.measures is not None and thick.measures is not None  # noqa: S101, PT018 -- selected above
            agreement = compare_scans(thin.measures.coarse, thick.measures.coarse)
            correlations.append(agreement.correlation)
            fault = _disagreement(agreement)
            if fault is not None:
                grade, measured, bound, hint = fault
                flags.append(
                    Flag("both-thicknesses", grade, thin.row_key, measured, bound, hint=hint, other=thick.row_key)
                )
    if not correlations:
        return CheckGroup("thickness", ())
    check = Check.of_flags(
        "both-thicknesses",
        "A scan is the same at both thicknesses",
        flags,
        len(correlations),
        "pairs",
        "values at the same places in the world: correlation, slope and offset",
    )
    return CheckGroup("thickness", (check,), {"correlation": correlations}, tuple(flags))


def _disagreement(agreement: Agreement) -> tuple[Grade, str, str, str | None] | None:
    measured = (
        f"correlation {agreement.correlation:.3f}, slope {agreement.slope:.2f}, offset {agreement.offset_hu:.0f} HU"
    )
    if agreement.overlap == 0:
        return (
            Grade.ERROR,
            "the two do not overlap",
            "the same region",
            "origin, spacing or direction of one header is wrong, or they are scans of different people",
        )
    if agreement.correlation < _CORRELATION:
        other = agreement.correlation < _OTHER
        hint = (
            "the voxels of one of the two are of another scan, are mirrored, or have a wrong header"
            if other
            else "one of the two headers is some millimetres off, or slices are missing or exchanged"
        )
        return Grade.ERROR if other else Grade.WARNING, measured, f"correlation at least {_CORRELATION:g}", hint
    if not _SLOPES[0] <= agreement.slope <= _SLOPES[1] or abs(agreement.offset_hu) > _OFFSET_HU:
        bound = f"slope {_SLOPES[0]:g} to {_SLOPES[1]:g}, offset up to {_OFFSET_HU:g} HU"
        return Grade.WARNING, measured, bound, "one of the two is not in Hounsfield units"
    return None


def masks_checks(facts: Facts) -> CheckGroup:
    """The published lung masks of all distinct scans. Made ones are the segmentation with which they would be compared."""
    scans = [
        (scan, scan.measures.mask)
        for scan in facts.distinct_scans
        if scan.measures is not None and scan.measures.mask is not None and scan.lung_mask_origin != "made"
    ]
    if not scans:
        return CheckGroup("masks", ())
    sides = Counter(mask.sides for _, mask in scans if mask.sides in (-1, 1))
    usual = sides.most_common(1)[0][0] if sides else None
    flags = [
        Flag("mask-fit", grade, scan.row_key, measured, bound, hint=hint)
        for scan, mask in scans
        for grade, measured, bound, hint in mask_faults(mask, usual if usual is not None and sides[usual] > 1 else None)
    ]
    check = Check.of_flags(
        "mask-fit",
        "Lung masks fit the lungs",
        flags,
        len(scans),
        "masks",
        "Dice coefficient, worst slice and shift against a segmentation of our own on a grid of 1.5 mm; sides of the labels 3 and 4",
    )
    return CheckGroup("masks", (check,), {"dice": [mask.dice for _, mask in scans]}, tuple(flags))


def mask_faults(mask: MaskAgreement, usual: int | None) -> list[tuple[Grade, str, str, str | None]]:
    """What is wrong with a mask: grade, measured, bound, hint. ``usual`` is the side of label 3 in most masks, if there is one."""
    faults: list[tuple[Grade, str, str, str | None]] = []
    measured = f"Dice {mask.dice:.3f}, worst slice {mask.worst_slice:.3f}, shift {mask.shift_mm:.1f} mm"
    if mask.dice < _DICE or mask.worst_slice < _WORST_SLICE or mask.shift_mm > _MASK_SHIFT_MM:
        bound = f"Dice at least {_DICE:g}, worst slice {_WORST_SLICE:g}, shift up to {_MASK_SHIFT_MM:g} mm"
        other = mask.dice < _OTHER_DICE
        hint = "the mask is mirrored, inverted, or of another scan" if other else "the mask is shifted, grown or cut"
        faults.append((Grade.ERROR if other else Grade.WARNING, measured, bound, hint))
    if mask.smaller_share < _SMALLER_SHARE:
        faults.append(
            (
                Grade.WARNING,
                f"the smaller label has {100 * mask.smaller_share:.0f} % of the voxels of the larger one",
                f"at least {100 * _SMALLER_SHARE:.0f} %",
                "one lung, or one of the labels 3 and 4, is missing",
            )
        )
    elif mask.sides == 0:
        faults.append((Grade.WARNING, "the labels 3 and 4 change sides between slices", "one side each", None))
    elif usual is not None and mask.sides == -usual:
        faults.append(
            (Grade.WARNING, "the labels 3 and 4 are on the other sides than in most masks", "the usual sides", None)
        )
    return faults
