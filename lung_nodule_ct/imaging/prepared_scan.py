"""A scan made ready for several registrations: its lungs and a coarse copy, each computed once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import ndimage

from lung_nodule_ct.imaging.alignment import Cells, average_cells, sample_cells
from lung_nodule_ct.imaging.lungs import find_lungs
from lung_nodule_ct.imaging.scan import Scan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lung_nodule_ct.geometry.frame import Frame
    from lung_nodule_ct.read.volumes import Volume

CELL_MM: Final = 3.0
"""Size of the cells in which the lungs as a whole are compared."""
FINE_MM: Final = 1.5
"""Size of the cells around a nodule."""
FINE_HU: Final = (-1000.0, -100.0)
"""Their range: vessels in lung decide. Ribs do not, since lung slides along them, and one rib looks like the next."""
AROUND_MM: Final = 9.0
"""Cells up to this distance from the lungs count: the chest wall has structure, and moves with the lungs."""


@dataclass(frozen=True, eq=False)
class PreparedScan:
    """A scan with its lungs on a coarse grid, for several registrations.

    Attributes:
        scan: The scan.
    """

    scan: Scan

    @cached_property
    def cells(self) -> Cells:
        """Cells of about 3 mm; those in and near the lungs count. None counts if no lung was found."""
        frame, _ = self.scan.grid
        cells = average_cells(self.voxels, frame, CELL_MM)
        return cells.masked(self.lungs_on(cells.frame, cells.values.shape, AROUND_MM))

    @cached_property
    def voxels(self) -> NDArray[Any]:
        """The voxels, decoded."""
        return np.asarray(self.scan.array[...])

    @cached_property
    def _lungs(self) -> Cells:
        frame, _ = self.scan.grid
        found = find_lungs(self.voxels, frame.spacing)
        if found.is_empty:
            found = find_lungs(self.voxels, frame.spacing, is_crop=True)
        origin = frame.to_world([(count - 1) / 2 for count in found.step]).tolist()
        x, y, z = (count * mm for count, mm in zip(found.step, frame.spacing, strict=True))
        coarse = replace(frame, origin=tuple(origin), spacing=(x, y, z))
        return Cells(found.mask.astype(np.float32), found.mask, coarse)

    @property
    def has_lungs(self) -> bool:
        """Whether lungs were found."""
        return bool(self._lungs.mask.any())

    def lungs_on(self, frame: Frame, shape: Sequence[int], around_mm: float) -> NDArray[np.bool_]:
        """The lungs and what is near them, on another grid."""
        found = sample_cells(self._lungs, frame, shape).mask
        if not found.any():
            return found
        distance = ndimage.distance_transform_edt(~found, sampling=frame.spacing[::-1])
        near: NDArray[np.bool_] = distance <= around_mm
        return near

    def neighbourhood(self, center_world: Sequence[float], radius_mm: float) -> Cells | None:
        """Cells of about 1.5 mm within a cube around a place, ``None`` if it is not in the scan. All cells count."""
        frame, shape = self.scan.grid
        reach = radius_mm / np.array(frame.spacing)
        middle = frame.to_voxel(center_world)
        low = np.maximum(0, np.floor(middle - reach)).astype(int)
        high = np.minimum(shape[::-1], np.ceil(middle + reach) + 1).astype(int)
        if (high - low < 2).any():
            return None
        part = self.voxels[low[2] : high[2], low[1] : high[1], low[0] : high[0]]
        origin = tuple(frame.to_world(low).tolist())
        return average_cells(part, replace(frame, origin=origin), FINE_MM, FINE_HU)


def prepare_scan(volume: Volume | PreparedScan) -> PreparedScan:
    """Return a scan with its lungs, for several registrations. Each function here takes it in place of the scan.

    Args:
        volume: A scan, or a volume with a frame.

    Raises:
        ValueError: The volume has no frame.

    Example:
        >>> from lung_nodule_ct.testing.phantoms import make_chest
        >>> chest = make_chest((24, 128, 160), (2.2, 2.2, 2.5))
        >>> prepared = prepare_scan(Scan(chest.volume, chest.frame))
        >>> prepared.has_lungs, prepare_scan(prepared) is prepared
        (True, True)
    """
    return volume if isinstance(volume, PreparedScan) else PreparedScan(Scan.from_volume(volume))
