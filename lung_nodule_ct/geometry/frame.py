"""The frame of a volume: from voxel coordinates (continuous index x, y, z at the centre of a voxel) to world (LPS mm) and back.

The conventions are those of ITK: ``world = origin + direction @ diag(spacing) @ voxel`` (ITK Software Guide, "Image Information"). The
full direction matrix is always used, so a scan that is stored mirrored or rotated needs no special treatment.

The array types name the dtype for the type checker, and axes and units for the reader.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike


#: A CT volume in Hounsfield units, axes (z, y, x).
CTVolume = Annotated[NDArray[np.int16], "z y x", "HU"]
#: A lung mask with the published labels, axes (z, y, x).
MaskVolume = Annotated[NDArray[np.uint8], "z y x", "label"]
#: A stack of 8-bit slices, axes (z, y, x).
GreyVolume = Annotated[NDArray[np.uint8], "z y x", "grey value"]
#: Points in world space, LPS millimetres, axes (point, xyz).
WorldPoints = Annotated[NDArray[np.float64], "n 3", "mm LPS"]
#: Points in voxel space, continuous index at the centre of a voxel, axes (point, xyz).
VoxelPoints = Annotated[NDArray[np.float64], "n 3", "voxel index xyz"]
#: Boxes in one of the forms of :class:`lung_nodule_ct.geometry.boxes.BoxForm`.
Boxes = Annotated[NDArray[np.float64] | NDArray[np.int64], "n 6"]

#: A world: LPS as in DICOM and ITK, or RAS as in NIfTI, MONAI and TorchIO. Both are in millimetres.
Space = Literal["LPS", "RAS"]

FRAME_COLUMNS: Final = ("origin", "spacing", "direction")
IDENTITY: Final = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Frame:
    """The frame of one volume: origin, spacing and direction.

    Attributes:
        origin: World position of the centre of voxel (0, 0, 0): x, y, z in LPS millimetres.
        spacing: Distance between voxel centres along the axes x, y, z in millimetres.
        direction: The 3 x 3 direction matrix, row by row. Its columns are the directions of the axes x, y, z, as in
            SimpleITK's ``GetDirection``.

    Raises:
        ValueError: A number is not finite, a spacing is not positive, or the matrix is singular.

    Example:
        >>> frame = Frame(origin=(-10.0, 0.0, 5.0), spacing=(0.5, 0.5, 1.25))
        >>> frame.to_world([2, 0, 4]).tolist()
        [-9.0, 0.0, 10.0]
        >>> frame.to_voxel([-9.0, 0.0, 10.0]).tolist()
        [2.0, 0.0, 4.0]
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
        with np.errstate(over="ignore", invalid="ignore"):  # numbers that overflow are not a rotation either
            return bool(np.allclose(self.matrix @ self.matrix.T, np.eye(3), atol=1e-4))

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Frame | None:
        """Return the frame of a row with the columns ``origin``, ``spacing`` and ``direction``, ``None`` if it lacks them.

        Raises:
            ValueError: Their values are not a frame.
        """
        if not set(FRAME_COLUMNS) <= set(row):
            return None
        return cls(*(tuple(row[name]) for name in FRAME_COLUMNS))

    def affine(self, space: Space = "LPS") -> NDArray[np.float64]:
        """Return the affine from voxel coordinates x, y, z to world coordinates, shape (4, 4).

        Args:
            space: The world: ``LPS`` as everywhere in this package, or ``RAS``, which MONAI, TorchIO and nibabel expect.

        Raises:
            ValueError: The space is unknown.

        Example:
            >>> Frame(origin=(-10.0, 4.0, 5.0), spacing=(0.5, 0.5, 1.25)).affine("RAS").tolist()
            [[-0.5, 0.0, 0.0, 10.0], [0.0, -0.5, 0.0, -4.0], [0.0, 0.0, 1.25, 5.0], [0.0, 0.0, 0.0, 1.0]]
        """
        if space not in get_args(Space):
            raise ValueError(f"space: expected {' or '.join(get_args(Space))}, got {space!r}")
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = self._to_world, self.origin
        if space == "RAS":
            affine[:2] = np.negative(affine[:2], where=affine[:2] != 0, out=np.zeros((2, 4)))  # without -0.0
        return affine

    def to_world(self, voxel: ArrayLike) -> WorldPoints:
        """Return the world coordinates of voxel coordinates, shape (3,) or (n, 3), both x, y, z."""
        world: WorldPoints = np.asarray(voxel, dtype=np.float64) @ self._to_world.T + np.array(self.origin)
        return world

    def to_voxel(self, world: ArrayLike) -> VoxelPoints:
        """Return the voxel coordinates of world coordinates, shape (3,) or (n, 3), both x, y, z.

        Equal to SimpleITK's ``TransformPhysicalPointToContinuousIndex``.
        """
        voxel: VoxelPoints = (np.asarray(world, dtype=np.float64) - np.array(self.origin)) @ self._to_voxel.T
        return voxel
