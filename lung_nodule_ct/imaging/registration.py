"""Registration of two scans of one patient, with a measured quality and a refusal of what is not good.

The lungs of both scans are found, all translations are searched at once, and the best are improved by a rigid and an affine fit of the values in
and around the lungs. At a nodule this leaves several millimetres, since a breath is not affine; :func:`refine` repeats the fit in its
neighbourhood. What does not pass the rules is unregistered with its reason, and has no transform: docs/spacetime.md has the table of
right and wrong fits behind the rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lung_nodule_ct.geometry.affine import Affine
from lung_nodule_ct.imaging.alignment import (
    Cells,
    Effort,
    optimize,
    sample_cells,
    search_translations,
    straight_grid,
)
from lung_nodule_ct.imaging.fit_quality import BlockSearch, FitQuality, Limits, correlate_values, measure_fit
from lung_nodule_ct.imaging.grids import on_grid
from lung_nodule_ct.imaging.prepared_scan import PreparedScan, prepare_scan
from lung_nodule_ct.imaging.scan import Scan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lung_nodule_ct.geometry.frame import WorldPoints
    from lung_nodule_ct.read.volumes import Volume

RADIUS_MM: Final = 25.0
"""Radius of the neighbourhood of a nodule in which the fit is repeated."""

_SEARCH_MM = (6.0, 6.0, 4.0)
_NEAR_SEARCH_MM = (2.5, 2.5, 2.5)
_STARTS, _NEAR_STARTS = 4, 2
_NEAR_LUNG_MM = 2.0
_REACH_MM = 12.0
"""How far the neighbourhood of a nodule may be from where the fit of the lungs takes it."""
_LEAST_OVERLAP = 0.35
_BLOCKS, _NEAR_BLOCKS = BlockSearch(15.0, 12.0, 8.0), BlockSearch(11.0, 7.5, 3.0)
_GROWTH = 1.3
"""Cells up to this multiple of the radius of a nodule do not count."""
_RIGID, _AFFINE = Effort(12_000, 40, 4.0, 0.1), Effort(20_000, 60, 2.0, 0.03)
_NEAR_RIGID, _NEAR_AFFINE = Effort(8_000, 40, 2.0, 0.05), Effort(12_000, 60, 1.0, 0.02)


LUNGS: Final = Limits(0.62, 0.4, 0.5, 8, 6.5, 1.3, 25.0)
NEIGHBOURHOOD: Final = Limits(0.55, 0.5, 0.6, 6, 2.5, 1.35, 30.0)


@dataclass(frozen=True)
class Registration:
    """Where the points of one scan are in another scan of the same patient.

    Attributes:
        transform: From the world of the fixed scan to that of the moving one; ``None`` if the scans are unregistered.
        quality: Measures of the fit; ``None`` if there was none.
        reason: Why the scans are unregistered.
        center_world: The place in the fixed scan around which it holds, ``None`` for the lungs as a whole.

    Raises:
        ValueError: There is neither a transform nor a reason, or both.

    Example:
        >>> from lung_nodule_ct.geometry.affine import Affine
        >>> found = Registration(Affine(offset=(14.0, -9.0, 11.0)))
        >>> found.is_registered, found.map((74.0, 20.0, 0.0)).tolist()
        (True, [88.0, 11.0, 11.0])
        >>> Registration(None, reason="the scans do not overlap").map((74.0, 20.0, 0.0)) is None
        True
    """

    transform: Affine | None
    quality: FitQuality | None = None
    reason: str | None = None
    center_world: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if (self.transform is None) == (self.reason is None):
            raise ValueError("reason: expected one exactly if there is no transform")

    @property
    def is_registered(self) -> bool:
        """Whether there is a transform."""
        return self.transform is not None

    def map(self, points: Any) -> WorldPoints | None:
        """Return where world points of the fixed scan are in the moving one, ``None`` if the scans are unregistered."""
        return None if self.transform is None else self.transform.map(points)


def register(fixed: Volume | PreparedScan, moving: Volume | PreparedScan) -> Registration:
    """Register the lungs of two scans of one patient.

    Args:
        fixed: A scan, or a volume with a frame, or a prepared scan.
        moving: The other one, of any size, spacing and direction.

    Returns:
        The registration; unregistered with a reason if no lungs were found, or no fit is good. The same input gives the same numbers.

    Raises:
        ValueError: A volume has no frame.
        MissingExtraError: The extra ``imaging`` is not installed.

    Example:
        >>> from lung_nodule_ct.testing.followups import Warp, make_followups
        >>> warps = Warp(), Warp((14.0, -9.0, 11.0))
        >>> scans = make_followups((0, 180), warps=warps, shape=(40, 90, 110), spacing=(3.0, 3.0, 2.0))
        >>> fixed, moving = (Scan.from_row(scan.row("7", index)) for index, scan in enumerate(scans))
        >>> found = register(fixed, moving)
        >>> found.is_registered, [round(float(value)) for value in found.map((0.0, 0.0, 0.0))]
        (True, [14, -9, 11])
    """
    one, two = prepare_scan(fixed), prepare_scan(moving)
    for scan, name in ((one, "fixed"), (two, "moving")):
        if not scan.has_lungs:
            return Registration(None, reason=f"no lungs were found in the {name} scan")
    whole = two.cells.masked(np.ones(two.cells.mask.shape, np.bool_))
    starts = _starts(one.cells, whole, _SEARCH_MM, _STARTS)
    if not starts:
        return Registration(None, reason=f"no position was found at which {_LEAST_OVERLAP:.0%} of the lungs overlap")
    center = _center(one.cells)
    fits = []
    for start in starts:
        rigid = optimize(one.cells, whole, start, center, rigid=True, effort=_RIGID)
        if rigid is not None:
            fits.append((_score(one.cells, whole, rigid), rigid))
    if not fits:
        return Registration(None, reason="the scans do not overlap")
    _, rigid = max(fits, key=lambda fit: fit[0])
    affine = optimize(one.cells, whole, rigid, center, rigid=False, effort=_AFFINE)
    candidates = [fit for fit in (affine, rigid) if fit is not None]
    measured = [(measure_fit(one.cells, whole, fit, _BLOCKS), fit) for fit in candidates]
    return _decided(measured, LUNGS, None)


def refine(
    fixed: Volume | PreparedScan,
    moving: Volume | PreparedScan,
    registration: Registration,
    center_world: Sequence[float],
    *,
    diameter_mm: float = 0.0,
    radius_mm: float = RADIUS_MM,
) -> Registration:
    """Repeat a registration in the neighbourhood of a nodule.

    Args:
        fixed: As in :func:`register`.
        moving: As there.
        registration: What :func:`register` returned for the two.
        center_world: The place in the fixed scan, LPS mm.
        diameter_mm: Diameter of a nodule there, which does not count: it may grow, and the neighbourhood does not.
        radius_mm: Radius of the neighbourhood around the nodule.

    Returns:
        The registration around the place; unregistered with a reason if the lungs are, or no fit there is good.

    Raises:
        ValueError: A volume has no frame.
        MissingExtraError: The extra ``imaging`` is not installed.

    Example:
        >>> from lung_nodule_ct.testing.followups import Warp, make_followups
        >>> warps = Warp(), Warp((14.0, -9.0, 11.0))
        >>> scans = make_followups((0, 180), warps=warps, shape=(40, 90, 110), spacing=(3.0, 3.0, 2.0))
        >>> fixed, moving = (Scan.from_row(scan.row("7", index)) for index, scan in enumerate(scans))
        >>> around = refine(fixed, moving, register(fixed, moving), (74.0, 20.0, 0.0), diameter_mm=16.0)
        >>> around.is_registered, around.center_world
        (True, (74.0, 20.0, 0.0))
    """
    one, two = prepare_scan(fixed), prepare_scan(moving)
    x, y, z = (float(value) for value in center_world)
    if registration.transform is None:
        return Registration(None, reason=registration.reason, center_world=(x, y, z))
    begin = registration.transform
    target = begin.map((x, y, z))
    hole_mm = diameter_mm / 2 * _GROWTH if diameter_mm else 0.0
    reach_mm = radius_mm + diameter_mm / 2
    near, there = one.neighbourhood((x, y, z), reach_mm), two.neighbourhood(target.tolist(), reach_mm + _REACH_MM)
    if near is None or there is None:
        return Registration(None, reason="the place is outside one of the scans", center_world=(x, y, z))
    distance = _distance(near, (x, y, z))
    lungs = one.lungs_on(near.frame, near.values.shape, _NEAR_LUNG_MM)
    near = near.masked((distance <= reach_mm) & (distance >= hole_mm) & lungs)
    if not near.mask.any():
        return Registration(None, reason="the place is not near the lungs", center_world=(x, y, z))
    moved = Cells(there.values, there.mask, begin.inverse.move(there.frame))
    starts = _starts(near, moved, _NEAR_SEARCH_MM, _NEAR_STARTS, _REACH_MM)
    fits = []
    for start in starts or [Affine()]:
        rigid = optimize(near, there, begin.after(start), (x, y, z), rigid=True, effort=_NEAR_RIGID)
        if rigid is not None:
            fits.append((_score(near, there, rigid), rigid))
    if not fits:
        return Registration(None, reason="the neighbourhoods do not overlap", center_world=(x, y, z))
    _, rigid = max(fits, key=lambda fit: fit[0])
    affine = optimize(near, there, rigid, (x, y, z), rigid=False, effort=_NEAR_AFFINE)
    candidates = [fit for fit in (affine, rigid) if fit is not None]
    measured = [(measure_fit(near, there, fit, _NEAR_BLOCKS), fit) for fit in candidates]
    return _decided(measured, NEIGHBOURHOOD, (x, y, z))


@dataclass(frozen=True, eq=False)
class RegisteredPair:
    """Two scans of a patient on the same grid. ``fixed, moving = pair`` unpacks them.

    Attributes:
        fixed: The earlier scan, unchanged.
        moving: The later scan on the grid of the earlier one: its voxels and mask are resampled and the centres of its nodules are
            moved; their diameters stay as published. ``None`` if the scans are unregistered.
        registration: The transform and its quality, or the reason why there is none.

    Example:
        >>> from lung_nodule_ct.geometry.frame import Frame
        >>> fixed = Scan(np.zeros((4, 8, 8), np.int16), Frame())
        >>> pair = RegisteredPair(fixed, None, Registration(None, reason="no lungs were found in the fixed scan"))
        >>> first, second = pair
        >>> second is None, pair.registration.reason
        (True, 'no lungs were found in the fixed scan')
    """

    fixed: Scan
    moving: Scan | None
    registration: Registration

    def __iter__(self) -> Iterator[Scan | None]:
        yield self.fixed
        yield self.moving


def registered_pair(
    patient: Sequence[Mapping[str, Any] | Volume],
    first: int,
    second: int,
    *,
    center_world: Sequence[float] | None = None,
) -> RegisteredPair:
    """Return two scans of a patient on the grid of the first one.

    Args:
        patient: Rows of ``longitudinal``, as a sequence of :func:`lung_nodule_ct.patient_sequences` has them, or scans.
        first: Index of the fixed scan.
        second: Index of the moving scan.
        center_world: A place in the fixed scan, such as the centre of a nodule, around which the fit is repeated; by default the fit of
            the lungs.

    Raises:
        ValueError: A row has no volume or no frame.
        MissingExtraError: The extra ``imaging`` is not installed.

    Example:
        >>> import lung_nodule_ct
        >>> scans = lung_nodule_ct.load("longitudinal", source="dummy_data", split="train")
        >>> patient = next(iter(lung_nodule_ct.patient_sequences(scans)))
        >>> fixed, moving = registered_pair(patient, 0, 1)
        >>> moving.shape == fixed.shape
        True
    """
    one, two = (
        prepare_scan(Scan.from_row(item) if isinstance(item, Mapping) else item)
        for item in (patient[first], patient[second])
    )
    registration = register(one, two)
    if center_world is not None:
        registration = refine(one, two, registration, center_world)
    if registration.transform is None:
        return RegisteredPair(one.scan, None, registration)
    return RegisteredPair(one.scan, warp(two.scan, registration.transform, one.scan), registration)


def warp(moving: Scan, transform: Affine, fixed: Scan) -> Scan:
    """Return a scan on the grid of another one.

    Args:
        moving: The scan.
        transform: From the world of ``fixed`` to that of ``moving``.
        fixed: The scan with the grid.
    """
    return on_grid(into_fixed_world(moving, transform), *fixed.grid)


def into_fixed_world(moving: Scan, transform: Affine) -> Scan:
    """Return a scan in the world of the fixed one. Its voxels are not interpolated: its frame and its nodules move.

    Args:
        moving: The scan.
        transform: From the world of the fixed scan to that of ``moving``.
    """
    back = transform.inverse
    frame, _ = moving.grid
    nodules = tuple(
        {**nodule, "center_world": tuple(back.map(nodule["center_world"]).tolist())} for nodule in moving.nodules
    )
    return Scan(moving.array, back.move(frame), moving.lung_mask, nodules)


def _starts(
    fixed: Cells, moving: Cells, size_mm: Sequence[float], count: int, within_mm: float | None = None
) -> list[Affine]:
    """The best translations, on coarse grids along the axes of the world."""
    one = sample_cells(fixed, *straight_grid(fixed.corners, size_mm))
    two = sample_cells(moving, *straight_grid(moving.corners, size_mm))
    found = search_translations(one, two, count=count, least_overlap=_LEAST_OVERLAP, within_mm=within_mm)
    return [start for start, _ in found]


def _center(cells: Cells) -> list[float]:
    """The centre of the cells that count, in the world."""
    middle = np.argwhere(cells.mask).mean(axis=0)[::-1]
    center: list[float] = cells.frame.to_world(middle).tolist()
    return center


def _distance(cells: Cells, center_world: Sequence[float]) -> NDArray[np.float64]:
    """Distance of each cell from a place in mm."""
    z, y, x = np.indices(cells.values.shape)
    world = cells.frame.to_world(np.stack([x, y, z], -1).reshape(-1, 3))
    distance: NDArray[np.float64] = np.linalg.norm(world - np.asarray(center_world), axis=1).reshape(x.shape)
    return distance


def _score(fixed: Cells, moving: Cells, fit: Affine) -> float:
    """Correlation, less what little overlap costs: two thin slices correlate well anywhere."""
    warped = sample_cells(moving, fixed.frame, fixed.values.shape, fit)
    both = fixed.mask & warped.mask
    overlap = both.sum() / fixed.mask.sum()
    return correlate_values(fixed.values[both], warped.values[both]) * min(1.0, float(overlap) / _LEAST_OVERLAP)


def _decided(
    measured: Sequence[tuple[FitQuality, Affine]], limits: Limits, center: tuple[float, float, float] | None
) -> Registration:
    """The fit with the best agreement among those that are good, otherwise why the best one is not."""
    good = [(quality, fit) for quality, fit in measured if limits.refusal(quality) is None]
    quality, fit = max(good or measured, key=lambda each: (each[0].agreement, each[0].correlation))
    reason = limits.refusal(quality)
    return Registration(fit if reason is None else None, quality, reason, center)
