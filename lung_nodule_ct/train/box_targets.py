"""What our own detectors are to predict for each anchor, and the losses of the scores.

Targets are of one image: the heat (1 where an anchor is positive), whether the score counts, the weight of the box, and the
index of the nodule that the anchor is matched to, each of shape (m,).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import jax
import jax.numpy as jnp
import optax

from lung_nodule_ct.train.boxes import intersection_over_union, split_corners

if TYPE_CHECKING:
    from collections.abc import Sequence

_NEGATIVES_WITHOUT_NODULE: Final = 32
"""Hard negatives of an image or patch without a nodule."""


def center_targets(cells: jax.Array, boxes: jax.Array, valid: jax.Array) -> tuple[jax.Array, ...]:
    """The targets of one image for the head ``center``.

    Returns:
        Four arrays of shape (m,): the heat (1 in the cell of a centre), whether the score counts, the weight of the
        box, and the index of the nodule that the cell is matched to.
    """
    low, high = split_corners(boxes)
    axes = low.shape[-1]
    stride = cells[0, axes] - cells[0, 0]
    index = jnp.floor(cells[:, None, :axes] / stride + 0.5)
    distance = index - jnp.floor((low + high) / 2 / stride)
    spread = jnp.maximum((high - low) / stride / 6, 0.4)
    heats = jnp.exp(-jnp.square(distance / spread).sum(-1) / 2) * valid
    heat, matches = heats.max(1), heats.argmax(1)
    return heat, jnp.ones_like(heat), jnp.where(heat > 0.5, heat, 0), matches


def anchor_targets(anchors: jax.Array, boxes: jax.Array, valid: jax.Array) -> tuple[jax.Array, ...]:
    """The targets of one image for the head ``anchors``; see :func:`center_targets`.

    An anchor is positive if its IoU with a nodule is 0.5 or more, or if it is the best anchor of a nodule. Between 0.4
    and 0.5 its score does not count.
    """
    overlap = jnp.where(valid, intersection_over_union(anchors[:, None], boxes[None])[0], -1)
    best, matches = overlap.max(1), overlap.argmax(1)
    best_anchor = jnp.where(valid, overlap.argmax(0), len(anchors))  # out of range for padding, and then dropped
    is_best = jnp.zeros(len(anchors), bool).at[best_anchor].set(True, mode="drop")
    matches = matches.at[best_anchor].set(jnp.arange(len(boxes)), mode="drop")
    positive = (best >= 0.5) | is_best
    heat = positive.astype(jnp.float32)
    return heat, (positive | (best < 0.4)).astype(jnp.float32), heat, matches


def adaptive_targets(
    levels: list[int], anchors: jax.Array, boxes: jax.Array, valid: jax.Array
) -> tuple[jax.Array, ...]:
    """The targets of one image for the head ``anchors``, by adaptive selection; see :func:`center_targets`.

    The best anchor of a nodule is positive in any case, so that no nodule is left out.
    """
    overlap = jnp.where(valid, intersection_over_union(anchors[:, None], boxes[None])[0], -1)
    middle, (low, high) = sum(split_corners(anchors)) / 2, split_corners(boxes)
    distance = jnp.square(middle[:, None] - (low + high) / 2).sum(-1)
    inside = ((middle[:, None] > low) & (middle[:, None] < high)).all(-1)
    positive = adaptive_positives(overlap, distance, inside, levels)
    best = jnp.where(valid, overlap.argmax(0), len(anchors))
    positive = positive.at[best, jnp.arange(len(boxes))].set(True, mode="drop")
    matches = jnp.where(positive, overlap, -1).argmax(1)
    heat = positive.any(1).astype(jnp.float32)
    return heat, jnp.ones_like(heat), heat, matches


def adaptive_positives(
    overlap: jax.Array, distance: jax.Array, inside: jax.Array, levels: Sequence[int], nearest: int = 9
) -> jax.Array:
    """The anchors that are positive for each box by adaptive training sample selection (Zhang et al. 2020).

    The candidates of a box are its nearest anchors of each level. Positive are those whose IoU is at least the mean plus the
    standard deviation of the candidates', and whose centre lies in the box.

    Args:
        overlap: The IoU of anchors and boxes, shape (anchors, boxes); -1 for padding.
        distance: The squared distances of their centres, the same shape.
        inside: Whether the centre of each anchor lies in each box, the same shape.
        levels: The number of anchors of each level.
        nearest: Candidates per level.

    Returns:
        The same shape.
    """
    positions, start = [], 0
    for count in levels:
        _, index = jax.lax.top_k(-distance[start : start + count].T, min(nearest, count))
        positions.append(index + start)
        start += count
    candidates = jnp.concatenate(positions, 1)  # (boxes, candidates)
    found = jnp.take_along_axis(overlap.T, candidates, 1)
    threshold = found.mean(1, keepdims=True) + found.std(1, keepdims=True)
    ok = (found >= threshold) & (found > 0) & jnp.take_along_axis(inside.T, candidates, 1)
    rows = jnp.arange(len(candidates))[:, None]
    return jnp.zeros(overlap.T.shape, bool).at[rows, candidates].set(ok).T


def heatmap_loss(logits: jax.Array, heat: jax.Array) -> jax.Array:
    """Penalty-reduced focal loss (Law and Deng 2018): a high score costs less in cells near a centre."""
    p = jax.nn.sigmoid(logits)
    positive = -jax.nn.log_sigmoid(logits) * jnp.square(1 - p)
    negative = -jax.nn.log_sigmoid(-logits) * jnp.square(p) * (1 - heat) ** 4
    return jnp.where(heat == 1, positive, negative)


def hard_negative_loss(logits: jax.Array, heat: jax.Array, counted: jax.Array, per_positive: int) -> jax.Array:
    """Cross entropy of the positive anchors, and of the negative ones with the largest loss, per image."""
    losses = optax.sigmoid_binary_cross_entropy(logits, heat) * counted
    negative = jnp.where(heat == 1, 0, losses)
    allowed = jnp.maximum(per_positive * heat.sum(1), _NEGATIVES_WITHOUT_NODULE)
    order = jnp.argsort(-jax.lax.stop_gradient(negative), 1)
    rank = jnp.argsort(order, 1)
    return jnp.where(heat == 1, losses, negative * (rank < allowed[:, None]))
