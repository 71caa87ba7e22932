"""What a build computes from the voxels of scans if it is asked to: lung masks, key slices, and tracks of nodules over time.

:func:`with_computed` changes the units of a plan, so that every target writes the same. Lung masks and key slices are then computed with each
example. Tracks need all scans of a patient, so they are computed here, and the scans are read twice.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.declaration.computed import Computed, KeySlices
from lung_nodule_ct.declaration.findings import Code, Finding
from lung_nodule_ct.examples.family import Reading
from lung_nodule_ct.examples.scans.example import make_scan
from lung_nodule_ct.examples.scans.listing import Track
from lung_nodule_ct.examples.scans.plan import ScanUnit
from lung_nodule_ct.sources.source import ArchivePool
from lung_nodule_ct.system.imports import require_modules
from lung_nodule_ct.system.memory import NoReuse
from lung_nodule_ct.system.progress import BuildProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from lung_nodule_ct.examples.plan import Plan
    from lung_nodule_ct.imaging.tracks import TrackedNodule

_MODULES = ("scipy", "skimage", "SimpleITK")


def with_computed(
    plan: Plan, computed: Computed, run: Callable[..., Iterable[Any]] = map, progress: BuildProgress | None = None
) -> Plan:
    """Return a plan whose units say what is to be computed, and have the tracks of their nodules.

    Plans of other configs than scans are returned as they are, and only a longitudinal config has tracks.

    Args:
        plan: The plan.
        computed: What to compute.
        run: ``run(function, items)`` yields the results in the order of the items, from one or more processes.
        progress: Receives the progress of the tracks.

    Raises:
        MissingExtraError: The extra ``imaging`` is not installed.
        MemberError: A scan that is read for tracks is damaged.
    """
    units = [unit for unit in plan.units if isinstance(unit, ScanUnit)]
    if not units or len(units) < len(plan.units):
        return plan
    computed = replace(computed, tracks=computed.tracks and plan.config.longitudinal)
    if not computed.needs_imaging:
        return replace(plan, computed=computed)
    require_modules("imaging", "what is computed from voxels", *_MODULES)
    findings = [
        replace(finding, resolution="one is made")
        if finding.code is Code.MASK_MISSING and computed.lung_masks
        else finding
        for finding in plan.findings
    ]
    if computed.tracks:
        units = _tracked(units, run, progress or BuildProgress(), plan.config.name)
        findings += _track_findings(units)
    seeks = computed.key_slices is KeySlices.EVIDENCE
    units = [replace(unit, makes_mask=computed.lung_masks, seeks_key_slices=seeks) for unit in units]
    return replace(plan, units=tuple(units), findings=tuple(findings), computed=computed)


def _tracked(
    units: Sequence[ScanUnit], run: Callable[..., Iterable[Any]], progress: BuildProgress, config: str
) -> list[ScanUnit]:
    """The units with the tracks of their nodules."""
    patients = [tuple(own) for _, own in groupby(units, key=lambda unit: unit.patient_id)]
    name = f"{config}: tracks"
    progress.begin(name, sum(unit.packed_bytes for unit in units), len(units))
    tracked: list[ScanUnit] = []
    for own, tracks in zip(patients, run(track_patient, patients), strict=True):
        ahead = iter(tracks)
        for unit in own:
            nodules = tuple(replace(nodule, track=next(ahead)) for nodule in unit.nodules)
            tracked.append(replace(unit, nodules=nodules))
            progress.advance(name, unit.packed_bytes)
    progress.end(name)
    return tracked


def track_patient(units: Sequence[ScanUnit]) -> list[Track]:
    """The tracks of the nodules of a patient, in the order of the scans and of their nodules.

    Raises:
        MemberError: A scan is damaged.
    """
    from lung_nodule_ct.imaging.tracks import track_nodules  # noqa: PLC0415 -- needs an extra

    found = track_nodules(_rows(units))
    classes = [unit.pathology for unit in units for _ in unit.nodules]
    known = {
        nodule.track_id: pathology
        for nodule, pathology in zip(found, classes, strict=True)
        if nodule.track_id is not None and pathology is not None
    }
    return [_track(nodule, known) for nodule in found]


def _rows(units: Sequence[ScanUnit]) -> Iterator[Mapping[str, Any]]:
    with ArchivePool() as archives:
        reading = Reading(archives, NoReuse())
        for unit in units:
            yield make_scan(replace(unit, mask=None, mask_data=()), reading)[0].row  # tracks need no lung mask


def _track(nodule: TrackedNodule, classes: Mapping[str, int]) -> Track:
    return Track(
        id=nodule.track_id,
        confidence=nodule.track_confidence,
        event=None if nodule.event is None else str(nodule.event),
        parent_id=nodule.parent_id,
        ended=nodule.ended,
        reason=nodule.reason,
        pathology=None if nodule.track_id is None else classes.get(nodule.track_id),
    )


def _track_findings(units: Sequence[ScanUnit]) -> list[Finding]:
    """One finding about all nodules without a track, with the number of each reason."""
    tracks = [nodule.track for unit in units for nodule in unit.nodules]
    alone = Counter((track.reason or "").partition(":")[0] for track in tracks if track.id is None)
    if not alone:
        return []
    numbers = len({track.id for track in tracks if track.id is not None})
    reasons = "; ".join(f"{count:,} because {reason}" for reason, count in alone.most_common())
    detail = f"{len(tracks) - alone.total():,} of {len(tracks):,} nodules belong to {numbers:,} tracks; {reasons}"
    return [Finding(Code.NOT_TRACKED, "their track_id is null", detail=detail, count=alone.total())]
