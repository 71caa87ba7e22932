"""The key slice of a nodule, where it shows most, and the slices through it: P1 to Pn with P_k, as the paper has them.

The paper gives no rule for the key slice. Here it is the slice in which most dense tissue is within the nodule's outline, if the voxels
show a nodule at the annotated place (:func:`lung_nodule_ct.evidence`), and otherwise the slice of the annotated centre.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from lung_nodule_ct.imaging.judgement import NoduleVerdict
from lung_nodule_ct.imaging.lungs import LUNG_HU, TISSUE_HU
from lung_nodule_ct.imaging.scan import Scan
from lung_nodule_ct.imaging.scan_evidence import evidence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from lung_nodule_ct.imaging.evidence import PlaceEvidence
    from lung_nodule_ct.read.volumes import Volume

_SHOWN = (NoduleVerdict.PRESENT, NoduleVerdict.OTHER_SIZE, NoduleVerdict.OFF_CENTRE)
_OUTLINE = 1.15
"""The tissue within this multiple of the measured radius counts: the edge of a nodule is soft."""
_AS_MUCH = 0.98
"""Slices with this share of the most tissue show the nodule equally well. The one nearest to the centre is taken."""


class KeySliceBasis(StrEnum):
    """What a key slice was chosen by.

    Example:
        >>> [str(basis) for basis in KeySliceBasis]
        ['evidence', 'centre']
    """

    EVIDENCE = "evidence"
    CENTRE = "centre"


@dataclass(frozen=True, slots=True)
class KeySlice:
    """The slice that shows a nodule most.

    Attributes:
        index: Index on the stored axis z; ``None`` if no slice of the volume contains the nodule.
        basis: What it was chosen by; ``None`` without an index.
        reason: Why it was not chosen by the voxels, or why there is none; empty if it was.

    Raises:
        ValueError: An index has no basis, or there is a basis without an index.

    Example:
        >>> found = KeySlice(13, KeySliceBasis.CENTRE, reason="no lung was found around the nodule")
        >>> found.index, str(found.basis)
        (13, 'centre')
    """

    index: int | None
    basis: KeySliceBasis | None
    reason: str = ""

    def __post_init__(self) -> None:
        if (self.index is None) != (self.basis is None):
            raise ValueError(f"expected both index and basis or neither, got {self.index} and {self.basis}")


@dataclass(frozen=True, eq=False)
class SpatialSeries:
    """The slices through a nodule, in the order in which they are stored.

    Attributes:
        first: Index z of the first slice, P1.
        slices: The complete slices, axes (z, y, x); none if the nodule is outside the volume.
        key: The key slice. ``slices[key.index - first]`` is P_k.
        box: The nodule's box in voxels of the scan, half-open ``x0 y0 z0 x1 y1 z1``; ``None`` if it has none.

    Example:
        >>> series = SpatialSeries(12, np.zeros((4, 128, 160), np.int16), KeySlice(13, KeySliceBasis.CENTRE), None)
        >>> len(series), series.slices[series.key.index - series.first].shape
        (4, (128, 160))
    """

    first: int
    slices: NDArray[Any]
    key: KeySlice
    box: tuple[int, int, int, int, int, int] | None

    def __len__(self) -> int:
        return len(self.slices)


def key_slice(scan: Volume, nodule: Mapping[str, Any]) -> KeySlice:
    """Return the slice in which a nodule shows most.

    The evidence of the last scan is kept, so that several nodules of one scan cost little more than one: pass the same object.

    Args:
        scan: A scan, or a volume with a frame, in HU.
        nodule: An entry of the column ``nodules``: ``center_world`` in LPS mm and ``diameter_mm``.

    Returns:
        The slice, with what it was chosen by.

    Raises:
        ValueError: The volume has no frame.

    Example:
        >>> from lung_nodule_ct.testing.phantoms import PhantomNodule, make_chest
        >>> chest = make_chest((24, 128, 160), (2.2, 2.2, 2.5), [PhantomNodule((74.0, -4.0, 5.0), 18.0)])
        >>> found = key_slice(Scan(chest.volume, chest.frame), {"center_world": (74.0, -4.0, 5.0), "diameter_mm": 18.0})
        >>> str(found.basis), abs(found.index - 13.5) < 2
        ('evidence', True)
    """
    placed = Scan(scan.array, scan.frame, nodules=(nodule,))
    frame, (depth, _, _) = placed.grid
    (entry,) = placed.nodules
    if not -0.5 <= entry["center_voxel"][2] < depth - 0.5:
        z = entry["center_voxel"][2]
        return KeySlice(None, None, f"the centre is outside the volume: slice {z:.1f} of {depth}")
    centre = KeySlice(math.floor(entry["center_voxel"][2] + 0.5), KeySliceBasis.CENTRE)
    verdict = evidence(scan, {"diameter_mm": None, **nodule})
    if verdict.verdict not in _SHOWN or verdict.place is None or entry["box_voxel"] is None:
        return KeySlice(centre.index, centre.basis, f"{verdict.verdict}: {verdict.measured}")
    profile = _tissue(scan, entry, verdict.place, frame.spacing)
    first = entry["box_voxel"][2]
    equal = np.flatnonzero(profile >= _AS_MUCH * profile.max())
    nearest = equal[np.abs(equal + first - verdict.place.centre[2]).argmin()]
    return KeySlice(first + int(nearest), KeySliceBasis.EVIDENCE)


def spatial_series(scan: Volume, nodule: Mapping[str, Any]) -> SpatialSeries:
    """Return the slices through a nodule and its key slice.

    Args:
        scan: A scan, or a volume with a frame, in HU.
        nodule: An entry of the column ``nodules``: ``center_world`` in LPS mm and ``diameter_mm``. Without a diameter, the series is
            the slice of the centre.

    Raises:
        ValueError: The volume has no frame.

    Example:
        >>> from lung_nodule_ct import Frame
        >>> scan = Scan(np.zeros((10, 12, 12), np.int16), Frame())
        >>> series = spatial_series(scan, {"center_world": (5.0, 6.0, 4.0), "diameter_mm": 4.0})
        >>> series.first, len(series), series.key.index, str(series.key.basis)
        (2, 5, 4, 'centre')
    """
    key = key_slice(scan, nodule)
    box = Scan(scan.array, scan.frame, nodules=(nodule,)).nodules[0]["box_voxel"]
    if box is not None:
        first, stop = box[2], box[5]
    elif key.index is not None:
        first, stop = key.index, key.index + 1
    else:
        first = stop = 0
    return SpatialSeries(first, np.asarray(scan.array[first:stop]), key, box)


def _tissue(
    scan: Volume, nodule: Mapping[str, Any], place: PlaceEvidence, spacing: tuple[float, float, float]
) -> NDArray[np.float64]:
    """Dense tissue within the outline of a nodule, for each slice of its box: lung counts 0, soft tissue 1."""
    _, _, z0, _, _, z1 = nodule["box_voxel"]
    x, y, _ = place.centre
    radius = _OUTLINE * nodule["diameter_mm"] / 2 * min(1.0, place.size_ratio or 1.0)
    height, width = scan.shape[1:]
    rows, columns = (
        slice(max(0, math.floor(at - radius / mm)), min(length, math.ceil(at + radius / mm) + 1))
        for at, mm, length in ((y, spacing[1], height), (x, spacing[0], width))
    )
    part = np.asarray(scan.array[z0:z1, rows, columns])
    across = (np.arange(rows.start, rows.stop)[:, None] - y) * spacing[1]
    along = (np.arange(columns.start, columns.stop) - x) * spacing[0]
    dense = np.clip((part - LUNG_HU) / (TISSUE_HU - LUNG_HU), 0, 1)
    tissue = (dense * (across**2 + along**2 <= radius**2)).sum(axis=(1, 2))
    padded = np.pad(tissue, 1, "edge")
    smoothed: NDArray[np.float64] = (padded[:-2] + 2 * tissue + padded[2:]) / 4
    return smoothed
