"""Is this data what it says it is? A build, read once, and the checks that it is put to.

Each module beside this one holds one group of checks, a pure function of :class:`.facts.Facts`; :mod:`.gather` makes those in
one reading, :mod:`.output` writes ``audit.json`` and the plots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.audit.class_checks import classes_checks, published_checks, sizes_checks
from lung_nodule_ct.audit.content_checks import duplicates_checks, intensities_checks, slices_checks, tables_checks
from lung_nodule_ct.audit.date_checks import dates_checks
from lung_nodule_ct.audit.geometry_checks import geometry_checks, lungs_checks, spacing_checks
from lung_nodule_ct.audit.reading import collect_facts
from lung_nodule_ct.audit.split_checks import splits_checks, timeline_checks
from lung_nodule_ct.declaration.manifest import GENERATOR
from lung_nodule_ct.read.audit_report import FORMAT_VERSION

if TYPE_CHECKING:
    from lung_nodule_ct.audit.check import CheckGroup
    from lung_nodule_ct.read.audit_report import Check
    from lung_nodule_ct.read.build_folder import BuildFolder
    from lung_nodule_ct.system.progress import BuildProgress

_PARTS = (
    dates_checks,
    published_checks,
    sizes_checks,
    classes_checks,
    splits_checks,
    duplicates_checks,
    geometry_checks,
    lungs_checks,
    intensities_checks,
    spacing_checks,
    slices_checks,
    tables_checks,
    timeline_checks,
)


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        parts: The groups of checks, in the order of the report.
    """

    parts: tuple[CheckGroup, ...]

    @property
    def checks(self) -> tuple[Check, ...]:
        """All checks."""
        return tuple(check for part in self.parts for check in part.checks)

    def document(self) -> dict[str, Any]:
        """The content of ``audit.json``."""
        return {
            "format_version": FORMAT_VERSION,
            "generator": GENERATOR,
            "checks": [check.to_dict() for check in self.checks],
            "numbers": {part.name: dict(part.numbers) for part in self.parts},
        }


def audit_build(build: BuildFolder, progress: BuildProgress | None = None) -> Audit:
    """Audit a build. Every shard is read once; at most a row group is in memory, and a few numbers a row.

    Args:
        build: What :func:`.built.open_build` opened.
        progress: Is told how far it is.

    Raises:
        BuildFolderError: A shard is damaged.
    """
    facts = collect_facts(build, progress)
    return Audit(tuple(part(facts) for part in _PARTS))
