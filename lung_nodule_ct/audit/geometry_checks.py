"""Where the nodules are: world against voxel, boxes against spheres, nodules against volumes, spacing against its name.

Nodules and their boxes against the lung masks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lung_nodule_ct.audit.check import CheckGroup, unknown
from lung_nodule_ct.read.audit_report import Check, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lung_nodule_ct.audit.facts import Facts, NoduleFacts, ScanFacts


_TOLERANCE_MM = 1e-3  # coordinates are published to a thousandth and better
_SPACING_TOLERANCE = 0.01  # of the nominal thickness
_NO_SCANS = "the build has no scan config"
_NO_NODULES = "the build has no annotated nodule in a scan"


def geometry_checks(facts: Facts) -> CheckGroup:
    """World and voxel centres, boxes, and volumes of every nodule of every row."""
    nodules = [nodule for scan in facts.scans for nodule in scan.nodules]
    checks = (_world_voxel(facts.scans, nodules), _boxes(nodules), _in_volume(facts.scans, nodules))
    world = [nodule.world_residual for nodule in nodules]
    voxel = [nodule.voxel_residual for nodule in nodules]
    numbers = {
        "nodules": len(nodules),
        "residual_mm": _spread(world),
        "residual_voxels": _spread(voxel),
        "scans_not_axis_aligned": sum(not scan.identity for scan in facts.scans),
        "boxes_that_disagree": sum(not nodule.box_agrees for nodule in nodules),
        "without_box": sum(not nodule.has_box for nodule in nodules),
        "centres_outside_volume": sum(not nodule.in_volume for nodule in nodules),
    }
    return CheckGroup("geometry", checks, numbers)


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    if not values:
        return {"median": None, "p95": None, "max": None}
    return {"median": float(np.median(values)), "p95": float(np.quantile(values, 0.95)), "max": max(values)}


def _world_voxel(scans: Sequence[ScanFacts], nodules: Sequence[NoduleFacts]) -> Check:
    name, title, expected = "world-voxel", "World and voxel centres agree", f"under {_TOLERANCE_MM:g} mm"
    if not nodules:
        return unknown(name, title, _NO_NODULES if scans else _NO_SCANS, expected)
    worst = max(nodule.world_residual for nodule in nodules)
    wrong = sum(nodule.world_residual > _TOLERANCE_MM for nodule in nodules)
    turned = sum(not scan.identity for scan in scans)
    return Check(
        name,
        title,
        Verdict.FAIL if wrong else Verdict.PASS,
        f"largest residual {worst:.1e} mm" + (f", {wrong:,} over" if wrong else ""),
        expected,
        f"{len(nodules):,} nodules, voxel to world by the full direction matrix, which is not the identity in {turned:,} of "
        f"{len(scans):,} rows; largest residual {max(nodule.voxel_residual for nodule in nodules):.1e} voxels",
    )


def _boxes(nodules: Sequence[NoduleFacts]) -> Check:
    name, title, expected = "boxes", "Boxes are those of their spheres", "all"
    if not nodules:
        return unknown(name, title, _NO_NODULES, expected)
    agree = sum(nodule.box_agrees for nodule in nodules)
    absent = sum(not nodule.has_box for nodule in nodules)
    detail = "recomputed from centre, diameter and spacing, clipped to the volume"
    if absent:
        detail += (
            f"; {absent:,} have none: no voxel's centre lies inside their sphere, or their diameter is not positive"
        )
    verdict = Verdict.FAIL if agree < len(nodules) else Verdict.WARN if absent else Verdict.PASS
    return Check(name, title, verdict, f"{agree:,} of {len(nodules):,}, {absent:,} without a box", expected, detail)


def _in_volume(scans: Sequence[ScanFacts], nodules: Sequence[NoduleFacts]) -> Check:
    name, title, expected = "in-volume", "Nodules lie in their volume", "0 outside"
    if not nodules:
        return unknown(name, title, _NO_NODULES, expected)
    outside = sum(not nodule.in_volume for nodule in nodules)
    where = [scan for scan in scans if any(not nodule.in_volume for nodule in scan.nodules)]
    detail = f"centres of {len(nodules):,} nodules"
    if where:
        detail += "; in " + _some([f"{scan.config} {scan.split} row {scan.row}" for scan in where])
    return Check(
        name,
        title,
        Verdict.FAIL if outside else Verdict.PASS,
        f"{outside:,} of {len(nodules):,} outside",
        expected,
        detail,
    )


def spacing_checks(facts: Facts) -> CheckGroup:
    """The distance of slices beside the thickness that the scan's set is named by."""
    name, title, expected = "spacing", "Slice spacing is the nominal thickness", "within 1 %"
    scans = facts.distinct_scans
    sets: dict[str, dict[str, list[float]]] = {}
    for scan in scans:
        own = sets.setdefault(f"{scan.slice_thickness_mm:g}", {"slice_mm": [], "in_plane_mm": []})
        own["slice_mm"].append(scan.spacing[2])
        own["in_plane_mm"].append(scan.spacing[0])
    skewed = sum(not scan.orthonormal for scan in scans)
    oblong = sum(abs(scan.spacing[0] - scan.spacing[1]) > _SPACING_TOLERANCE * scan.spacing[0] for scan in scans)
    numbers = {"by_nominal_mm": sets, "not_square_pixels": oblong, "not_orthonormal": skewed}
    if not scans:
        return CheckGroup(name, (unknown(name, title, _NO_SCANS, expected),), numbers)
    off = [scan for scan in scans if abs(scan.spacing[2] / scan.slice_thickness_mm - 1) > _SPACING_TOLERANCE]
    ranges = ", ".join(
        f"{nominal} mm set: {_range(own['slice_mm'])} mm ({len(own['slice_mm']):,} scans)"
        for nominal, own in sets.items()
    )
    pixels = _range([scan.spacing[0] for scan in scans])
    detail = f"{ranges}; pixels {pixels} mm"
    if off:
        detail += "; off in " + _some([f"{scan.config} {scan.split} row {scan.row}" for scan in off])
    if oblong:
        detail += f"; {oblong:,} scans have pixels that are not square"
    if skewed:
        detail += f"; {skewed:,} have a direction matrix that is no rotation"
    verdict = Verdict.WARN if off or oblong or skewed else Verdict.PASS
    measured = f"{len(off):,} of {len(scans):,} scans off"
    return CheckGroup(name, (Check(name, title, verdict, measured, expected, detail),), numbers)


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.4g}" if f"{low:.4g}" == f"{high:.4g}" else f"{low:.4g} to {high:.4g}"


def _some(places: Sequence[str]) -> str:
    return ", ".join(places[:5]) + (f" and {len(places) - 5:,} more" if len(places) > 5 else "")


_LUNG_HU = (-950, -500)
"""Where the median of a lung's voxels lies; wide bounds, to tell HU from other units and lungs from other organs."""


def lungs_checks(facts: Facts) -> CheckGroup:
    """Centres in the lung, boxes in the lung, and whether what the masks call lung is as dark as lung."""
    masked = [scan for scan in facts.distinct_scans if scan.has_mask]
    nodules = [nodule for scan in masked for nodule in scan.nodules]
    centers = [nodule.center_in_lung for nodule in nodules if nodule.center_in_lung is not None]
    shares = [nodule.lung_share for nodule in nodules if nodule.lung_share is not None]
    medians = [scan.lung_median for scan in masked if scan.lung_median is not None]
    return CheckGroup(
        "lungs",
        (_centers(centers), _boxes_in_lungs(shares), _medians(medians)),
        {
            "scans_with_mask": len(masked),
            "scans": len(facts.distinct_scans),
            "centres_in_lung": sum(centers),
            "centres": len(centers),
            "box_lung_shares": shares,
            "lung_median_hu": medians,
        },
    )


def _centers(centers: list[bool]) -> Check:
    name, title, expected = "in-lung", "Nodules lie in the lung mask", "0 outside"
    if not centers:
        return unknown(name, title, "no scan with a lung mask has a nodule", expected)
    outside = len(centers) - sum(centers)
    return Check(
        name,
        title,
        Verdict.WARN if outside else Verdict.PASS,
        f"{outside:,} of {len(centers):,} centres outside",
        expected,
        "the voxel of the centre; segmentations tend to leave out nodules that touch the pleura, so this is no fault of the "
        "annotation by itself",
    )


def _boxes_in_lungs(shares: list[float]) -> Check:
    name, title, expected = "box-in-lung", "Boxes overlap the lung mask", "every box"
    if not shares:
        return unknown(name, title, "no scan with a lung mask has a box", expected)
    apart = sum(share == 0 for share in shares)
    return Check(
        name,
        title,
        Verdict.FAIL if apart else Verdict.PASS,
        f"{apart:,} of {len(shares):,} apart, median share {100 * float(np.median(shares)):.0f} %",
        expected,
        "share of the box's voxels that have a lung label",
    )


def _medians(medians: list[float]) -> Check:
    low, high = _LUNG_HU
    name, title, expected = "lung-hu", "What the masks call lung is air-filled", f"median {low} to {high} HU"
    if not medians:
        return unknown(name, title, "no scan has a lung mask with a lung in it", expected)
    off = sum(not low <= median <= high for median in medians)
    return Check(
        name,
        title,
        Verdict.WARN if off else Verdict.PASS,
        f"{off:,} of {len(medians):,} scans off, {min(medians):.0f} to {max(medians):.0f} HU",
        expected,
        "median HU of the voxels with a lung label; other values mean masks that do not fit, or volumes that are not in HU",
    )
