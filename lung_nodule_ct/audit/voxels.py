"""The voxels of one volume in numbers, a slice at a time: a volume's copy is never made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lung_nodule_ct.audit.facts import VoxelFacts
from lung_nodule_ct.examples.family import pixels_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOW_HU: Final = -1024
HIGH_HU: Final = 3071
"""What 12 bits hold under the usual rescale intercept of -1024."""

OFFSET: Final = 32768
"""The place of 0 in a histogram of int16 values."""

_BINS = 1 << 16
_THINNED = 4  # neighbouring slices are compared at every fourth pixel of every fourth line
_ENOUGH_SLICES = 5


def measure_voxels(volume: NDArray[Any]) -> tuple[VoxelFacts, NDArray[np.int64]]:
    """Facts of a volume, and its histogram.

    Args:
        volume: int16 or uint8, axes (z, y, x), at least one voxel.

    Returns:
        The facts, and how often each value from -32768 stands in it, shape (65536,).
    """
    counts = np.zeros(_BINS, np.int64)
    constant = repeated = 0
    steps: list[float] = []
    for place, plane in enumerate(volume):
        counts += histogram(plane)
        flat = bool(plane.min() == plane.max())
        constant += flat
        if place:
            before = volume[place - 1]
            repeated += not flat and bool(np.array_equal(plane, before))
            near, far = (each[::_THINNED, ::_THINNED].astype(np.float32) for each in (plane, before))
            steps.append(float(np.abs(near - far).mean()))
    used = np.flatnonzero(counts)
    below = counts[: OFFSET + LOW_HU]
    median = float(np.median(steps)) if len(steps) >= _ENOUGH_SLICES - 1 else 0.0
    z, y, x = volume.shape
    facts = VoxelFacts(
        shape=(z, y, x),
        key=pixels_key(volume),
        lowest=int(used[0]) - OFFSET,
        highest=int(used[-1]) - OFFSET,
        below=int(below.sum()),
        above=int(counts[OFFSET + HIGH_HU + 1 :].sum()),
        padding=int(below.argmax()) - OFFSET if below.any() else None,
        constant=constant,
        repeated=repeated,
        step=max(steps) / median if median else None,
    )
    return facts, counts


def histogram(values: NDArray[Any]) -> NDArray[np.int64]:
    """How often each value from -32768 stands in some int16 or uint8 values, shape (65536,)."""
    flat = np.ravel(values)
    # counted as they lie in memory, where the negative ones come last; then turned round to begin with those
    counts = np.bincount(flat.view(np.uint16) if flat.dtype == np.int16 else flat, minlength=_BINS)
    return np.roll(counts, OFFSET).astype(np.int64, copy=False)


def lung_median(volume: NDArray[np.int16], mask: NDArray[np.uint8]) -> float | None:
    """The median HU of the voxels with a lung label, ``None`` without any; both axes (z, y, x)."""
    counts = np.zeros(_BINS, np.int64)
    for plane, labels in zip(volume, mask, strict=True):
        if labels.any():
            counts += histogram(plane[labels > 0])
    total = int(counts.sum())
    return float(np.searchsorted(np.cumsum(counts), (total + 1) // 2)) - OFFSET if total else None
