"""Boxes of detectors: overlap, suppression, anchors, matching of anchors to true boxes, and coding of boxes by anchors.

Boxes are low and high corners, shape (…, 2 n) for n axes. The order of the axes is that of the array in our own networks,
and x, y in published ones, whose weights depend on it; :func:`exchange_axes` converts one to the other.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

BELOW: Final = -1
"""The match of an anchor that is background."""
BETWEEN: Final = -2
"""The match of an anchor that is neither: its score does not count."""
_MAX_LOG_SIDE: Final = math.log(1000 / 16)
"""The largest logarithm of a decoded side, in sides of the anchor."""


def split_corners(boxes: Any) -> tuple[Any, Any]:
    """Low and high corners of boxes."""
    axes = boxes.shape[-1] // 2
    return boxes[..., :axes], boxes[..., axes:]


def exchange_axes(boxes: Any) -> Any:
    """Boxes y0 x0 y1 x1 as x0 y0 x1 y1, or the reverse."""
    return boxes[..., [1, 0, 3, 2]]


def intersection_over_union(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the IoU of boxes, and the generalised IoU (Rezatofighi et al. 2019).

    Args:
        a: Boxes, shape (…, 2 n). It is broadcast with ``b``.
        b: Boxes, shape (…, 2 n).
    """
    (a_low, a_high), (b_low, b_high) = split_corners(a), split_corners(b)
    common = jnp.clip(jnp.minimum(a_high, b_high) - jnp.maximum(a_low, b_low), 0).prod(-1)
    union = jnp.clip(a_high - a_low, 0).prod(-1) + jnp.clip(b_high - b_low, 0).prod(-1) - common
    hull = (jnp.maximum(a_high, b_high) - jnp.minimum(a_low, b_low)).prod(-1)
    iou = common / jnp.maximum(union, 1e-6)
    return iou, iou - (hull - union) / jnp.maximum(hull, 1e-6)


def suppress(boxes: NDArray[np.float64], scores: NDArray[np.float64], max_iou: float) -> NDArray[np.int64]:
    """Greedy non-maximum suppression.

    Args:
        boxes: Shape (k, 2 n).
        scores: Shape (k,).
        max_iou: The largest IoU of two boxes that are both kept.

    Returns:
        The indices of the boxes to keep, the highest score first.
    """
    low, high = split_corners(boxes)
    volume = np.clip(high - low, 0, None).prod(1)
    remaining = np.argsort(-scores, kind="mergesort")
    kept = []
    while remaining.size:
        best, others = remaining[0], remaining[1:]
        kept.append(best)
        common = np.clip(np.minimum(high[best], high[others]) - np.maximum(low[best], low[others]), 0, None).prod(1)
        remaining = others[common <= max_iou * (volume[best] + volume[others] - common)]
    return np.array(kept, np.int64)


def fuse(
    boxes: NDArray[np.float64], scores: NDArray[np.float64], min_iou: float, views: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted box fusion (Solovyev et al. 2021): boxes that overlap become one, averaged by their scores.

    Args:
        boxes: Shape (k, 2 n). Of each view, those of one object should be suppressed before.
        scores: Shape (k,).
        min_iou: The smallest IoU with the best box of a group.
        views: How many boxes of an object are expected. If there are fewer, the missing ones have a score of 0.

    Returns:
        Boxes and scores, the highest score first.
    """
    low, high = split_corners(boxes)
    volume = np.clip(high - low, 0, None).prod(1)
    remaining = np.argsort(-scores, kind="mergesort")
    fused, means = [np.zeros((0, boxes.shape[1]))], list[float]()
    while remaining.size:
        best = remaining[0]
        common = np.clip(np.minimum(high[best], high[remaining]) - np.maximum(low[best], low[remaining]), 0, None).prod(
            1
        )
        is_member = common >= min_iou * (volume[best] + volume[remaining] - common)
        is_member[0] = True
        members, remaining = remaining[is_member], remaining[~is_member]
        fused.append(np.average(boxes[members], 0, scores[members])[None])
        means.append(float(scores[members].sum()) / max(len(members), views))
    order = np.argsort(-np.array(means), kind="mergesort")
    return np.concatenate(fused)[order], np.array(means)[order]


def grid_anchors(
    cells: tuple[int, int], image: tuple[int, int], sizes: Sequence[float], ratios: Sequence[float]
) -> NDArray[np.float32]:
    """The anchors of one level as torchvision has them: x0 y0 x1 y1, with rounded corners around the corners of cells.

    Args:
        cells: Cells of the level along y and x.
        image: Pixels of the image along y and x.
        sizes: Square roots of the areas of the anchors.
        ratios: Heights divided by widths.

    Returns:
        Shape (y * x * ratios * sizes, 4). The sizes vary fastest.
    """
    steps = [length // count for length, count in zip(image, cells, strict=True)]
    heights = np.sqrt(np.array(ratios, np.float32))
    sides = np.array(sizes, np.float32)
    width, height = ((factor[:, None] * sides / 2).ravel() for factor in (1 / heights, heights))
    base = np.round(np.stack([-width, -height, width, height], 1))
    y, x = np.meshgrid(*(np.arange(count) * step for count, step in zip(cells, steps, strict=True)), indexing="ij")
    shifts = np.stack([x, y, x, y], -1).reshape(-1, 1, 4)
    return (shifts + base).reshape(-1, 4).astype(np.float32)


def overlaps(boxes: jax.Array, valid: jax.Array, anchors: jax.Array) -> jax.Array:
    """The IoU of true boxes with anchors, shape (boxes, anchors); -1 for boxes that are padding."""
    return jnp.where(valid[:, None], intersection_over_union(boxes[:, None], anchors)[0], -1)


def match(overlap: jax.Array, high: float, low: float, *, low_quality: bool) -> jax.Array:
    """Match each anchor to a true box, as torchvision does.

    Args:
        overlap: The IoU of true boxes with anchors; see :func:`overlaps`.
        high: An anchor is matched to the box of its largest IoU, if that is ``high`` or more.
        low: It is background if that is less than ``low``.
        low_quality: Whether an anchor is also matched to it if it is the best anchor of any box, or one of several that are equally
            good.

    Returns:
        The index of a box, :data:`BELOW` or :data:`BETWEEN`, shape (anchors,).
    """
    best, found = overlap.max(0), overlap.argmax(0)
    matches = jnp.where(best < low, BELOW, jnp.where(best < high, BETWEEN, found))
    if low_quality:
        best_anchor = overlap.max(1, keepdims=True)
        matches = jnp.where(((overlap == best_anchor) & (best_anchor >= 0)).any(0), found, matches)
    return matches


def matched(boxes: jax.Array, matches: jax.Array) -> jax.Array:
    """The true box of each anchor, shape (batch, anchors, 4); any box for anchors without a match."""
    return jnp.take_along_axis(boxes, jnp.maximum(matches, 0)[..., None], 1)


def encode(boxes: jax.Array, anchors: jax.Array, weights: tuple[float, float] = (1.0, 1.0)) -> jax.Array:
    """Shift and logarithm of the size of boxes, in sides of the anchors, times the weights of both."""
    (low, high), (anchor_low, anchor_high) = split_corners(boxes), split_corners(anchors)
    side = anchor_high - anchor_low
    shift = ((low + high) / 2 - (anchor_low + anchor_high) / 2) / side
    size = jnp.log(jnp.maximum(high - low, 1e-3) / side)
    return jnp.concatenate([weights[0] * shift, weights[1] * size], -1)


def decode(codes: jax.Array, anchors: jax.Array, weights: tuple[float, float] = (1.0, 1.0)) -> jax.Array:
    """The inverse of :func:`encode`. A side is at most 62.5 sides of the anchor."""
    (shift, size), (low, high) = split_corners(codes), split_corners(anchors)
    side = high - low
    center = (low + high) / 2 + shift / weights[0] * side
    half = side * jnp.exp(jnp.minimum(size / weights[1], _MAX_LOG_SIDE)) / 2
    return jnp.concatenate([center - half, center + half], -1)


def clip_to(boxes: jax.Array, image: tuple[int, int]) -> jax.Array:
    """Clip boxes x0 y0 x1 y1 to an image of (y, x) pixels."""
    return jnp.clip(boxes, 0, jnp.array([image[1], image[0]] * 2, boxes.dtype))
