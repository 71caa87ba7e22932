"""Copies of pictures, stacks and scans: also turned, mirrored, with other greys, and compressed again.

A picture is reduced to a thumbnail, normalised to mean 0 and standard deviation 1, so that gain and offset of the greys do not count. Its
descriptor is the average of the thumbnail over the eight symmetries of a square, on an 8 x 8 grid, which has ten different values. Turned
copies therefore have equal descriptors, and only the nearest few are compared in all eight positions: the work grows with n log n.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SIDE: Final = 64
"""Height and width of a thumbnail of a picture."""
VOLUME_SIDE: Final = 16
"""Height and width of each slice of the thumbnail of a volume."""
SLICE_SIDE: Final = 32
"""Height and width of the slices in which a picture is searched."""
NEIGHBOURS: Final = 8
"""Number of thumbnails that one is compared with."""

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

_CELLS = 8
_MOST_APART = 3
_LEAST_OVERLAP = 0.7
_WINDOW = (-1350, 150)
"""The lung window, in which the pictures are published."""


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """A picture or volume reduced to a few values.

    Attributes:
        values: float16, axes (slice, y, x), mean 0 and standard deviation 1; one slice for a picture.
    """

    values: NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Copy:
    """Two thumbnails that show the same.

    Attributes:
        first: Index of the one.
        second: Index of the other, which is larger.
        correlation: Of their values in the best position, at most 1.
        symmetry: What turns the second into the first, one of :data:`SYMMETRIES`.
    """

    first: int
    second: int
    correlation: float
    symmetry: str


def picture_thumbnail(pixels: NDArray[Any]) -> Thumbnail | None:
    """Reduce a picture.

    Args:
        pixels: Grey values, axes (y, x).

    Returns:
        The thumbnail; ``None`` for a blank picture.
    """
    return _thumbnail(_reduced(pixels, SIDE)[None])


def volume_thumbnail(volume: NDArray[Any]) -> Thumbnail | None:
    """Reduce every slice of a volume or a stack.

    Args:
        volume: Axes (z, y, x).

    Returns:
        The thumbnail; ``None`` for a blank volume.
    """
    return _thumbnail(np.stack([_reduced(plane, VOLUME_SIDE) for plane in volume]))


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


def find_slice(picture: Thumbnail, slices: Thumbnail) -> tuple[float, int, int]:
    """Find the slice that a picture shows.

    Args:
        picture: The thumbnail of the picture.
        slices: The slices of a volume (:func:`slice_thumbnails`).

    Returns:
        The largest correlation, the number of the slice, and the number of the symmetry that turns the picture into it.
    """
    half = picture.values[0].astype(np.float32).reshape(SLICE_SIDE, SIDE // SLICE_SIDE, SLICE_SIDE, SIDE // SLICE_SIDE)
    small = half.mean(axis=(1, 3))
    small = (small - small.mean()) / max(float(small.std()), 1e-3)
    turned = np.stack([each.ravel() for each in symmetric(small)])
    rows = slices.values.astype(np.float32).reshape(len(slices.values), -1)
    correlations = rows @ turned.T / small.size
    z, symmetry = np.unravel_index(int(correlations.argmax()), correlations.shape)
    return float(correlations[z, symmetry]), int(z), int(symmetry)


def find_copies(thumbnails: Sequence[Thumbnail], least: float) -> list[Copy]:
    """Find the pairs whose correlation is large in one of the eight positions.

    Args:
        thumbnails: Thumbnails of one kind: pictures, or volumes.
        least: The least correlation.

    Returns:
        The pairs, in the order of their indices.
    """
    if len(thumbnails) < 2:
        return []
    descriptors = np.stack([_descriptor(thumbnail) for thumbnail in thumbnails])
    count = min(NEIGHBOURS + 1, len(thumbnails))
    _, nearest = cKDTree(descriptors).query(descriptors, count)
    pairs = {
        (min(first, second), max(first, second))
        for first, row in enumerate(nearest.tolist())
        for second in row
        if first != second
    }
    found = []
    for first, second in sorted(pairs):
        correlation, number = best_symmetry(thumbnails[first], thumbnails[second])
        if correlation >= least:
            found.append(Copy(first, second, correlation, SYMMETRIES[number]))
    return found


def best_symmetry(first: Thumbnail, second: Thumbnail) -> tuple[float, int]:
    """Return the largest correlation of two thumbnails in the eight positions of the second, and its number."""
    own = first.values.astype(np.float32)
    turned = symmetric(second.values.astype(np.float32))
    found = [
        (_correlation(own[a], each[b]), number)
        for a, b in _overlaps(len(own), len(turned[0]))
        for number, each in enumerate(turned)
    ]
    return max(found, default=(-1.0, 0), key=lambda entry: entry[0])


def symmetric(values: NDArray[Any]) -> list[NDArray[Any]]:
    """Return an array in the eight positions of a square.

    Args:
        values: Axes (..., y, x), as high as wide.
    """
    return [np.rot90(side, turn, axes=(-2, -1)) for side in (values, values[..., ::-1]) for turn in range(4)]


def _overlaps(first: int, second: int) -> list[tuple[slice, slice]]:
    """Which slices of two volumes to compare: in step from the start, or a few slices apart, as where a copy lacks some."""
    most = _MOST_APART if max(first, second) > 1 else 0
    found = []
    for apart in range(-most, most + 1):
        start, end = max(0, apart), min(first, second + apart)
        if end - start >= _LEAST_OVERLAP * max(first, second):
            found.append((slice(start, end), slice(start - apart, end - apart)))
    return found


def _correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    first, second = first - first.mean(), second - second.mean()
    scale = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / scale if scale > 0 else 0.0


def _reduced(plane: NDArray[Any], side: int) -> NDArray[np.float32]:
    """A slice smoothed and sampled at the centres of ``side`` x ``side`` cells."""
    smooth = ndimage.gaussian_filter(plane.astype(np.float32), [length / side / 2.5 for length in plane.shape])
    y, x = ((np.arange(side) + 0.5) * length / side - 0.5 for length in plane.shape)
    sampled: NDArray[np.float32] = ndimage.map_coordinates(
        smooth, np.meshgrid(y, x, indexing="ij"), order=1, mode="nearest", prefilter=False
    )
    return sampled


def _thumbnail(values: NDArray[np.float32]) -> Thumbnail | None:
    deviation = float(values.std())
    if deviation < 1e-3:
        return None
    return Thumbnail(((values - values.mean()) / deviation).astype(np.float16))


def _descriptor(thumbnail: Thumbnail) -> NDArray[np.float64]:
    """The average over slices, blocks and the eight symmetries: equal for turned and mirrored copies."""
    values = thumbnail.values.astype(np.float32).mean(axis=0)
    size = len(values) // _CELLS
    blocks = values.reshape(_CELLS, size, _CELLS, size).mean(axis=(1, 3))
    average = np.mean(symmetric(blocks), axis=0)
    described: NDArray[np.float64] = average[np.triu_indices(_CELLS // 2)].astype(np.float64)
    return described
