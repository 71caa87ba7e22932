"""Is this data what it says it is? A build, read once, and the checks that it is put to.

Each module beside this one holds one group of checks, a pure function of :class:`.facts.Facts`; :mod:`.gather` makes those in
one reading, :mod:`.output` writes ``audit.json`` and the plots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.audit.class_checks import classes_part, published_part, sizes_part
from lung_nodule_ct.audit.content_checks import duplicates_part, intensities_part, slices_part, tables_part
from lung_nodule_ct.audit.date_checks import dates_part
from lung_nodule_ct.audit.geometry_checks import geometry_part, lungs_part, spacing_part
from lung_nodule_ct.audit.reading import gather
from lung_nodule_ct.audit.split_checks import splits_part, timeline_part
from lung_nodule_ct.declaration.manifest import GENERATOR
from lung_nodule_ct.read.audit_report import FORMAT_VERSION

if TYPE_CHECKING:
    from lung_nodule_ct.audit.check import Part
    from lung_nodule_ct.read.audit_report import Check
    from lung_nodule_ct.read.build_folder import BuiltFolder
    from lung_nodule_ct.system.progress import BuildListener

_PARTS = (
    dates_part,
    published_part,
    sizes_part,
    classes_part,
    splits_part,
    duplicates_part,
    geometry_part,
    lungs_part,
    intensities_part,
    spacing_part,
    slices_part,
    tables_part,
    timeline_part,
)


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        parts: The groups of checks, in the order of the report.
    """

    parts: tuple[Part, ...]

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


def audit_build(build: BuiltFolder, listener: BuildListener | None = None) -> Audit:
    """Audit a build. Every shard is read once; at most a row group is in memory, and a few numbers a row.

    Args:
        build: What :func:`.built.open_build` opened.
        listener: Is told how far it is.

    Raises:
        BuildFolderError: A shard is damaged.
    """
    facts = gather(build, listener)
    return Audit(tuple(part(facts) for part in _PARTS))
