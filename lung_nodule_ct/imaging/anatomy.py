"""Which way a scan lies: the spine is behind the lungs, and lungs have a size.

The positions are those of voxels; the frame of the scan says which world direction they are. Where they disagree, the header does not
belong to the voxels. (World is LPS: y grows towards the back.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import ndimage

from lung_nodule_ct.imaging.lungs import block_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lung_nodule_ct.geometry.frame import Frame
    from lung_nodule_ct.imaging.lungs import Lungs

WIDTH_MM: Final = (140.0, 390.0)
"""Width of both lungs together in adults, with a margin (150 to 280 mm in the scans measured)."""
DEPTH_SHARE: Final = (0.48, 1.4)
"""Depth of the lungs divided by their width (0.61 to 1.36 in the scans measured)."""

_BONE_HU = 200
_LEAST_ML = 3.0
_THROUGH = 0.7
"""A spine runs through this share of the slices; ribs do not."""
_CANDIDATES = 6
_MIDDLE_MM = 35.0
"""A spine is not farther than this from the middle plane, and farther than this from the middle of the lungs."""
_INSIDE = 0.95
"""A spine lies within this share of the half extent of the lungs (0.55 to 0.85 in the scans measured); ribs lie around them."""


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The position of the spine, and the size of the lungs.

    Attributes:
        spine: From the middle of the lungs to the middle of the spine, in mm on the world axes x (left), y (back), z (head);
            ``None`` if no spine was found.
        width_mm: Width of both lungs, along the world axis x.
        depth_mm: Depth of both lungs, along the world axis y.
    """

    spine: tuple[float, float, float] | None
    width_mm: float
    depth_mm: float

    @property
    def spine_is_behind(self) -> bool | None:
        """Whether the spine is behind the middle of the lungs; ``None`` if no spine was found."""
        return None if self.spine is None else self.spine[1] > abs(self.spine[0])


def find_spine(volume: NDArray[Any], lungs: Lungs) -> tuple[float, float, float] | None:
    """Find the spine: the largest piece of bone near the middle plane of the lungs, in one of the two axes of a slice.

    Args:
        volume: HU, axes (z, y, x).
        lungs: The lungs of the scan.

    Returns:
        The vector from the middle of the extent of the lungs to the middle of the spine in mm on the voxel axes x, y, z (z is 0);
        ``None`` if there is no such piece.
    """
    bone = ndimage.binary_opening(block_mean(np.minimum(volume, 1500), lungs.step) > _BONE_HU)
    labels, count = ndimage.label(bone)
    if not count:
        return None
    size = np.bincount(labels.ravel())
    size[0] = 0
    cell = np.prod(lungs.step) * np.prod(lungs.spacing)
    best: tuple[float, tuple[float, float, float]] | None = None
    (x0, x1), (y0, y1), _ = lungs.extent
    for label in np.argsort(-size)[:_CANDIDATES]:
        if size[label] * cell < 1000 * _LEAST_ML:
            break
        piece = labels == label
        if piece.any(axis=(1, 2)).mean() < _THROUGH:
            continue
        _, y, x = ndimage.center_of_mass(piece)
        dx = ((x + 0.5) * lungs.step[0] - (x0 + x1) / 2) * lungs.spacing[0]
        dy = ((y + 0.5) * lungs.step[1] - (y0 + y1) / 2) * lungs.spacing[1]
        away, along = sorted((abs(dx), abs(dy)))
        half = (x1 - x0) * lungs.spacing[0] / 2 if abs(dx) > abs(dy) else (y1 - y0) * lungs.spacing[1] / 2
        if away < _MIDDLE_MM < along < _INSIDE * half and (best is None or size[label] > best[0]):
            best = float(size[label]), (float(dx), float(dy), 0.0)
    return None if best is None else best[1]


def measure_anatomy(volume: NDArray[Any], lungs: Lungs, frame: Frame) -> Anatomy | None:
    """Measure a scan.

    Args:
        volume: HU, axes (z, y, x).
        lungs: Its lungs.
        frame: Its frame.

    Returns:
        The measures; ``None`` if there is no lung.
    """
    if lungs.is_empty:
        return None
    direction = np.array(frame.direction).reshape(3, 3)
    width, depth, _ = (np.abs(direction) @ np.array(lungs.size_mm)).tolist()
    spine = find_spine(volume, lungs)
    if spine is None:
        return Anatomy(None, width, depth)
    x, y, z = (direction @ np.array(spine)).tolist()
    return Anatomy((x, y, z), width, depth)
