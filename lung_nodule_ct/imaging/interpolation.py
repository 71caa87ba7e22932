"""Values of a volume at the voxels of another grid, as SimpleITK gives them.

Three ways, from the fastest to the most general: a copy, where the voxels of both grids coincide; one axis after the other, where their
axes are parallel; SimpleITK otherwise and for B-splines. The first two take their memory from the result only.
"""

from __future__ import annotations

import itertools
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lung_nodule_ct.system.imports import optional_imports

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_EXACT: Final = 1e-4
"""Voxels coincide if they are this near, in voxels: headers are written with six digits."""

_MARGIN: Final = 2
"""Voxels around the part of a volume that SimpleITK is given."""

_Shape = tuple[int, int, int]


class Interpolation(StrEnum):
    """How values between voxels are found.

    Example:
        >>> [str(way) for way in Interpolation]
        ['linear', 'nearest', 'b-spline']
    """

    LINEAR = "linear"
    NEAREST = "nearest"
    B_SPLINE = "b-spline"


def interpolate(
    volume: NDArray[Any],
    matrix: NDArray[np.float64],
    offset: NDArray[np.float64],
    shape: _Shape,
    interpolation: Interpolation,
    outside: float,
) -> NDArray[Any]:
    """Return the values of a volume at the voxels of a grid.

    Args:
        volume: Axes (z, y, x).
        matrix: Voxel x, y, z of the volume per voxel x, y, z of the grid, shape (3, 3).
        offset: Where voxel 0 of the grid is in the volume: x, y, z.
        shape: Of the grid: z, y, x.
        interpolation: How.
        outside: The value more than half a voxel outside the volume.

    Returns:
        An array of the type of the volume; integers are rounded.
    """
    axes = [int(axis) for axis in np.abs(matrix).argmax(axis=0)]
    steps = matrix[axes, range(3)]
    rest = matrix.copy()
    rest[axes, range(3)] = 0
    size = np.array(shape[::-1])
    if sorted(axes) != [0, 1, 2] or (np.abs(rest) * size).max() > _EXACT:
        return _by_simpleitk(volume, matrix, offset, shape, interpolation, outside)
    turned = volume.transpose([2 - axis for axis in reversed(axes)])
    starts = offset[axes]
    whole = np.rint(starts)
    signs = np.sign(steps)
    if (
        max(np.abs(starts - whole).max(), np.abs(starts + steps * (size - 1) - (whole + signs * (size - 1))).max())
        < _EXACT
    ):
        return _copied(turned, whole.astype(int)[::-1].tolist(), signs.astype(int)[::-1].tolist(), shape, outside)
    if interpolation is Interpolation.B_SPLINE:
        return _by_simpleitk(volume, matrix, offset, shape, interpolation, outside)
    positions = [
        start + step * np.arange(count) for start, step, count in zip(starts[::-1], steps[::-1], shape, strict=True)
    ]
    return _by_axes(turned, positions, interpolation, outside)


def _copied(
    volume: NDArray[Any], starts: Sequence[int], signs: Sequence[int], shape: _Shape, outside: float
) -> NDArray[Any]:
    """The voxels of a grid that coincide with those of the volume: a view if the grid is within it."""
    source, target = [], []
    for start, sign, count, length in zip(starts, signs, shape, volume.shape, strict=True):
        low, high = (start, start + count) if sign > 0 else (start - count + 1, start + 1)
        first, last = min(max(low, 0), length), max(min(high, length), 0)
        last = max(first, last)
        source.append(slice(first, last))
        skipped = first - low if sign > 0 else high - last
        target.append(slice(skipped, skipped + last - first))
    part = volume[tuple(source)][tuple(slice(None, None, sign) for sign in signs)]
    if part.shape == shape:
        return part
    filled = np.full(shape, outside, volume.dtype)
    if part.size:
        filled[tuple(target)] = part
    return filled


def _by_axes(
    volume: NDArray[Any], positions: Sequence[NDArray[np.float64]], interpolation: Interpolation, outside: float
) -> NDArray[Any]:
    """Interpolate one axis after the other, slice by slice of the result."""
    known = [
        (at >= -0.5 - _EXACT) & (at <= length - 0.5 + _EXACT)
        for at, length in zip(positions, volume.shape, strict=True)
    ]
    clipped = [np.clip(at, 0, length - 1) for at, length in zip(positions, volume.shape, strict=True)]
    result = np.full([len(at) for at in positions], outside, volume.dtype)
    if interpolation is Interpolation.NEAREST:
        z, y, x = (np.floor(at + 0.5).astype(np.intp) for at in clipped)
        for index in np.flatnonzero(known[0]):
            result[index] = volume[z[index]][np.ix_(y, x)]
    else:
        before, after, share = (list(each) for each in zip(*map(_neighbours, clipped), strict=True))
        for index in np.flatnonzero(known[0]):
            plane = volume[before[0][index]].astype(np.float32)
            if share[0][index]:
                plane += (volume[after[0][index]] - plane) * share[0][index]
            for axis in (0, 1):
                plane = _along(plane, axis, before[axis + 1], after[axis + 1], share[axis + 1])
            result[index] = plane if volume.dtype.kind == "f" else np.rint(plane)
    result[:, ~known[1]] = outside
    result[:, :, ~known[2]] = outside
    return result


def _neighbours(at: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """The voxels before and after each position, and the share of the second one."""
    before = np.floor(at).astype(np.intp)
    return before, np.ceil(at).astype(np.intp), (at - before).astype(np.float32)


def _along(
    plane: NDArray[np.float32], axis: int, before: NDArray[np.intp], after: NDArray[np.intp], share: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Interpolate a slice on one axis."""
    first = plane.take(before, axis)
    if share.any():
        first += (plane.take(after, axis) - first) * (share if axis else share[:, None])
    return first


def _by_simpleitk(
    volume: NDArray[Any],
    matrix: NDArray[np.float64],
    offset: NDArray[np.float64],
    shape: _Shape,
    interpolation: Interpolation,
    outside: float,
) -> NDArray[Any]:
    """Interpolate in the voxels of the volume, so that frames that SimpleITK refuses do no harm."""
    with optional_imports("imaging", "interpolation of turned grids and by B-splines"):
        import SimpleITK  # noqa: PLC0415 -- slow to import, and not needed for most grids

    sitk: Any = SimpleITK
    interpolators = {
        Interpolation.LINEAR: sitk.sitkLinear,
        Interpolation.NEAREST: sitk.sitkNearestNeighbor,
        Interpolation.B_SPLINE: sitk.sitkBSpline,
    }
    is_nearest = interpolation is Interpolation.NEAREST
    if interpolation is not Interpolation.B_SPLINE:  # whose coefficients depend on all voxels
        volume, offset = _needed(volume, matrix, offset, shape)
    image = sitk.GetImageFromArray(volume if is_nearest else volume.astype(np.float32, copy=False))
    transform = sitk.AffineTransform(matrix.ravel().tolist(), offset.tolist())
    depth, height, width = shape
    result = sitk.Resample(
        image,
        (width, height, depth),
        transform,
        interpolators[interpolation],
        (0.0,) * 3,
        (1.0,) * 3,
        (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        outside,
    )
    found: NDArray[Any] = sitk.GetArrayFromImage(result)
    if volume.dtype.kind == "f" or is_nearest:
        return found.astype(volume.dtype, copy=False)
    limits = np.iinfo(volume.dtype)
    rounded = np.clip(np.rint(found), limits.min, limits.max)  # a B-spline overshoots
    return np.asarray(rounded, volume.dtype)


def _needed(
    volume: NDArray[Any], matrix: NDArray[np.float64], offset: NDArray[np.float64], shape: _Shape
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The part of a volume that contributes to a grid, with a margin, and where voxel 0 of the grid is in it."""
    corners = np.array(list(itertools.product(*((0, count - 1) for count in shape[::-1])))) @ matrix.T + offset
    size = np.array(volume.shape[::-1])
    low = np.clip(np.floor(corners.min(axis=0)).astype(int) - _MARGIN, 0, size - 1)
    high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1 + _MARGIN, low + 1, size)
    part = volume[tuple(slice(first, last) for first, last in zip(low[::-1], high[::-1], strict=True))]
    return part, offset - low
