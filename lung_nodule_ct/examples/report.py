"""The report of a build: findings over all examples of a config, published counts, and the content of ``findings.json``.

:func:`inspect_source` reports what a source contains without reading voxels: archives by role, examples, patients, timepoints, findings
and published counts.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from lung_nodule_ct.declaration.archives import ARCHIVES, ArchiveSpec
from lung_nodule_ct.declaration.configs import CONFIGS
from lung_nodule_ct.declaration.findings import Code, Finding, summarize
from lung_nodule_ct.declaration.manifest import FORMAT_VERSION
from lung_nodule_ct.declaration.published import CountedConfig, count_figures
from lung_nodule_ct.errors import LungNoduleCTError, Place
from lung_nodule_ct.examples.plan import Plan, make_plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lung_nodule_ct.declaration.published import FigureCount
    from lung_nodule_ct.examples.family import Example, Unit
    from lung_nodule_ct.sources.source import Source


_MAX_HOLDERS = 20
"""Examples with equal pixels that a finding lists."""


class Pixels(NamedTuple):
    """Which example has which pixels.

    Attributes:
        split: The split of the example.
        archive: The first archive that it was read from.
        name: Its name in the archives.
        key: The key that equal pixels share.
    """

    split: str
    archive: str
    name: str
    key: str

    @classmethod
    def of(cls, unit: Unit, example: Example) -> Pixels:
        """The pixels of an example."""
        name = str(example.row.get("source_name", unit.source_name))
        return cls(unit.split, unit.members[0].archive, name, example.pixels_key)


def same_pixels(pixels: Iterable[Pixels]) -> list[Finding]:
    """Findings for pixels that occur more than once among the examples of a config; one finding per group of equal pixels."""
    by_key: defaultdict[str, list[Pixels]] = defaultdict(list)
    for entry in pixels:
        by_key[entry.key].append(entry)
    findings = []
    for holders in by_key.values():
        if len(holders) < 2:
            continue
        across = len({holder.split for holder in holders}) > 1
        names = [f"{holder.name} ({holder.split})" for holder in holders]
        if len(names) > _MAX_HOLDERS:
            names = [*names[:_MAX_HOLDERS], f"and {len(names) - _MAX_HOLDERS:,} more"]
        findings.append(
            Finding(
                Code.SAME_PIXELS_IN_TWO_SPLITS if across else Code.SAME_PIXELS,
                "kept as published",
                Place(", ".join(dict.fromkeys(holder.archive for holder in holders)), ", ".join(names)),
                count=len(holders) - 1,
            )
        )
    return findings


def compare_figures(plans: Iterable[Plan]) -> list[FigureCount]:
    """The published counts next to those of some plans. Counts of configs that are not planned are left out."""
    counted = [CountedConfig(plan.config, tuple(unit.counted() for unit in plan.units)) for plan in plans]
    counts = count_figures(counted, annotated="slices with an annotation file, with or without a box")
    return [count for count in counts if count.config is not None]


def figure_finding(count: FigureCount) -> Finding | None:
    """A finding if a count agrees with neither version of the paper."""
    if count.agreement != "neither":
        return None
    detail = f"{count.figure.name}: {count.figure.expected}, here {count.measured:,}"
    return Finding(Code.FIGURE_MISMATCH, "reported", detail=detail)


def report_document(
    findings: Mapping[str, Sequence[Finding]], *, generator: str, verbatim: bool, extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the content of ``findings.json``.

    Args:
        findings: By config.
        generator: The program that writes it.
        verbatim: Keep members and rows as they are. Otherwise dates and private names are left out.
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
        "names": "verbatim" if verbatim else "redacted",
        **(extra or {}),
        "summary": summarize(finding for own in findings.values() for finding in own),
        "findings": entries,
    }


@dataclass(frozen=True)
class ArchiveState:
    """The state of one archive in a source.

    Attributes:
        name: Its published name.
        role: Its role.
        state: ``found``, ``missing`` or ``unreadable``.
        location: Where it is.
        size: Its length in bytes.
        members: Number of files that it contains.
        problem: Why it cannot be read.
    """

    name: str
    role: str
    state: str
    location: str | None = None
    size: int | None = None
    members: int | None = None
    problem: str | None = None


@dataclass(frozen=True)
class ConfigState:
    """Whether one config can be built, and what the build would contain.

    Attributes:
        name: The config.
        plan: The plan of a build, ``None`` if it cannot be built.
        problem: Why it cannot be built.
    """

    name: str
    plan: Plan | None = None
    problem: str | None = None

    def counts(self) -> dict[str, Any]:
        """Number of examples by split, of patients, scans and timepoints; ``None`` for counts that do not apply."""
        if self.plan is None:
            return {"problem": self.problem}
        units = self.plan.units
        counted = [unit.counted() for unit in units]
        dated = {(example.patient_id, example.timepoint) for example in counted if example.timepoint is not None}
        holds_scans = "timepoint" in self.plan.config.schema.names
        return {
            "examples": self.plan.num_examples,
            "patients": len({unit.patient_id for unit in units if unit.patient_id is not None}),
            "scans": len({unit.scan_id for unit in units if unit.scan_id is not None}),
            "timepoints": len(dated) if holds_scans else None,
            "nodules": sum(len(example.diameters_mm) for example in counted) if holds_scans else None,
            "shared_patients": self.plan.shared_patients,
            "findings": sum(finding.count for finding in self.plan.findings),
        }


@dataclass(frozen=True)
class Inspection:
    """What a source contains.

    Attributes:
        source: Its name.
        archives: The state of every archive.
        configs: The state of every config.
    """

    source: str
    archives: tuple[ArchiveState, ...]
    configs: tuple[ConfigState, ...]

    @property
    def plans(self) -> dict[str, Plan]:
        """The plans of the configs that can be built."""
        return {config.name: config.plan for config in self.configs if config.plan is not None}

    def figures(self) -> list[dict[str, Any]]:
        """The counts of the source next to the published ones, and the version of the paper that they agree with."""
        return [count.to_dict() for count in compare_figures(self.plans.values())]

    def document(self) -> dict[str, Any]:
        """Everything as JSON values. Members and rows are verbatim."""
        return {
            "source": self.source,
            "archives": [vars(archive) for archive in self.archives],
            "configs": {config.name: config.counts() for config in self.configs},
            "figures": self.figures(),
            **report_document(
                {name: plan.findings for name, plan in self.plans.items()},
                generator="lung-nodule-ct inspect",
                verbatim=True,
            ),
        }


def inspect_source(source: Source) -> Inspection:
    """Read the directories of all archives, and plan every config that can be planned."""
    archives = tuple(_archive_state(source, spec) for spec in ARCHIVES)
    configs = []
    for config in CONFIGS.values():
        try:
            configs.append(ConfigState(config.name, make_plan(config, source)))
        except LungNoduleCTError as error:
            configs.append(ConfigState(config.name, problem=str(error)))
    return Inspection(source.name, archives, tuple(configs))


def _archive_state(source: Source, spec: ArchiveSpec) -> ArchiveState:
    if not source.has(spec):
        return ArchiveState(spec.name, str(spec.role), "missing")
    try:
        archive = source.archive(spec)
    except LungNoduleCTError as error:
        return ArchiveState(spec.name, str(spec.role), "unreadable", source.location(spec), problem=str(error))
    return ArchiveState(spec.name, str(spec.role), "found", archive.location, archive.size, len(archive.members))
