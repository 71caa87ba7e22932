"""Where the lungs of a scan are, on a coarse grid: enough to choose places in them, and to measure their width and sides.

The procedure is that of the paper (Jian et al. 2024, "Data Preprocessing"): smoothing of each slice, a threshold by clustering, the
air inside the body. The grid of about 1.5 mm in the plane and 2.5 mm between slices makes it fast. The threshold adapts to the
values, so that the lungs of a scan with a wrong intercept or slope are found as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lung_nodule_ct.geometry.frame import VoxelPoints

PIXEL_MM: Final = 1.5
SLICE_MM: Final = 2.5
"""The coarse grid: the largest multiples of the voxel size that are not far from these."""

LUNG_HU: Final = -850.0
TISSUE_HU: Final = 50.0
"""The usual means of the two clusters within the body (lung parenchyma; soft tissue)."""

_MIN_ML = 2.0
_MIN_SHARE = 0.08
"""A region is a lung if it has this share of the largest one: trachea and bowel are smaller."""
_SAMPLES = 400_000
_LEAST_CONTRAST = 10.0
_OUTSIDE: Final = ((0.10, np.inf), (0.03, -0.03), (0.002, -0.05))
"""A region is air outside the body if it has more than this share of its cells at the border of the slices, and a mean value below this,
where lung is 0 and soft tissue 1. Air outside had a share of 0.025 to 0.22, the larger ones a mean of -0.12 to -0.05; lungs had a share of
0, or up to 0.05 where a crop cuts them, and a mean of -0.02 to 0.07 (13 real scans and crops of them)."""


@dataclass(frozen=True, eq=False)
class Lungs:
    """The lungs of a scan on a coarse grid.

    Attributes:
        mask: Whether a cell is lung, axes (z, y, x).
        step: Size of a cell in voxels: x, y, z.
        spacing: Size of a voxel in mm: x, y, z.
        low: Mean of the cluster of lung, in the values of the scan.
        high: Mean of the cluster of soft tissue.
    """

    mask: NDArray[np.bool_]
    step: tuple[int, int, int]
    spacing: tuple[float, float, float]
    low: float
    high: float

    @property
    def is_empty(self) -> bool:
        """Whether no lung was found."""
        return not self.mask.any()

    @cached_property
    def extent(self) -> tuple[tuple[float, float], ...]:
        """First and last position of lung on the axes x, y, z in voxels, outer faces.

        Raises:
            ValueError: There is no lung.
        """
        if self.is_empty:
            raise ValueError("there is no lung")
        found = []
        for axis, step in zip((2, 1, 0), self.step, strict=True):
            used = np.flatnonzero(self.mask.any(axis=tuple(other for other in range(3) if other != axis)))
            found.append((float(used[0] * step), float((used[-1] + 1) * step)))
        return tuple(found)

    @property
    def size_mm(self) -> tuple[float, float, float]:
        """Extent of both lungs in mm: x, y, z."""
        x, y, z = ((last - first) * mm for (first, last), mm in zip(self.extent, self.spacing, strict=True))
        return x, y, z

    def places(self, count: int, within_mm: float, seed: int = 0) -> VoxelPoints:
        """Random places in the lungs and up to a distance around them, where a nodule may be.

        Args:
            count: Number of places.
            within_mm: The largest distance from a cell of the lungs.
            seed: Of the random numbers.

        Returns:
            Voxel positions, shape (count, 3), within the volume.

        Raises:
            ValueError: There is no lung.
        """
        if self.is_empty:
            raise ValueError("there is no lung")
        rng = np.random.default_rng(seed)
        cells = np.flatnonzero(self.mask)
        z, y, x = np.unravel_index(rng.choice(cells, count), self.mask.shape)
        step = np.array(self.step)
        points = (np.stack([x, y, z], 1) + rng.random((count, 3))) * step - 0.5
        direction = rng.normal(size=(count, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        points += direction * (within_mm * rng.random((count, 1))) / np.array(self.spacing)
        size = np.array(self.mask.shape[::-1]) * step - 1
        clipped: VoxelPoints = np.clip(points, 0, size)
        return clipped


def find_lungs(volume: NDArray[Any], spacing: Sequence[float], *, is_crop: bool = False) -> Lungs:
    """Find the lungs of a scan, or of one slice.

    Args:
        volume: Axes (z, y, x), in HU or in other values in which air is lower than tissue.
        spacing: Size of a voxel in mm: x, y, z.
        is_crop: Whether the image is a part of a scan, so that the lungs may end at its borders.

    Returns:
        The lungs; with an empty mask if none was found.

    Example:
        >>> volume = np.zeros((8, 64, 64), np.int16)
        >>> volume[:, 16:48, 8:28] = volume[:, 16:48, 36:56] = -850
        >>> lungs = find_lungs(volume, (4.0, 4.0, 2.5))
        >>> [round(size) for size in lungs.size_mm]
        [192, 128, 20]
    """
    x, y, z = (float(size) for size in spacing)
    depth, height, width = volume.shape
    step = (
        min(width, max(1, round(PIXEL_MM / x))),
        min(height, max(1, round(PIXEL_MM / y))),
        min(depth, max(1, round(SLICE_MM / z))),
    )
    coarse = ndimage.gaussian_filter(block_mean(volume, step), (0, 0.7, 0.7), truncate=2.0)
    low, high = clusters(coarse)
    if high - low < _LEAST_CONTRAST:
        return Lungs(np.zeros(coarse.shape, np.bool_), step, (x, y, z), low, high)
    blank = np.array([plane.min() == plane.max() for plane in volume])
    # a blank slice would connect the lungs to the air outside
    coarse[[blank[z * step[2] : (z + 1) * step[2]].any() for z in range(len(coarse))]] = high
    mask = _inner_air((coarse - low) / (high - low), x * y * z * step[0] * step[1] * step[2] / 1000, is_crop=is_crop)
    return Lungs(mask, step, (x, y, z), low, high)


def block_mean(volume: NDArray[Any], step: Sequence[int]) -> NDArray[np.float32]:
    """Average a volume over cells. What is left at the far ends is cut off.

    Padding below -1024 counts as -1024, as air.

    Args:
        volume: Axes (z, y, x).
        step: Size of a cell in voxels: x, y, z.
    """
    x, y, z = step
    shape = tuple(length // size for length, size in zip(volume.shape, (z, y, x), strict=True))
    total = np.zeros(shape, np.float32 if volume.dtype.kind == "f" else np.int32)
    cut = volume[: shape[0] * z, : shape[1] * y, : shape[2] * x]
    for k in range(z):
        for j in range(y):
            for i in range(x):
                part = cut[k::z, j::y, i::x]
                total += part if part.dtype == np.uint8 else np.maximum(part, -1024)
    mean: NDArray[np.float32] = total.astype(np.float32) / np.float32(x * y * z)
    return mean


def clusters(values: NDArray[Any]) -> tuple[float, float]:
    """Means of the two clusters of the values (2-means), the values within the central part of each slice.

    Args:
        values: Axes (z, y, x) or (y, x).
    """
    y, x = (length // 8 for length in values.shape[-2:])
    inner = values[..., y : values.shape[-2] - y, x : values.shape[-1] - x]
    flat = np.ravel(inner)
    flat = flat[:: max(1, flat.size // _SAMPLES)].astype(np.float32)
    flat = np.clip(flat, *np.percentile(flat, (1, 99)))
    low, high = (float(value) for value in np.percentile(flat, (10, 90)))
    for _ in range(40):
        below = flat < (low + high) / 2
        if not below.any() or below.all():
            break
        moved = float(flat[below].mean()), float(flat[~below].mean())
        if abs(moved[0] - low) + abs(moved[1] - high) < 0.1:
            break
        low, high = moved
    return low, high


def usual_hu(image: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    """Map values linearly so that lung and soft tissue have their usual values in HU: for pictures, and for scans that are not in HU.

    Args:
        image: Values of any shape.
        low: Their mean in lung: see :func:`clusters`.
        high: Their mean in soft tissue.
    """
    slope = (TISSUE_HU - LUNG_HU) / max(high - low, 1.0)
    return (image.astype(np.float32) - np.float32(low)) * np.float32(slope) + np.float32(LUNG_HU)


def _inner_air(scaled: NDArray[np.float32], cell_ml: float, *, is_crop: bool) -> NDArray[np.bool_]:
    """The regions of air within the body. Lung is 0 and tissue 1 in the scaled values."""
    labels, count = ndimage.label(scaled < 0.5)
    if not count:
        return np.zeros(scaled.shape, np.bool_)
    size = np.bincount(labels.ravel(), minlength=count + 1).astype(np.float64)
    mean = np.bincount(labels.ravel(), weights=scaled.ravel(), minlength=count + 1) / np.maximum(size, 1)
    edge = np.zeros(count + 1)
    for side in (labels[:, 0], labels[:, -1], labels[:, 1:-1, 0], labels[:, 1:-1, -1]):
        edge += np.bincount(side.ravel(), minlength=count + 1)
    share = edge / np.maximum(size, 1)
    rules = _OUTSIDE[-1:] if is_crop else _OUTSIDE
    outside = np.logical_or.reduce([(share > least) & (mean < highest) for least, highest in rules])
    size[0] = 0
    size[outside] = 0
    keep = (size * cell_ml > _MIN_ML) & (size >= _MIN_SHARE * size.max())
    kept: NDArray[np.bool_] = keep[labels]
    return kept
