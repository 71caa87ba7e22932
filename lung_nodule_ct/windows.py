"""CT windows: Hounsfield units as 8-bit grey."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
