"""The content of examples: Hounsfield units, missing slices, equal pixels, annotations that occur in two tables."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.audit.reading import HIGH_HU, LOW_HU, OFFSET
from lung_nodule_ct.declaration.configs import Kind
from lung_nodule_ct.declaration.findings import Code
from lung_nodule_ct.read.audit_report import Check, CheckGroup, Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lung_nodule_ct.audit.facts import Facts

_BIN_WIDTH = 50
_EDGES = tuple(range(-1100, 3150, _BIN_WIDTH))
_JUMP = 2.5
"""Limit of the largest difference between neighbouring slices, divided by the median one. docs/audit.md gives values of
real scans, complete and with slices removed: small gaps remain below the limit."""
_MAX_LISTED = 5


def intensities_checks(facts: Facts) -> CheckGroup:
    """The range of HU values and the padding of the distinct scans."""
    name, title = "hu-range", "HU range and padding"
    expected = f"{LOW_HU} to {HIGH_HU:,} HU, no padding"
    voxels = [scan.voxels for scan in facts.distinct_scans]
    paddings = Counter(each.padding for each in voxels if each.padding is not None)
    numbers: dict[str, Any] = {
        "low": min((each.lowest for each in voxels), default=None),
        "high": max((each.highest for each in voxels), default=None),
        "scans_below": sum(each.below > 0 for each in voxels),
        "scans_above": sum(each.above > 0 for each in voxels),
        "scans_without_negative_values": sum(each.lowest >= 0 for each in voxels),
        "padding_values": {str(value): paddings[value] for value in sorted(paddings)},
        "histogram": _coarse_histogram(facts.hounsfield),
    }
    if not voxels:
        unknown = Check.unknown(name, title, "the build has no config of scans", expected)
        return CheckGroup("intensities", (unknown,), numbers)
    below, above = sum(each.below for each in voxels), sum(each.above for each in voxels)
    detail = [f"{len(voxels):,} distinct scans"]
    if below:
        share = 100 * below / int(facts.hounsfield.sum())
        values = ", ".join(numbers["padding_values"])
        detail.append(
            f"{numbers['scans_below']:,} scans have {share:.2g} % of all voxels below {LOW_HU} HU, which are padding "
            f"(most often {values}): clip the values before you normalise"
        )
    if above:
        detail.append(
            f"{numbers['scans_above']:,} scans have {above:,} voxels above {HIGH_HU:,} HU (metal, or an extended scale)"
        )
    if numbers["scans_without_negative_values"]:
        detail.append(
            f"{numbers['scans_without_negative_values']:,} scans have no negative value, and so no air: they are "
            "not in HU"
        )
        verdict = Verdict.FAIL
    else:
        verdict = Verdict.WARN if below or above else Verdict.PASS
    measured = f"{numbers['low']:,} to {numbers['high']:,} HU, "
    measured += f"{numbers['scans_below']:,} of {len(voxels):,} scans below {LOW_HU}"
    return CheckGroup("intensities", (Check(name, title, verdict, measured, expected, "; ".join(detail)),), numbers)


def slices_checks(facts: Facts) -> CheckGroup:
    """Gaps in the slice numbers of stacks, and slices of a volume that are blank, repeated or too different."""
    stacks = facts.configs(Kind.STACK)
    gaps = facts.findings(stacks, (Code.SLICE_GAP,))
    volumes = facts.volumes
    steps = [volume.voxels.step for volume in volumes if volume.voxels.step is not None]
    jumps = [volume for volume in volumes if volume.voxels.step is not None and volume.voxels.step > _JUMP]
    numbers = {
        "slices": sum(volume.voxels.shape[0] for volume in volumes),
        "missing_in_stacks": gaps if stacks else None,
        "constant": sum(volume.voxels.constant for volume in volumes),
        "repeated": sum(volume.voxels.repeated for volume in volumes),
        "largest_step_over_median": steps,
        "volumes_with_jump": len(jumps),
    }
    name, title, expected = "missing-slices", "Missing, blank or repeated slices", "none"
    if not volumes:
        unknown = Check.unknown(name, title, "the build has no config of scans or slice stacks", expected)
        return CheckGroup("slices", (unknown,), numbers)
    detail = (
        f"{numbers['slices']:,} slices of {len(volumes):,} volumes. In stacks: gaps in the published slice numbers. In "
        f"volumes, which have no slice numbers: blank slices, equal neighbours, and neighbours that differ more than "
        f"{_JUMP:g} times as much as the median pair of the scan, which indicates a gap of about three slices or more"
    )
    detail += f" (largest value here: {max(steps):.1f})" if steps else ""
    if jumps:
        more = " and more" if len(jumps) > _MAX_LISTED else ""
        detail += f": {', '.join(map(str, jumps[:_MAX_LISTED]))}{more}"
    verdict = Verdict.WARN if gaps or numbers["constant"] or numbers["repeated"] or jumps else Verdict.PASS
    measured = f"{gaps:,} missing in stacks, {numbers['constant']:,} blank, {numbers['repeated']:,} repeated"
    measured += f", {len(jumps):,} jumps"
    return CheckGroup("slices", (Check(name, title, verdict, measured, expected, detail),), numbers)


def duplicates_checks(facts: Facts) -> CheckGroup:
    """Examples of a config with equal pixels, and scans that occur in two configs."""
    holders: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    compared = [example for example in facts.examples if example.pixels_key is not None]
    for example in compared:
        holders[example.config, str(example.pixels_key)].append(example.split)
    within: Counter[str] = Counter()
    across: Counter[str] = Counter()
    for (config, _), splits in holders.items():
        if len(splits) > 1:
            (across if len(set(splits)) > 1 else within)[config] += 1
    numbers: dict[str, Any] = {
        "examples": len(compared),
        "groups_within_a_split": dict(within),
        "groups_across_splits": dict(across),
    }
    by_config = ", ".join(
        f"{config}: {across[config]:,} across splits, {within[config]:,} within one split"
        for config in facts.build.configs
        if across[config] or within[config]
    )
    check = Check(
        "duplicates",
        "Duplicated pixels",
        Verdict.FAIL if across else Verdict.WARN if within else Verdict.PASS,
        f"groups of equal examples: {across.total():,} across splits, {within.total():,} within one",
        "none",
        f"equal decoded pixels or voxels among {len(compared):,} examples, each config by itself"
        + (f"; {by_config}" if by_config else ""),
    )
    copies, numbers["copies"] = _copies(facts)
    return CheckGroup("duplicates", (check, copies), numbers)


def tables_checks(facts: Facts) -> CheckGroup:
    """The comparisons of the build: the XML files with the workbook and the lists, and the two tables of the stacks."""
    checks = (
        _compared_tables(facts, Kind.SLICE, "voc-workbook", "VOC XML agrees with the workbook and the lists"),
        _compared_tables(facts, Kind.STACK, "stack-tables", "Boxes of stacks agree with the tables of the splits"),
    )
    codes = (Code.TABLES_DISAGREE, Code.CROSS_CHECK_IMPOSSIBLE, Code.SPLIT_LISTS_DISAGREE)
    numbers = {
        config: {str(code): facts.findings((config,), (code,)) for code in codes}
        for config in (*facts.configs(Kind.SLICE), *facts.configs(Kind.STACK))
    }
    return CheckGroup("tables", checks, numbers)


def _coarse_histogram(counts: NDArray[np.int64]) -> dict[str, Any]:
    """The histogram in bins of 50 HU, and the number of voxels below and above them."""
    inner = counts[_EDGES[0] + OFFSET : _EDGES[-1] + OFFSET].reshape(-1, _BIN_WIDTH).sum(axis=1)
    return {
        "edges": list(_EDGES),
        "counts": inner.tolist(),
        "under": int(counts[: _EDGES[0] + OFFSET].sum()),
        "over": int(counts[_EDGES[-1] + OFFSET :].sum()),
    }


def _copies(facts: Facts) -> tuple[Check, dict[str, int]]:
    name, title, expected = "copies", "A scan is the same in every config", "all equal"
    keys: defaultdict[tuple[str, float], list[str | None]] = defaultdict(list)
    for scan in facts.scans:
        keys[scan.volume_key].append(scan.pixels_key)
    shared = [copies for copies in keys.values() if len(copies) > 1]
    numbers = {"scans": len(shared), "different": sum(len(set(copies)) > 1 for copies in shared)}
    if not shared:
        return Check.unknown(name, title, "no scan occurs in two configs of the build", expected), numbers
    verdict = Verdict.FAIL if numbers["different"] else Verdict.PASS
    measured = f"{numbers['different']:,} of {numbers['scans']:,} scans differ"
    return Check(name, title, verdict, measured, expected, "voxels of equal scan_id and slice thickness"), numbers


def _compared_tables(facts: Facts, kind: Kind, name: str, title: str) -> Check:
    expected = "0 disagree"
    configs = facts.configs(kind)
    if not configs:
        return Check.unknown(name, title, f"the build has no config of the kind {kind}", expected)
    disagree = facts.findings(configs, (Code.TABLES_DISAGREE,))
    if not disagree and facts.findings(configs, (Code.CROSS_CHECK_IMPOSSIBLE,)):
        reason = "the build had no table to compare with: see cross-check-impossible in findings.json"
        return Check.unknown(name, title, reason, expected)
    return Check(
        name,
        title,
        Verdict.FAIL if disagree else Verdict.PASS,
        f"{disagree:,} disagree, of {len(facts.of(*configs)):,} examples",
        expected,
        "the result of the comparison that the build made: tables-disagree in findings.json",
    )
