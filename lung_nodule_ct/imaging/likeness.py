"""Copies of pictures, stacks and scans: also turned, mirrored, with other greys, and compressed again.

What is averaged over the eight symmetries of a square is equal for turned copies. Only the nearest few in it are compared in all positions:
the work grows with n log n.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from lung_nodule_ct.imaging.thumbnails import DETAIL_SIDE, MASKED, SIDE, SYMMETRIES, symmetric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lung_nodule_ct.imaging.thumbnails import Thumbnail

NEIGHBOURS: Final = 8
"""Number of thumbnails that one is compared with, by its values and by its fine detail."""

_CELLS = 8
_PLANE_CELLS = 16
_PLANE_MARGIN = 0.05
_PROJECTED = 16
_MOST_APART = 3
_LEAST_OVERLAP = 0.7
_SMOOTHING: Final = ndimage.gaussian_filter1d(np.eye(SIDE, dtype=np.float32), 1.5, axis=0)
"""Multiplies the rows and columns of a picture to smooth it, much faster than a filter for so few cells."""
_CLIPPED = 0.025
"""Share of the range of a thumbnail, from its lowest or highest value."""
_LEAST_SHARE = 0.2
"""Least share of the pixels that two pictures can be compared in."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """How much two thumbnails are alike, in the position in which their values correlate best.

    Attributes:
        correlation: Of their values, at most 1.
        symmetry: What turns the second into the first, one of :data:`~lung_nodule_ct.imaging.thumbnails.SYMMETRIES`.
        is_reversed: Whether the slices of the second are in reverse order.
        middle: Correlation of pictures without what is larger than a few cells of the thumbnail; ``None`` for volumes, and where too much
            is as dark or as bright as can be.
        fine: Correlation of the fine detail of pictures; ``None`` likewise.
    """

    correlation: float
    symmetry: str
    is_reversed: bool = False
    middle: float | None = None
    fine: float | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two thumbnails that are alike.

    Attributes:
        first: Index of the one.
        second: Index of the other, which is larger.
        likeness: How much they are alike.
    """

    first: int
    second: int
    likeness: Likeness


def find_alike(thumbnails: Sequence[Thumbnail], least: float) -> list[Pair]:
    """Find the pairs whose correlation is large in one of the positions.

    Args:
        thumbnails: Thumbnails of one kind: pictures, or volumes.
        least: The least correlation.

    Returns:
        The pairs, in the order of their indices.
    """
    if len(thumbnails) < 2:
        return []
    planes = np.stack([_plane(thumbnail) for thumbnail in thumbnails])
    pairs = _nearest(describe(planes), np.arange(len(thumbnails)))
    detailed = np.array([number for number, each in enumerate(thumbnails) if each.detail is not None], np.intp)
    if len(detailed):
        pairs |= _nearest(_describe_detail([thumbnails[number].detail for number in detailed]), detailed)
    found = []
    for first, second in sorted(pairs):
        position, correlation = _position(planes[first], planes[second])
        # the plane of a copy is nearly the same, also where the copy lacks slices or is clipped
        if correlation < least - _PLANE_MARGIN:
            continue
        likeness = compare(thumbnails[first], thumbnails[second], position)
        if likeness.correlation >= least:
            found.append(Pair(first, second, likeness))
    return found


def compare(first: Thumbnail, second: Thumbnail, position: int | None = None) -> Likeness:
    """Compare two thumbnails; of volumes, also with the slices of the second in reverse order.

    Args:
        first: The one.
        second: The other.
        position: The number of the symmetry that turns the second into the first; by default the best.
    """
    number = _position(_plane(first), _plane(second))[0] if position is None else position
    own, other = (each.values.astype(np.float32) for each in (first, second))
    turned = _turned(other, number)
    found = [
        (_correlation(own[a], each[b]), is_reversed)
        for is_reversed, each in enumerate((turned, turned[::-1]) if len(turned) > 1 else (turned,))
        for a, b in _overlaps(len(own), len(other))
    ]
    correlation, is_reversed = max(found, default=(-1.0, 0), key=lambda entry: entry[0])
    middle = _middle(own[0], turned[0]) if own.shape[-1] == SIDE else None
    details = first.detail, second.detail
    fine = None if details[0] is None or details[1] is None else _fine(details[0], _turned(details[1], number))
    return Likeness(correlation, SYMMETRIES[number], bool(is_reversed), middle, fine)


def describe(planes: NDArray[Any]) -> NDArray[np.float64]:
    """Describe slices by values that are equal for turned and mirrored copies.

    Args:
        planes: Thumbnails of slices, axes (slice, y, x).

    Returns:
        The averages over blocks and the eight symmetries, shape (slice, 10).
    """
    count, size = len(planes), planes.shape[-1] // _CELLS
    blocks = planes.astype(np.float32).reshape(count, _CELLS, size, _CELLS, size).mean(axis=(2, 4))
    average = np.mean(symmetric(blocks), axis=0)
    described: NDArray[np.float64] = average[:, *np.triu_indices(_CELLS // 2)].astype(np.float64)
    return described


def _plane(thumbnail: Thumbnail) -> NDArray[np.float32]:
    """The mean of the slices in a few cells, with mean 0 and norm 1, by which the position of a copy is found."""
    values = thumbnail.values.mean(axis=0, dtype=np.float32)
    size = len(values) // _PLANE_CELLS
    plane = values.reshape(_PLANE_CELLS, size, _PLANE_CELLS, size).mean(axis=(1, 3))
    plane -= plane.mean()
    scaled: NDArray[np.float32] = plane / max(float(np.linalg.norm(plane)), 1e-3)
    return scaled


def _position(first: NDArray[np.float32], second: NDArray[np.float32]) -> tuple[int, float]:
    """The symmetry that turns the second plane into the first, and their correlation then."""
    correlations = [float(np.vdot(first, each)) for each in symmetric(second)]
    number = int(np.argmax(correlations))
    return number, correlations[number]


def _turned(values: NDArray[Any], number: int) -> NDArray[Any]:
    return np.ascontiguousarray(symmetric(values)[number])


def _nearest(descriptors: NDArray[np.float64], numbers: NDArray[np.intp]) -> set[tuple[int, int]]:
    """Pairs of each entry with its nearest ones, as pairs of their numbers."""
    _, nearest = cKDTree(descriptors).query(descriptors, min(NEIGHBOURS + 1, len(descriptors)))
    others = numbers[nearest.reshape(len(descriptors), -1)]
    return {
        (min(first, second), max(first, second))
        for first, row in zip(numbers.tolist(), others.tolist(), strict=True)
        for second in row
        if first != second
    }


def _describe_detail(details: Sequence[NDArray[np.int8] | None]) -> NDArray[np.float64]:
    """Fine detail, averaged over the eight symmetries and projected to a few values: near for copies, far for others."""
    known = np.stack([np.where(each == MASKED, 0, each) for each in details if each is not None]).astype(np.float32)
    folded = np.mean(symmetric(known), axis=0)[:, *np.triu_indices(DETAIL_SIDE // 2)]
    folded /= np.maximum(np.linalg.norm(folded, axis=1, keepdims=True), 1e-3)
    projection = np.random.default_rng(0).normal(size=(folded.shape[1], _PROJECTED))
    described: NDArray[np.float64] = folded @ projection
    return described


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


def _middle(first: NDArray[np.float32], second: NDArray[np.float32]) -> float | None:
    clear = _unclipped(first) & _unclipped(second)
    if clear.mean() < _LEAST_SHARE:
        return None
    one, other = (values - _SMOOTHING @ values @ _SMOOTHING.T for values in (first, second))
    return _correlation(one[clear], other[clear])


def _unclipped(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Cells that are not near the lowest and the highest value, and have no neighbour that is."""
    low, high = float(values.min()), float(values.max())
    margin = _CLIPPED * (high - low)
    inner = np.pad((values > low + margin) & (values < high - margin), 1, constant_values=True)
    rows = inner[:-2] & inner[1:-1] & inner[2:]
    eroded: NDArray[np.bool_] = inner[1:-1, :-2] & inner[1:-1, 2:] & rows[:, 1:-1]
    return eroded


def _fine(first: NDArray[np.int8], second: NDArray[np.int8]) -> float | None:
    clear = (first != MASKED) & (second != MASKED)
    return (
        _correlation(first[clear].astype(np.float32), second[clear].astype(np.float32))
        if clear.mean() >= _LEAST_SHARE
        else None
    )
