"""Two images of the same lungs: a scan at two slice thicknesses, and a lung mask with a segmentation of our own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import ndimage

from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.imaging.lungs import block_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lung_nodule_ct.geometry.frame import MaskVolume
    from lung_nodule_ct.imaging.lungs import Lungs

COARSE_MM: Final = (5.0, 5.0, 2.5)
"""Size of the cells of a coarse scan: x, y, z. A scan of 512x512x160 voxels then takes 0.6 MB."""

_RANGE = (-1024, 1500)
_LEAST_CELLS = 500
_LEAST_AREA = 0.15
"""A slice is compared if it has this share of the lung of the largest slice."""
_LEAST_LABEL = 50


@dataclass(frozen=True, eq=False)
class CoarseScan:
    """A scan on a coarse grid, small enough to be kept until its other thickness is read.

    Attributes:
        values: HU, int16, axes (z, y, x).
        frame: The frame of the cells.
    """

    values: NDArray[np.int16]
    frame: Frame


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well two scans of the same lungs agree, at the same places in the world.

    Attributes:
        overlap: The share of the cells of the thick scan that are inside the thin one.
        correlation: Of the values, -1 to 1.
        slope: The standard deviation of the thick scan, divided by that of the thin one.
        offset_hu: The median difference, thick minus thin.
    """

    overlap: float
    correlation: float
    slope: float
    offset_hu: float


def coarse_scan(volume: NDArray[Any], frame: Frame) -> CoarseScan:
    """Average a scan over cells of about 5 x 5 x 2.5 mm.

    Args:
        volume: HU, axes (z, y, x).
        frame: Its frame.
    """
    step = [
        min(length, max(1, round(size / spacing)))
        for size, spacing, length in zip(COARSE_MM, frame.spacing, volume.shape[::-1], strict=True)
    ]
    values = np.clip(block_mean(volume, step), *_RANGE).astype(np.int16)
    origin = frame.to_world([(size - 1) / 2 for size in step]).tolist()
    spacing = [size * mm for size, mm in zip(step, frame.spacing, strict=True)]
    return CoarseScan(values, Frame(tuple(origin), tuple(spacing), frame.direction))


def compare_scans(thin: CoarseScan, thick: CoarseScan) -> Agreement:
    """Compare two scans of the same patient and date at the places of the thicker one.

    The values of the thin scan are averaged over the slice thickness of the other, then interpolated linearly.
    """
    slices = max(1, round(thick.frame.spacing[2] / thin.frame.spacing[2]))
    averaged = ndimage.uniform_filter1d(thin.values.astype(np.float32), slices, axis=0, mode="nearest")
    z, y, x = np.indices(thick.values.shape)
    voxels = thin.frame.to_voxel(thick.frame.to_world(np.stack([x, y, z], -1).reshape(-1, 3)))
    limits = np.array(thin.values.shape[::-1]) - 0.5
    inside = ((voxels >= -0.5) & (voxels <= limits)).all(axis=1)
    overlap = float(inside.mean())
    a = ndimage.map_coordinates(averaged, voxels[inside].T[::-1], order=1, mode="nearest", prefilter=False)
    b = thick.values.reshape(-1)[inside].astype(np.float32)
    usable = np.minimum(a, b) > _RANGE[0] + 0.5  # without padding
    a, b = a[usable], b[usable]
    if len(a) < _LEAST_CELLS or a.std() < 1 or b.std() < 1:
        return Agreement(overlap, 0.0, 0.0, 0.0)
    return Agreement(overlap, float(np.corrcoef(a, b)[0, 1]), float(b.std() / a.std()), float(np.median(b - a)))


@dataclass(frozen=True, slots=True)
class MaskAgreement:
    """A lung mask compared with a segmentation of our own, on its coarse grid.

    Attributes:
        dice: Dice coefficient of the two, 0 to 1.
        worst_slice: The lowest Dice coefficient of a slice that has lung.
        shift_mm: Distance between the centroids, x and y.
        smaller_share: Number of voxels of the smaller lung label divided by that of the larger one.
        sides: 1 if label 3 is at larger world x (the patient's left) than label 4 in all slices, -1 for the contrary, 0 if
            the labels change sides, ``None`` if no slice has both.
    """

    dice: float
    worst_slice: float
    shift_mm: float
    smaller_share: float
    sides: int | None


def compare_mask(mask: MaskVolume, lungs: Lungs, frame: Frame) -> MaskAgreement | None:
    """Compare a lung mask with the lungs that were found in the voxels.

    Args:
        mask: Labels, axes (z, y, x), of the shape of the scan.
        lungs: What was found.
        frame: The frame of the scan.

    Returns:
        The agreement; ``None`` if no lung was found.
    """
    if lungs.is_empty:
        return None
    given = block_mean((mask > 0).view(np.uint8), lungs.step) > 0.5
    right, left = (block_mean((mask == label).view(np.uint8), lungs.step) > 0.5 for label in (3, 4))
    both, sizes = (given & lungs.mask).sum(axis=(1, 2)), given.sum(axis=(1, 2)) + lungs.mask.sum(axis=(1, 2))
    used = sizes > _LEAST_AREA * sizes.max()
    shift = 0.0
    if given.any():
        centres = [np.array(ndimage.center_of_mass(each))[[2, 1]] for each in (given, lungs.mask)]
        cell = [size * mm for size, mm in zip(lungs.step[:2], lungs.spacing[:2], strict=True)]
        shift = float(np.linalg.norm((centres[0] - centres[1]) * cell))
    volumes = sorted((int(right.sum()), int(left.sum())))
    return MaskAgreement(
        dice=float(2 * both.sum() / max(int(sizes.sum()), 1)),
        worst_slice=float((2 * both[used] / sizes[used]).min()),
        shift_mm=shift,
        smaller_share=volumes[0] / max(volumes[1], 1),
        sides=_sides(right, left, float(frame.direction[0])),
    )


def _sides(right: NDArray[np.bool_], left: NDArray[np.bool_], towards_left: float) -> int | None:
    """On which side label 3 is, slice by slice."""
    signs = set()
    x = np.arange(right.shape[2])
    for three, four in zip(right.sum(axis=1), left.sum(axis=1), strict=True):
        if three.sum() > _LEAST_LABEL and four.sum() > _LEAST_LABEL:
            signs.add(np.sign((three * x).sum() / three.sum() - (four * x).sum() / four.sum()) * np.sign(towards_left))
    return None if not signs else int(signs.pop()) if len(signs) == 1 else 0
