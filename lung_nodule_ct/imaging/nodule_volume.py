"""The volume of a nodule in the voxels, with the uncertainty that the choices of the segmentation leave.

Rays from the centre give the distance of the surface in 128 directions. A smooth surface is fitted to them so that rays that run along a
vessel or into the chest wall do not count. The region grows from the centre, above half the contrast between core and lung, up to that
surface. Each of its voxels counts by its share of the contrast, so that small spheres are not too small. The segmentation is repeated
with other thresholds, surfaces and starts; the range of the volumes is the uncertainty.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import ndimage

from lung_nodule_ct.imaging.evidence import ray_directions
from lung_nodule_ct.imaging.lungs import LUNG_HU
from lung_nodule_ct.imaging.scan import Scan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from lung_nodule_ct.read.volumes import Volume

    Floats = NDArray[np.float64]

LEAST_CONTRAST_HU: Final = 150.0
"""A core that is this much denser than lung can be segmented."""
SEARCHED: Final = (0.4, 2.0)
"""A region is the nodule if its diameter is between these multiples of the annotated one."""

LEAST_SLICES: Final = 2.4
LEAST_PIXELS: Final = 3.0
"""A nodule is measured if its diameter is this multiple of the largest size of a voxel, and of the middle one. Spheres below have
errors of 10 to 70 % of their volume (docs/spacetime.md)."""

_REACH = 2.2
_THRESHOLDS = (0.5, 0.4, 0.6)
_SURFACES = (1.0, 0.94, 1.06)
"""Where the region ends, in distances of the surface."""
_STARTS = ((0.0, 0.0, 0.0), (0.2, 0.0, 0.0), (0.0, -0.2, 0.0), (0.0, 0.0, 0.2))
"""Where the region starts, in radii from the centre."""
_CHOICES = (*product(_THRESHOLDS, _SURFACES, _STARTS[:1]), *product(_THRESHOLDS[:1], _SURFACES[:1], _STARTS[1:]))
_EDGE = 0.75
"""The edge of a nodule is this many voxels wide on each side."""
_SLACK = 0.6
"""The share of a voxel on the surface that may be nodule. With 0.5, 0.55, 0.6 and 0.7 the median error of 72 generated nodules
among vessels was -3.1, -0.7, +1.1 and +3.6 %. With 0.55, a sphere of 16 mm in slices of 5 mm is 9 % too small."""
_WHOLE = 0.9
"""A voxel of this share is all nodule, and its value is the density."""
_STEP_MM = 0.25
_FITS, _REWEIGHTS = 3, 8
_LONG, _SHORT = 0.08, 0.2
"""Deviations of the logarithm of a distance above and below the surface from which a ray counts less."""
_STIFF = (0.0, 0.5, 4.0)
"""How much the terms of order 0, 1 and 2 of the surface are held back."""
_LEAST_RAYS = 0.3


@dataclass(frozen=True, slots=True)
class Interval:
    """A measured value with its range.

    Attributes:
        value: The value.
        low: The lowest that is likely.
        high: The highest.

    Raises:
        ValueError: The value is not within the range.
    """

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"value: expected low <= value <= high, got {self.low}, {self.value}, {self.high}")


@dataclass(frozen=True, slots=True)
class NoduleMeasure:
    """What the voxels say of the size of a nodule.

    Attributes:
        volume_mm3: Its volume, ``None`` if it cannot be segmented.
        mass_mg: Its mass: air weighs nothing, water 1 mg per mm3.
        mean_hu: The mean density.
        reason: Why there is no volume.

    Example:
        >>> measure = NoduleMeasure(volume_mm3=Interval(3054.0, 2810.0, 3300.0), mean_hu=24.0)
        >>> round(measure.diameter_mm, 1)
        18.0
    """

    volume_mm3: Interval | None = None
    mass_mg: Interval | None = None
    mean_hu: float | None = None
    reason: str | None = None

    @property
    def diameter_mm(self) -> float | None:
        """Diameter of the sphere of this volume."""
        return None if self.volume_mm3 is None else float(np.cbrt(6 * self.volume_mm3.value / np.pi))


def measure_nodule(volume: Volume, nodule: Mapping[str, Any]) -> NoduleMeasure:
    """Measure a nodule in the voxels of a scan.

    Args:
        volume: A scan, or a volume with a frame, in HU.
        nodule: An entry of the column ``nodules``: ``center_world`` in LPS mm and ``diameter_mm``.

    Returns:
        Volume and mass with their ranges, or the reason why there are none.

    Raises:
        ValueError: The volume has no frame.

    Example:
        >>> from lung_nodule_ct.imaging import Scan
        >>> from lung_nodule_ct.testing.phantoms import PhantomNodule, make_chest
        >>> chest = make_chest((24, 128, 160), (2.2, 2.2, 2.5), [PhantomNodule((74.0, -4.0, 5.0), 18.0)])
        >>> nodule = {"center_world": (74.0, -4.0, 5.0), "diameter_mm": 18.0}
        >>> volume = measure_nodule(Scan(chest.volume, chest.frame), nodule).volume_mm3
        >>> volume.low < 3054 < volume.high  # a sphere of 18 mm
        True
    """
    frame, shape = Scan.from_volume(volume).grid
    diameter = nodule.get("diameter_mm")
    if diameter is None or not diameter > 0:
        return NoduleMeasure(reason="the annotation has no diameter")
    spacing = np.array(frame.spacing)
    if diameter < max(LEAST_SLICES * max(frame.spacing), LEAST_PIXELS * sorted(frame.spacing)[1]):
        return NoduleMeasure(reason=f"voxels of up to {max(frame.spacing):g} mm are too large for {diameter:g} mm")
    reach = (_REACH * diameter / 2 + 4.0) / spacing
    place = frame.to_voxel(nodule["center_world"])
    if ((place < -0.5) | (place > np.array(shape[::-1]) - 0.5)).any():
        return NoduleMeasure(reason="its centre is outside the scan")
    low = np.maximum(0, np.floor(place - reach)).astype(int)
    high = np.minimum(shape[::-1], np.ceil(place + reach) + 1).astype(int)
    part = np.asarray(volume.array[low[2] : high[2], low[1] : high[1], low[0] : high[0]]).astype(np.float32)
    surface = _fit_surface(part, place - low, diameter / 2, spacing)
    if isinstance(surface, str):
        return NoduleMeasure(reason=surface)
    to_border = np.minimum(surface.centre, np.array(part.shape[::-1]) - 1 - surface.centre) * spacing
    if (to_border < 0.9 * surface.radius).any():
        return NoduleMeasure(reason="the scan ends within it")
    weight = np.clip((part - surface.lung) / (surface.core - surface.lung), 0, 1)
    distance, limit = _radii(part.shape, surface, spacing)
    edge = _EDGE * float(spacing.max())
    found = []
    for threshold, factor, start in _CHOICES:
        # the share of a voxel that may be nodule falls from 1 to 0 across the surface
        share = np.minimum(weight, np.clip(_SLACK + (factor * limit - distance) / (2 * edge), 0, 1))
        found.append(_grown(share, threshold, surface.centre + np.array(start) * surface.radius / spacing))
    voxel = float(spacing.prod())
    sizes = np.array([share.sum() * voxel for share in found])
    value = float(sizes[0])
    if value == 0:
        return NoduleMeasure(reason="no region grows from its centre")
    sizes = sizes[sizes > 0]
    ratio = float(np.cbrt(value / (np.pi / 6 * diameter**3)))
    if not SEARCHED[0] <= ratio <= SEARCHED[1]:
        return NoduleMeasure(reason=f"the region has {ratio:.1f} times the annotated diameter")
    # the edge is known to about a tenth of a voxel all around
    rim = 0.1 * float(np.cbrt(voxel)) * np.pi * float(np.cbrt(6 * value / np.pi)) ** 2
    volume_range = Interval(value, max(0.0, float(sizes.min()) - rim), float(sizes.max()) + rim)
    # the values of voxels at the edge contain lung, so that only their shares count
    whole = found[0] >= _WHOLE
    weights = np.where(whole, part + 1000, found[0] * (surface.core + 1000)) * (found[0] > 0)
    per_mm3 = max(0.0, float(weights.sum() / found[0].sum())) / 1000
    mass = Interval(value * per_mm3, volume_range.low * per_mm3, volume_range.high * per_mm3)
    mean = 1000 * per_mm3 - 1000
    return NoduleMeasure(volume_range, mass, mean)


@dataclass(frozen=True, eq=False)
class _Surface:
    """The smooth surface of a nodule.

    Attributes:
        centre: In voxels of the part, x, y, z.
        terms: Of the logarithm of the distance in mm: see :func:`_basis`.
        radius: Median distance of the surface in mm.
        core: Density within it, in HU.
        lung: Density around it.
    """

    centre: Floats
    terms: Floats
    radius: float
    core: float
    lung: float


def _fit_surface(part: NDArray[np.float32], place: Floats, radius: float, spacing: Floats) -> _Surface | str:
    """The surface around a place, or why there is none."""
    directions = ray_directions(3)
    steps = np.arange(0.0, _REACH * radius + 3.0, _STEP_MM)
    limits = np.array(part.shape[::-1]) - 1
    centre, size = place, radius
    basis, stiffness = _basis(directions), np.diag(np.repeat(_STIFF, (1, 3, 5)))
    for _ in range(_FITS):
        points = centre + directions[:, None] * steps[None, :, None] / spacing
        values = ndimage.map_coordinates(
            part, points.reshape(-1, 3).T[::-1], order=1, mode="nearest", output=np.float32
        )
        values = values.reshape(len(directions), len(steps))
        core = float(np.median(values[:, steps <= max(0.5 * size, _STEP_MM)]))
        outer = values[:, (steps >= 1.3 * size + 1.0)]
        lung = float(np.clip(np.median(outer[outer <= np.median(outer)]), LUNG_HU - 120, LUNG_HU + 350))
        if core - lung < LEAST_CONTRAST_HU:
            return f"its core is only {core - lung:.0f} HU denser than the lung around it"
        reached = _crossings(values, steps, (core + lung) / 2)
        left = np.isfinite(reached) & (reached > 0)
        if left.mean() < _LEAST_RAYS:
            return "it is not surrounded by lung"
        logs, used = np.log(np.maximum(reached[left], 0.1)), basis[left]
        terms: NDArray[Any] = np.zeros(basis.shape[1])
        terms[0] = float(np.quantile(logs, 0.4))
        for _ in range(_REWEIGHTS):
            rest = logs - used @ terms
            weights = 1 / (1 + np.square(rest / np.where(rest > 0, _LONG, _SHORT)))
            terms = np.linalg.solve(used.T @ (used * weights[:, None]) + stiffness, used.T @ (weights * logs))
        distances = np.exp(basis @ terms)
        size = float(np.median(distances))
        # the centroid of what the surface encloses
        move = 0.75 * (distances[:, None] ** 4 * directions).mean(axis=0) / (distances**3).mean()
        moved = np.clip(centre + move / spacing, 0, limits)
        if np.linalg.norm((moved - place) * spacing) > radius:
            break
        last, centre = centre, moved
        result = _Surface(last, terms, size, core, lung)
    else:
        return result
    return "its centre is not at its place"


def _crossings(values: NDArray[np.float32], steps: Floats, level: float) -> Floats:
    """Where each ray falls below a level, between its samples; NaN if it never does."""
    below = values < level
    first = below.argmax(axis=1)
    rows = np.arange(len(values))
    before = np.maximum(first - 1, 0)
    high, low = values[rows, before].astype(np.float64), values[rows, first].astype(np.float64)
    share = np.where(first > 0, (high - level) / np.maximum(high - low, 1e-6), 0.0)
    return np.where(below.any(axis=1), steps[before] + share * (steps[1] - steps[0]), np.nan)


def _basis(directions: Floats) -> Floats:
    """The smooth functions on the sphere up to order 2, shape (n, 9)."""
    x, y, z = directions[..., 0], directions[..., 1], directions[..., 2]
    return np.stack([np.ones_like(x), x, y, z, x * y, x * z, y * z, x * x - y * y, 3 * z * z - 1], -1)


def _radii(shape: tuple[int, ...], surface: _Surface, spacing: Floats) -> tuple[Floats, Floats]:
    """Distance of each voxel from the centre, and of the surface in its direction, in mm."""
    z, y, x = np.indices(shape)
    offset = (np.stack([x, y, z], -1) - surface.centre) * spacing
    distance: Floats = np.linalg.norm(offset, axis=-1)
    limit: Floats = np.exp(_basis(offset / np.maximum(distance, 1e-6)[..., None]) @ surface.terms)
    return distance, limit


def _grown(share: Floats, threshold: float, begin: Floats) -> Floats:
    """The shares of the voxels that are connected with the start, and of one voxel around them; zero if the start is not dense."""
    labels, _ = ndimage.label(share >= threshold)
    x, y, z = np.clip(np.rint(begin), 0, np.array(share.shape[::-1]) - 1).astype(int)
    if not labels[z, y, x]:
        return np.zeros_like(share)
    inside = ndimage.binary_dilation(labels == labels[z, y, x], np.ones((3, 3, 3), np.bool_))
    return np.where(inside, share, 0.0)
