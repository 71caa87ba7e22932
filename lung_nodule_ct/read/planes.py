"""The three planes through a volume, and the summary of a volume that a notebook shows."""

from __future__ import annotations

import base64
import html
import io
import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image, ImageDraw

from lung_nodule_ct.declaration.labels import PATHOLOGY_NAMES
from lung_nodule_ct.geometry.display import LUNG, PLANES, Orientation, stretch_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from lung_nodule_ct.geometry.display import Plane
    from lung_nodule_ct.geometry.frame import Frame

_LONGEST: Final = 200  # pixels; the three pictures together have about 25 kB
_QUALITY: Final = 80
_MOST_ROWS: Final = 8
_CIRCLE: Final = "#e69f00"
_COLUMNS: Final = ("nodule", "diameter in mm", "centre, LPS mm", "centre, voxel", "pathology")


def key_position(nodule: Mapping[str, Any]) -> tuple[float, float, float]:
    """Return where planes through a nodule cross: its centre, on its key slice if it has one. Voxel index x, y, z."""
    x, y, z = nodule["center_voxel"]
    key = nodule.get("key_slice")
    return x, y, z if key is None else float(key)


def largest_nodule(nodules: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the index of the largest nodule, ``None`` if there are no nodules.

    Nodules with a box come first. Among them the diameter decides, then the size of the box, then the order.
    """

    def size(index: int) -> tuple[bool, float, int]:
        box = nodules[index].get("box_voxel") or ()
        num_voxels = math.prod(high - low for low, high in zip(box[:3], box[3:], strict=True))
        return bool(box), published_diameter(nodules[index]) or 0.0, num_voxels

    return max(range(len(nodules)), key=size, default=None)


def published_diameter(nodule: Mapping[str, Any]) -> float | None:
    """Return the diameter of a nodule of a scan, in mm, or of a stack, as published."""
    diameter: float | None = nodule.get("diameter_mm", nodule.get("diameter"))
    return diameter


def summary_html(
    title: str, stored: NDArray[Any], frame: Frame | None, nodules: Sequence[Mapping[str, Any]] = ()
) -> str:
    """Return a volume as HTML: its facts, three planes through its largest nodule or its middle, and a table of nodules.

    The planes are in radiological orientation, in the lung window if the voxels are Hounsfield units. Spheres of nodules are
    drawn where a plane cuts them. Every text is escaped, and nothing is loaded from elsewhere.

    Args:
        title: The facts, as text.
        stored: The voxels, axes (z, y, x).
        frame: Their frame.
        nodules: Records with ``center_voxel``.
    """
    orientation = Orientation() if frame is None else Orientation.from_frame(frame)
    volume = orientation.volume(stored)
    steps = (1.0, 1.0, 1.0) if frame is None else orientation.extent(frame.spacing)
    size = volume.shape[::-1]
    chosen = largest_nodule(nodules)
    center = [(count - 1) / 2 for count in size]
    if chosen is not None:
        center = list(orientation.point(key_position(nodules[chosen]), stored.shape))
    indices = [min(max(0, math.floor(value + 0.5)), count - 1) for value, count in zip(center, size, strict=True)]
    spheres = [
        (orientation.point(nodule["center_voxel"], stored.shape), nodule["diameter_mm"])
        for nodule in nodules
        if frame is not None and nodule.get("diameter_mm") is not None
    ]
    pictures = []
    for plane in PLANES:
        index = indices[plane.normal]
        sections = [plane.section(*sphere, index, steps) for sphere in spheres]
        source = _picture(plane.cut(volume, index), plane, [entry for entry in sections if entry], steps)
        text = f"{plane.name if frame is not None else 'plane'}, {index} of {size[plane.normal]}"
        pictures.append(f'<img src="{source}" alt="{html.escape(text)}" title="{html.escape(text)}">')
    return f"<div><p><code>{html.escape(title)}</code></p><p>{' '.join(pictures)}</p>{_table(nodules)}</div>"


def _picture(
    pixels: NDArray[Any], plane: Plane, sections: Sequence[tuple[float, float, float, float]], steps: Sequence[float]
) -> str:
    """One plane as the address of a picture; its longer side has 200 pixels at most, and its pixels are square in mm."""
    grey = LUNG.to_grey(pixels) if pixels.dtype.itemsize == 2 else stretch_labels(pixels)[0]
    height, width = grey.shape
    extent = width * steps[plane.across], height * steps[plane.down]
    scale = _LONGEST / max(extent)
    target = max(1, round(extent[0] * scale)), max(1, round(extent[1] * scale))
    image = Image.fromarray(np.ascontiguousarray(grey)).resize(target, Image.Resampling.BILINEAR).convert("RGB")
    draw = ImageDraw.Draw(image)
    across, down = target[0] / width, target[1] / height
    for x, y, wide, high in sections:
        left, top = (x - wide / 2) * across, (y - high / 2) * down
        draw.ellipse((left, top, left + wide * across, top + high * down), outline=_CIRCLE)
    if plane.down == 2:  # the head is at the top
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _table(nodules: Sequence[Mapping[str, Any]]) -> str:
    """The first nodules, and how many more there are."""
    if not nodules:
        return ""
    rows = [
        (
            nodule.get("nodule_id") or number,
            "unknown" if nodule.get("diameter_mm") is None else f"{nodule['diameter_mm']:.1f}",
            "" if nodule.get("center_world") is None else _point(nodule["center_world"]),
            _point(nodule["center_voxel"]),
            "unknown" if nodule.get("pathology") is None else PATHOLOGY_NAMES[nodule["pathology"]],
        )
        for number, nodule in enumerate(nodules[:_MOST_ROWS], 1)
    ]
    head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    more = f"<p>{len(nodules) - _MOST_ROWS:,} more nodules</p>" if len(nodules) > _MOST_ROWS else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _point(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)
