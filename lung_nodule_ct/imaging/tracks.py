"""Tracks: which annotations of a patient's scans are the same nodule.

Both thicknesses of a date are joined first. Each date is then linked with the one before it, and what stays without a partner with the
one before that, so that one missed annotation does not end a track. Only registered scans are linked: where that is not possible, the
track is null, with its reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby
from typing import Any, Final

import numpy as np

from lung_nodule_ct.imaging.links import Spot, density_at, link_spots
from lung_nodule_ct.imaging.prepared_scan import PreparedScan, prepare_scan
from lung_nodule_ct.imaging.registration import register
from lung_nodule_ct.imaging.scan import Scan

SAME_MM: Final = 4.0
"""Two annotations of one date are joined if their centres are this near, or nearer than half a radius."""
BACK: Final = 2
"""Number of earlier dates with which a date is linked."""


class TrackEvent(StrEnum):
    """What a track does at a scan."""

    FIRST = "first"
    """No earlier scan shows its place."""
    CONTINUED = "continued"
    BORN = "born"
    """An earlier scan shows its place, without it."""
    SPLIT = "split"
    """It is a part of a nodule of the scan before."""


@dataclass(frozen=True)
class TrackedNodule:
    """The track of one annotation.

    Attributes:
        patient_id: The patient.
        scan_id: The scan.
        timepoint: Rank of the date of the scan.
        slice_thickness_mm: Of the scan.
        nodule: Index of the annotation in the column ``nodules``.
        track_id: Patient and number of the track, in the order of the dates; ``None`` if no annotation of another date belongs to it.
        track_confidence: Confidence of the link to the annotation before it in the track, 0 to 1; ``None`` for the first one.
        event: What the nodule does here; ``None`` if it could not be compared with another date.
        parent_id: For a split, the track that it left.
        ended: Whether a later scan shows its place, and none has an annotation there; ``None`` if no later scan shows it.
        reason: Why there is no track.

    Raises:
        ValueError: There is neither a track nor a reason, or a confidence is not between 0 and 1.

    Example:
        >>> alone = TrackedNodule("7", "7-1", 0, 1.25, 0, reason="the patient has one date")
        >>> alone.track_id is None, alone.reason
        (True, 'the patient has one date')
    """

    patient_id: str | None
    scan_id: str | None
    timepoint: int | None
    slice_thickness_mm: float
    nodule: int
    track_id: str | None = None
    track_confidence: float | None = None
    event: TrackEvent | None = None
    parent_id: str | None = None
    ended: bool | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if (self.track_id is None) == (self.reason is None):
            raise ValueError("reason: expected one exactly if there is no track")
        if self.track_confidence is not None and not 0 <= self.track_confidence <= 1:
            raise ValueError(f"track_confidence: expected 0 to 1, got {self.track_confidence}")


def track_nodules(scans: Iterable[Mapping[str, Any]]) -> list[TrackedNodule]:
    """Find which annotations of patients' scans are the same nodule.

    Args:
        scans: Rows of ``longitudinal``, the scans of each patient one after the other in the order of time, of one or both thicknesses.
            They are read once; the scans of three dates are in memory at a time.

    Returns:
        One entry per annotation, in the order of the rows and their nodules. The same input gives the same tracks.

    Raises:
        ValueError: A row has no volume or no frame, or the scans of a patient are not in the order of time.
        MissingExtraError: The extra ``imaging`` is not installed.

    Example:
        >>> from lung_nodule_ct.testing.followups import Lesion, Warp, make_followups
        >>> lesion = Lesion((74.0, 20.0, 0.0), (9.0, 11.0))
        >>> patient = make_followups((0, 180), [lesion], [Warp(), Warp((6.0, 4.0, 5.0))], shape=(40, 90, 110), spacing=(3.2, 3.2, 4.0))
        >>> tracks = track_nodules(scan.row("7", index) for index, scan in enumerate(patient))
        >>> [(track.track_id, str(track.event)) for track in tracks]
        [('7-t1', 'first'), ('7-t1', 'continued')]
    """
    found: list[TrackedNodule] = []
    for patient, rows in groupby(scans, key=lambda row: row.get("patient_id")):
        found.extend(_track_patient(patient, rows))
    return found


def stored_tracks(scans: Iterable[Mapping[str, Any]]) -> list[TrackedNodule] | None:
    """Return the tracks in the columns of a build that computed them, as :func:`track_nodules` does; ``None`` if there are none.

    Args:
        scans: Rows of ``longitudinal``.
    """
    found: list[TrackedNodule] = []
    for row in scans:
        for index, nodule in enumerate(row["nodules"]):
            if nodule.get("track_id") is None and nodule.get("track_reason") is None:
                return None
            event = nodule["track_event"]
            found.append(
                TrackedNodule(
                    row["patient_id"],
                    row["scan_id"],
                    row["timepoint"],
                    float(row["slice_thickness_mm"]),
                    index,
                    nodule["track_id"],
                    nodule["track_confidence"],
                    None if event is None else TrackEvent(event),
                    nodule["track_parent_id"],
                    nodule["track_ended"],
                    nodule["track_reason"],
                )
            )
    return found


@dataclass(eq=False)
class _Nodule:
    """A nodule at one date, and what is known of it so far."""

    spot: Spot
    annotations: tuple[int, ...]
    number: int | None = None
    confidence: float | None = None
    parent: int | None = None
    event: TrackEvent | None = None
    continued: bool = False
    ended: bool | None = None
    refusal: str | None = None


@dataclass(frozen=True, eq=False)
class _Date:
    """The scan of the thinnest slices at a date, and its nodules."""

    scan: PreparedScan
    nodules: tuple[_Nodule, ...]


def _track_patient(patient: str | None, rows: Iterator[Mapping[str, Any]]) -> list[TrackedNodule]:
    annotations: list[TrackedNodule] = []
    nodules: list[_Nodule] = []
    recent: list[_Date] = []
    dates, last = 0, -1
    for timepoint, group in groupby(rows, key=lambda row: row.get("timepoint")):
        scans = list(group)
        first = len(annotations)
        annotations += [
            TrackedNodule(
                patient,
                row.get("scan_id"),
                timepoint,
                float(row["slice_thickness_mm"]),
                index,
                reason="the scan has no patient or no date",
            )
            for row in scans
            for index in range(len(row["nodules"]))
        ]
        if patient is None or timepoint is None:
            continue
        if timepoint <= last:
            raise ValueError(f"scans: expected the dates of patient {patient} in order, got {timepoint} after {last}")
        last, dates = timepoint, dates + 1
        date = _date(scans, first)
        numbers = max((nodule.number or 0 for nodule in nodules), default=0)
        for earlier in reversed(recent):
            numbers = _link_dates(earlier, date, numbers)
        recent = [*recent, date][-BACK:]
        nodules += date.nodules
    return _entries(annotations, nodules, dates)


def _date(rows: Sequence[Mapping[str, Any]], first: int) -> _Date:
    """The scans of one date, the annotations of both thicknesses joined. ``first`` is the number of their first annotation."""
    starts = np.cumsum([first, *(len(row["nodules"]) for row in rows)]).tolist()
    order = sorted(range(len(rows)), key=lambda index: float(rows[index]["slice_thickness_mm"]))
    scan = prepare_scan(Scan.from_row(rows[order[0]]))
    nodules: list[_Nodule] = []
    for index in order:
        known = list(nodules)
        for number, nodule in enumerate(rows[index]["nodules"]):
            spot = _spot(scan, nodule)
            same = _same(spot, known)
            if same is None:
                nodules.append(_Nodule(spot, (starts[index] + number,)))
            else:
                known.remove(same)
                same.annotations = (*same.annotations, starts[index] + number)
    return _Date(scan, tuple(nodules))


def _spot(scan: PreparedScan, nodule: Mapping[str, Any]) -> Spot:
    x, y, z = (float(value) for value in nodule["center_world"])
    spot = Spot((x, y, z), nodule.get("diameter_mm"), None)
    return replace(spot, density_hu=density_at(scan, spot.center_world, spot.radius_mm))


def _same(spot: Spot, known: Sequence[_Nodule]) -> _Nodule | None:
    """The nearest nodule of a thinner scan of the same date, if it is near enough to be the same."""
    distances = [float(np.linalg.norm(np.subtract(spot.center_world, other.spot.center_world))) for other in known]
    if not distances:
        return None
    best = int(np.argmin(distances))
    return known[best] if distances[best] <= max(SAME_MM, known[best].spot.radius_mm / 2) else None


def _link_dates(earlier: _Date, later: _Date, numbers: int) -> int:
    """Link the nodules of a date that have no partner yet with those of an earlier one. Returns the count of tracks."""
    before = [nodule for nodule in earlier.nodules if not nodule.continued]
    after = [nodule for nodule in later.nodules if nodule.event in (None, TrackEvent.BORN)]
    if not before and not after:
        return numbers
    registration = register(earlier.scan, later.scan)
    if not registration.is_registered:
        for nodule in (*before, *after):
            nodule.refusal = f"the scans are unregistered: {registration.reason}"
        return numbers
    found = link_spots(
        [nodule.spot for nodule in before], [nodule.spot for nodule in after], (earlier.scan, later.scan), registration
    )
    for nodule, is_visible in zip(before, found.visible, strict=True):
        nodule.ended = True if is_visible else nodule.ended
    for nodule, is_visible in zip(after, found.seen_before, strict=True):
        nodule.event = TrackEvent.BORN if is_visible else nodule.event
    for link in found.links:
        one, two = before[link.earlier], after[link.later]
        if one.number is None:
            numbers += 1
            one.number = numbers
        one.continued, one.ended = True, False
        two.number, two.confidence, two.event = one.number, link.confidence, TrackEvent.CONTINUED
    for part, whole in found.parts:
        after[part].event, after[part].parent = TrackEvent.SPLIT, before[whole].number
    return numbers


def _entries(annotations: Sequence[TrackedNodule], nodules: Sequence[_Nodule], dates: int) -> list[TrackedNodule]:
    entries = list(annotations)
    for nodule in nodules:
        for index in nodule.annotations:
            entry = annotations[index]
            identify = f"{entry.patient_id}-t{{}}".format
            event = nodule.event or (TrackEvent.FIRST if nodule.number is not None or nodule.ended else None)
            entries[index] = replace(
                entry,
                track_id=None if nodule.number is None else identify(nodule.number),
                track_confidence=nodule.confidence,
                event=event,
                parent_id=None if nodule.parent is None else identify(nodule.parent),
                ended=nodule.ended,
                reason=None if nodule.number is not None else _why_alone(nodule, dates),
            )
    return entries


def _why_alone(nodule: _Nodule, dates: int) -> str:
    if dates < 2:
        return "the build has scans of one date of the patient only"
    if nodule.event is not None or nodule.ended is not None:
        return "no scan of another date has an annotation at its place"
    return nodule.refusal or "its place is outside the scans of the other dates"
