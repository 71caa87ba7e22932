"""One volume as the page holds it: geometry, nodules, a thumbnail, a close-up, and its slices as pictures."""

from __future__ import annotations

import math
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import numpy as np

from lung_nodule_ct.declaration.labels import PATHOLOGY_NAMES
from lung_nodule_ct.geometry.display import Orientation
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.preview.pixels import encode, encode_stack, shrink, stretch_labels
from lung_nodule_ct.preview.samples import grey, largest_nodule, nodules_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Executor

    from numpy.typing import NDArray

_THUMBNAIL_SIDE = 224
_CLOSE_UP_SIDE = 320
_MARGIN = 2  # slices on each side of a nodule that are always stored
_AXES = "xyz"


def describe_scan(
    row: Mapping[str, Any],
    stored: NDArray[Any],
    mask: NDArray[np.uint8] | None,
    close_up_mm: float | None,
    budget: int,
    pool: Executor,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return a volume as JSON values.

    Args:
        row: The columns of the volume without voxels.
        stored: The volume as it is stored, axes (z, y, x).
        mask: Its lung mask, the same shape.
        close_up_mm: Side of the close-up of the largest nodule in mm; ``None`` for no close-up.
        budget: Maximum size of the pictures of the slices in bytes.
        pool: Executor that encodes the pictures.

    Returns:
        The description, and the pictures of the slices, or ``None`` if they do not fit the budget.
    """
    frame = Frame.from_row(row)
    orientation = Orientation() if frame is None else Orientation.from_frame(frame)
    volume = orientation.volume(stored)
    top = None
    if volume.dtype == np.uint8:
        volume, top = stretch_labels(volume)
    records = nodules_of(row)
    nodules = [_nodule(nodule, orientation, stored.shape) for nodule in records]
    largest = largest_nodule(records)
    spacing = None if frame is None else orientation.extent(frame.spacing)
    z = len(volume) // 2 if largest is None else _nearest(nodules[largest]["center"][2], len(volume))
    described: dict[str, Any] = {
        "shape": list(reversed(volume.shape)),
        "spacing": spacing,
        "storedAxes": [_AXES[axis] for axis in orientation.axes],
        "flipped": orientation.flipped,
        "tilt": round(orientation.tilt_degrees, 1),
        "hounsfield": volume.dtype != np.uint8,
        "nodules": nodules,
        "largest": largest,
        "thumbnail": _still(volume, z, (0, 0, volume.shape[2], volume.shape[1]), _THUMBNAIL_SIDE),
        "closeUp": None,
        "slices": None,
    }
    if top is not None:
        described["stretchedFrom"] = top
    if close_up_mm is not None and spacing is not None:
        center = (volume.shape[2] / 2, volume.shape[1] / 2)
        if largest is not None:
            x, y, _ = nodules[largest]["center"]
            center = (x + 0.5, y + 0.5)
        described["closeUp"] = _still(volume, z, _square(center, close_up_mm, spacing), _CLOSE_UP_SIDE)
    mask = None if mask is None else orientation.volume(mask)
    stack = encode_stack(volume, mask, _slices_of_nodules(nodules, len(volume)), budget, pool)
    if stack is None:
        return described, None
    described["slices"] = stack.slices
    described["size"] = stack.size
    described["maskSize"] = stack.mask_size
    return described, {"pictures": [*map(as_text, stack.pictures)], "masks": [*map(as_text, stack.masks)]}


def as_text(data: bytes) -> str:
    """Return bytes as base64."""
    return b64encode(data).decode("ascii")


def _nodule(nodule: Mapping[str, Any], orientation: Orientation, shape: Sequence[int]) -> dict[str, Any]:
    box, label = nodule.get("box_voxel"), nodule.get("pathology")
    return {
        "center": orientation.point(nodule["center_voxel"], shape),
        "box": None if box is None else orientation.box(box, shape),
        "diameterMm": nodule.get("diameter_mm"),
        "diameterAsPublished": nodule.get("diameter"),
        "pathology": None if label is None else PATHOLOGY_NAMES[label],
        "storedCenter": nodule["center_voxel"],
        "storedBox": box,
        "world": nodule.get("center_world"),
    }


def _nearest(position: float, count: int) -> int:
    """Return the index of the slice nearest to a position."""
    return min(max(0, math.floor(position + 0.5)), count - 1)


def _slices_of_nodules(nodules: Sequence[Mapping[str, Any]], count: int) -> set[int]:
    """Return the slices through nodules, and a margin on each side."""
    slices = set()
    for nodule in nodules:
        if nodule["box"]:
            low, high = nodule["box"][2], nodule["box"][5]
        else:
            low = high = _nearest(nodule["center"][2], count)
        slices |= set(range(max(0, low - _MARGIN), min(count, high + _MARGIN)))
    return slices


def _square(center: tuple[float, float], side_mm: float, spacing: Sequence[float]) -> tuple[int, int, int, int]:
    """Return x0, y0, width, height in pixels of a square in mm, rounded to pixels; it may extend beyond the slice."""
    width, height = (max(1, round(side_mm / step)) for step in spacing[:2])
    return round(center[0] - width / 2), round(center[1] - height / 2), width, height


def _still(volume: NDArray[Any], z: int, view: tuple[int, int, int, int], side: int) -> dict[str, Any]:
    """Return a part of a slice as a picture, CT in the lung window; black outside the slice."""
    x0, y0, width, height = view
    inside = volume[z, max(0, y0) : max(0, y0 + height), max(0, x0) : max(0, x0 + width)]
    pixels = np.zeros((height, width), np.uint8)
    top, left = max(0, -y0), max(0, -x0)
    pixels[top : top + inside.shape[0], left : left + inside.shape[1]] = grey(inside)
    return {"picture": as_text(encode(shrink(pixels, side))), "z": z, "view": view}
