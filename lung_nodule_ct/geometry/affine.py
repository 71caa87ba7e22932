"""Affine maps of the world: how a point of one scan is found in another scan of the same patient."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from lung_nodule_ct.geometry.frame import IDENTITY, Frame

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from lung_nodule_ct.geometry.frame import WorldPoints

_LEAST_DETERMINANT: Final = 1e-6
_ITK_HEAD: Final = "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"


@dataclass(frozen=True)
class Affine:
    """The map ``matrix @ point + offset`` of world points, LPS mm.

    Attributes:
        matrix: 3 x 3, row by row.
        offset: In mm.

    Raises:
        ValueError: A number is not finite, or the matrix is singular.

    Example:
        >>> double = Affine((2, 0, 0, 0, 2, 0, 0, 0, 2), (1, 0, 0))
        >>> double.map([[1, 2, 3]]).tolist(), double.inverse.map([3, 4, 6]).tolist()
        ([[3.0, 4.0, 6.0]], [1.0, 2.0, 3.0])
    """

    matrix: tuple[float, ...] = IDENTITY
    offset: tuple[float, ...] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        for name, length in (("matrix", 9), ("offset", 3)):
            values = tuple(float(value) for value in getattr(self, name))
            if len(values) != length or not all(map(math.isfinite, values)):
                raise ValueError(f"{name}: expected {length} finite numbers, got {values}")
            object.__setattr__(self, name, values)
        if abs(self.jacobian) < _LEAST_DETERMINANT:
            raise ValueError(f"matrix: expected an invertible matrix, got {self.matrix}")

    @classmethod
    def from_arrays(cls, matrix: ArrayLike, offset: ArrayLike) -> Affine:
        """Return the map with a matrix of shape (3, 3) and an offset of shape (3,)."""
        return cls(tuple(np.ravel(matrix).tolist()), tuple(np.ravel(offset).tolist()))

    @classmethod
    def from_itk(cls, text: str) -> Affine:
        """Return the map of an ITK transform file that :meth:`to_itk` wrote.

        Raises:
            ValueError: The text is another one, or the map is not valid.
        """
        found = re.fullmatch(re.escape(_ITK_HEAD) + r"Parameters: (.+)\nFixedParameters: 0 0 0\n", text)
        if found is None:
            raise ValueError(f"expected an affine transform around 0 0 0 of an ITK file, got {text[:200]!r}")
        parameters = tuple(map(float, found[1].split()))
        return cls(parameters[:9], parameters[9:])

    def to_itk(self) -> str:
        """Return the map as the text of an ITK transform file. The numbers are exact.

        Example:
            >>> print(Affine(offset=(1.5, 0, 0)).to_itk(), end="")
            #Insight Transform File V1.0
            #Transform 0
            Transform: AffineTransform_double_3_3
            Parameters: 1.0 0.0 0.0 0.0 1.0 0.0 0.0 0.0 1.0 1.5 0.0 0.0
            FixedParameters: 0 0 0
            >>> Affine.from_itk(Affine(offset=(1.5, 0, 0)).to_itk()).offset
            (1.5, 0.0, 0.0)
        """
        parameters = " ".join(map(repr, (*self.matrix, *self.offset)))
        return f"{_ITK_HEAD}Parameters: {parameters}\nFixedParameters: 0 0 0\n"

    @cached_property
    def array(self) -> NDArray[np.float64]:
        """The matrix, shape (3, 3)."""
        return np.array(self.matrix, np.float64).reshape(3, 3)

    @cached_property
    def jacobian(self) -> float:
        """The change of volumes: the determinant of the matrix."""
        return float(np.linalg.det(self.array))

    @cached_property
    def stretches(self) -> tuple[float, float, float]:
        """The changes of lengths along the three axes of the deformation, the largest first: the singular values."""
        largest, middle, smallest = np.linalg.svd(self.array, compute_uv=False).tolist()
        return largest, middle, smallest

    @cached_property
    def rotation_deg(self) -> float:
        """The angle of the rotation in the map."""
        left, _, right = np.linalg.svd(self.array)
        return math.degrees(math.acos(max(-1.0, min(1.0, (float(np.trace(left @ right)) - 1) / 2))))

    @cached_property
    def inverse(self) -> Affine:
        """The map back."""
        back = np.linalg.inv(self.array)
        return Affine.from_arrays(back, -back @ np.array(self.offset))

    def map(self, points: ArrayLike) -> WorldPoints:
        """Return where points of shape (3,) or (n, 3) go."""
        moved: WorldPoints = np.asarray(points, np.float64) @ self.array.T + np.array(self.offset)
        return moved

    def after(self, first: Affine) -> Affine:
        """Return the map that applies ``first`` and then this one."""
        return Affine.from_arrays(self.array @ first.array, self.map(first.offset))

    def move(self, frame: Frame) -> Frame:
        """Return the frame of the same voxels after the map. Its axes may be oblique.

        Example:
            >>> Affine(offset=(5, 0, 0)).move(Frame(spacing=(2.0, 2.0, 2.0))).origin
            (5.0, 0.0, 0.0)
        """
        axes = self.array @ (frame.matrix * np.array(frame.spacing))
        x, y, z = np.linalg.norm(axes, axis=0).tolist()
        ox, oy, oz = self.map(frame.origin).tolist()
        return Frame((ox, oy, oz), (x, y, z), tuple((axes / np.array([x, y, z])).ravel().tolist()))


def rotation(degrees: tuple[float, float, float]) -> NDArray[np.float64]:
    """Return the rotation around x, then y, then z as a matrix.

    Example:
        >>> rotation((0, 0, 90)).round().astype(int).tolist()
        [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    """
    total = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        first, second = [other for other in range(3) if other != axis]
        sign = -1.0 if axis == 1 else 1.0
        turn = np.eye(3)
        turn[[first, second], [first, second]] = np.cos(angle)
        turn[first, second], turn[second, first] = -sign * np.sin(angle), sign * np.sin(angle)
        total = turn @ total
    return total
