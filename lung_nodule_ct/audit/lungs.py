"""Nodules and their boxes against the lung masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lung_nodule_ct.audit.check import Part, unknown
from lung_nodule_ct.read.audit_report import Check, Verdict

if TYPE_CHECKING:
    from lung_nodule_ct.audit.facts import Facts

_LUNG_HU = (-950, -500)
"""Where the median of a lung's voxels lies; wide bounds, to tell HU from other units and lungs from other organs."""


def lungs_part(facts: Facts) -> Part:
    """Centres in the lung, boxes in the lung, and whether what the masks call lung is as dark as lung."""
    masked = [scan for scan in facts.distinct_scans if scan.has_mask]
    nodules = [nodule for scan in masked for nodule in scan.nodules]
    centers = [nodule.center_in_lung for nodule in nodules if nodule.center_in_lung is not None]
    shares = [nodule.lung_share for nodule in nodules if nodule.lung_share is not None]
    medians = [scan.lung_median for scan in masked if scan.lung_median is not None]
    return Part(
        "lungs",
        (_centers(centers), _boxes(shares), _medians(medians)),
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


def _boxes(shares: list[float]) -> Check:
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
