"""How volumes are displayed: axes in the radiological order, and CT windows.

Volumes are stored as published, some of them mirrored or rotated. In display order the patient's left is on the right
of an axial slice, the back is at the bottom, and the last slice is nearest to the head. Axes are only exchanged and
reversed; nothing is resampled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lung_nodule_ct.geometry.frame import Frame


Triple = tuple[float, float, float]
Section = tuple[float, float, float, float]


@dataclass(frozen=True)
class Orientation:
    """The order and direction in which the stored axes of a volume are displayed.

    The displayed axes are x towards the patient's left, y towards the back, and z towards the head (LPS).

    Attributes:
        axes: The stored axis (0 x, 1 y, 2 z) of each displayed axis x, y, z.
        flipped: Whether the stored axis is reversed, for each displayed axis.
        tilt_degrees: The largest angle between a stored axis and the patient's axis as which it is displayed; 0 for a
            scan that is stored along the patient's axes.

    Raises:
        ValueError: An axis is missing or occurs twice.
    """

    axes: tuple[int, int, int] = (0, 1, 2)
    flipped: tuple[bool, bool, bool] = (False, False, False)
    tilt_degrees: float = 0.0

    def __post_init__(self) -> None:
        if sorted(self.axes) != [0, 1, 2] or len(self.flipped) != 3:
            raise ValueError(f"expected each of the axes 0, 1, 2 once, got {self.axes} and {self.flipped}")

    @classmethod
    def from_frame(cls, frame: Frame) -> Orientation:
        """Return the orientation that displays each stored axis as the nearest axis of the patient."""
        matrix = frame.matrix / np.linalg.norm(frame.matrix, axis=0)
        first, second, third = max(permutations(range(3)), key=lambda axes: sum(abs(matrix[range(3), list(axes)])))
        cosines = [float(matrix[shown, stored]) for shown, stored in enumerate((first, second, third))]
        tilt = max(math.degrees(math.acos(min(1.0, abs(cosine)))) for cosine in cosines)
        return cls((first, second, third), (cosines[0] < 0, cosines[1] < 0, cosines[2] < 0), tilt)

    def volume(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Return a view of a stored volume in display order, axes (z, y, x)."""
        turned = stored.transpose([2 - axis for axis in reversed(self.axes)])
        return turned[tuple(slice(None, None, -1 if flip else 1) for flip in reversed(self.flipped))]

    def extent(self, per_axis: Sequence[float]) -> Triple:
        """Return values of the stored axes x, y, z (spacing, number of voxels) in display order."""
        x, y, z = (per_axis[axis] for axis in self.axes)
        return x, y, z

    def point(self, voxel: Sequence[float], shape_zyx: Sequence[int]) -> Triple:
        """Return a continuous voxel index x, y, z in display order.

        Args:
            voxel: The stored index x, y, z; integers are the centres of voxels.
            shape_zyx: Shape of the stored volume (z, y, x).
        """
        x, y, z = (
            shape_zyx[2 - axis] - 1 - voxel[axis] if flip else voxel[axis]
            for axis, flip in zip(self.axes, self.flipped, strict=True)
        )
        return x, y, z

    def box(self, box: Sequence[int], shape_zyx: Sequence[int]) -> tuple[int, int, int, int, int, int]:
        """Return a half-open box ``x0 y0 z0 x1 y1 z1`` in display order, also half-open."""
        ranges = []
        for axis, flip in zip(self.axes, self.flipped, strict=True):
            low, high, size = box[axis], box[axis + 3], shape_zyx[2 - axis]
            ranges.append((size - high, size - low) if flip else (low, high))
        (x0, x1), (y0, y1), (z0, z1) = ranges
        return x0, y0, z0, x1, y1, z1


@dataclass(frozen=True)
class Window:
    """A range of Hounsfield units that is displayed as greys (DICOM PS3.3 C.11.2.1.3.2, LINEAR_EXACT).

    Attributes:
        name: Name that radiologists use.
        center: Centre of the window in HU.
        width: Width of the window in HU, from black to white.

    Raises:
        ValueError: The width is not positive.
    """

    name: str
    center: float
    width: float

    def __post_init__(self) -> None:
        if not self.width > 0:
            raise ValueError(f"expected a window width above 0 HU, got {self.width}")

    @property
    def low(self) -> float:
        """The highest value that is black, in HU."""
        return self.center - self.width / 2

    @property
    def high(self) -> float:
        """The lowest value that is white, in HU."""
        return self.center + self.width / 2

    def to_grey(self, hu: NDArray[Any]) -> NDArray[np.uint8]:
        """Return greys 0 to 255, rounded to the nearest, of values in HU. Any shape."""
        scaled = (np.asarray(hu, np.float32) - self.low) * (255 / self.width)
        grey: NDArray[np.uint8] = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
        return grey


LUNG: Final = Window("lung", -600, 1500)
MEDIASTINAL: Final = Window("mediastinal", 40, 400)
PRESETS: Final = (LUNG, MEDIASTINAL)
"""The usual windows of chest CT."""

_MAX_LABEL: Final = 15
"""8-bit pixels up to this value are labels rather than greys."""


@dataclass(frozen=True)
class Plane:
    """A plane through a volume in display order. The numbers are axes: 0 x, 1 y, 2 z.

    Attributes:
        name: Name that radiologists use.
        normal: The axis that is normal to the plane.
        across: The axis of its columns.
        down: The axis of its rows.
    """

    name: str
    normal: int
    across: int
    down: int

    def cut(self, volume: NDArray[Any], index: int) -> NDArray[Any]:
        """Return the pixels of the plane; rows along ``down``, columns along ``across``."""
        pixels: NDArray[Any] = np.take(volume, index, axis=2 - self.normal)
        return pixels

    def section(
        self, center: Sequence[float], diameter_mm: float, index: int, steps: Sequence[float]
    ) -> Section | None:
        """Return the section of a sphere: x and y of its centre, width and height, in voxel edges; ``None`` if there is none.

        A slice counts as a slab: the section is the largest one within half a slice.

        Args:
            center: The centre of the sphere, in voxels x, y, z of the displayed volume.
            diameter_mm: Its diameter.
            index: The slice.
            steps: Size of the voxels in mm, x, y, z.
        """
        distance = max(0.0, abs(index - center[self.normal]) - 0.5) * steps[self.normal]
        squared = (diameter_mm / 2) ** 2 - distance**2
        if diameter_mm <= 0 or squared <= 0:
            return None
        width_mm = 2 * math.sqrt(squared)
        x, y = center[self.across] + 0.5, center[self.down] + 0.5
        return x, y, width_mm / steps[self.across], width_mm / steps[self.down]


PLANES: Final = (Plane("axial", 2, 0, 1), Plane("coronal", 1, 0, 2), Plane("sagittal", 0, 1, 2))


def stretch_labels(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int | None]:
    """Stretch the greys of a mask, which would all look black, to 255. Any shape.

    Returns:
        The pixels, and the highest label if they were stretched, else ``None``.
    """
    top = int(pixels.max(initial=0))
    if not 0 < top <= _MAX_LABEL:
        return pixels, None
    return pixels * np.uint8(255 // top), top
