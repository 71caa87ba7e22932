"""Equal pixels: within a split, across splits, and where two configs hold the same scan and must."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from lung_nodule_ct.audit.check import Part, unknown
from lung_nodule_ct.read.audit_report import Check, Verdict

if TYPE_CHECKING:
    from lung_nodule_ct.audit.facts import Facts, ScanFacts, StackFacts


def duplicates_part(facts: Facts) -> Part:
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
    return Part("duplicates", (check, copies), numbers)


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
