"""Small pictures of the flagged annotations: what is there, and what the table claims."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lung_nodule_ct.geometry.display import LUNG
from lung_nodule_ct.imaging.judgement import NoduleVerdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lung_nodule_ct.imaging.judgement import NoduleEvidence

_SIDES: Final = 4.0
_LEAST_PIXELS, _MOST_PIXELS = 64, 160


@dataclass(frozen=True, slots=True)
class Mark:
    """An ellipse in a view.

    Attributes:
        centre: x, y in pixels of the view.
        half_sizes: x, y in pixels of the view.
        measured: Whether it is what the voxels show; otherwise it is the annotation.
    """

    centre: tuple[float, float]
    half_sizes: tuple[float, float]
    measured: bool = False


@dataclass(frozen=True, eq=False)
class View:
    """A part of a slice around a place.

    Attributes:
        caption: What it shows.
        pixels: Grey values in the lung window, axes (y, x), as stored.
        slice: Index z of the slice, ``None`` for a picture.
        marks: Ellipses: centre x, y and half sizes x, y in pixels of the view.
    """

    caption: str
    pixels: NDArray[np.uint8]
    slice: int | None
    marks: tuple[Mark, ...]


def views_of(image: NDArray[Any], evidence: NoduleEvidence, half_sizes: Sequence[float]) -> tuple[View, ...]:
    """The views of a flagged annotation: its place, then the place of the hint. None for an annotation that is not flagged.

    Args:
        image: HU, axes (z, y, x) or (y, x).
        evidence: Its evidence.
        half_sizes: Half its size in voxels: x, y(, z).
    """
    if evidence.grade is None or evidence.place is None:
        return ()
    place, ratio = evidence.place, 1.0
    if evidence.verdict is NoduleVerdict.OTHER_SIZE and place.size_ratio is not None:
        ratio = place.size_ratio
    found = [_view(image, place.at, half_sizes, "as annotated")]
    if evidence.hint_voxel is not None or ratio != 1:
        there = place.centre if evidence.hint_voxel is None else evidence.hint_voxel
        caption = "by the voxels" if evidence.hint is None else evidence.hint
        found.append(_view(image, there, [half * ratio for half in half_sizes], caption, measured=True))
    return tuple(view for view in found if view is not None)


def _view(
    image: NDArray[Any], place: Sequence[float], half_sizes: Sequence[float], caption: str, *, measured: bool = False
) -> View | None:
    """A square around a place, ``None`` if the place is not in the image."""
    size = np.array(image.shape[::-1])
    nearest = np.floor(np.asarray(place) + 0.5).astype(int)
    if not ((nearest >= 0) & (nearest < size)).all():
        return None
    plane = image[nearest[2]] if image.ndim == 3 else image
    side = int(np.clip(math.ceil(_SIDES * 2 * max(half_sizes[:2])), _LEAST_PIXELS, _MOST_PIXELS))
    x0, y0 = (int(nearest[axis]) - side // 2 for axis in (0, 1))
    part = np.full((side, side), -1000, np.float32)
    rows = slice(max(0, y0), min(plane.shape[0], y0 + side))
    columns = slice(max(0, x0), min(plane.shape[1], x0 + side))
    part[rows.start - y0 : rows.stop - y0, columns.start - x0 : columns.stop - x0] = plane[rows, columns]
    mark = Mark((place[0] - x0, place[1] - y0), (float(half_sizes[0]), float(half_sizes[1])), measured)
    return View(caption, LUNG.to_grey(part), int(nearest[2]) if image.ndim == 3 else None, (mark,))
