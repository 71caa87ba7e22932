"""What a source contains, without reading voxels: archives by role, examples, patients, timepoints, findings, published counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.declaration.archives import ARCHIVES, ArchiveSpec
from lung_nodule_ct.declaration.configs import CONFIGS
from lung_nodule_ct.errors import LungNoduleCTError
from lung_nodule_ct.examples.plan import Plan, make_plan
from lung_nodule_ct.examples.report import compare_figures, report_document
from lung_nodule_ct.examples.scans.plan import ScanUnit

if TYPE_CHECKING:
    from lung_nodule_ct.sources.source import Source


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
        scans = [unit for unit in units if isinstance(unit, ScanUnit)]
        dated = {(unit.patient_id, unit.timepoint) for unit in scans if unit.timepoint is not None}
        return {
            "examples": self.plan.num_examples,
            "patients": len({unit.patient_id for unit in units if unit.patient_id is not None}),
            "scans": len({unit.scan_id for unit in units if unit.scan_id is not None}),
            "timepoints": len(dated) if scans else None,
            "nodules": sum(len(unit.nodules) for unit in scans) if scans else None,
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
