"""Scans on other grids: resampled, cropped, padded, along the patient's axes, and back.

A grid is a frame and a shape. Every operation chooses a grid, and :func:`on_grid` brings the scan there. Where only the borders, the order
and the direction of the axes differ, voxels are copied and not interpolated, so that the way back is exact. World positions stay.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from lung_nodule_ct.geometry.display import Orientation
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.imaging.interpolation import Interpolation, interpolate
from lung_nodule_ct.imaging.scan import Scan
from lung_nodule_ct.imaging.segmentation import segment_lungs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lung_nodule_ct.read.volumes import Volume

AIR: Final = -1024.0
"""The value outside a volume in HU. Outside an 8-bit volume or a mask it is 0."""
MARGIN_MM: Final = 10.0


def on_grid(
    volume: Volume,
    frame: Frame,
    shape: Sequence[int],
    *,
    interpolation: Interpolation | str = Interpolation.LINEAR,
    outside: float | None = None,
) -> Scan:
    """Bring a scan to a grid, for example that of another scan, or back to the one it came from.

    Args:
        volume: A scan, or a volume with a frame.
        frame: Frame of the grid.
        shape: Its number of voxels along z, y, x.
        interpolation: Of the volume. A mask always gets the nearest label.
        outside: The value outside the volume; by default -1024, and 0 in 8-bit volumes.

    Returns:
        The scan there. The type of the voxels stays; integers are rounded. A copy if voxels are interpolated, a view if possible.

    Raises:
        ValueError: The volume has no frame, or the shape or the interpolation is unknown.

    Example:
        >>> scan = Scan(np.arange(24, dtype=np.int16).reshape(2, 3, 4), Frame())
        >>> part = crop(scan, (1, 1, 0, 3, 3, 2))
        >>> on_grid(part, *scan.grid).array[0].tolist()
        [[-1024, -1024, -1024, -1024], [-1024, 5, 6, -1024], [-1024, 9, 10, -1024]]
    """
    scan = Scan.from_volume(volume)
    depth, height, width = shape
    if min(depth, height, width) < 1:
        raise ValueError(f"shape: expected at least one voxel on each axis, got {tuple(shape)}")
    voxels = np.asarray(scan.array[...])
    fill = outside if outside is not None else 0.0 if voxels.dtype == np.uint8 else AIR
    source, _ = scan.grid
    origin = source.to_voxel(frame.to_world((0, 0, 0)))
    matrix = source.to_voxel(frame.to_world(np.eye(3))) - origin
    target = (depth, height, width)
    array = interpolate(voxels, matrix.T, origin, target, Interpolation(interpolation), fill)
    mask = scan.lung_mask
    if mask is not None:
        mask = interpolate(mask, matrix.T, origin, target, Interpolation.NEAREST, 0.0)
    return Scan(array, frame, mask, scan.nodules)


def resample(
    volume: Volume,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    *,
    interpolation: Interpolation | str = Interpolation.LINEAR,
) -> Scan:
    """Resample a scan to another spacing. Volume, frame, mask, centres and boxes move together.

    The grid starts at the same outer face, so that its first voxel is where its face is, and covers the volume to half a voxel.
    Values are interpolated, not averaged: average slices first where a much thicker spacing must keep the noise low.

    Args:
        volume: A scan, or a volume with a frame.
        spacing: In mm along the stored axes x, y, z.
        interpolation: Of the volume. A mask always gets the nearest label.

    Returns:
        The resampled scan; ``on_grid(resampled, *scan.grid)`` brings it back.

    Raises:
        ValueError: The volume has no frame, or a spacing is not positive.

    Example:
        >>> scan = Scan(np.zeros((8, 20, 20), np.int16), Frame(spacing=(0.5, 0.5, 2.5)))
        >>> finer = resample(scan, (1.0, 1.0, 1.0))
        >>> finer.shape, finer.frame.origin
        ((20, 10, 10), (0.25, 0.25, -0.75))
    """
    scan = Scan.from_volume(volume)
    frame, shape = scan.grid
    wanted = tuple(float(size) for size in spacing)
    if len(wanted) != 3 or not min(wanted) > 0:
        raise ValueError(f"spacing: expected three positive numbers in mm, got {wanted}")
    ratio = np.array(wanted) / frame.spacing
    origin = frame.to_world(0.5 * ratio - 0.5)
    size = np.maximum(1, np.round(np.array(shape[::-1]) / ratio)).astype(int).tolist()
    target = Frame(tuple(origin.tolist()), wanted, frame.direction)
    return on_grid(scan, target, size[::-1], interpolation=interpolation)


def crop(volume: Volume, box: Sequence[int], *, outside: float | None = None) -> Scan:
    """Cut a box out of a scan. A box that is larger than the volume pads it.

    Args:
        volume: A scan, or a volume with a frame.
        box: Half-open ``x0 y0 z0 x1 y1 z1`` in voxels; it may extend beyond the volume.
        outside: The value there; by default -1024, and 0 in 8-bit volumes.

    Raises:
        ValueError: The volume has no frame, or the box contains no voxel.

    Example:
        >>> scan = Scan(np.zeros((2, 3, 4), np.int16), Frame())
        >>> part = crop(scan, [1, 0, 0, 3, 3, 2])
        >>> part.shape, part.frame.origin
        ((2, 3, 2), (1.0, 0.0, 0.0))
    """
    scan = Scan.from_volume(volume)
    if len(box) != 6 or any(high <= low for low, high in zip(box[:3], box[3:], strict=True)):
        raise ValueError(f"box: expected x0 y0 z0 x1 y1 z1 with at least one voxel on each axis, got {tuple(box)}")
    frame, _ = scan.grid
    origin = tuple(frame.to_world(box[:3]).tolist())
    shape = [high - low for low, high in zip(box[:3], box[3:], strict=True)][::-1]
    return on_grid(scan, replace(frame, origin=origin), shape, outside=outside)


def pad(volume: Volume, shape: Sequence[int], *, outside: float | None = None) -> Scan:
    """Pad a scan on all sides, as equally as possible, to at least a shape.

    Args:
        volume: A scan, or a volume with a frame.
        shape: The least number of voxels along z, y, x. An axis that has more stays as it is.
        outside: The value outside the volume; by default -1024, and 0 in 8-bit volumes.

    Raises:
        ValueError: The volume has no frame.

    Example:
        >>> scan = Scan(np.zeros((2, 3, 4), np.int16), Frame())
        >>> padded = pad(scan, (4, 4, 4))
        >>> padded.shape, padded.frame.origin
        ((4, 4, 4), (0.0, 0.0, -1.0))
    """
    scan = Scan.from_volume(volume)
    missing = [max(0, least - length) for least, length in zip(shape, scan.shape, strict=True)][::-1]
    low = [-(count // 2) for count in missing]
    high = [start + count + length for start, count, length in zip(low, missing, scan.shape[::-1], strict=True)]
    return crop(scan, (*low, *high), outside=outside)


def crop_to_lungs(volume: Volume, *, margin_mm: float = MARGIN_MM) -> Scan:
    """Cut a scan to its lungs. Boxes of nodules are kept inside.

    Args:
        volume: A scan, or a volume with a frame. If it has no lung mask, the lungs are segmented, and the result has the mask.
        margin_mm: Distance around the lungs, within the volume.

    Raises:
        ValueError: The volume has no frame, or there are no lungs.

    Example:
        >>> from lung_nodule_ct.testing.phantoms import make_chest
        >>> chest = make_chest((24, 128, 160), (2.2, 2.2, 2.5), [])
        >>> cut = crop_to_lungs(Scan(chest.volume, chest.frame))
        >>> cut.shape[1] < 128, cut.shape[2] < 160
        (True, True)
    """
    scan = Scan.from_volume(volume)
    frame, shape = scan.grid
    if scan.lung_mask is None:
        scan = replace(scan, lung_mask=segment_lungs(np.asarray(scan.array[...]), frame))
    assert scan.lung_mask is not None  # noqa: S101 -- made above
    used = [np.flatnonzero(scan.lung_mask.any(axis=axes)) for axes in ((0, 1), (0, 2), (1, 2))]
    if not used[0].size:
        raise ValueError("the scan has no lungs, or none were found: give a box to crop() instead")
    margin = [round(margin_mm / mm) for mm in frame.spacing]
    boxes = [[*(int(at[0]) - more for at, more in zip(used, margin, strict=True))]]
    boxes[0] += [int(at[-1]) + 1 + more for at, more in zip(used, margin, strict=True)]
    boxes += [list(nodule["box_voxel"]) for nodule in scan.nodules if nodule["box_voxel"] is not None]
    low = np.maximum(0, np.min(boxes, axis=0)[:3])
    high = np.minimum(shape[::-1], np.max(boxes, axis=0)[3:])
    return crop(scan, (*low.tolist(), *high.tolist()))


def canonical(volume: Volume) -> Scan:
    """Return a scan along the patient's axes: x rises to the left, y to the back, z to the head (LPS). No voxel is interpolated.

    ``on_grid(result, *scan.grid)`` brings it back, exactly. A tilted scan stays tilted: each axis becomes the nearest one of the patient.

    Args:
        volume: A scan, or a volume with a frame.

    Raises:
        ValueError: The volume has no frame.

    Example:
        >>> turned = Frame(direction=(-1, 0, 0, 0, 1, 0, 0, 0, 1))
        >>> canonical(Scan(np.zeros((2, 3, 4), np.int16), turned)).frame.matrix.diagonal().tolist()
        [1.0, 1.0, 1.0]
    """
    scan = Scan.from_volume(volume)
    frame, shape = scan.grid
    turn = Orientation.from_frame(frame)
    corner = np.zeros(3)
    for axis, flipped in zip(turn.axes, turn.flipped, strict=True):
        corner[axis] = shape[2 - axis] - 1 if flipped else 0
    direction = frame.matrix[:, list(turn.axes)] * np.where(turn.flipped, -1, 1)
    x, y, z = turn.extent(shape[::-1])
    target = Frame(
        tuple(frame.to_world(corner).tolist()), turn.extent(frame.spacing), tuple(direction.ravel().tolist())
    )
    return on_grid(scan, target, (int(z), int(y), int(x)))
