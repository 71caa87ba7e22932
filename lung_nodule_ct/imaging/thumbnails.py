"""Pictures, stacks and scans reduced to a few kB, by which copies of them are found.

A picture is reduced to a thumbnail, normalised to mean 0 and standard deviation 1, so that gain and offset of the greys do not count, and to
its finest detail at some of its pixels. Neighbouring slices of one scan have almost the same thumbnail but other noise, so fine detail distinguishes
them from copies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE: Final = 64
"""Height and width of a thumbnail of a picture."""
VOLUME_SIDE: Final = 16
"""Height and width of each slice of the thumbnail of a volume."""
SLICE_SIDE: Final = 32
"""Height and width of the slices in which a picture is searched."""
DETAIL_SIDE: Final = 40
"""Rows and columns of the pixels at which the fine detail of a picture is kept."""
MASKED: Final = -128
"""The fine detail of a pixel that is as dark or as bright as the picture can be, or nearly, where copies of other brightness are clipped."""

SYMMETRIES: Final = (
    "as it is",
    "rotated by 90 degrees",
    "rotated by 180 degrees",
    "rotated by 270 degrees",
    "mirrored left to right",
    "mirrored along a diagonal",
    "mirrored top to bottom",
    "mirrored along the other diagonal",
)
"""The eight symmetries of a square, in the order of :func:`symmetric`."""

_WINDOW = (-1350, 150)
"""The lung window, in which the pictures are published."""
_CLIPPED = 6
"""Grey values from the darkest or brightest one."""
_DETAIL_STEP = 16
"""Steps of fine detail in one standard deviation of it."""


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """A picture or volume reduced to a few values.

    Attributes:
        values: float16, axes (slice, y, x), mean 0 and standard deviation 1; one slice for a picture.
        detail: int8, axes (y, x): the difference of some pixels from the pixels around them, :data:`MASKED` where it is not known; ``None``
            for a volume, and for a picture that is too small or has no detail.
    """

    values: NDArray[np.float16]
    detail: NDArray[np.int8] | None = None


def picture_thumbnail(pixels: NDArray[Any]) -> Thumbnail | None:
    """Reduce a picture.

    Args:
        pixels: Grey values, axes (y, x).

    Returns:
        The thumbnail; ``None`` for a blank picture.
    """
    values = _normalised(_reduced(pixels, SIDE)[None])
    return None if values is None else Thumbnail(values, _detail(pixels))


def volume_thumbnail(volume: NDArray[Any]) -> Thumbnail | None:
    """Reduce every slice of a volume or a stack.

    Args:
        volume: Axes (z, y, x).

    Returns:
        The thumbnail; ``None`` for a blank volume.
    """
    values = _normalised(np.stack([_reduced(plane, VOLUME_SIDE) for plane in volume]))
    return None if values is None else Thumbnail(values)


def slice_thumbnails(volume: NDArray[Any]) -> Thumbnail:
    """Reduce every slice of a volume, each by itself, to compare scans, and to find the slice that a picture shows.

    Args:
        volume: Values of a coarse or complete volume, axes (z, y, x).

    Returns:
        Each slice with mean 0 and standard deviation 1, shape (z, 32, 32); 0 for a blank slice.
    """
    reduced = np.stack([_reduced(plane, SLICE_SIDE) for plane in np.clip(volume, *_WINDOW)])
    centred = reduced - reduced.mean(axis=(1, 2), keepdims=True)
    scale = np.maximum(reduced.std(axis=(1, 2), keepdims=True), 1e-3)
    return Thumbnail((centred / scale).astype(np.float16))


def symmetric(values: NDArray[Any]) -> list[NDArray[Any]]:
    """Return an array in the eight positions of a square.

    Args:
        values: Axes (..., y, x), as high as wide.
    """
    return [np.rot90(side, turn, axes=(-2, -1)) for side in (values, values[..., ::-1]) for turn in range(4)]


def _reduced(plane: NDArray[Any], side: int) -> NDArray[np.float32]:
    """A slice smoothed and sampled at the centres of ``side`` x ``side`` cells."""
    smooth = ndimage.gaussian_filter(plane.astype(np.float32), [length / side / 2.5 for length in plane.shape])
    y, x = ((np.arange(side) + 0.5) * length / side - 0.5 for length in plane.shape)
    sampled: NDArray[np.float32] = ndimage.map_coordinates(
        smooth, np.meshgrid(y, x, indexing="ij"), order=1, mode="nearest", prefilter=False
    )
    return sampled


def _normalised(values: NDArray[np.float32]) -> NDArray[np.float16] | None:
    deviation = float(values.std())
    if deviation < 1e-3:
        return None
    normalised: NDArray[np.float16] = ((values - values.mean()) / deviation).astype(np.float16)
    return normalised


def _detail(pixels: NDArray[Any]) -> NDArray[np.int8] | None:
    """The fine detail at pixels that are symmetric about the centre, so that turned copies have the same, turned."""
    places = [_symmetric_places(length) for length in pixels.shape]
    if any(place is None for place in places):
        return None
    y, x = np.meshgrid(*(place for place in places if place is not None), indexing="ij")
    around = np.stack([pixels[y + dy, x + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)]).astype(np.float32)
    detail = around[4] - np.tensordot(np.array([1, 2, 1, 2, 4, 2, 1, 2, 1], np.float32) / 16, around, 1)
    lowest, highest = around.min(axis=0), around.max(axis=0)
    clear = (lowest >= float(pixels.min()) + _CLIPPED) & (highest <= float(pixels.max()) - _CLIPPED)
    deviation = float(detail[clear].std()) if clear.any() else 0.0
    if deviation < 1e-3:
        return None
    steps = np.clip(np.rint(detail / deviation * _DETAIL_STEP), MASKED + 1, -MASKED - 1)
    return np.where(clear, steps, MASKED).astype(np.int8)


def _symmetric_places(length: int) -> NDArray[np.intp] | None:
    """Positions on an axis that are symmetric about its middle, not at its ends; ``None`` if it is too short."""
    first = 0.5 + (length % 2) / 2
    step = int(((length - 1) / 2 - 1 - first) // (DETAIL_SIDE // 2 - 1))
    if step < 1:
        return None
    half = first + step * np.arange(DETAIL_SIDE // 2)
    return ((length - 1) / 2 + np.concatenate([-half[::-1], half])).astype(np.intp)
