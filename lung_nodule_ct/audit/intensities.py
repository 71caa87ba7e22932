"""What values the volumes hold: the range of Hounsfield units, padding, whether it is air that they begin with."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from lung_nodule_ct.audit.check import Part, unknown
from lung_nodule_ct.audit.voxels import HIGH_HU, LOW_HU, OFFSET
from lung_nodule_ct.read.audit_report import Check, Verdict

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lung_nodule_ct.audit.facts import Facts

_STEP = 50
_EDGES = tuple(range(-1100, 3150, _STEP))


def intensities_part(facts: Facts) -> Part:
    """HU range and padding of the distinct scans."""
    name, title = "hu-range", "HU range and padding"
    expected = f"{LOW_HU} to {HIGH_HU:,} HU, no padding"
    scans = facts.distinct_scans
    paddings = Counter(scan.voxels.padding for scan in scans if scan.voxels.padding is not None)
    numbers: dict[str, Any] = {
        "low": min((scan.voxels.lowest for scan in scans), default=None),
        "high": max((scan.voxels.highest for scan in scans), default=None),
        "scans_below": sum(scan.voxels.below > 0 for scan in scans),
        "scans_above": sum(scan.voxels.above > 0 for scan in scans),
        "scans_without_negative_values": sum(scan.voxels.lowest >= 0 for scan in scans),
        "padding_values": {str(value): paddings[value] for value in sorted(paddings)},
        "histogram": _coarse(facts.hounsfield),
    }
    if not scans:
        return Part("intensities", (unknown(name, title, "the build has no scan config", expected),), numbers)
    below, above = sum(scan.voxels.below for scan in scans), sum(scan.voxels.above for scan in scans)
    total = int(facts.hounsfield.sum())
    detail = [f"{len(scans):,} distinct scans"]
    if below:
        values = ", ".join(numbers["padding_values"])
        detail.append(
            f"{numbers['scans_below']:,} have {100 * below / total:.2g} % of all voxels under {LOW_HU} HU, where padding stands "
            f"(most often {values}): clip before you normalise"
        )
    if above:
        detail.append(
            f"{numbers['scans_above']:,} have {above:,} voxels over {HIGH_HU:,} HU (metal, or an extended scale)"
        )
    if numbers["scans_without_negative_values"]:
        detail.append(
            f"{numbers['scans_without_negative_values']:,} have no negative value, so no air: they are not in HU"
        )
        verdict = Verdict.FAIL
    else:
        verdict = Verdict.WARN if below or above else Verdict.PASS
    measured = f"{numbers['low']:,} to {numbers['high']:,} HU, {numbers['scans_below']:,} of {len(scans):,} scans go under {LOW_HU}"
    return Part("intensities", (Check(name, title, verdict, measured, expected, "; ".join(detail)),), numbers)


def _coarse(counts: NDArray[np.int64]) -> dict[str, Any]:
    """The histogram in bins of 50 HU, and what lies under and over them."""
    inner = counts[_EDGES[0] + OFFSET : _EDGES[-1] + OFFSET].reshape(-1, _STEP).sum(axis=1)
    return {
        "edges": list(_EDGES),
        "counts": inner.tolist(),
        "under": int(counts[: _EDGES[0] + OFFSET].sum()),
        "over": int(counts[_EDGES[-1] + OFFSET :].sum()),
    }
