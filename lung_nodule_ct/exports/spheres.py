"""Instance masks from spheres: a centre and a diameter become the voxels whose centres lie inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lung_nodule_ct.geometry.frame import Frame

_SURFACE = 1e-6  # mm; a voxel's centre on the surface belongs to the sphere


def draw_spheres(
    shape: tuple[int, int, int], frame: Frame, spheres: Sequence[tuple[Sequence[float], float]]
) -> tuple[NDArray[Any], list[int]]:
    """Draw spheres as instances, the large ones first, so that a small one on a large one stays.

    A sphere too small to hold a voxel's centre marks the voxel that its own centre lies in.

    Args:
        shape: z, y, x.
        frame: Where the volume is.
        spheres: World centre x, y, z in LPS mm, and diameter in mm.

    Returns:
        The labels, uint8 or uint16, axes (z, y, x): 0 outside, then 1, 2, … without a gap; and which sphere each of those is.
        A sphere without a voxel in the volume, or wholly under others, has none.
    """
    if len(spheres) >= 1 << 16:
        raise ValueError(f"a mask holds at most 65,535 instances, got {len(spheres):,}")
    labels = np.zeros(shape, np.uint8 if len(spheres) < 1 << 8 else np.uint16)
    for number in sorted(range(len(spheres)), key=lambda number: -spheres[number][1]):
        z, y, x = _inside(shape, frame, *spheres[number])
        labels[z, y, x] = number + 1
    drawn = [int(label) - 1 for label in np.unique(labels) if label]
    for new, old in enumerate(drawn, 1):
        if new != old + 1:
            labels[labels == old + 1] = new  # ascending, so no new label is taken by an old one
    return labels, drawn


def _inside(
    shape: tuple[int, int, int], frame: Frame, center_world: Sequence[float], diameter_mm: float
) -> NDArray[np.int64]:
    """Indices z, y, x of the voxels of a sphere, shape (3, n)."""
    size = np.array(shape[::-1])
    center = frame.to_voxel(center_world)
    radius = diameter_mm / 2 + _SURFACE
    # the half extent of a ball along a voxel axis is its radius times the length of that row of the inverse matrix
    rows = (frame.to_voxel(np.eye(3)) - frame.to_voxel(np.zeros(3))).T
    reach = radius * np.linalg.norm(rows, axis=1)
    low = np.maximum(np.ceil(center - reach), 0).astype(int)
    high = np.minimum(np.floor(center + reach) + 1, size).astype(int)
    if (low < high).all():
        grid = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), axis=-1).reshape(-1, 3)
        near = np.linalg.norm(frame.to_world(grid) - np.asarray(center_world), axis=1) <= radius
        if near.any():
            voxels: NDArray[np.int64] = grid[near].T[::-1]
            return voxels
    nearest = np.floor(center + 0.5).astype(np.int64)
    inside = bool(((nearest >= 0) & (nearest < size)).all())
    return nearest[::-1, None] if inside else np.zeros((3, 0), np.int64)
