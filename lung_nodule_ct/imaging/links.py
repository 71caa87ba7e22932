"""Which nodules of a later scan are those of an earlier one: an assignment by mapped distance, size and density, with its confidence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.optimize import linear_sum_assignment

from lung_nodule_ct.imaging.registration import refine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lung_nodule_ct.imaging.prepared_scan import PreparedScan
    from lung_nodule_ct.imaging.registration import Registration

    Floats = NDArray[np.float64]

NEAR_SD_MM, LUNGS_SD_MM = 2.0, 6.0
"""Standard deviation of the distance between a mapped centre and the annotated one, after a fit around the nodule, and after a fit of the
lungs only. A tenth of the diameter is added: centres of large nodules are annotated less exactly."""
SIZE_SD: Final = 0.45
"""Of the logarithm of the ratio of diameters."""
DENSITY_SD_HU: Final = 180.0
"""Of the difference of densities."""
UNMATCHED: Final = 14.0
"""A pair costs the sum of its squared deviations. One that costs more than this is not linked."""


@dataclass(frozen=True)
class Spot:
    """A nodule in one scan.

    Attributes:
        center_world: Its centre, LPS mm.
        diameter_mm: Its diameter, ``None`` if it is not known.
        density_hu: Its median density, ``None`` if its centre is outside the scan.
    """

    center_world: tuple[float, float, float]
    diameter_mm: float | None
    density_hu: float | None

    @property
    def radius_mm(self) -> float:
        """Half the diameter; 3 mm if it is not known."""
        return self.diameter_mm / 2 if self.diameter_mm else 3.0


@dataclass(frozen=True)
class Link:
    """Two spots that are one nodule.

    Attributes:
        earlier: Index of the spot in the earlier scan.
        later: Index of the spot in the later scan.
        confidence: 0 to 1.
        distance_mm: Between the mapped centre and the annotated one.
    """

    earlier: int
    later: int
    confidence: float
    distance_mm: float


@dataclass(frozen=True, eq=False)
class Links:
    """The result of linking two scans.

    Attributes:
        links: The pairs.
        visible: Whether the place of each earlier spot is in the later scan.
        seen_before: Whether the place of each later spot is in the earlier scan.
        parts: Later spots without a pair that are where an earlier spot with a pair is: index of the later and of the earlier spot.
    """

    links: tuple[Link, ...]
    visible: tuple[bool, ...]
    seen_before: tuple[bool, ...]
    parts: tuple[tuple[int, int], ...]


def link_spots(
    earlier: Sequence[Spot],
    later: Sequence[Spot],
    scans: tuple[PreparedScan, PreparedScan],
    registration: Registration,
) -> Links:
    """Link the nodules of two registered scans.

    Args:
        earlier: Nodules of the fixed scan.
        later: Nodules of the moving scan.
        scans: The fixed and the moving scan.
        registration: Of the lungs.

    Raises:
        ValueError: The scans are unregistered.
    """
    transform = registration.transform
    if transform is None:
        raise ValueError("expected registered scans")
    fixed, moving = scans
    back = transform.inverse
    visible = tuple(_is_inside(moving, transform.map(spot.center_world)) for spot in earlier)
    seen_before = tuple(_is_inside(fixed, back.map(spot.center_world)) for spot in later)
    mapped, spread = _mapped(earlier, scans, registration, visible)
    if not (len(earlier) and len(later)):
        return Links((), visible, seen_before, ())
    distance, cost = _costs(earlier, later, mapped, spread)
    links = tuple(
        Link(int(i), int(j), _confidence(cost, int(i), int(j)), float(distance[i, j]))
        for i, j in _assign(cost)
        if cost[i, j] < UNMATCHED
    )
    paired, taken = {link.earlier for link in links}, {link.later for link in links}
    parts = []
    for j, spot in enumerate(later):
        i = int(distance[:, j].argmin())
        reach = earlier[i].radius_mm + spot.radius_mm + NEAR_SD_MM
        if j not in taken and i in paired and distance[i, j] <= reach and spot.radius_mm <= earlier[i].radius_mm:
            parts.append((j, i))
    return Links(links, visible, seen_before, tuple(parts))


def density_at(scan: PreparedScan, center_world: Sequence[float], radius_mm: float) -> float | None:
    """The median density within half a radius of a place, ``None`` outside the scan."""
    frame, shape = scan.scan.grid
    at = frame.to_voxel(center_world)
    limits = np.array(shape[::-1]) - 1
    if ((at < -0.5) | (at > limits + 0.5)).any():
        return None
    half = np.maximum(0, np.round(radius_mm / 2 / np.array(frame.spacing))).astype(int)
    middle = np.clip(np.rint(at).astype(int), 0, limits)
    low, high = np.maximum(0, middle - half), np.minimum(limits, middle + half) + 1
    return float(np.median(scan.voxels[low[2] : high[2], low[1] : high[1], low[0] : high[0]]))


def _is_inside(scan: PreparedScan, place: Floats) -> bool:
    frame, shape = scan.scan.grid
    at = frame.to_voxel(place)
    return bool(((at >= 0) & (at <= np.array(shape[::-1]) - 1)).all())


def _mapped(
    spots: Sequence[Spot],
    scans: tuple[PreparedScan, PreparedScan],
    registration: Registration,
    visible: Sequence[bool],
) -> tuple[Floats, Floats]:
    """Where the spots are in the later scan, and how exactly that is known in mm."""
    places, spread = np.empty((len(spots), 3)), np.empty(len(spots))
    for index, spot in enumerate(spots):
        fit = registration
        if visible[index]:
            near = refine(*scans, registration, spot.center_world, diameter_mm=2 * spot.radius_mm)
            fit = near if near.is_registered else registration
        place = fit.map(spot.center_world)
        assert place is not None  # noqa: S101 -- registered
        places[index] = place
        spread[index] = (NEAR_SD_MM if fit is not registration else LUNGS_SD_MM) + 0.2 * spot.radius_mm
    return places, spread


def _costs(earlier: Sequence[Spot], later: Sequence[Spot], mapped: Floats, spread: Floats) -> tuple[Floats, Floats]:
    """Distances in mm, and the sum of squared deviations of each pair."""
    centres = np.array([spot.center_world for spot in later])
    distance: Floats = np.linalg.norm(mapped[:, None] - centres[None], axis=2)
    cost = (distance / spread[:, None]) ** 2
    for i, one in enumerate(earlier):
        for j, two in enumerate(later):
            if one.diameter_mm and two.diameter_mm:
                cost[i, j] += (math.log(two.diameter_mm / one.diameter_mm) / SIZE_SD) ** 2
            if one.density_hu is not None and two.density_hu is not None:
                cost[i, j] += ((two.density_hu - one.density_hu) / DENSITY_SD_HU) ** 2
    return distance, cost


def _assign(cost: Floats) -> list[tuple[int, int]]:
    """The pairs of least total cost, where a spot may stay alone at the cost of the limit."""
    rows, columns = cost.shape
    padded = np.full((rows + columns, rows + columns), UNMATCHED / 2)
    padded[:rows, :columns] = cost
    padded[rows:, columns:] = 0
    i, j = linear_sum_assignment(padded)
    return [(int(a), int(b)) for a, b in zip(i, j, strict=True) if a < rows and b < columns]


def _confidence(cost: Floats, i: int, j: int) -> float:
    """The likelihood of a pair among its alternatives: another partner of either spot, or none."""
    others = np.concatenate([np.delete(cost[i], j), np.delete(cost[:, j], i), [UNMATCHED * 0.75]])
    likelihoods = np.exp(-0.5 * (others - cost[i, j]))
    return round(float(1 / (1 + likelihoods.sum())), 4)
