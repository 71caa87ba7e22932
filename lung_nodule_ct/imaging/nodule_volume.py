"""The volume of a nodule in the voxels, with the uncertainty that the choices of the segmentation leave.

The region grows from the centre that the rays of the evidence find, above half the contrast between core and lung, and is opened so that
vessels fall off. Every voxel in it and at its edge counts by its share of the contrast, so that small spheres are not too small. The
segmentation is repeated with other thresholds, openings and starts; the range of the volumes is the uncertainty.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import ndimage

from lung_nodule_ct.imaging.evidence import cast_rays, score_rays
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
_LIMIT = 1.35
"""The region ends at this multiple of the distance at which half of the rays reach lung."""
_THRESHOLDS = (0.5, 0.4, 0.6)
_OPENINGS = (0.2, 0.35)
"""Radius of the opening, as a share of the radius."""
_STARTS = ((0.0, 0.0, 0.0), (0.15, 0.0, 0.0), (0.0, -0.15, 0.0), (0.0, 0.0, 0.15))
"""Where the region starts, in radii from the centre."""
_CHOICES = (
    *product(_THRESHOLDS, _OPENINGS, _STARTS[:1]),
    *product(_THRESHOLDS[:1], _OPENINGS[:1], _STARTS[1:]),
)
_CENTRE_STEPS = 6


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
    centre, radius, core = _centre(part, place - low, diameter / 2, spacing)
    if radius is None:
        return NoduleMeasure(reason="it is not surrounded by lung")
    distance = _distance(part.shape, centre, spacing)
    lung = _lung_around(part, distance, radius)
    if core - lung < LEAST_CONTRAST_HU:
        return NoduleMeasure(reason=f"its core is only {core - lung:.0f} HU denser than the lung around it")
    cut = (centre * spacing < 0.8 * radius) | ((np.array(part.shape[::-1]) - 1 - centre) * spacing < 0.8 * radius)
    if cut.any():
        return NoduleMeasure(reason="the scan ends within it")
    weight = np.clip((part - lung) / (core - lung), 0, None)
    found = []
    for threshold, opening, start in _CHOICES:
        begin = centre + np.array(start) * radius / spacing
        region = _region(weight, distance <= _LIMIT * radius, begin, threshold, opening * radius, spacing)
        found.append((region, threshold))
    voxel = float(spacing.prod())
    sizes = np.array([_soft(weight, region).sum() * voxel for region, _ in found])
    sizes = sizes[sizes > 0]
    if len(sizes) < len(found) / 2:
        return NoduleMeasure(reason="no region grows from its centre")
    middle = [region for region, threshold in found if threshold == 0.5 and region.any()]
    share = _soft(weight, middle[0]) if middle else np.zeros_like(weight)
    value = float(share.sum() * voxel)
    ratio = np.cbrt(value / (np.pi / 6 * diameter**3)) if value else 0.0
    if not SEARCHED[0] <= ratio <= SEARCHED[1]:
        return NoduleMeasure(reason=f"the region has {ratio:.1f} times the annotated diameter")
    # a hard edge of a voxel is known to about a tenth of a voxel all around
    edge = 0.1 * float(np.cbrt(voxel)) * np.pi * np.cbrt(6 * value / np.pi) ** 2
    volume_range = Interval(
        value, max(0.0, min(value, float(sizes.min())) - edge), max(value, float(sizes.max())) + edge
    )
    mean = float(part[middle[0]].mean())
    per_mm3 = max(0.0, (mean + 1000) / 1000)
    mass = Interval(value * per_mm3, volume_range.low * per_mm3, volume_range.high * per_mm3)
    return NoduleMeasure(volume_range, mass, mean)


def _centre(
    part: NDArray[np.float32], place: Floats, radius: float, spacing: Floats
) -> tuple[Floats, float | None, float]:
    """The centre of what the rays enclose, the distance at which half of them reach lung in mm, and the density of the core."""
    half, least = (radius / spacing).tolist(), (1 / spacing).tolist()
    limits = np.array(part.shape[::-1]) - 1
    centre = place
    scores = score_rays(cast_rays(part, centre[None], half, least))
    for _ in range(_CENTRE_STEPS):
        move = np.clip(scores.shift[0], -0.5, 0.5) * half
        moved = np.clip(centre + np.nan_to_num(move), 0, limits)
        if np.linalg.norm((moved - place) * spacing) > radius:
            break
        centre = moved
        scores = score_rays(cast_rays(part, centre[None], half, least))
    ratio, core = float(scores.size_ratio[0]), float(scores.core_hu[0])
    return centre, ratio * radius if np.isfinite(ratio) else None, core


def _distance(shape: tuple[int, ...], centre: Floats, spacing: Floats) -> Floats:
    axes = [((np.arange(n) - at) * mm) ** 2 for n, at, mm in zip(shape, centre[::-1], spacing[::-1], strict=True)]
    return np.sqrt(axes[0][:, None, None] + axes[1][None, :, None] + axes[2][None, None, :])


def _lung_around(part: NDArray[np.float32], distance: Floats, radius: float) -> float:
    """Density of the lung around a nodule: the median of the darker half of a shell."""
    shell = part[(distance > 1.3 * radius + 1) & (distance < 2.0 * radius + 4)]
    if not shell.size:
        return LUNG_HU
    return float(np.clip(np.median(shell[shell <= np.median(shell)]), LUNG_HU - 120, LUNG_HU + 350))


def _region(
    weight: NDArray[np.float32],
    allowed: NDArray[np.bool_],
    begin: Floats,
    threshold: float,
    opening_mm: float,
    spacing: Floats,
) -> NDArray[np.bool_]:
    """What is connected with the start, opened by a ball. Empty if the start is not in it."""
    dense = (weight >= threshold) & allowed
    depth = ndimage.distance_transform_edt(np.pad(dense, 1), sampling=spacing[::-1])[1:-1, 1:-1, 1:-1]
    eroded = depth > opening_mm
    labels, count = ndimage.label(eroded)
    if not count:
        return np.zeros(dense.shape, np.bool_)
    x, y, z = np.clip(np.rint(begin), 0, np.array(dense.shape[::-1]) - 1).astype(int)
    label = labels[z, y, x]
    if not label:
        return np.zeros(dense.shape, np.bool_)
    back = ndimage.distance_transform_edt(labels != label, sampling=spacing[::-1])
    region: NDArray[np.bool_] = dense & (back <= opening_mm + 0.5 * float(spacing.max()))
    return region


def _soft(weight: NDArray[np.float32], region: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The share of each voxel that is nodule: in the region and one voxel around it, by the contrast."""
    if not region.any():
        return np.zeros_like(weight)
    inside = ndimage.binary_dilation(region, np.ones((3, 3, 3), np.bool_))
    level = float(np.median(weight[ndimage.binary_erosion(region)])) if ndimage.binary_erosion(region).any() else 1.0
    share = np.clip(weight / max(level, 0.5), 0, 1)
    return np.where(inside, share, 0).astype(np.float32)
