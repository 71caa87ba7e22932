"""Lung masks at full resolution, with the published labels.

The procedure is that of the paper (Jian et al. 2024, "Data Preprocessing"): smoothing of each slice, a threshold by clustering, the
lungs kept. It starts from the coarse lungs of :mod:`lung_nodule_ct.imaging.lungs`. There the two lungs are separated, so that the
full resolution is needed only near their border. Vessels, holes and small dents are then filled slice by slice, for each lung alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import ndimage

from lung_nodule_ct.geometry.display import Orientation
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.imaging.lungs import find_lungs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lung_nodule_ct.geometry.frame import MaskVolume
    from lung_nodule_ct.imaging.lungs import Lungs

RIGHT: Final = 3
LEFT: Final = 4
BOTH: Final = 7
"""The published labels: the patient's right lung, the left one, and where filling makes them overlap."""

CLOSING_MM: Final = 3.0
"""Radius of the closing that fills vessels and dents. With 0, 2, 3, 4 and 6 mm the mean Dice coefficient to
the masks of seven real scans was 0.9922, 0.9931, 0.9933, 0.9928 and 0.9914 (docs/spacetime.md)."""

_NEAR_MM = 3.0
"""How far from the coarse lungs a voxel of lung may be."""
_AIRWAY_MM2 = (20.0, 700.0)
_AIRWAY_DARKNESS = 0.05
"""A region of a slice is an airway if its area is between these and its mean is this much below that of lung, where the difference of
lung and tissue is 1."""
_SEED_MM = (2.0, 3.5, 5.0, 7.0, 10.0, 14.0)
"""Depths at which lungs that touch are tried to be two."""
_APART_MM = 50.0
"""The least distance of the centres of two lungs, from side to side. That of real lungs is about 150 mm."""
_ONE_LUNG_MM = 190.0
"""One lung is not wider than this: a wider region that does not fall apart is cut where it is thinnest."""
_LEAST_LUNG = 0.15
"""A part is one of two lungs if it has this share of both."""


def segment_lungs(
    volume: NDArray[Any], frame: Frame | Sequence[float], *, closing_mm: float = CLOSING_MM
) -> MaskVolume:
    """Segment the lungs of a scan: 3 is the patient's right lung, 4 the left one, 7 where filling makes both overlap, 0 the rest.

    Args:
        volume: Axes (z, y, x), in HU or in other values in which air is lower than tissue.
        frame: Its frame, or the size of a voxel in mm: x, y, z. Without a frame, x is taken to rise towards the patient's left, y
            towards the back.
        closing_mm: Radius of the closing, in the slice, that fills vessels and dents. 0 fills holes only.

    Returns:
        The labels, uint8, the shape of the volume; all 0 if no lung was found. A single lung, as in a crop, has the label of the
        side of the volume where it is.

    Raises:
        ValueError: The volume does not have three axes, or the radius is negative.

    Example:
        >>> volume = np.full((8, 64, 64), 40, np.int16)
        >>> volume[:, 16:48, 8:28] = volume[:, 16:48, 36:56] = -850
        >>> mask = segment_lungs(volume, (4.0, 4.0, 2.5))
        >>> int(mask[4, 30, 20]), int(mask[4, 30, 45]), int(mask[4, 30, 32])
        (3, 4, 0)
    """
    if volume.ndim != 3:
        raise ValueError(f"volume: expected the axes z, y, x, got the shape {volume.shape}")
    if closing_mm < 0:
        raise ValueError(f"closing_mm: expected 0 or more, got {closing_mm}")
    if not isinstance(frame, Frame):
        x, y, z = (float(size) for size in frame)
        frame = Frame(spacing=(x, y, z))
    mask = np.zeros(volume.shape, np.uint8)
    turn = Orientation.from_frame(frame)
    shown, out = turn.volume(volume), turn.volume(mask)  # axial slices, the patient's right at small x
    spacing = turn.extent(frame.spacing)
    lungs = find_lungs(shown, spacing)
    if lungs.is_empty or not lungs.high > lungs.low:
        return mask
    sides = _near(_sides(lungs), lungs)
    rows, columns = (_used_range(sides, axis, lungs.step[2 - axis], shown.shape[axis]) for axis in (1, 2))
    z, y, x = (
        np.minimum(np.arange(part.start, part.stop) // step, count - 1)
        for part, step, count in zip((slice(0, len(shown)), rows, columns), lungs.step[::-1], sides.shape, strict=True)
    )
    threshold = (lungs.low + lungs.high) / 2
    for index, coarse in enumerate(z.tolist()):
        if sides[coarse].any():
            near = sides[coarse][np.ix_(y, x)]
            plane = smooth(shown[index, rows, columns], lungs.low, lungs.high)
            air = _without_airways((plane < threshold) & (near > 0), plane, lungs, spacing[0] * spacing[1])
            out[index, rows, columns] = _labels(near, air, closing_mm, spacing[:2])
    return mask


def smooth(plane: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    """Smooth a slice by the binomial kernel 1 4 6 4 1 on both axes: a Gaussian of 1 pixel. Values far from lung and tissue are cut off.

    Args:
        plane: Axes (y, x).
        low: Mean of lung.
        high: Mean of soft tissue.
    """
    span = high - low
    smoothed: NDArray[np.float32] = np.clip(plane, low - span / 4, high + span / 2).astype(np.float32)
    for _ in range(4):  # each axis twice
        padded = np.pad(smoothed, ((1, 1), (0, 0)), "edge")
        smoothed = ((padded[:-2] + padded[2:]) * np.float32(0.25) + padded[1:-1] * np.float32(0.5)).T
    return smoothed


def _sides(lungs: Lungs) -> NDArray[np.uint8]:
    """The label of every cell of the coarse lungs, of a volume in display order."""
    cell = [step * mm for step, mm in zip(lungs.step, lungs.spacing, strict=True)][::-1]
    around = ndimage.find_objects(lungs.mask.view(np.uint8))[0]
    z, y, x = (slice(max(0, part.start - 1), part.stop + 1) for part in around)
    mask = lungs.mask[z, y, x]
    sides = np.zeros(lungs.mask.shape, np.uint8)
    parts = _two_parts(mask, cell[2])
    if parts is None:
        depth = ndimage.distance_transform_edt(mask, sampling=cell)
        cores = (_two_parts(depth > least, cell[2]) for least in _SEED_MM)
        parts = next((core for core in cores if core is not None), None)
    sides[z, y, x] = _undivided(mask, x.start, lungs) if parts is None else _grown(parts, mask, cell)
    return sides


def _undivided(mask: NDArray[np.bool_], start: int, lungs: Lungs) -> NDArray[np.uint8]:
    """The labels of a region that does not fall apart: of one lung, or of two that are cut in a sagittal plane.

    Args:
        mask: The part of the coarse mask around the lungs.
        start: Where it starts on the axis x.
        lungs: The coarse lungs.
    """
    columns = mask.sum(axis=(0, 1)).astype(np.float64)
    third = len(columns) // 3
    if len(columns) * lungs.step[0] * lungs.spacing[0] > _ONE_LUNG_MM:
        cut = third + int(ndimage.uniform_filter1d(columns, 5)[third:-third].argmin())
    else:
        centre = start + float(np.average(np.arange(len(columns)), weights=columns))
        cut = len(columns) if centre < lungs.mask.shape[2] / 2 else 0
    return (mask * np.where(np.arange(len(columns)) < cut, RIGHT, LEFT)).astype(np.uint8)


def _two_parts(core: NDArray[np.bool_], cell_mm: float) -> NDArray[np.uint8] | None:
    """The large parts of the lungs with their labels, ``None`` if they are not on two sides."""
    labels, count = ndimage.label(core)
    if count < 2:
        return None
    size = np.bincount(labels.ravel(), minlength=count + 1)
    size[0] = 0
    large = np.flatnonzero(size >= _LEAST_LUNG * size.sum())
    centre = np.array([place[2] for place in ndimage.center_of_mass(core, labels, large)])
    if len(large) < 2 or np.ptp(centre) * cell_mm < _APART_MM:
        return None
    sides = np.zeros(count + 1, np.uint8)
    sides[large] = np.where(centre < (centre.min() + centre.max()) / 2, RIGHT, LEFT)
    found: NDArray[np.uint8] = sides[labels]
    return found


def _grown(parts: NDArray[np.uint8], mask: NDArray[np.bool_], cell: Sequence[float]) -> NDArray[np.uint8]:
    """The labels of all cells: those of the nearest part."""
    if ((parts > 0) == mask).all():
        return parts
    z, y, x = ndimage.distance_transform_edt(parts == 0, sampling=cell, return_distances=False, return_indices=True)
    return np.where(mask, parts[z, y, x], 0).astype(np.uint8)


def _near(sides: NDArray[np.uint8], lungs: Lungs) -> NDArray[np.uint8]:
    """The cells of the lungs and those near them, with the labels."""
    rounds = [round(_NEAR_MM / (step * mm)) for step, mm in zip(lungs.step, lungs.spacing, strict=True)][::-1]
    near = sides
    for number in range(max(1, *rounds)):
        size = [3 if number < count else 1 for count in rounds]
        grown = [ndimage.maximum_filter((near == label).view(np.uint8), size) > 0 for label in (RIGHT, LEFT)]
        near = np.where(near > 0, near, np.where(grown[0], RIGHT, np.where(grown[1], LEFT, 0))).astype(np.uint8)
    return near


def _without_airways(
    air: NDArray[np.bool_], plane: NDArray[np.float32], lungs: Lungs, pixel_mm2: float
) -> NDArray[np.bool_]:
    """The air of a slice without the trachea and the main bronchi: small regions that are darker than lung."""
    labels, count = ndimage.label(air)
    core = np.where(_dilated(~air, 2), 0, labels).ravel()  # without the soft edge
    area = np.bincount(labels.ravel(), minlength=count + 1) * pixel_mm2
    size = np.bincount(core, minlength=count + 1)
    mean = np.bincount(core, weights=plane.ravel(), minlength=count + 1) / np.maximum(size, 1)
    darkness = np.where(size > 0, lungs.low - mean, 0) / (lungs.high - lungs.low)
    is_lung = (area > _AIRWAY_MM2[1]) | (area < _AIRWAY_MM2[0]) | (darkness < _AIRWAY_DARKNESS)
    is_lung[0] = False
    kept: NDArray[np.bool_] = is_lung[labels]
    return kept


def _labels(
    near: NDArray[np.uint8], air: NDArray[np.bool_], closing_mm: float, pixel_mm: Sequence[float]
) -> NDArray[np.uint8]:
    """The labels of one slice."""
    right, left = (_filled(air & (near == label), closing_mm, pixel_mm) for label in (RIGHT, LEFT))
    return right * np.uint8(RIGHT) + left * np.uint8(LEFT)  # 7 in both


def _filled(mask: NDArray[np.bool_], closing_mm: float, pixel_mm: Sequence[float]) -> NDArray[np.bool_]:
    """One lung of a slice, closed and without holes."""
    used = ndimage.find_objects(mask.view(np.uint8), 1)[0] if mask.any() else None
    if used is None:
        return mask
    steps = round(closing_mm / math.sqrt(pixel_mm[0] * pixel_mm[1]))
    padded = np.pad(mask[used], steps + 1)
    closed = ~_dilated(~_dilated(padded, steps), steps)
    labels, _ = ndimage.label(~closed)
    filled = np.zeros_like(mask)
    filled[used] = (labels != labels[0, 0])[steps + 1 : -steps - 1, steps + 1 : -steps - 1]
    return filled


def _dilated(mask: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    """A mask grown by an octagon: crosses, and squares in two of five steps."""
    for step in range(steps):
        grown = mask.copy()
        grown[1:] |= mask[:-1]
        grown[:-1] |= mask[1:]
        source = grown.copy() if step % 5 in (1, 3) else mask
        grown[:, 1:] |= source[:, :-1]
        grown[:, :-1] |= source[:, 1:]
        mask = grown
    return mask


def _used_range(sides: NDArray[np.uint8], axis: int, step: int, length: int) -> slice:
    """The voxels on an axis that belong to cells with a label. What is left at the end of the volume belongs to the last cell."""
    used = np.flatnonzero(sides.any(axis=tuple(other for other in range(3) if other != axis)))
    last = length if used[-1] == sides.shape[axis] - 1 else (int(used[-1]) + 1) * step
    return slice(int(used[0]) * step, last)
