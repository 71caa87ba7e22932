"""Find scans that show the same chest, whatever their field of view, their orientation and their part of the lungs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.spatial import cKDTree

from lung_nodule_ct.geometry.display import Orientation
from lung_nodule_ct.imaging.thumbnails import SLICE_SIDE, Thumbnail, slice_thumbnails

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lung_nodule_ct.geometry.frame import Frame

_MARGIN: Final = 0.05
"""Of the width and the depth of the lungs, on each side."""
_SAMPLED: Final = (0.3, 0.4, 0.5, 0.6, 0.7)
"""Where the slices are that are searched in another scan, from the first slice of the scan to its last."""


def chest_thumbnails(coarse: NDArray[Any], lungs: NDArray[np.bool_], frame: Frame) -> Thumbnail | None:
    """Reduce each axial slice of a scan, cut to the width and the depth of the lungs.

    Args:
        coarse: The scan on a coarse grid in HU, axes (z, y, x) as stored.
        lungs: The cells of the lungs.
        frame: The frame of the scan, of which only the directions count.

    Returns:
        Slices in radiological orientation, shape (z, 32, 32); ``None`` without lungs.
    """
    turn = Orientation.from_frame(frame)
    shown, mask = turn.volume(coarse), turn.volume(lungs)
    parts = [slice(None)]
    for axes in ((0, 2), (0, 1)):
        used = np.flatnonzero(mask.any(axis=axes))
        if not used.size:
            return None
        margin = int(_MARGIN * len(used))
        parts.append(slice(max(0, used[0] - margin), used[-1] + margin + 1))
    return slice_thumbnails(shown[tuple(parts)])


class ChestSearch:
    """Compares the chests of some scans.

    Args:
        scans: The slices of each scan (:func:`chest_thumbnails`).
    """

    def __init__(self, scans: Sequence[Thumbnail]) -> None:
        self._scans = [scan.values.astype(np.float32).reshape(len(scan.values), -1) for scan in scans]
        self._middles = cKDTree(np.stack([scan[len(scan) // 2] for scan in self._scans]))

    def nearest(self, scan: int, count: int) -> list[int]:
        """Return the scans whose middle slices are most similar to that of a scan, the most similar first.

        Args:
            scan: Index of the scan.
            count: How many scans.
        """
        _, found = self._middles.query(self._middles.data[scan], min(count + 1, len(self._scans)))
        return [other for other in np.atleast_1d(found).tolist() if other != scan][:count]

    def similarity(self, scan: int, other: int) -> float:
        """Return how well slices of a scan are found in another one: the median of their best correlations, at most 1."""
        values, others = self._scans[scan], self._scans[other]
        sampled = values[[round(share * (len(values) - 1)) for share in _SAMPLED]]
        return float(np.median((sampled @ others.T / SLICE_SIDE**2).max(axis=1)))
