"""Growth of nodules: a table of sizes over time, with intervals and doubling times.

Each annotation is measured in its scan. Each track is compared scan by scan with its first scan of the same slice thickness, since volumes
of thin and of thick slices differ by more than most nodules grow. A doubling time is given only where the growth is larger than what two
measurements of the same nodule may differ by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from lung_nodule_ct.imaging.nodule_volume import Interval, NoduleMeasure, measure_nodule
from lung_nodule_ct.imaging.scan import Scan
from lung_nodule_ct.imaging.tracks import TrackedNodule, stored_tracks, track_nodules

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

LEAST_GROWTH: Final = 0.25
"""A volume has grown if it did by this share. Two measurements of one nodule differ by up to 25 % (Revel et al. 2004; Gietema et al. 2007;
the British Thoracic Society's guideline of 2015 uses the same limit)."""
THIN_MM: Final = 2.0
"""Slices up to this thickness are thin."""
PROGRESS, RESPONSE = 0.2, -0.3
"""Changes of a diameter from which RECIST 1.1 speaks of progress and of response."""
PROGRESS_MM: Final = 5.0
"""And the least progress in mm."""


class DiameterChange(StrEnum):
    """The change of the published diameter since the first scan, in the categories of RECIST 1.1 for one lesion.

    No treatment is known, and RECIST adds up several lesions: this is a description, not a response to treatment.
    """

    PROGRESS = "progress"
    STABLE = "stable"
    RESPONSE = "response"


@dataclass(frozen=True, slots=True)
class GrowthRow:
    """One annotation in the table of growth.

    Attributes:
        track: The track of the annotation, and where it is.
        days: Days since the first scan of the patient, ``None`` if not known.
        diameter_mm: As published.
        measure: Volume, mass and mean density in the voxels, or why there are none.
        diameter_change: Published diameter divided by that of the first scan of the track, minus 1; ``None`` if one is missing.
        category: The category of this change.
        volume_change: Volume divided by that of the first scan with this slice thickness, minus 1, with its interval.
        volume_doubling_days: Days in which the volume doubles, ``None`` with a reason.
        mass_doubling_days: Days in which the mass doubles, ``None`` with a reason.
        reason: Why there is no doubling time of the volume.

    Example:
        >>> from lung_nodule_ct.imaging.nodule_volume import NoduleMeasure
        >>> from lung_nodule_ct.imaging.tracks import TrackedNodule
        >>> track = TrackedNodule("7", "7-2", 1, 1.25, 0, track_id="7-1", track_confidence=0.97)
        >>> measure = NoduleMeasure(reason="it touches the chest wall")
        >>> row = GrowthRow(track, 180, 9.2, measure, diameter_change=0.15, reason=measure.reason)
        >>> row.as_dict()["track_id"], row.as_dict()["diameter_mm"], row.as_dict()["volume_doubling_days"]
        ('7-1', 9.2, None)
    """

    track: TrackedNodule
    days: int | None
    diameter_mm: float | None
    measure: NoduleMeasure
    diameter_change: float | None = None
    category: DiameterChange | None = None
    volume_change: Interval | None = None
    volume_doubling_days: Interval | None = None
    mass_doubling_days: Interval | None = None
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the row as plain columns, for a table."""
        volume, mass = self.measure.volume_mm3, self.measure.mass_mg
        columns: dict[str, Any] = {
            "patient_id": self.track.patient_id,
            "track_id": self.track.track_id,
            "track_confidence": self.track.track_confidence,
            "scan_id": self.track.scan_id,
            "timepoint": self.track.timepoint,
            "days_since_first": self.days,
            "slice_thickness_mm": self.track.slice_thickness_mm,
            "nodule": self.track.nodule,
            "diameter_mm": self.diameter_mm,
            "measured_diameter_mm": self.measure.diameter_mm,
            "mean_hu": self.measure.mean_hu,
            "measure_reason": self.measure.reason,
            "diameter_change": self.diameter_change,
            "category": None if self.category is None else str(self.category),
            "reason": self.reason,
        }
        intervals = {
            "volume_mm3": volume,
            "mass_mg": mass,
            "volume_change": self.volume_change,
            "volume_doubling_days": self.volume_doubling_days,
            "mass_doubling_days": self.mass_doubling_days,
        }
        for name, interval in intervals.items():
            columns[name] = None if interval is None else interval.value
            columns[f"{name}_low"] = None if interval is None else interval.low
            columns[f"{name}_high"] = None if interval is None else interval.high
        return columns


def growth(scans: Iterable[Mapping[str, Any]], *, tracks: Sequence[TrackedNodule] | None = None) -> list[GrowthRow]:
    """Measure the nodules of patients' scans over time.

    Args:
        scans: Rows of ``longitudinal`` in their order. They are read twice if ``tracks`` are not given; an iterator is kept in memory.
        tracks: The result of :func:`lung_nodule_ct.imaging.track_nodules` for the same scans; by default the tracks in their columns, or
            if the build has none, that function is called.

    Returns:
        One row per annotation, in the order of the scans and their nodules.

    Raises:
        ValueError: A row has no volume or no frame, or the tracks are not those of the scans.
        MissingExtraError: The extra ``imaging`` is not installed.

    Example:
        >>> from lung_nodule_ct.testing.followups import Lesion, make_followups
        >>> lesion = Lesion((74.0, 20.0, 0.0), (16.0, 20.0))
        >>> patient = make_followups((0, 180), [lesion], shape=(40, 90, 110), spacing=(3.0, 3.0, 2.0))
        >>> rows = growth([scan.row("7", index) for index, scan in enumerate(patient)])
        >>> rows[1].volume_change is not None, rows[1].reason, round(rows[1].volume_doubling_days.value / 10) * 10
        (True, None, 200)
    """
    if tracks is None:
        if iter(scans) is scans:
            scans = list(scans)
        tracks = stored_tracks(scans)
        tracks = track_nodules(scans) if tracks is None else tracks
    rows: list[GrowthRow] = []
    firsts: dict[tuple[str, float], GrowthRow] = {}
    known = iter(tracks)
    for row in scans:
        scan = Scan.from_row(row)
        for index, nodule in enumerate(row["nodules"]):
            track = next(known, None)
            if track is None or (track.scan_id, track.nodule) != (row.get("scan_id"), index):
                raise ValueError(
                    f"tracks: expected nodule {index} of scan {row.get('scan_id')}, got "
                    f"{'no more' if track is None else f'nodule {track.nodule} of scan {track.scan_id}'}; track these scans"
                )
            measured = GrowthRow(
                track, row.get("days_since_first"), nodule.get("diameter_mm"), measure_nodule(scan, nodule)
            )
            if track.track_id is not None:
                first = firsts.setdefault((track.track_id, track.slice_thickness_mm), measured)
                measured = _compared(first, measured)
            else:
                measured = _with_reason(measured, track.reason)
            rows.append(measured)
    if (extra := next(known, None)) is not None:
        raise ValueError(
            f"tracks: expected no more, got nodule {extra.nodule} of scan {extra.scan_id}; track these scans"
        )
    return rows


def _with_reason(row: GrowthRow, reason: str | None) -> GrowthRow:
    return GrowthRow(row.track, row.days, row.diameter_mm, row.measure, reason=reason)


def _compared(first: GrowthRow, row: GrowthRow) -> GrowthRow:
    """A row with its changes since the first scan of the track."""
    if first is row:
        return _with_reason(row, "it is the first scan of the track with this slice thickness")
    change = category = None
    if first.diameter_mm and row.diameter_mm:
        change = row.diameter_mm / first.diameter_mm - 1
        category = _category(change, row.diameter_mm - first.diameter_mm)
    before, after = first.measure, row.measure
    ratio = _ratio(before.volume_mm3, after.volume_mm3)
    reason = _why_no_doubling(first, row, ratio)
    days = (row.days or 0) - (first.days or 0)
    return GrowthRow(
        row.track,
        row.days,
        row.diameter_mm,
        after,
        change,
        category,
        None if ratio is None else Interval(ratio.value - 1, ratio.low - 1, ratio.high - 1),
        None if reason or ratio is None else _doubling(days, ratio),
        None if reason else _mass_doubling(days, _ratio(before.mass_mg, after.mass_mg)),
        reason,
    )


def _category(change: float, millimetres: float) -> DiameterChange:
    if change >= PROGRESS and millimetres >= PROGRESS_MM:
        return DiameterChange.PROGRESS
    return DiameterChange.RESPONSE if change <= RESPONSE else DiameterChange.STABLE


def _ratio(before: Interval | None, after: Interval | None) -> Interval | None:
    if before is None or after is None or not before.low > 0:
        return None
    value = after.value / before.value
    # both errors are independent, so that their relative sizes add up as squares
    low = math.hypot(1 - after.low / after.value, before.high / before.value - 1)
    high = math.hypot(after.high / after.value - 1, 1 - before.low / before.value)
    return Interval(value, max(0.0, value * (1 - low)), value * (1 + high))


def _why_no_doubling(first: GrowthRow, row: GrowthRow, ratio: Interval | None) -> str | None:
    if first.days is None or row.days is None or row.days <= first.days:
        return "the days between the scans are not known"
    if row.track.slice_thickness_mm > THIN_MM:
        return f"slices of {row.track.slice_thickness_mm:g} mm are too thick"
    if ratio is None:
        missing = first if first.measure.volume_mm3 is None else row
        return f"no volume in scan {missing.track.scan_id}: {missing.measure.reason or 'it is not known well enough'}"
    if ratio.value < 1 + LEAST_GROWTH:
        return f"the volume changed by {ratio.value - 1:+.0%}; growth is {LEAST_GROWTH:.0%} and more"
    return None


def _doubling(days: int, ratio: Interval) -> Interval:
    """Days in which a size doubles; the upper end is infinite if it may not have grown at all."""
    longest = days * math.log(2) / math.log(ratio.low) if ratio.low > 1 else math.inf
    return Interval(days * math.log(2) / math.log(ratio.value), days * math.log(2) / math.log(ratio.high), longest)


def _mass_doubling(days: int, ratio: Interval | None) -> Interval | None:
    return _doubling(days, ratio) if ratio is not None and ratio.value >= 1 + LEAST_GROWTH else None
