"""A volume of the build as the page holds it: geometry, nodules, a thumbnail, a close-up, and its stack of slices."""

from __future__ import annotations

import math
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import numpy as np

from lung_nodule_ct.declaration.labels import PATHOLOGY_NAMES
from lung_nodule_ct.geometry.display import LUNG, Orientation
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.preview.pixels import encode, encode_stack, shrink

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Executor

    from numpy.typing import NDArray

    from lung_nodule_ct.preview.sampling import Example

_THUMBNAIL_SIDE = 224
_CLOSE_UP_SIDE = 320
_AROUND = 2  # slices that are always carried on either side of a nodule
_AXES = "xyz"


def describe_scan(
    example: Example, row: Mapping[str, Any], close_up_mm: float | None, budget: int, pool: Executor
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What the page knows of a scan, and its slices.

    Args:
        example: Its small columns.
        row: Its ``volume`` and, if the config has it, ``lung_mask``.
        close_up_mm: The side of the close-up around its largest nodule; ``None`` for no close-up.
        budget: Bytes of pictures, before they are written as text.
        pool: Where pictures are encoded.

    Returns:
        The scan, ready for JSON, and the pictures of its slices; ``None`` where they do not fit the budget.
    """
    light, stored = example.light, row["volume"]
    frame = Frame.from_row(light)
    orientation = Orientation() if frame is None else Orientation.of(frame)
    volume = orientation.volume(stored)
    mask = row.get("lung_mask")
    nodules = [_nodule(nodule, orientation, stored.shape) for nodule in example.nodules]
    spacing = None if frame is None else orientation.extent(frame.spacing)
    middle = len(volume) // 2
    at = middle if example.largest is None else _inside(nodules[example.largest]["center"][2], len(volume))
    described: dict[str, Any] = {
        "shape": list(reversed(volume.shape)),
        "spacing": spacing,
        "storedAxes": [_AXES[axis] for axis in orientation.axes],
        "flipped": orientation.flipped,
        "tilt": round(orientation.tilt_degrees, 1),
        "hounsfield": volume.dtype != np.uint8,
        "nodules": nodules,
        "largest": example.largest,
        "thumbnail": _still(volume, at, (0, 0, volume.shape[2], volume.shape[1]), _THUMBNAIL_SIDE),
        "closeUp": None,
        "slices": None,
    }
    if close_up_mm is not None and spacing is not None:
        center = (volume.shape[2] / 2, volume.shape[1] / 2)
        if example.largest is not None:
            x, y, _ = nodules[example.largest]["center"]
            center = (x + 0.5, y + 0.5)
        described["closeUp"] = _still(volume, at, _around(center, close_up_mm, spacing), _CLOSE_UP_SIDE)
    stack = encode_stack(
        volume, None if mask is None else orientation.volume(mask), _through_nodules(nodules, len(volume)), budget, pool
    )
    if stack is None:
        return described, None
    described["slices"] = stack.slices
    described["size"] = stack.size
    described["maskSize"] = stack.mask_size
    return described, {"pictures": [*map(as_text, stack.pictures)], "masks": [*map(as_text, stack.masks)]}


def as_text(data: bytes) -> str:
    """Bytes as base64."""
    return b64encode(data).decode("ascii")


def _nodule(nodule: Mapping[str, Any], orientation: Orientation, shape: Sequence[int]) -> dict[str, Any]:
    box, label = nodule["box_voxel"], nodule.get("pathology")
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


def _inside(index: float, count: int) -> int:
    return min(max(0, math.floor(index + 0.5)), count - 1)


def _through_nodules(nodules: Sequence[Mapping[str, Any]], count: int) -> set[int]:
    wanted = set()
    for nodule in nodules:
        low, high = (
            (nodule["box"][2], nodule["box"][5]) if nodule["box"] else (_inside(nodule["center"][2], count),) * 2
        )
        wanted |= set(range(max(0, low - _AROUND), min(count, high + _AROUND)))
    return wanted


def _around(center: tuple[float, float], side_mm: float, spacing: Sequence[float]) -> tuple[int, int, int, int]:
    """Pixels x0, y0, width, height of a square in mm, as near as whole pixels come to it; may reach outside."""
    width, height = (max(1, round(side_mm / step)) for step in spacing[:2])
    return round(center[0] - width / 2), round(center[1] - height / 2), width, height


def _still(volume: NDArray[Any], z: int, view: tuple[int, int, int, int], side: int) -> dict[str, Any]:
    """A part of a slice in the lung window; black where it reaches outside the slice."""
    x0, y0, width, height = view
    plane = volume[z]
    inside = plane[max(0, y0) : max(0, y0 + height), max(0, x0) : max(0, x0 + width)]
    grey = np.zeros((height, width), np.uint8)
    top, left = max(0, -y0), max(0, -x0)
    grey[top : top + inside.shape[0], left : left + inside.shape[1]] = (
        inside if plane.dtype == np.uint8 else LUNG.to_grey(inside)
    )
    return {"picture": as_text(encode(shrink(grey, side))), "z": z, "view": view}
