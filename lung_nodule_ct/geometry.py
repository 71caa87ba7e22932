"""Where voxels are in the patient: world (LPS millimetres) ↔ voxel (continuous index x, y, z at the voxel's centre).

The conventions are ITK's: ``world = origin + direction @ diag(spacing) @ voxel`` (ITK Software Guide, "Image
Information"). The full direction matrix counts, always; a scan that is stored mirrored or rotated is no special case.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from lung_nodule_ct.types import VoxelPoints, WorldPoints

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

# Coordinates are published to about 1e-6 mm: a voxel whose centre lies on a sphere's surface belongs to the sphere.
_SURFACE = 1e-6


@dataclass(frozen=True)
class Frame:
    """The frame of one volume.

    Attributes:
        origin: World position of the centre of voxel (0, 0, 0): x, y, z in LPS millimetres.
        spacing: Distance between voxel centres along the axes x, y, z in millimetres.
        direction: The 3 x 3 direction matrix, row by row. Its columns are the directions of the axes x, y, z (as
            SimpleITK's ``GetDirection``).

    Raises:
        ValueError: A number is not finite, a spacing is not positive, or the matrix is singular.
    """

    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    direction: tuple[float, ...] = IDENTITY

    def __post_init__(self) -> None:
        for name, length in (("origin", 3), ("spacing", 3), ("direction", 9)):
            values = tuple(float(value) for value in getattr(self, name))
            if len(values) != length or not all(map(math.isfinite, values)):
                raise ValueError(f"{name}: expected {length} finite numbers, got {values}")
            object.__setattr__(self, name, values)
        if min(self.spacing) <= 0:
            raise ValueError(f"spacing: expected positive millimetres, got {self.spacing}")
        with np.errstate(all="ignore"):
            if not 1e-9 <= abs(np.linalg.det(self.matrix)) < math.inf:
                raise ValueError(f"direction: expected an invertible matrix, got {self.direction}")
            if not np.isfinite(self._to_voxel).all():
                raise ValueError(f"spacing: too small to divide by, got {self.spacing}")

    @cached_property
    def matrix(self) -> NDArray[np.float64]:
        """The direction matrix, shape (3, 3)."""
        return np.array(self.direction, dtype=np.float64).reshape(3, 3)

    @cached_property
    def _to_world(self) -> NDArray[np.float64]:
        scaled: NDArray[np.float64] = self.matrix * np.array(self.spacing)
        return scaled

    @cached_property
    def _to_voxel(self) -> NDArray[np.float64]:
        inverse: NDArray[np.float64] = np.linalg.inv(self.matrix) / np.array(self.spacing)[:, None]
        return inverse

    @property
    def is_orthonormal(self) -> bool:
        """Whether the direction matrix is a rotation or a mirrored rotation, within 1e-4."""
        with np.errstate(over="ignore", invalid="ignore"):  # numbers that overflow are far from a rotation, too
            return bool(np.allclose(self.matrix @ self.matrix.T, np.eye(3), atol=1e-4))

    def to_world(self, voxel: ArrayLike) -> WorldPoints:
        """World coordinates of voxel coordinates, shape (3,) or (n, 3), both x, y, z."""
        world: WorldPoints = np.asarray(voxel, dtype=np.float64) @ self._to_world.T + np.array(self.origin)
        return world

    def to_voxel(self, world: ArrayLike) -> VoxelPoints:
        """Voxel coordinates of world coordinates, shape (3,) or (n, 3), both x, y, z.

        The same as SimpleITK's ``TransformPhysicalPointToContinuousIndex``.
        """
        voxel: VoxelPoints = (np.asarray(world, dtype=np.float64) - np.array(self.origin)) @ self._to_voxel.T
        return voxel


@dataclass(frozen=True)
class SphereBox:
    """The voxels of a sphere as a half-open box, before and after it is clipped to a volume.

    Attributes:
        whole: ``(x0, y0, z0, x1, y1, z1)``, half-open, as if the volume had no end.
        clipped: The same, clipped to the volume; ``None`` where no voxel is left.
    """

    whole: tuple[int, int, int, int, int, int]
    clipped: tuple[int, int, int, int, int, int] | None

    @property
    def between_voxels(self) -> bool:
        """Whether the sphere is too small to hold any voxel's centre, wherever the volume ends."""
        return _is_empty(self.whole)


def sphere_box(
    center_voxel: Sequence[float], diameter_mm: float, spacing: Sequence[float], shape_zyx: Sequence[int]
) -> SphereBox:
    """The voxel box of a sphere: on each axis ``ceil(c - r / spacing)`` to ``floor(c + r / spacing) + 1``, half-open.

    Args:
        center_voxel: Continuous index x, y, z.
        diameter_mm: Diameter in millimetres.
        spacing: x, y, z in millimetres.
        shape_zyx: Shape of the volume (z, y, x).
    """
    radii = [diameter_mm / 2 / step for step in spacing]
    low = [math.ceil(c - r - _SURFACE) for c, r in zip(center_voxel, radii, strict=True)]
    high = [math.floor(c + r + _SURFACE) + 1 for c, r in zip(center_voxel, radii, strict=True)]
    whole = (low[0], low[1], low[2], high[0], high[1], high[2])
    return SphereBox(whole, clip_box(whole, shape_zyx))


def clip_box(
    box: tuple[int, int, int, int, int, int], shape_zyx: Sequence[int]
) -> tuple[int, int, int, int, int, int] | None:
    """A half-open box clipped to a volume of shape (z, y, x); ``None`` where nothing is left of it."""
    size = tuple(reversed(shape_zyx))
    low = [max(0, value) for value in box[:3]]
    high = [min(limit, value) for value, limit in zip(box[3:], size, strict=True)]
    clipped = (low[0], low[1], low[2], high[0], high[1], high[2])
    return None if _is_empty(clipped) else clipped


def _is_empty(box: tuple[int, int, int, int, int, int]) -> bool:
    return any(high <= low for low, high in zip(box[:3], box[3:], strict=True))
