"""What is in a source, without reading a voxel: archives by role, examples, patients, timepoints, findings, figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.declaration.archives import ARCHIVES
from lung_nodule_ct.declaration.configs import CONFIGS
from lung_nodule_ct.errors import LungNoduleCTError
from lung_nodule_ct.examples.family import ScanUnit
from lung_nodule_ct.examples.plan import Plan, make_plan
from lung_nodule_ct.examples.report import compare_figures, report_document, shared_patients

if TYPE_CHECKING:
    from lung_nodule_ct.sources.source import Source


@dataclass(frozen=True)
class ArchiveState:
    """One archive as it was found.

    Attributes:
        name: Its published name.
        role: What it is for.
        state: ``found``, ``missing`` or ``unreadable``.
        location: Where it is.
        size: Its length in bytes.
        members: How many files it holds.
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
    """One config as it could be built.

    Attributes:
        name: The config.
        plan: What a build would do, ``None`` where it cannot.
        problem: Why it cannot.
    """

    name: str
    plan: Plan | None = None
    problem: str | None = None

    def counts(self) -> dict[str, Any]:
        """Examples by split, patients, scans and timepoints."""
        if self.plan is None:
            return {"problem": self.problem}
        units = self.plan.units
        scans = [unit for unit in units if isinstance(unit, ScanUnit)]
        dated = {(unit.patient_id, unit.timepoint) for unit in scans if unit.timepoint is not None}
        return {
            "examples": {split: len(own) for split, own in self.plan.splits.items()},
            "patients": len({unit.patient_id for unit in units if unit.patient_id is not None}),
            "scans": len({unit.scan_id for unit in units if unit.scan_id is not None}),
            "timepoints": len(dated) if scans else None,
            "nodules": sum(len(unit.nodules) for unit in scans) if scans else None,
            "shared_patients": shared_patients(self.plan),
            "findings": sum(finding.count for finding in self.plan.findings),
        }


@dataclass(frozen=True)
class Inspection:
    """What is in a source."""

    source: str
    archives: tuple[ArchiveState, ...]
    configs: tuple[ConfigState, ...]

    @property
    def plans(self) -> dict[str, Plan]:
        """The plans of the configs that can be built."""
        return {config.name: config.plan for config in self.configs if config.plan is not None}

    def figures(self) -> list[dict[str, Any]]:
        """The source's own figures beside the published ones, and which version of the paper they agree with."""
        return [comparison.to_dict() for comparison in compare_figures(self.plans)]

    def document(self) -> dict[str, Any]:
        """Everything as plain JSON values. Members and rows stand verbatim."""
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
    """Look at all archives and plan all configs, as far as it goes."""
    archives = tuple(_archive_state(source, spec) for spec in ARCHIVES)
    configs = []
    for config in CONFIGS.values():
        try:
            configs.append(ConfigState(config.name, make_plan(config, source)))
        except LungNoduleCTError as error:
            configs.append(ConfigState(config.name, problem=str(error)))
    return Inspection(source.name, archives, tuple(configs))


def _archive_state(source: Source, spec: Any) -> ArchiveState:
    if not source.has(spec):
        return ArchiveState(spec.name, str(spec.role), "missing")
    try:
        archive = source.archive(spec)
    except LungNoduleCTError as error:
        return ArchiveState(spec.name, str(spec.role), "unreadable", source.location(spec), problem=str(error))
    return ArchiveState(spec.name, str(spec.role), "found", archive.location, archive.size, len(archive.members))
