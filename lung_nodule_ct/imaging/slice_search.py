"""Find the slice of a scan that a picture shows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.spatial import cKDTree

from lung_nodule_ct.imaging.likeness import describe
from lung_nodule_ct.imaging.thumbnails import SIDE, SLICE_SIDE, Thumbnail, symmetric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_NEIGHBOURS: Final = 24
"""Number of slices of all scans whose scans are searched completely."""


@dataclass(frozen=True, slots=True)
class Found:
    """Where a picture was found.

    Attributes:
        scan: Index of the scan.
        z: Number of the slice in its thumbnails.
        symmetry: Number of the symmetry that turns the picture into the slice, in :data:`~lung_nodule_ct.imaging.thumbnails.SYMMETRIES`.
        correlation: Of the picture with the slice, at most 1.
    """

    scan: int
    z: int
    symmetry: int
    correlation: float


class SliceSearch:
    """Searches pictures in some scans.

    Args:
        scans: The slices of each scan (:func:`~lung_nodule_ct.imaging.thumbnails.slice_thumbnails`).
    """

    def __init__(self, scans: Sequence[Thumbnail]) -> None:
        self._scans = scans
        self._owners = np.repeat(np.arange(len(scans)), [len(scan.values) for scan in scans])

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(np.concatenate([describe(scan.values) for scan in self._scans]))

    def find(self, picture: Thumbnail, scans: Sequence[int]) -> Found | None:
        """Find a picture in given scans.

        Returns:
            The best slice; ``None`` without a scan.
        """
        turned = _turned(picture)
        found = [self._best(turned, scan) for scan in scans]
        return max(found, key=lambda each: each.correlation, default=None)

    def find_anywhere(self, picture: Thumbnail) -> Found | None:
        """Find a picture in the scans with the most similar slices, of all scans.

        Returns:
            The best slice; ``None`` without a scan.
        """
        if not len(self._owners):
            return None
        described = describe(small_picture(picture)[None])[0]
        _, nearest = self._tree.query(described, min(_NEIGHBOURS, len(self._owners)))
        return self.find(picture, np.unique(self._owners[np.atleast_1d(nearest)]).tolist())

    def correlation(self, picture: Thumbnail, scan: int, z: int, symmetry: int) -> float:
        """Return the correlation of a picture in one position with one slice, the nearest if there is no such slice."""
        slices = self._scans[scan].values
        return float(
            slices[min(max(z, 0), len(slices) - 1)].astype(np.float32).ravel()
            @ _turned(picture)[symmetry]
            / SLICE_SIDE**2
        )

    def _best(self, turned: NDArray[np.float32], scan: int) -> Found:
        rows = self._scans[scan].values.astype(np.float32).reshape(len(self._scans[scan].values), -1)
        correlations = rows @ turned.T / SLICE_SIDE**2
        z, symmetry = np.unravel_index(int(correlations.argmax()), correlations.shape)
        return Found(scan, int(z), int(symmetry), float(correlations[z, symmetry]))


def small_picture(picture: Thumbnail) -> NDArray[np.float32]:
    """Reduce the thumbnail of a picture to the size of the slices of scans, with mean 0 and standard deviation 1."""
    blocks = (
        picture.values[0].astype(np.float32).reshape(SLICE_SIDE, SIDE // SLICE_SIDE, SLICE_SIDE, SIDE // SLICE_SIDE)
    )
    small = blocks.mean(axis=(1, 3))
    reduced: NDArray[np.float32] = (small - small.mean()) / max(float(small.std()), 1e-3)
    return reduced


def _turned(picture: Thumbnail) -> NDArray[np.float32]:
    return np.stack([each.ravel() for each in symmetric(small_picture(picture))])
