"""The report of a build: what its examples found, what they have in common across splits, and ``findings.json``."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

from lung_nodule_ct.declaration.findings import Code, Finding, summarize
from lung_nodule_ct.declaration.manifest import FORMAT_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lung_nodule_ct.examples.example import Example
    from lung_nodule_ct.plan import Plan
    from lung_nodule_ct.plan.units import Unit


class Pixels(NamedTuple):
    """Where an example's pixels stand, and the key that equal pixels share."""

    split: str
    archive: str
    name: str
    key: str

    @classmethod
    def of(cls, unit: Unit, example: Example) -> Pixels:
        """Those of an example."""
        return cls(unit.split, unit.members[0].archive, unit.source_name, example.pixels_key)


def same_pixels(pixels: Iterable[Pixels]) -> list[Finding]:
    """Findings for pixels that stand more than once among the examples of a config."""
    by_key: defaultdict[str, list[Pixels]] = defaultdict(list)
    for entry in pixels:
        by_key[entry.key].append(entry)
    findings = []
    for holders in by_key.values():
        if len(holders) < 2:
            continue
        across = len({holder.split for holder in holders}) > 1
        findings.append(
            Finding(
                Code.SAME_PIXELS_IN_TWO_SPLITS if across else Code.SAME_PIXELS,
                "kept as published",
                archive=", ".join(dict.fromkeys(holder.archive for holder in holders)),
                member=", ".join(f"{holder.name} ({holder.split})" for holder in holders),
                count=len(holders) - 1,
            )
        )
    return findings


def shared_patients(plan: Plan) -> dict[str, int]:
    """How many patients each pair of a plan's splits shares: ``{"train & validation": 3}``."""
    patients = {
        split: {unit.patient_id for unit in units if unit.patient_id is not None}
        for split, units in plan.splits.items()
    }
    return {f"{one} & {other}": len(patients[one] & patients[other]) for one, other in combinations(patients, 2)}


def report_document(
    findings: Mapping[str, Sequence[Finding]], *, generator: str, verbatim: bool, extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The content of ``findings.json``.

    Args:
        findings: By config.
        generator: Who writes it.
        verbatim: Whether members and rows stand as they are; else what could be a date is masked.
        extra: More top-level entries.
    """
    entries = [
        {"config": config, **(finding if verbatim else finding.redacted()).to_dict()}
        for config, own in findings.items()
        for finding in own
    ]
    return {
        "format_version": FORMAT_VERSION,
        "generator": generator,
        "names": "verbatim" if verbatim else "dates masked",
        **(extra or {}),
        "summary": summarize(finding for own in findings.values() for finding in own),
        "findings": entries,
    }
