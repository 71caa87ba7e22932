"""Is there a nodule of that size at that place? Rays from the centre, compared with random places in the same lungs.

A nodule is denser than lung, and a ray from its centre leaves it near its surface. Rays that start in normal lung leave at once; those
that start in a vessel or in the chest wall leave late, or never. The *score* of a place is the product of four parts, each 0 to 1: the
density of the core, the share of rays that reach lung, the fit of their median length to the annotated radius, and the balance of
their lengths. Its *p-value* is the share of random places in and around the lungs of the same image that score as high with the same
size. One implementation serves three dimensions (spheres in scans) and two (boxes in slices): the axes come as x, y(, z).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import ndimage

from lung_nodule_ct.imaging.lungs import LUNG_HU

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from lung_nodule_ct.imaging.lungs import Lungs

RAYS: Final = {2: 48, 3: 128}
"""Number of rays by the number of dimensions."""
RADII: Final = 25
"""Number of points on a ray."""
NULL_PLACES: Final = 300
"""Number of random places: the smallest p-value is 1 / 301."""

AROUND_MM: Final = 12.0
"""How far from the lungs a random place may be: nodules touch the pleura."""
P_VALUE: Final = 0.03
"""The share of random places that may score as high as a nodule."""
LEAST_SCORE: Final = 0.01
CLEAR_SCORE: Final = 0.6
"""Score of a clear nodule: 3 % of random places had at most 0.25."""

_STEPS = 8
_SETTLED_MM = 0.3

_REACH = 2.3, 3.0
"""Length of a ray: this multiple of the radius, and at least this number of mm or pixels more than the radius."""
_DENSE_HU = -250.0
_LEAVE_HU = -350.0
"""A ray leaves a solid nodule below this value: half way to lung would be within the soft edge of a small nodule."""
_FIT = 0.45
"""Standard deviation of the logarithm of the ratio of radii."""
_BALANCE = 0.8
_PLANE = 0.5
"""A ray is near the plane of the slice if its direction rises by less than this."""
_USABLE = 1.3
"""A ray counts if it is inside the image up to this multiple of the radius."""


@dataclass(frozen=True, slots=True)
class PlaceEvidence:
    """What the voxels around one place show.

    Attributes:
        at: The place, in voxels x, y(, z).
        inside: Whether the place is inside the image. If not, the rest has no meaning.
        score: 0 (no nodule) to 1, at the place.
        p_value: The share of random places in and around the same lungs that score as high.
        core_hu: Median of the values within half the radius.
        escape: The share of rays that reach lung.
        seen: The share of the annotated nodule that is inside the image, 0 to 1.
        centre: The centre of what the rays enclose, in voxels x, y(, z).
        shift: Distance from the place to this centre, in mm (in pixels for pictures).
        centre_score: The score there.
        size_ratio: The distance from this centre at which half of the rays have reached lung, divided by the annotated radius;
            ``None`` if no ray reaches lung.
        plane_ratio: The same for the rays near the plane of the slice.
        usual: The score that 3 % of the random places exceed.
    """

    at: tuple[float, ...]
    inside: bool
    score: float = 0.0
    p_value: float = 1.0
    core_hu: float = 0.0
    escape: float = 0.0
    seen: float = 0.0
    centre: tuple[float, ...] = ()
    shift: float = 0.0
    centre_score: float = 0.0
    size_ratio: float | None = None
    plane_ratio: float | None = None
    usual: float = 0.0

    @property
    def is_present(self) -> bool:
        """Whether there is something like a nodule at the place: few random places score as high."""
        return self.inside and self.p_value <= P_VALUE and self.score > LEAST_SCORE


class EvidenceFinder:
    """Finds the evidence of nodules in one image. The random places are scored once for each size.

    Args:
        image: Values in HU, axes (z, y, x) or (y, x). See :func:`lung_nodule_ct.imaging.lungs.usual_hu` for other values.
        spacing: Size of a voxel in mm: x, y(, z); 1 for pictures without a spacing.
        places: The random places, in voxels, shape (n, 2 or 3): see :meth:`lung_nodule_ct.imaging.lungs.Lungs.places`.
    """

    def __init__(self, image: NDArray[Any], spacing: Sequence[float], places: NDArray[np.float64]) -> None:
        self._image = image
        self._spacing = np.asarray(spacing, np.float64)
        self._places = places
        self._null: dict[tuple[int, ...], NDArray[np.float64]] = {}

    def sphere(self, place: Sequence[float], diameter_mm: float) -> PlaceEvidence:
        """The evidence of a sphere: its centre in voxels, x, y(, z), and its diameter in mm."""
        return self.ellipsoid(place, (diameter_mm / 2 / self._spacing).tolist())

    def ellipsoid(self, place: Sequence[float], half_sizes: Sequence[float]) -> PlaceEvidence:
        """The evidence of an ellipsoid (an ellipse), such as the one that fills a box.

        Args:
            place: Its centre in voxels: x, y(, z).
            half_sizes: Half its size in voxels: x, y(, z).

        Raises:
            ValueError: A half size is not positive.
        """
        if not all(half > 0 for half in half_sizes):
            raise ValueError(f"half sizes must be positive, got {list(half_sizes)}")
        centre, limits = np.asarray(place, np.float64), np.array(self._image.shape[::-1], np.float64)
        at = tuple(centre.tolist())
        if not ((centre >= -0.5) & (centre <= limits - 0.5)).all():
            return PlaceEvidence(at, inside=False)
        here = self._score(centre[None], half_sizes)
        null = self._null_scores(half_sizes)
        there = here
        for _ in range(_STEPS):
            move = np.clip(there.shift[0], -1, 1) * half_sizes
            if np.linalg.norm(move * self._spacing) < _SETTLED_MM:
                break
            centre = np.clip(centre + move, 0, limits - 1)
            there = self._score(centre[None], half_sizes)
        ratio, plane_ratio = float(there.size_ratio[0]), float(there.plane_ratio[0])
        return PlaceEvidence(
            at,
            inside=True,
            score=float(here.score[0]),
            p_value=float((1 + (null >= here.score[0] - 1e-12).sum()) / (len(null) + 1)),
            core_hu=float(np.nan_to_num(here.core_hu[0])),
            escape=float(here.escape[0]),
            seen=float(here.seen[0]),
            centre=tuple(centre.tolist()),
            shift=float(np.linalg.norm((centre - np.asarray(place)) * self._spacing)),
            centre_score=float(there.score[0]),
            size_ratio=ratio if np.isfinite(ratio) else None,
            plane_ratio=plane_ratio if np.isfinite(plane_ratio) else None,
            usual=float(np.quantile(null, 1 - P_VALUE)),
        )

    def nearby(self, place: Sequence[float], half_sizes: Sequence[float], within_mm: float) -> PlaceEvidence | None:
        """The best evidence of a nodule of this size around a place, ``None`` if there is no clear one.

        Args:
            place: A place in voxels: x, y(, z).
            half_sizes: Half the size of the nodule in voxels: x, y(, z).
            within_mm: The largest distance in mm (pixels).
        """
        rng = np.random.default_rng(0)
        offsets = rng.normal(size=(NULL_PLACES, len(place)))
        offsets *= within_mm * rng.random((NULL_PLACES, 1)) / np.linalg.norm(offsets, axis=1, keepdims=True)
        places = np.asarray(place) + offsets / self._spacing
        inside = ((places >= 0) & (places <= np.array(self._image.shape[::-1]) - 1)).all(axis=1)
        if not inside.any():
            return None
        scores = self._score(places[inside], half_sizes).score
        found = self.ellipsoid(places[inside][int(scores.argmax())].tolist(), half_sizes)
        there = self.ellipsoid(found.centre, half_sizes) if found.inside else found
        return there if there.is_present and there.score >= CLEAR_SCORE else None

    def _score(self, places: NDArray[np.float64], half_sizes: Sequence[float]) -> Scores:
        return score_rays(cast_rays(self._image, places, half_sizes, (1 / self._spacing).tolist()))

    def _null_scores(self, half_sizes: Sequence[float]) -> NDArray[np.float64]:
        """The scores of the random places for a nodule of about this size (within 5 %)."""
        key = tuple(round(10 * float(np.log(half))) for half in half_sizes)
        if key not in self._null:
            self._null[key] = self._score(self._places, np.exp(np.array(key) / 10).tolist()).score
        return self._null[key]


def finder_of(image: NDArray[Any], lungs: Lungs, spacing: Sequence[float]) -> EvidenceFinder | None:
    """The finder of an image with random places in and around its lungs, ``None`` without lungs.

    Args:
        image: HU, axes (z, y, x), or (y, x) for one slice.
        lungs: The lungs of the image.
        spacing: Size of a voxel in mm: x, y(, z); 1 for pictures.
    """
    if lungs.is_empty:
        return None
    return EvidenceFinder(image, spacing, lungs.places(NULL_PLACES, AROUND_MM)[:, : image.ndim])


@dataclass(frozen=True, eq=False)
class Rays:
    """Values along rays from some places, each with the same half sizes.

    Attributes:
        values: HU, axes (place, ray, radius); NaN outside the image.
        radii: Distances from the place in units of the half sizes, shape (radius,).
    """

    values: NDArray[np.float32]
    radii: NDArray[np.float64]


def cast_rays(image: NDArray[Any], places: ArrayLike, half_sizes: Sequence[float], least: Sequence[float]) -> Rays:
    """Sample an image along rays.

    Args:
        image: Axes (z, y, x) or (y, x).
        places: Positions in voxels, x, y(, z), shape (n, 2 or 3).
        half_sizes: Half the size of the nodule in voxels on each axis: x, y(, z).
        least: One unit of length (mm, or a pixel) in voxels on each axis.

    Returns:
        The values, interpolated linearly.
    """
    dimensions = image.ndim
    longest = max(_REACH[0], 1 + _REACH[1] * max(unit / half for unit, half in zip(least, half_sizes, strict=True)))
    radii = np.linspace(0, longest, RADII)
    offsets = ray_directions(dimensions)[:, None] * radii[None, :, None] * np.asarray(half_sizes)
    points = np.asarray(places, np.float64).reshape(-1, 1, 1, dimensions) + offsets
    coordinates = points.reshape(-1, dimensions).T[::-1]
    values = np.empty(coordinates.shape[1], np.float32)
    ndimage.map_coordinates(image, coordinates, output=values, order=1, mode="nearest", prefilter=False)
    limits = np.array(image.shape)[:, None] - 0.5
    values[((coordinates < -0.5) | (coordinates > limits)).any(axis=0)] = np.nan
    return Rays(values.reshape(points.shape[:-1]), radii)


@dataclass(frozen=True, eq=False)
class Scores:
    """The evidence at some places, one entry per place. NaN where nothing is known.

    Attributes:
        score: 0 (no nodule) to 1.
        core_hu: Median of the values within half the radius.
        escape: The share of rays that reach lung.
        size_ratio: The median distance at which rays reach lung, divided by the radius.
        plane_ratio: The same by the rays near the plane of the slice.
        shift: Where the centre of what the rays enclose is, in units of the half sizes, shape (place, x y(z)).
        seen: The share of the rays' points, up to the surface, that are inside the image.
    """

    score: NDArray[np.float64]
    core_hu: NDArray[np.float64]
    escape: NDArray[np.float64]
    size_ratio: NDArray[np.float64]
    plane_ratio: NDArray[np.float64]
    shift: NDArray[np.float64]
    seen: NDArray[np.float64]


def score_rays(rays: Rays) -> Scores:
    """Score each place."""
    values, radii = rays.values, rays.radii
    known = np.isfinite(values)
    directions = ray_directions(3 if values.shape[1] == RAYS[3] else 2)
    core = _median(values[:, :, radii <= max(0.5, radii[1])].reshape(len(values), -1))
    leave = (core + LUNG_HU) / 2
    leave = np.where(core > _DENSE_HU, np.minimum(leave, _LEAVE_HU), leave)
    with np.errstate(invalid="ignore"):
        below = values < leave[:, None, None]
    usable: NDArray[np.bool_] = np.all(known[:, :, radii <= _USABLE], axis=2)
    left = below.any(axis=2) & usable
    reached = np.where(left, _crossings(values, below.argmax(axis=2), leave, radii), np.nan)
    escape = left.sum(axis=1) / np.maximum(usable.sum(axis=1), 1)
    ratio = _median(reached)
    density = np.clip((core + 800) / 600, 0, 1)
    fit = np.exp(-np.square(np.log(np.clip(ratio, 0.05, 20))) / (2 * _FIT**2))
    offset = np.linalg.norm(_shift(reached, np.full(len(values), radii[-1]), usable, directions), axis=1)
    offset /= np.maximum(np.where(np.isfinite(ratio), ratio, 1.0), 0.5)
    score = np.nan_to_num(density * escape * fit * np.exp(-np.square(offset) / (2 * _BALANCE**2)))
    return Scores(
        score=score,
        core_hu=core,
        escape=escape,
        size_ratio=ratio,
        plane_ratio=_median(np.where(np.abs(directions[:, 2:]).max(axis=1, initial=0) < _PLANE, reached, np.nan)),
        shift=_shift(reached, ratio, usable, directions),
        seen=known[:, :, radii <= 1].mean(axis=(1, 2)),
    )


def _crossings(
    values: NDArray[np.float32], first: NDArray[np.int64], leave: NDArray[np.float64], radii: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Where each ray falls below its value, by linear interpolation before the first point that is below."""
    before = np.maximum(first - 1, 0)
    after = np.take_along_axis(values, first[..., None], axis=2)[..., 0]
    above = np.take_along_axis(values, before[..., None], axis=2)[..., 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.clip((above - leave[:, None]) / (above - after), 0, 1)
    crossed: NDArray[np.float64] = radii[before] + np.nan_to_num(share) * (radii[first] - radii[before])
    return crossed


def _shift(
    reached: NDArray[np.float64],
    never: NDArray[np.float64],
    usable: NDArray[np.bool_],
    directions: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The centre of what the rays enclose. A ray that never leaves has the given length, one that is not usable the mean.

    A sphere that is moved by s has the lengths R + s · direction, so that the mean of direction times length is s / 3, or s / 2 in the
    plane.
    """
    lengths = np.where(np.isfinite(reached), reached, np.nan_to_num(never)[:, None])
    mean = (lengths * usable).sum(axis=1) / np.maximum(usable.sum(axis=1), 1)
    lengths = np.where(usable, lengths, mean[:, None])
    shift: NDArray[np.float64] = (lengths[..., None] * directions).mean(axis=1) * directions.shape[1]
    return shift


def _median(values: NDArray[Any]) -> NDArray[np.float64]:
    """The median of each row, NaN left out; NaN for a row without values."""
    ordered = np.sort(values, axis=1)  # NaN last
    count = np.isfinite(ordered).sum(axis=1)
    rows = np.arange(len(ordered))
    middle = (
        ordered[rows, np.maximum(count - 1, 0) // 2] + ordered[rows, np.minimum(count // 2, ordered.shape[1] - 1)]
    ) / 2
    return np.where(count > 0, middle, np.nan)


def ray_directions(dimensions: int) -> NDArray[np.float64]:
    """Unit vectors that are spread evenly: a Fibonacci lattice on the sphere, equal angles on the circle."""
    count = RAYS[dimensions]
    index = np.arange(count) + 0.5
    if dimensions == 2:
        angle = 2 * np.pi * index / count
        return np.stack([np.cos(angle), np.sin(angle)], 1)
    polar, azimuth = np.arccos(1 - 2 * index / count), np.pi * (1 + 5**0.5) * index
    return np.stack([np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], 1)
