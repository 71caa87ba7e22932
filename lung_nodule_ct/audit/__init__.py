"""Audits a build: does its data match its description?

:func:`audit_build` reads every row once (:mod:`.reading`) and keeps a few numbers per row (:mod:`.facts`). Each of the
other modules holds the checks of one subject, which are pure functions of these facts. :func:`write_audit` writes
``audit.json`` and the plots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lung_nodule_ct.audit.class_checks import classes_checks, published_checks, sizes_checks
from lung_nodule_ct.audit.content_checks import duplicates_checks, intensities_checks, slices_checks, tables_checks
from lung_nodule_ct.audit.date_checks import dates_checks
from lung_nodule_ct.audit.geometry_checks import geometry_checks, lungs_checks, spacing_checks
from lung_nodule_ct.audit.reading import collect_facts
from lung_nodule_ct.audit.report import Audit, write_audit
from lung_nodule_ct.audit.split_checks import splits_checks, timeline_checks
from lung_nodule_ct.system.imports import is_installed

if TYPE_CHECKING:
    from collections.abc import Callable

    from lung_nodule_ct.audit.facts import Facts
    from lung_nodule_ct.read.audit_report import CheckGroup
    from lung_nodule_ct.read.build_folder import BuildFolder
    from lung_nodule_ct.system.progress import BuildProgress

__all__ = ["Audit", "audit_build", "write_audit"]

_CHECKS = (
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


def audit_build(build: BuildFolder, progress: BuildProgress | None = None) -> Audit:
    """Audit a build. Every shard is read once; at most one row group is in memory, and a few numbers per row.

    Args:
        build: The build, as :func:`.open_build` returns it.
        progress: Receives the progress.

    Raises:
        BuildFolderError: A shard is damaged.
    """
    facts = collect_facts(build, progress)
    checks = _CHECKS if not is_installed("scipy") else (*_CHECKS, *_voxel_checks())
    return Audit(tuple(group(facts) for group in checks))


def _voxel_checks() -> tuple[Callable[[Facts], CheckGroup], ...]:
    """The checks of what is measured in voxels, which need the extra ``imaging``."""
    from lung_nodule_ct.audit.agreement_checks import masks_checks, thickness_checks  # noqa: PLC0415 -- an extra
    from lung_nodule_ct.audit.evidence_checks import evidence_checks  # noqa: PLC0415
    from lung_nodule_ct.audit.scan_checks import order_checks, scans_checks  # noqa: PLC0415

    return evidence_checks, scans_checks, order_checks, thickness_checks, masks_checks
