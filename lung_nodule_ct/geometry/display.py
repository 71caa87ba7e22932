"""How a stored volume is turned so that every chest is seen alike: left on the right, back below, head at the last slice.

Volumes stand in a build as they were stored, some mirrored or turned. A picture of one is easier to read, and comparable with
another, in the radiological view. Only axes are exchanged and reversed here; nothing is resampled.

CT windows: Hounsfield units as 8-bit grey.
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


@dataclass(frozen=True)
class Orientation:
    """The stored axes as they are shown.

    The shown axes are x towards the patient's left, y towards the back, z towards the head (LPS).

    Attributes:
        axes: For each shown axis x, y, z the number of the stored axis (0 x, 1 y, 2 z) that runs along it.
        flipped: Whether that stored axis is shown backwards.
        tilt_degrees: The largest angle between a stored axis and the patient's axis that it is shown as; 0 where the scan
            is stored along the patient's axes.
    """

    axes: tuple[int, int, int] = (0, 1, 2)
    flipped: tuple[bool, bool, bool] = (False, False, False)
    tilt_degrees: float = 0.0

    def __post_init__(self) -> None:
        if sorted(self.axes) != [0, 1, 2] or len(self.flipped) != 3:
            raise ValueError(f"expected each of the axes 0, 1, 2 once, got {self.axes} and {self.flipped}")

    @classmethod
    def of(cls, frame: Frame) -> Orientation:
        """That which brings the stored axes nearest to the patient's."""
        matrix = frame.matrix / np.linalg.norm(frame.matrix, axis=0)
        first, second, third = max(permutations(range(3)), key=lambda axes: sum(abs(matrix[range(3), list(axes)])))
        along = [float(matrix[shown, stored]) for shown, stored in enumerate((first, second, third))]
        tilt = max(math.degrees(math.acos(min(1.0, abs(cosine)))) for cosine in along)
        return cls((first, second, third), (along[0] < 0, along[1] < 0, along[2] < 0), tilt)

    def volume(self, stored: NDArray[Any]) -> NDArray[Any]:
        """A view of a volume in the shown order, axes (z, y, x)."""
        turned = stored.transpose([2 - axis for axis in reversed(self.axes)])
        return turned[tuple(slice(None, None, -1 if flip else 1) for flip in reversed(self.flipped))]

    def extent(self, per_axis: Sequence[float]) -> Triple:
        """What belongs to the stored axes x, y, z (spacing, a count of voxels) for the shown ones."""
        x, y, z = (per_axis[axis] for axis in self.axes)
        return x, y, z

    def point(self, voxel: Sequence[float], shape_zyx: Sequence[int]) -> Triple:
        """A continuous stored index x, y, z as the shown one.

        Args:
            voxel: x, y, z, at voxels' centres.
            shape_zyx: The stored volume's shape.
        """
        x, y, z = (
            shape_zyx[2 - axis] - 1 - voxel[axis] if flip else voxel[axis]
            for axis, flip in zip(self.axes, self.flipped, strict=True)
        )
        return x, y, z

    def box(self, box: Sequence[int], shape_zyx: Sequence[int]) -> tuple[int, int, int, int, int, int]:
        """A half-open stored box ``x0 y0 z0 x1 y1 z1`` as the shown one, half-open too."""
        ranges = []
        for axis, flip in zip(self.axes, self.flipped, strict=True):
            low, high, size = box[axis], box[axis + 3], shape_zyx[2 - axis]
            ranges.append((size - high, size - low) if flip else (low, high))
        (x0, x1), (y0, y1), (z0, z1) = ranges
        return x0, y0, z0, x1, y1, z1


@dataclass(frozen=True)
class Window:
    """A range of Hounsfield units that a picture shows (DICOM PS3.3 C.11.2.1.3.2, LINEAR_EXACT).

    Attributes:
        name: What radiologists call it.
        center: HU in the middle of the greys.
        width: HU from black to white.
    """

    name: str
    center: float
    width: float

    def __post_init__(self) -> None:
        if not self.width > 0:
            raise ValueError(f"a window's width must be above 0 HU, got {self.width}")

    @property
    def low(self) -> float:
        """What is black, in HU."""
        return self.center - self.width / 2

    @property
    def high(self) -> float:
        """What is white, in HU."""
        return self.center + self.width / 2

    def to_grey(self, hu: NDArray[Any]) -> NDArray[np.uint8]:
        """Greys 0 to 255, rounded to the nearest, of voxels in HU; any shape."""
        scaled = (np.asarray(hu, np.float32) - self.low) * (255 / self.width)
        grey: NDArray[np.uint8] = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
        return grey


LUNG: Final = Window("lung", -600, 1500)
MEDIASTINAL: Final = Window("mediastinal", 40, 400)
PRESETS: Final = (LUNG, MEDIASTINAL)
"""The usual presets of chest CT."""
