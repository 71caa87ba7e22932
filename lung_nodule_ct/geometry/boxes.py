"""3D boxes in voxels: conversion between the forms that detectors use, the box of a sphere, and clipping.

A box is described by two properties. The *form* is the order of the six numbers:

- ``xyzxyz``: low corner, high corner (``x0 y0 z0 x1 y1 z1``; used in this dataset, and MONAI's ``StandardMode``),
- ``zyxzyx``: the same in array order (``z0 y0 x0 z1 y1 x1``),
- ``cccwhd``: centre and size (``cx cy cz w h d``; MONAI's ``CenterSizeMode``).

The *bounds* define the high corner: ``half-open`` (the first voxel outside, as in a slice ``a[x0:x1]``) or ``inclusive`` (the last voxel
inside). ``cccwhd`` has a size in voxels and needs no bounds. Its centre is ``(x0 + x1) / 2`` of the half-open box, on the scale of voxel
edges, where voxel ``i`` extends from ``i`` to ``i + 1``. The continuous index of this centre (``center_voxel``) is half a voxel less.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from lung_nodule_ct.geometry.frame import Boxes

_SURFACE = 1e-6
"""Coordinates are published to about 1e-6 mm. A voxel whose centre lies on the surface of a sphere belongs to the sphere."""


class BoxForm(StrEnum):
    """The order of the six numbers of a 3D box."""

    XYZXYZ = "xyzxyz"
    ZYXZYX = "zyxzyx"
    CCCWHD = "cccwhd"


class BoxBounds(StrEnum):
    """The definition of the high corner of a box."""

    HALF_OPEN = "half-open"
    INCLUSIVE = "inclusive"


def convert_boxes(
    boxes: ArrayLike,
    source: BoxForm | str,
    target: BoxForm | str,
    *,
    source_bounds: BoxBounds | str = BoxBounds.HALF_OPEN,
    target_bounds: BoxBounds | str = BoxBounds.HALF_OPEN,
) -> Boxes:
    """Convert boxes to another form, without loss.

    Args:
        boxes: Shape (n, 6) or (6,), in voxels.
        source: The form of ``boxes``.
        target: The form to return.
        source_bounds: The high corner of ``boxes``; ignored for ``cccwhd``.
        target_bounds: The high corner of the result; ignored for ``cccwhd``.

    Returns:
        The same number of boxes; integers stay integers, except that ``cccwhd`` is float64.

    Raises:
        ValueError: A box does not have six numbers or contains no voxel, or the form or bounds are unknown.

    Example:
        >>> convert_boxes([10, 20, 30, 14, 24, 32], "xyzxyz", "zyxzyx").tolist()
        [30, 20, 10, 32, 24, 14]
        >>> convert_boxes([10, 20, 30, 14, 24, 32], "xyzxyz", "cccwhd").tolist()
        [12.0, 22.0, 31.0, 4.0, 4.0, 2.0]
    """
    for option, value, choices in (
        ("source", source, BoxForm),
        ("target", target, BoxForm),
        ("source_bounds", source_bounds, BoxBounds),
        ("target_bounds", target_bounds, BoxBounds),
    ):
        if value not in set(choices):
            raise ValueError(f"{option}: expected one of {', '.join(choices)}, got {value!r}")
    source, target = BoxForm(source), BoxForm(target)
    source_bounds, target_bounds = BoxBounds(source_bounds), BoxBounds(target_bounds)
    array = np.asarray(boxes)
    if array.shape[-1:] != (6,) or array.ndim not in (1, 2):
        raise ValueError(f"boxes: expected shape (n, 6) or (6,), got {array.shape}")
    if not np.issubdtype(array.dtype, np.integer):
        array = array.astype(np.float64)
    low, size = _to_low_and_size(array, source, source_bounds)
    if (size <= 0).any():
        raise ValueError(f"boxes: expected at least one voxel on each axis, got {array[(size <= 0).any(-1)]!r}")
    return _from_low_and_size(low, size, target, target_bounds)


def _to_low_and_size(array: Boxes, form: BoxForm, bounds: BoxBounds) -> tuple[Boxes, Boxes]:
    first, second = array[..., :3], array[..., 3:]
    if form is BoxForm.CCCWHD:
        return first - second / 2, second
    if form is BoxForm.ZYXZYX:
        first, second = first[..., ::-1], second[..., ::-1]
    return first, second - first + (bounds is BoxBounds.INCLUSIVE)


def _from_low_and_size(low: Boxes, size: Boxes, form: BoxForm, bounds: BoxBounds) -> Boxes:
    if form is BoxForm.CCCWHD:
        return np.concatenate([low + size / 2, size.astype(np.float64)], axis=-1)
    high = low + size - (bounds is BoxBounds.INCLUSIVE)
    if form is BoxForm.ZYXZYX:
        low, high = low[..., ::-1], high[..., ::-1]
    return np.concatenate([low, high], axis=-1)


@dataclass(frozen=True)
class SphereBox:
    """The voxels of a sphere as a half-open box, before and after it is clipped to a volume.

    Attributes:
        unclipped: ``(x0, y0, z0, x1, y1, z1)``, half-open, as in an infinite volume.
        clipped: The same box clipped to the volume; ``None`` if it contains no voxel.
    """

    unclipped: tuple[int, int, int, int, int, int]
    clipped: tuple[int, int, int, int, int, int] | None

    @property
    def between_voxels(self) -> bool:
        """Whether the sphere is too small to contain the centre of a voxel, in any volume."""
        return _is_empty(self.unclipped)


def sphere_box(
    center_voxel: Sequence[float], diameter_mm: float, spacing: Sequence[float], shape_zyx: Sequence[int]
) -> SphereBox:
    """Return the voxel box of a sphere: on each axis ``ceil(c - r / spacing)`` to ``floor(c + r / spacing) + 1``, half-open.

    Args:
        center_voxel: Centre as continuous index x, y, z.
        diameter_mm: Diameter in millimetres.
        spacing: Distance between voxel centres, x, y, z, in millimetres.
        shape_zyx: Shape of the volume (z, y, x).
    """
    radii = [diameter_mm / 2 / step for step in spacing]
    low = [math.ceil(c - r - _SURFACE) for c, r in zip(center_voxel, radii, strict=True)]
    high = [math.floor(c + r + _SURFACE) + 1 for c, r in zip(center_voxel, radii, strict=True)]
    unclipped = (low[0], low[1], low[2], high[0], high[1], high[2])
    return SphereBox(unclipped, clip_box(unclipped, shape_zyx))


def clip_box(
    box: tuple[int, int, int, int, int, int], shape_zyx: Sequence[int]
) -> tuple[int, int, int, int, int, int] | None:
    """Return a half-open box clipped to a volume of shape (z, y, x), or ``None`` if it contains no voxel of it."""
    size = tuple(reversed(shape_zyx))
    low = [max(0, value) for value in box[:3]]
    high = [min(limit, value) for value, limit in zip(box[3:], size, strict=True)]
    clipped = (low[0], low[1], low[2], high[0], high[1], high[2])
    return None if _is_empty(clipped) else clipped


def _is_empty(box: tuple[int, int, int, int, int, int]) -> bool:
    return any(high <= low for low, high in zip(box[:3], box[3:], strict=True))


def slice_range(low: int, high: int, numbers: Sequence[int]) -> tuple[int, int]:
    """Return the half-open indices in a stack of the slices ``low`` to ``high``, both inclusive.

    Args:
        low: The first number.
        high: The last number.
        numbers: The numbers of the slices of the stack, in order. Outside them one number is one index.

    Example:
        >>> slice_range(3, 7, [1, 3, 5, 7, 9])
        (1, 4)
    """
    first, last = numbers[0], numbers[-1]
    start = low - first if low < first else bisect_left(numbers, low) + max(0, low - last - 1)
    stop = high - first + 1 if high < first else bisect_right(numbers, high) + max(0, high - last)
    return start, stop
