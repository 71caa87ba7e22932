"""The geometry of scans: world and voxel centres, boxes and spheres, nodules and volumes, slice spacing, lung masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lung_nodule_ct.declaration.findings import Grade
from lung_nodule_ct.read.audit_report import Check, CheckGroup, Flag, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lung_nodule_ct.audit.facts import Facts, NoduleFacts, ScanFacts

_TOLERANCE_MM = 1e-3  # coordinates are published with three or more decimals
_SPACING_TOLERANCE = 0.01  # of the nominal thickness
_LUNG_HU = (-950, -500)
"""The range of the median HU of a lung. It is wide: it separates HU from other units, and lungs from other organs."""
_MAX_LISTED = 5
_NO_SCANS = "the build has no config of scans"
_NO_NODULES = "the build has no annotated nodule in a scan"


def geometry_checks(facts: Facts) -> CheckGroup:
    """World and voxel centres, boxes and positions of the nodules of all scans."""
    nodules = [nodule for scan in facts.scans for nodule in scan.nodules]
    checks = (_world_voxel(facts.scans, nodules), _boxes(nodules), _in_volume(facts.scans, nodules))
    numbers = {
        "nodules": len(nodules),
        "residual_mm": _quantiles([nodule.world_residual for nodule in nodules]),
        "residual_voxels": _quantiles([nodule.voxel_residual for nodule in nodules]),
        "scans_not_axis_aligned": sum(not scan.is_identity for scan in facts.scans),
        "boxes_that_disagree": sum(not nodule.box_agrees for nodule in nodules),
        "without_box": sum(not nodule.has_box for nodule in nodules),
        "centres_outside_volume": sum(not nodule.in_volume for nodule in nodules),
    }
    return CheckGroup("geometry", checks, numbers)


def spacing_checks(facts: Facts) -> CheckGroup:
    """The distance between slices compared with the nominal thickness of each scan."""
    name, title, expected = "spacing", "Slice spacing is the nominal thickness", "within 1 %"
    scans = facts.distinct_scans
    sets: dict[str, dict[str, list[float]]] = {}
    for scan in scans:
        spacings = sets.setdefault(f"{scan.slice_thickness_mm:g}", {"slice_mm": [], "in_plane_mm": []})
        spacings["slice_mm"].append(scan.spacing[2])
        spacings["in_plane_mm"].append(scan.spacing[0])
    skewed = sum(not scan.is_orthonormal for scan in scans)
    oblong = sum(abs(scan.spacing[0] - scan.spacing[1]) > _SPACING_TOLERANCE * scan.spacing[0] for scan in scans)
    numbers = {"by_nominal_mm": sets, "not_square_pixels": oblong, "not_orthonormal": skewed}
    if not scans:
        return CheckGroup(name, (Check.unknown(name, title, _NO_SCANS, expected),), numbers)
    deviating = [scan for scan in scans if abs(scan.spacing[2] / scan.slice_thickness_mm - 1) > _SPACING_TOLERANCE]
    flags = tuple(flag for scan in scans for flag in _spacing_flags(scan))
    ranges = ", ".join(
        f"{nominal} mm set: {_range(spacings['slice_mm'])} mm ({len(spacings['slice_mm']):,} scans)"
        for nominal, spacings in sets.items()
    )
    detail = f"{ranges}; pixels {_range([scan.spacing[0] for scan in scans])} mm"
    if deviating:
        detail += f"; another spacing in {_first_of(deviating)}"
    if oblong:
        detail += f"; {oblong:,} scans have pixels that are not square"
    if skewed:
        detail += f"; {skewed:,} scans have a direction matrix that is not a rotation"
    verdict = Verdict.WARN if flags else Verdict.PASS
    measured = f"{len(deviating):,} of {len(scans):,} scans have another spacing"
    return CheckGroup(name, (Check(name, title, verdict, measured, expected, detail),), numbers, flags)


def _spacing_flags(scan: ScanFacts) -> Iterator[Flag]:
    """What is unusual in the spacing and the direction of a scan."""
    width, height, depth = scan.spacing
    listed = " x ".join(f"{step:g}" for step in scan.spacing)
    if abs(depth / scan.slice_thickness_mm - 1) > _SPACING_TOLERANCE:
        bound = f"{scan.slice_thickness_mm:g} mm between slices, within {_SPACING_TOLERANCE:.0%}"
        is_permuted = any(abs(step / scan.slice_thickness_mm - 1) <= _SPACING_TOLERANCE for step in (width, height))
        hint = "the axes of ElementSpacing are in another order" if is_permuted else None
        yield Flag("spacing", Grade.WARNING, scan.row_key, f"spacing {listed} mm", bound, hint=hint)
    if abs(width - height) > _SPACING_TOLERANCE * width:
        yield Flag("spacing", Grade.WARNING, scan.row_key, f"spacing {listed} mm", "square pixels")
    if not scan.is_orthonormal:
        yield Flag("spacing", Grade.WARNING, scan.row_key, "a direction matrix that is not a rotation", "a rotation")


def lungs_checks(facts: Facts) -> CheckGroup:
    """Nodules and their boxes compared with the lung masks, and the HU values inside the masks."""
    masked = [scan for scan in facts.distinct_scans if scan.has_mask]
    nodules = [nodule for scan in masked for nodule in scan.nodules]
    centers = [nodule.center_in_lung for nodule in nodules if nodule.center_in_lung is not None]
    shares = [nodule.lung_share for nodule in nodules if nodule.lung_share is not None]
    medians = [scan.lung_median for scan in masked if scan.lung_median is not None]
    return CheckGroup(
        "lungs",
        (_centers_in_lung(centers), _boxes_in_lung(shares), _lung_hu(medians)),
        {
            "scans_with_mask": len(masked),
            "scans": len(facts.distinct_scans),
            "centres_in_lung": sum(centers),
            "centres": len(centers),
            "box_lung_shares": shares,
            "lung_median_hu": medians,
        },
    )


def _world_voxel(scans: Sequence[ScanFacts], nodules: Sequence[NoduleFacts]) -> Check:
    name, title, expected = "world-voxel", "World and voxel centres agree", f"under {_TOLERANCE_MM:g} mm"
    if not nodules:
        return Check.unknown(name, title, _NO_NODULES if scans else _NO_SCANS, expected)
    largest = max(nodule.world_residual for nodule in nodules)
    wrong = sum(nodule.world_residual > _TOLERANCE_MM for nodule in nodules)
    rotated = sum(not scan.is_identity for scan in scans)
    return Check(
        name,
        title,
        Verdict.FAIL if wrong else Verdict.PASS,
        f"largest residual {largest:.1e} mm" + (f", {wrong:,} over the limit" if wrong else ""),
        expected,
        f"{len(nodules):,} nodules, converted from voxel to world by the full direction matrix, which is not the "
        f"identity in {rotated:,} of {len(scans):,} rows; largest residual "
        f"{max(nodule.voxel_residual for nodule in nodules):.1e} voxels",
    )


def _boxes(nodules: Sequence[NoduleFacts]) -> Check:
    name, title, expected = "boxes", "Boxes match their spheres", "all"
    if not nodules:
        return Check.unknown(name, title, _NO_NODULES, expected)
    agree = sum(nodule.box_agrees for nodule in nodules)
    absent = sum(not nodule.has_box for nodule in nodules)
    detail = "recomputed from centre, diameter and spacing, clipped to the volume"
    if absent:
        detail += f"; {absent:,} nodules have no box: their sphere contains no voxel centre, "
        detail += "or their diameter is unknown or not positive"
    verdict = Verdict.FAIL if agree < len(nodules) else Verdict.WARN if absent else Verdict.PASS
    return Check(name, title, verdict, f"{agree:,} of {len(nodules):,}, {absent:,} without a box", expected, detail)


def _in_volume(scans: Sequence[ScanFacts], nodules: Sequence[NoduleFacts]) -> Check:
    name, title, expected = "in-volume", "Nodules are inside their volume", "0 outside"
    if not nodules:
        return Check.unknown(name, title, _NO_NODULES, expected)
    outside = sum(not nodule.in_volume for nodule in nodules)
    affected = [scan for scan in scans if any(not nodule.in_volume for nodule in scan.nodules)]
    detail = f"centres of {len(nodules):,} nodules" + (f"; outside in {_first_of(affected)}" if affected else "")
    verdict = Verdict.FAIL if outside else Verdict.PASS
    return Check(name, title, verdict, f"{outside:,} of {len(nodules):,} outside", expected, detail)


def _centers_in_lung(centers: list[bool]) -> Check:
    name, title, expected = "in-lung", "Nodules are inside the lung mask", "0 outside"
    if not centers:
        return Check.unknown(name, title, "no scan with a lung mask has a nodule", expected)
    outside = len(centers) - sum(centers)
    return Check(
        name,
        title,
        Verdict.WARN if outside else Verdict.PASS,
        f"{outside:,} of {len(centers):,} centres outside",
        expected,
        "the voxel of the centre. Segmentations often exclude nodules that touch the pleura, so a centre outside the "
        "mask is not by itself an error of the annotation",
    )


def _boxes_in_lung(shares: list[float]) -> Check:
    name, title, expected = "box-in-lung", "Boxes overlap the lung mask", "every box"
    if not shares:
        return Check.unknown(name, title, "no scan with a lung mask has a box", expected)
    separate = sum(share == 0 for share in shares)
    return Check(
        name,
        title,
        Verdict.FAIL if separate else Verdict.PASS,
        f"{separate:,} of {len(shares):,} do not overlap, median share {100 * float(np.median(shares)):.0f} %",
        expected,
        "the share of the voxels of a box that have a lung label",
    )


def _lung_hu(medians: list[float]) -> Check:
    low, high = _LUNG_HU
    name, title, expected = "lung-hu", "The lung masks contain air-filled tissue", f"median {low} to {high} HU"
    if not medians:
        return Check.unknown(name, title, "no scan has a lung mask with a lung label", expected)
    outside = sum(not low <= median <= high for median in medians)
    return Check(
        name,
        title,
        Verdict.WARN if outside else Verdict.PASS,
        f"{outside:,} of {len(medians):,} scans outside, {min(medians):.0f} to {max(medians):.0f} HU",
        expected,
        "median HU of the voxels with a lung label. Other values mean that a mask does not fit its volume, or that a "
        "volume is not in HU",
    )


def _quantiles(values: Sequence[float]) -> dict[str, float | None]:
    if not values:
        return {"median": None, "p95": None, "max": None}
    return {"median": float(np.median(values)), "p95": float(np.quantile(values, 0.95)), "max": max(values)}


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.4g}" if f"{low:.4g}" == f"{high:.4g}" else f"{low:.4g} to {high:.4g}"


def _first_of(scans: Sequence[ScanFacts]) -> str:
    more = f" and {len(scans) - _MAX_LISTED:,} more" if len(scans) > _MAX_LISTED else ""
    return ", ".join(map(str, scans[:_MAX_LISTED])) + more
