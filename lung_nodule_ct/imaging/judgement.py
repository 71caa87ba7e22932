"""What the evidence at a place says about an annotation: a verdict with a number, its bound, and how much it matters.

The bounds come from the nodules of 13 real scans (docs/audit.md): their centres were 0.4 to 2.6 mm from the centres that the rays find,
and their diameters 0.98 to 1.08 of what the rays find. Readers differ by more, so the bounds are wider.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lung_nodule_ct.declaration.findings import Grade
from lung_nodule_ct.imaging.conventions import other_conventions
from lung_nodule_ct.imaging.evidence import CLEAR_SCORE, P_VALUE, EvidenceFinder, PlaceEvidence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lung_nodule_ct.geometry.frame import Frame

LEAST_MM: Final = 6.0
"""Below this diameter, vessels look like nodules, and there is no verdict."""
LEAST_SIDE: Final = 8.0
"""The same for boxes in pictures, in pixels."""
P_VALUE_2D: Final = 0.06
SIZES: Final = (0.75, 1.28)
"""Measured diameter divided by the annotated one."""
SIZES_2D: Final = (0.55, 1.45)
"""The same for boxes of slices, which contain a margin: 0.71 to 0.92 in the slices measured."""
SIZES_STACK: Final = (0.68, 1.4)
"""The same for boxes of stacks: 0.91 to 0.95 in the stacks measured."""
LARGE_MM: Final = 50.0
LEAST_CUT: Final = 0.6
"""A nodule over 50 mm that is cut has at least this share of its diameter in the slice. Smaller ones may show less: the cut lesion of
23 mm of the real scans shows 0.30."""
SHIFT_MM: Final = 4.0
SHIFT_RADII: Final = 0.4
"""A centre is off if it is farther from the measured one than the larger of these two."""
SHIFT_PIXELS, SHIFT_HALF_SIDES = 6.0, 0.5

NEARBY_MM, NEARBY_PIXELS = 40.0, 50.0
"""How far around an empty place a nodule is searched."""

_SEEN = 0.9
_FAINT_HU = (-750.0, -250.0)
_NORMAL_LUNG_HU = -780.0
_SOLID_ESCAPE = 0.25
_HINT_SIZES = (0.6, 1.6)


class NoduleVerdict(StrEnum):
    """What the voxels say about an annotation."""

    PRESENT = "present"
    ABSENT = "absent"
    FAINT = "faint"
    OFF_CENTRE = "off centre"
    OTHER_SIZE = "other size"
    CUT = "cut by the end of the volume"
    SMALL = "too small for a verdict"
    OUTSIDE = "outside the volume"
    NO_LUNGS = "no lungs found"
    NO_SIZE = "no size"


_UNEXPLAINED = (NoduleVerdict.ABSENT, NoduleVerdict.OUTSIDE, NoduleVerdict.CUT, NoduleVerdict.OFF_CENTRE)
"""Verdicts for which other conventions are tried."""


@dataclass(frozen=True, slots=True)
class NoduleEvidence:
    """The verdict on one annotation.

    Attributes:
        verdict: What the voxels say.
        grade: How much it matters; ``None`` if there is nothing to report.
        measured: What was measured, in words and numbers.
        bound: What a sound annotation has.
        place: The measures at the annotated place; ``None`` if there are none.
        hint: The mistake that explains it, if one brings the evidence back.
        hint_voxel: Where the nodule then is, in voxels x, y, z.
    """

    verdict: NoduleVerdict
    grade: Grade | None
    measured: str
    bound: str = ""
    place: PlaceEvidence | None = None
    hint: str | None = None
    hint_voxel: tuple[float, ...] | None = None

    def columns(self) -> dict[str, Any]:
        """The verdict and its numbers as columns of a table; ``None`` where nothing was measured."""
        place = self.place if self.place is not None and self.place.inside else None
        return {
            "verdict": str(self.verdict),
            "grade": None if self.grade is None else str(self.grade),
            "score": None if place is None else place.score,
            "p_value": None if place is None else place.p_value,
            "core_hu": None if place is None else place.core_hu,
            "rays_that_reach_lung": None if place is None else place.escape,
            "inside": None if place is None else place.seen,
            "shift": None if place is None else place.shift,
            "size_ratio": None if place is None else place.size_ratio,
            "measured": self.measured,
            "hint": self.hint,
        }


def judge(
    evidence: PlaceEvidence,
    size: float,
    *,
    p_value: float = P_VALUE,
    sizes: tuple[float, float] = SIZES,
    largest_shift: float,
    unit: str = "mm",
    slice_mm: float = 0.0,
) -> NoduleEvidence:
    """Judge one annotation by its evidence.

    Args:
        evidence: The measures at its place.
        size: Its diameter, or the mean side of its box.
        p_value: The largest p-value of a nodule.
        sizes: The bounds of the measured size, divided by the annotated one.
        largest_shift: The largest distance of a centre from the measured one.
        unit: The unit of lengths.
        slice_mm: Distance of slices; a nodule of fewer than two slices has no verdict on its size.
    """
    if not evidence.inside:
        return NoduleEvidence(
            NoduleVerdict.OUTSIDE, Grade.ERROR, "the centre is outside", "inside the volume", evidence
        )
    bound = f"p at most {p_value:g}"
    measured = f"p {evidence.p_value:.3f}, score {evidence.score:.2f}, core {evidence.core_hu:.0f} HU, {100 * evidence.escape:.0f} % of rays reach lung"
    is_off = evidence.shift > largest_shift
    if is_off and (evidence.p_value <= p_value or evidence.centre_score >= CLEAR_SCORE):
        moved = f"the centre is {evidence.shift:.1f} {unit} from that of what is there"
        return NoduleEvidence(
            NoduleVerdict.OFF_CENTRE,
            Grade.WARNING,
            moved,
            f"at most {largest_shift:.1f} {unit}",
            evidence,
            "move the centre there",
            evidence.centre,
        )
    if evidence.p_value > p_value and evidence.seen < _SEEN and _is_far_smaller(evidence, size, unit):
        width = (evidence.plane_ratio or 0.0) * size
        other = f"{width:.1f} {unit} wide in the slice instead of {size:.1f}"
        return NoduleEvidence(NoduleVerdict.OTHER_SIZE, Grade.WARNING, other, f"ratio {LEAST_CUT:g} or more", evidence)
    if evidence.p_value > p_value:
        return _judge_absent(evidence, p_value, measured, bound)
    ratios = [ratio for ratio in (evidence.size_ratio, evidence.plane_ratio) if ratio is not None]
    ratio = max(ratios, key=lambda value: abs(np.log(max(value, 1e-3))), default=1.0)
    if size >= 2 * slice_mm and not sizes[0] <= ratio <= sizes[1]:
        other = f"{ratio * size:.1f} {unit} instead of {size:.1f}, ratio {ratio:.2f}"
        return NoduleEvidence(
            NoduleVerdict.OTHER_SIZE, Grade.WARNING, other, f"ratio {sizes[0]:g} to {sizes[1]:g}", evidence
        )
    return NoduleEvidence(NoduleVerdict.PRESENT, None, measured, bound, evidence)


def _is_far_smaller(evidence: PlaceEvidence, size: float, unit: str) -> bool:
    """Whether a nodule that is cut is far smaller in the slice, where it is not cut, than its large diameter."""
    ratio = evidence.plane_ratio
    return unit == "mm" and size > LARGE_MM and ratio is not None and ratio < LEAST_CUT


def _judge_absent(evidence: PlaceEvidence, p_value: float, measured: str, bound: str) -> NoduleEvidence:
    """The verdict where random places score as high: absent, unless the nodule is cut or faint."""
    is_normal, is_far = evidence.core_hu < _NORMAL_LUNG_HU, evidence.p_value > 3 * p_value
    if evidence.seen < _SEEN:
        if is_normal and is_far:
            return NoduleEvidence(NoduleVerdict.ABSENT, Grade.WARNING, measured, bound, evidence)
        return NoduleEvidence(NoduleVerdict.CUT, None, f"{100 * evidence.seen:.0f} % of it is inside", place=evidence)
    is_solid = evidence.escape < _SOLID_ESCAPE
    if _FAINT_HU[0] < evidence.core_hu < _FAINT_HU[1] and not is_solid:
        return NoduleEvidence(NoduleVerdict.FAINT, Grade.WARNING if is_far else None, measured, bound, evidence)
    grade = Grade.ERROR if is_far and (is_normal or is_solid) else Grade.WARNING
    return NoduleEvidence(NoduleVerdict.ABSENT, grade, measured, bound, evidence)


def judge_sphere(
    finder: EvidenceFinder | None, frame: Frame, shape: Sequence[int], world: Sequence[float], diameter_mm: float | None
) -> NoduleEvidence:
    """Judge a nodule of a scan. If it is not there, the usual mistakes are tried.

    Args:
        finder: Of the scan; ``None`` if it has no lungs.
        frame: The frame of the scan.
        shape: Shape of the volume: z, y, x.
        world: Centre of the nodule in LPS mm.
        diameter_mm: Its diameter.
    """
    voxel = frame.to_voxel(np.asarray(world, np.float64))
    if diameter_mm is None or not diameter_mm > 0:
        return NoduleEvidence(NoduleVerdict.NO_SIZE, None, "the diameter is unknown or not positive")
    if finder is None:
        return NoduleEvidence(NoduleVerdict.NO_LUNGS, None, "no lungs were found in the scan")
    largest = max(SHIFT_MM, SHIFT_RADII * diameter_mm / 2)
    found = judge(
        finder.sphere(voxel.tolist(), diameter_mm),
        diameter_mm,
        largest_shift=max(largest, frame.spacing[2]),
        slice_mm=frame.spacing[2],
    )
    if diameter_mm < LEAST_MM and found.verdict is not NoduleVerdict.OUTSIDE:
        return NoduleEvidence(
            NoduleVerdict.SMALL, None, f"{diameter_mm:.1f} mm, below {LEAST_MM:g} mm", place=found.place
        )
    # a low score is a vessel nearby rather than the nodule
    if found.verdict not in _UNEXPLAINED or found.place is None or found.place.score >= CLEAR_SCORE / 2:
        return found
    best = _best_convention(finder, frame, shape, world, diameter_mm)
    if best is None:
        half = [diameter_mm / 2 / mm for mm in frame.spacing]
        return _with_nearby(found, finder, voxel.tolist(), half, NEARBY_MM, "mm")
    name, place = best
    grade = found.grade if found.verdict is NoduleVerdict.CUT else Grade.ERROR
    return replace(found, grade=grade, hint=f"there is such a nodule if {name}", hint_voxel=place.centre)


def judge_box(finder: EvidenceFinder | None, shape: Sequence[int], box: Sequence[float]) -> NoduleEvidence:
    """Judge a box of a picture or a stack.

    Args:
        finder: Of the picture or stack; ``None`` if it has no lungs.
        shape: Shape of its array: (z,) y, x.
        box: First and last pixel on each axis, both inside: xmin, ymin(, zmin), xmax, ymax(, zmax).
    """
    dimensions = len(shape)
    first, last = np.asarray(box[:dimensions], np.float64), np.asarray(box[dimensions:], np.float64)
    centre, half = (first + last) / 2, (last - first + 1) / 2
    side = float(2 * half[:2].mean())
    if finder is None:
        return NoduleEvidence(NoduleVerdict.NO_LUNGS, None, "no lungs were found in the picture")
    if not (half > 0).all():
        return NoduleEvidence(NoduleVerdict.NO_SIZE, None, "the box is empty")
    if 2 * half[:2].min() < LEAST_SIDE:
        return NoduleEvidence(NoduleVerdict.SMALL, None, f"{2 * half[:2].min():.0f} pixels, below {LEAST_SIDE:g}")
    found = judge(
        finder.ellipsoid(centre.tolist(), half.tolist()),
        side,
        p_value=P_VALUE_2D,
        sizes=SIZES_STACK if dimensions == 3 else SIZES_2D,
        largest_shift=max(SHIFT_PIXELS, SHIFT_HALF_SIDES * side / 2),
        unit="pixels",
    )
    at_end = dimensions == 3 and (first[2] <= 0 or last[2] >= shape[0] - 1)
    if found.verdict in (NoduleVerdict.ABSENT, NoduleVerdict.FAINT) and at_end:
        return NoduleEvidence(NoduleVerdict.CUT, None, "the box ends with the stack", place=found.place)
    return _with_nearby(found, finder, centre.tolist(), half.tolist(), NEARBY_PIXELS, "pixels")


def _with_nearby(
    found: NoduleEvidence,
    finder: EvidenceFinder,
    place: Sequence[float],
    half_sizes: Sequence[float],
    within: float,
    unit: str,
) -> NoduleEvidence:
    """A verdict of absence with the hint of a clear nodule nearby, if there is one."""
    if found.verdict is not NoduleVerdict.ABSENT:
        return found
    nearby = finder.nearby(place, half_sizes, within)
    if nearby is None:
        return found
    return replace(found, hint=f"there is such a nodule within {within:g} {unit}", hint_voxel=nearby.centre)


def _best_convention(
    finder: EvidenceFinder, frame: Frame, shape: Sequence[int], world: Sequence[float], diameter_mm: float
) -> tuple[str, PlaceEvidence] | None:
    """The convention under which there is clearly a nodule of this size, ``None`` if there is none."""
    found = []
    for name, voxel in other_conventions(world, frame, shape).items():
        place = finder.sphere(voxel.tolist(), diameter_mm)
        if (
            place.is_present
            and place.score >= CLEAR_SCORE
            and place.shift <= max(SHIFT_MM, SHIFT_RADII * diameter_mm / 2)
        ):
            ratio = place.size_ratio
            if ratio is not None and _HINT_SIZES[0] <= ratio <= _HINT_SIZES[1]:
                found.append((name, place))
    return max(found, key=lambda entry: entry[1].score, default=None)
