"""What values the volumes hold: the range of Hounsfield units, padding, whether it is air that they begin with.

Missing slices: gaps that the build found in slice numbers, and what a volume itself gives away.

Equal pixels: within a split, across splits, and where two configs hold the same scan and must.

The annotations that are told more than once: do they say the same? The build compares them; this counts what it found.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from lung_nodule_ct.audit.check import CheckGroup, unknown
from lung_nodule_ct.audit.reading import HIGH_HU, LOW_HU, OFFSET
from lung_nodule_ct.declaration.configs import DET2D_1_25MM, DET3D_BMP_1_25MM
from lung_nodule_ct.declaration.findings import Code
from lung_nodule_ct.read.audit_report import Check, Verdict

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lung_nodule_ct.audit.facts import Facts, ScanFacts, StackFacts


_STEP = 50
_EDGES = tuple(range(-1100, 3150, _STEP))


def intensities_checks(facts: Facts) -> CheckGroup:
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
        return CheckGroup("intensities", (unknown(name, title, "the build has no scan config", expected),), numbers)
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
    return CheckGroup("intensities", (Check(name, title, verdict, measured, expected, "; ".join(detail)),), numbers)


def _coarse(counts: NDArray[np.int64]) -> dict[str, Any]:
    """The histogram in bins of 50 HU, and what lies under and over them."""
    inner = counts[_EDGES[0] + OFFSET : _EDGES[-1] + OFFSET].reshape(-1, _STEP).sum(axis=1)
    return {
        "edges": list(_EDGES),
        "counts": inner.tolist(),
        "under": int(counts[: _EDGES[0] + OFFSET].sum()),
        "over": int(counts[_EDGES[-1] + OFFSET :].sum()),
    }


_JUMP = 2.5
"""Largest difference of two neighbouring slices over the median one. docs/audit.md says what real scans came to, and without
some of their slices: small gaps pass unseen."""


def slices_checks(facts: Facts) -> CheckGroup:
    """Gaps in numbered stacks, and slices of a volume that are blank, stand twice, or do not follow each other."""
    gaps = facts.findings(DET3D_BMP_1_25MM.name, (Code.SLICE_GAP,))
    everyone: list[ScanFacts | StackFacts] = [*facts.distinct_scans, *facts.stacks]
    volumes = [(f"{each.config} {each.split} row {each.row}", each.voxels) for each in everyone]
    steps = [voxels.step for _, voxels in volumes if voxels.step is not None]
    jumps = [place for place, voxels in volumes if voxels.step is not None and voxels.step > _JUMP]
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
        return CheckGroup("slices", (unknown(name, title, "the build has no volume", expected),), numbers)
    detail = (
        f"{numbers['slices']:,} slices of {len(volumes):,} volumes. Stacks: gaps in the published slice numbers. Volumes have no "
        f"slice numbers: blank slices, neighbours that are equal, and neighbours that differ more than {_JUMP:g} times as much as "
        f"the scan's median pair, which shows gaps of about three slices and more"
    )
    detail += f" (largest here {max(steps):.1f} times)" if steps else ""
    if jumps:
        detail += ": " + ", ".join(jumps[:5]) + (" and more" if len(jumps) > 5 else "")
    verdict = Verdict.WARN if gaps or numbers["constant"] or numbers["repeated"] or jumps else Verdict.PASS
    measured = f"{gaps:,} missing in stacks, {numbers['constant']:,} blank, {numbers['repeated']:,} repeated, {len(jumps):,} jumps"
    return CheckGroup("slices", (Check(name, title, verdict, measured, expected, detail),), numbers)


def duplicates_checks(facts: Facts) -> CheckGroup:
    """Examples with the same pixels by config, and scans that two configs hold."""
    holders: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for image in facts.images:
        holders[image.config, image.key].append(image.split)
    volumes: list[ScanFacts | StackFacts] = [*facts.scans, *facts.stacks]
    for volume in volumes:
        holders[volume.config, volume.voxels.key].append(volume.split)
    within: defaultdict[str, int] = defaultdict(int)
    across: defaultdict[str, int] = defaultdict(int)
    for (config, _), splits in holders.items():
        if len(splits) > 1:
            (across if len(set(splits)) > 1 else within)[config] += 1
    numbers = {
        "examples": len(facts.images) + len(facts.scans) + len(facts.stacks),
        "groups_within_a_split": dict(within),
        "groups_across_splits": dict(across),
    }
    where = ", ".join(
        f"{config}: {across[config]:,} across splits, {within[config]:,} within one"
        for config in facts.build.configs
        if across.get(config) or within.get(config)
    )
    check = Check(
        "duplicates",
        "Duplicated pixels",
        Verdict.FAIL if across else Verdict.WARN if within else Verdict.PASS,
        f"groups of equals: {sum(across.values()):,} across splits, {sum(within.values()):,} within one",
        "none",
        f"equal decoded pixels or voxels among {numbers['examples']:,} examples, config by config"
        + (f"; {where}" if where else ""),
    )
    copies, numbers["copies"] = _copies(facts)
    return CheckGroup("duplicates", (check, copies), numbers)


def _copies(facts: Facts) -> tuple[Check, dict[str, int]]:
    name, title, expected = "copies", "A scan is the same in every config", "all equal"
    keys: defaultdict[tuple[str, float], list[str]] = defaultdict(list)
    for scan in facts.scans:
        if scan.scan_id is not None:
            keys[scan.key].append(scan.voxels.key)
    shared = [own for own in keys.values() if len(own) > 1]
    numbers = {"scans": len(shared), "different": sum(len(set(own)) > 1 for own in shared)}
    if not shared:
        return unknown(name, title, "no scan stands in two configs of the build", expected), numbers
    verdict = Verdict.FAIL if numbers["different"] else Verdict.PASS
    measured = f"{numbers['different']:,} of {numbers['scans']:,} scans differ"
    return Check(name, title, verdict, measured, expected, "voxels of equal scan_id and thickness"), numbers


def tables_checks(facts: Facts) -> CheckGroup:
    """The XML against the workbook and the lists, and the two tables of the stacks."""
    checks = (
        _compared(facts, DET2D_1_25MM.name, "voc-workbook", "VOC XML against the workbook and lists"),
        _compared(facts, DET3D_BMP_1_25MM.name, "stack-tables", "Stack boxes against the tables of splits"),
    )
    configs = (DET2D_1_25MM.name, DET3D_BMP_1_25MM.name)
    codes = (Code.TABLES_DISAGREE, Code.CROSS_CHECK_IMPOSSIBLE, Code.SPLIT_LISTS_DISAGREE)
    numbers = {
        config: {str(code): facts.findings(config, (code,)) for code in codes}
        for config in configs
        if config in facts.build.configs
    }
    return CheckGroup("tables", checks, numbers)


def _compared(facts: Facts, config: str, name: str, title: str) -> Check:
    expected = "0 disagree"
    if config not in facts.build.configs:
        return unknown(name, title, f"{config} is not in the build", expected)
    disagree = facts.findings(config, (Code.TABLES_DISAGREE,))
    impossible = facts.findings(config, (Code.CROSS_CHECK_IMPOSSIBLE,))
    if impossible and not disagree:
        return unknown(
            name,
            title,
            "the build found nothing to compare with: see cross-check-impossible in findings.json",
            expected,
        )
    rows = sum(facts.build.configs[config].values())
    return Check(
        name,
        title,
        Verdict.FAIL if disagree else Verdict.PASS,
        f"{disagree:,} disagree, of {rows:,} examples",
        expected,
        "as the build compared them: tables-disagree in findings.json",
    )
