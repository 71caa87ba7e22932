"""What the build computed from voxels: tracks of nodules, their growth and pathology, key slices, and lung masks. Reads columns only."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from lung_nodule_ct.audit.split_checks import SHRINKS
from lung_nodule_ct.declaration.computed import KeySlices
from lung_nodule_ct.declaration.findings import Grade
from lung_nodule_ct.read.audit_report import Check, CheckGroup, Flag, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lung_nodule_ct.audit.facts import Facts, NoduleFacts, ScanFacts

_UNREGISTERED = "the scans are unregistered"
_MADE, _PUBLISHED = "made", "published"


@dataclass(frozen=True, slots=True)
class _Annotation:
    """A nodule and its scan."""

    scan: ScanFacts
    index: int

    @property
    def nodule(self) -> NoduleFacts:
        return self.scan.nodules[self.index]


def computed_checks(facts: Facts) -> CheckGroup:
    """The columns that a build computes on request. A column that it did not compute has no check."""
    followed = [
        _Annotation(scan, index)
        for scan in facts.scans
        for index, nodule in enumerate(scan.nodules)
        if nodule.track_id is not None or nodule.track_reason is not None
    ]
    parts: list[CheckGroup] = []
    if followed:
        parts = [_tracks(followed), _registrations(facts, followed), _growth(followed), _pathology(followed)]
    parts += [_key_slices(facts), _masks(facts)]
    return CheckGroup(
        "computed",
        tuple(check for part in parts for check in part.checks),
        {name: value for part in parts for name, value in part.numbers.items()},
        tuple(flag for part in parts for flag in part.flags),
    )


def _tracks(followed: Sequence[_Annotation]) -> CheckGroup:
    """How many nodules have a track, and why the others have none."""
    tracks = {each.nodule.track_id for each in followed} - {None}
    alone = Counter(_reason(each) for each in followed if each.nodule.track_id is None)
    numbers = {"tracks": len(tracks), "nodules": len(followed), "nodules_without_track": dict(alone.most_common())}
    reasons = "; ".join(f"{count:,} because {reason}" for reason, count in alone.most_common())
    measured = (
        f"{len(tracks):,} tracks of {len(followed) - alone.total():,} nodules; {alone.total():,} nodules without one"
    )
    check = Check("tracks", "Nodules followed over time", Verdict.PASS, measured, None, reasons)
    return CheckGroup("tracks", (check,), numbers)


def _reason(annotation: _Annotation) -> str:
    """The reason why a nodule has no track, without the measured values."""
    return (annotation.nodule.track_reason or "").partition(":")[0]


def _registrations(facts: Facts, followed: Sequence[_Annotation]) -> CheckGroup:
    """Neighbouring dates with nodules that could not be compared, because their scans are unregistered."""
    dates: defaultdict[str, defaultdict[int, list[_Annotation]]] = defaultdict(lambda: defaultdict(list))
    for scan in facts.scans:
        if scan.config in {each.scan.config for each in followed} and scan.patient_id and scan.timepoint is not None:
            dates[scan.patient_id][scan.timepoint] += [_Annotation(scan, index) for index in range(len(scan.nodules))]
    pairs = [
        (patient, earlier, later, by_date[earlier], by_date[later])
        for patient, by_date in dates.items()
        for earlier, later in pairwise(sorted(by_date))
        if by_date[earlier] and by_date[later]
    ]
    if not pairs:
        return CheckGroup("registration", ())
    unregistered = [pair for pair in pairs if not _are_linked(*pair[3:]) and _refusals(*pair[3:])]
    numbers = {"date_pairs": len(pairs), "unregistered_date_pairs": [list(pair[:3]) for pair in unregistered]}
    listed = "; ".join(
        f"patient {patient}, timepoints {earlier} and {later}: {', '.join(_refusals(before, after))}"
        for patient, earlier, later, before, after in unregistered
    )
    check = Check(
        "registration",
        "Scans of neighbouring dates are registered",
        Verdict.WARN if unregistered else Verdict.PASS,
        f"{len(unregistered):,} of {len(pairs):,} pairs of dates unregistered",
        "none",
        f"pairs with nodules on both dates{'; ' if listed else ''}{listed}",
    )
    return CheckGroup("registration", (check,), numbers)


def _are_linked(before: Iterable[_Annotation], after: Iterable[_Annotation]) -> bool:
    """Whether a track has nodules on both dates."""
    return bool({each.nodule.track_id for each in before} & {each.nodule.track_id for each in after} - {None})


def _refusals(before: Iterable[_Annotation], after: Iterable[_Annotation]) -> list[str]:
    """Why the scans of two dates are unregistered, as their nodules without a track have it."""
    alone = [each.nodule.track_reason for each in (*before, *after) if _reason(each) == _UNREGISTERED]
    return list(dict.fromkeys(filter(None, alone)))


def _growth(followed: Sequence[_Annotation]) -> CheckGroup:
    """The tracks that become much smaller."""
    flags = _shrinking(followed)
    count = len({each.nodule.track_id for each in followed} - {None})
    check = Check.of_flags(
        "track-growth",
        "Nodules do not become much smaller",
        flags,
        count,
        "tracks",
        f"published diameters of a track at one slice thickness; a loss of {1 - SHRINKS:.0%} is a response by RECIST 1.1",
    )
    return CheckGroup("track-growth", (check,), {"shrinking_tracks": len(flags)}, tuple(flags))


def _shrinking(followed: Sequence[_Annotation]) -> list[Flag]:
    """The largest loss of diameter of each track between two scans of one thickness, if it is large."""
    tracks: defaultdict[tuple[str, float], list[_Annotation]] = defaultdict(list)
    for each in followed:
        if each.nodule.track_id is not None and each.nodule.diameter_mm and each.scan.timepoint is not None:
            tracks[each.nodule.track_id, each.scan.slice_thickness_mm].append(each)
    flags = []
    for (track, _), unsorted in tracks.items():
        ordered = sorted(unsorted, key=lambda each: each.scan.timepoint or 0)
        largest = earlier = later = ordered[0]
        for each in ordered[1:]:
            largest = max(largest, each, key=_diameter)
            if _diameter(each) / _diameter(largest) < _diameter(later) / _diameter(earlier):
                earlier, later = largest, each
        if _diameter(later) < SHRINKS * _diameter(earlier):
            flags.append(_backwards(track, earlier, later))
    return flags


def _backwards(track: str, earlier: _Annotation, later: _Annotation) -> Flag:
    sizes = [f"{_diameter(each):.1f} mm {_day(each.scan)}" for each in (earlier, later)]
    return Flag(
        "track-growth",
        Grade.WARNING,
        later.scan.row_key,
        f"track {track}: {sizes[0]}, then {sizes[1]}: {_diameter(later) / _diameter(earlier) - 1:+.0%}",
        f"at least {SHRINKS - 1:.0%}",
        annotation=later.index,
        hint="treatment between the scans, exchanged dates, a typing error in a diameter, or a wrong link",
        other=earlier.scan.row_key,
    )


def _diameter(annotation: _Annotation) -> float:
    return annotation.nodule.diameter_mm or 0.0


def _day(scan: ScanFacts) -> str:
    return f"at timepoint {scan.timepoint}" if scan.days_since_first is None else f"on day {scan.days_since_first:,}"


def _pathology(followed: Sequence[_Annotation]) -> CheckGroup:
    """How many nodules have a class by their track only."""
    own = sum(each.nodule.pathology is not None for each in followed)
    joined = sum(each.nodule.pathology is None and each.nodule.track_pathology is not None for each in followed)
    if not own and not joined:
        return CheckGroup("track-pathology", ())
    measured = f"{own:,} of {len(followed):,} nodules have a class of their own, {joined:,} more by their track"
    detail = "`track_pathology` is the class of another scan of the same track; `pathology` stays null"
    check = Check("track-pathology", "Pathology classes along tracks", Verdict.PASS, measured, None, detail)
    return CheckGroup("track-pathology", (check,), {"pathology_own": own, "pathology_by_track": joined})


def _key_slices(facts: Facts) -> CheckGroup:
    """How many key slices the voxels decided."""
    bases = Counter(nodule.key_slice_basis for scan in facts.distinct_scans for nodule in scan.nodules)
    if not bases[KeySlices.EVIDENCE]:
        return CheckGroup("key-slices", ())
    measured = f"{bases[KeySlices.EVIDENCE]:,} of {bases.total():,} by evidence in the voxels"
    detail = f"{bases[KeySlices.CENTRE]:,} are the slice of the annotated centre, {bases[None]:,} nodules have none"
    check = Check("key-slices", "Key slices of nodules", Verdict.PASS, measured, None, detail)
    return CheckGroup("key-slices", (check,), {"key_slices": {str(basis): bases[basis] for basis in KeySlices}})


def _masks(facts: Facts) -> CheckGroup:
    """How many lung masks are made, if any is."""
    origins = Counter(scan.lung_mask_origin for scan in facts.distinct_scans)
    if not origins[_MADE]:
        return CheckGroup("lung-mask-origin", ())
    measured = f"{origins[_PUBLISHED]:,} published, {origins[_MADE]:,} made, {origins[None]:,} scans without one"
    detail = "`lung_mask_origin` says which is which"
    check = Check("lung-mask-origin", "Lung masks, published and made", Verdict.PASS, measured, None, detail)
    numbers = {"lung_masks": {_PUBLISHED: origins[_PUBLISHED], _MADE: origins[_MADE]}}
    return CheckGroup("lung-mask-origin", (check,), numbers)
