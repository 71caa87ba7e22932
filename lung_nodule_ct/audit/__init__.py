"""Audits a build: does its data match its description?

:func:`audit_build` reads every row once (:mod:`.reading`) and keeps a few numbers per row (:mod:`.facts`). Each of the
other modules holds the checks of one subject, which are pure functions of these facts. :func:`write_audit` writes
``audit.json`` and the plots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lung_nodule_ct.audit.class_checks import classes_checks, published_checks, sizes_checks
from lung_nodule_ct.audit.computed_checks import computed_checks
from lung_nodule_ct.audit.content_checks import duplicates_checks, intensities_checks, slices_checks, tables_checks
from lung_nodule_ct.audit.date_checks import dates_checks
from lung_nodule_ct.audit.geometry_checks import geometry_checks, lungs_checks, spacing_checks
from lung_nodule_ct.audit.reading import collect_facts
from lung_nodule_ct.audit.report import Audit, write_audit
from lung_nodule_ct.audit.row_checks import rows_checks
from lung_nodule_ct.audit.split_checks import splits_checks, timeline_checks
from lung_nodule_ct.errors import OptionError
from lung_nodule_ct.system.imports import is_installed, require_modules

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from lung_nodule_ct.audit.evidence_checks import Annotation
    from lung_nodule_ct.audit.facts import Facts
    from lung_nodule_ct.read.audit_report import CheckGroup
    from lung_nodule_ct.read.build_folder import BuildFolder
    from lung_nodule_ct.system.progress import BuildProgress

__all__ = ["Audit", "audit_build", "check_groups", "write_audit"]

_CHECKS: Mapping[str, Callable[[Facts], CheckGroup]] = {
    "dates": dates_checks,
    "published_figures": published_checks,
    "sizes": sizes_checks,
    "classes": classes_checks,
    "splits": splits_checks,
    "duplicates": duplicates_checks,
    "geometry": geometry_checks,
    "lungs": lungs_checks,
    "intensities": intensities_checks,
    "spacing": spacing_checks,
    "slices": slices_checks,
    "tables": tables_checks,
    "timepoints": timeline_checks,
    "computed": computed_checks,
    "rows": rows_checks,
}


def audit_build(
    build: BuildFolder,
    progress: BuildProgress | None = None,
    *,
    only: Collection[str] = (),
    patient: str | None = None,
) -> Audit:
    """Audit a build. Every shard is read once; at most one row group is in memory, and a few numbers per row.

    With the extra ``imaging``, the voxels are checked as well: see docs/audit.md.

    Args:
        build: The build, as :func:`.open_build` returns it.
        progress: Receives the progress.
        only: Names of groups of checks (:func:`check_groups`); by default all.
        patient: Audit the rows of this patient only.

    Raises:
        BuildFolderError: A shard is damaged, or the build has no such patient.
        OptionError: The group is unknown.
        MissingExtraError: A group is requested that needs the extra ``imaging``.
    """
    groups = _groups(only)
    measures = any(name in _VOXEL_GROUPS for name in groups)
    facts = collect_facts(build, progress, measures=measures, patient=patient)
    listed: tuple[Annotation, ...] = ()
    if measures:
        from lung_nodule_ct.audit.evidence_checks import judged_annotations  # noqa: PLC0415 -- an extra

        listed = tuple(judged_annotations(facts, distinct=False))
    return Audit(tuple(checks(facts) for checks in groups.values()), listed)


def check_groups() -> tuple[str, ...]:
    """The names of the groups of checks, in the order of the report."""
    return (*_CHECKS, *_VOXEL_GROUPS)


def _groups(only: Collection[str]) -> dict[str, Callable[[Facts], CheckGroup]]:
    """The requested groups by name. Without a request, those of voxels are left out if their extra is not installed."""
    if unknown := sorted(set(only) - set(check_groups())):
        raise OptionError(
            "only", f"there is no group of checks {unknown[0]!r}", expected=f"one of {', '.join(check_groups())}"
        )
    wanted = [name for name in check_groups() if not only or name in only]
    if only and any(name in _VOXEL_GROUPS for name in wanted):
        require_modules("imaging", "checking voxels", "scipy")
    available = dict(_CHECKS)
    if any(name in _VOXEL_GROUPS for name in wanted) and is_installed("scipy"):
        available |= _voxel_checks()
    return {name: available[name] for name in wanted if name in available}


_VOXEL_GROUPS = ("evidence", "scans", "order", "thickness", "masks", "copies", "identity")


def _voxel_checks() -> dict[str, Callable[[Facts], CheckGroup]]:
    """The checks of what is measured in voxels, which need the extra ``imaging``."""
    from lung_nodule_ct.audit.agreement_checks import masks_checks, thickness_checks  # noqa: PLC0415 -- an extra
    from lung_nodule_ct.audit.copies_checks import copies_checks  # noqa: PLC0415
    from lung_nodule_ct.audit.evidence_checks import evidence_checks  # noqa: PLC0415
    from lung_nodule_ct.audit.identity_checks import identity_checks  # noqa: PLC0415
    from lung_nodule_ct.audit.scan_checks import order_checks, scans_checks  # noqa: PLC0415

    checks = (
        evidence_checks,
        scans_checks,
        order_checks,
        thickness_checks,
        masks_checks,
        copies_checks,
        identity_checks,
    )
    return dict(zip(_VOXEL_GROUPS, checks, strict=True))
