"""How boxes of any dimension overlap: IoU, GIoU, and the suppression of those that say the same twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    import jax
    from numpy.typing import NDArray


def iou(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Intersection over union, and its generalised form (Rezatofighi et al. 2019), of boxes in array order.

    Args:
        a: Low and high corners, shape (…, 2 n); broadcasts with ``b``.
        b: The same.
    """
    axes = a.shape[-1] // 2
    (a0, a1), (b0, b1) = ((box[..., :axes], box[..., axes:]) for box in (a, b))
    common = jnp.clip(jnp.minimum(a1, b1) - jnp.maximum(a0, b0), 0).prod(-1)
    union = jnp.clip(a1 - a0, 0).prod(-1) + jnp.clip(b1 - b0, 0).prod(-1) - common
    hull = (jnp.maximum(a1, b1) - jnp.minimum(a0, b0)).prod(-1)
    overlap = common / jnp.maximum(union, 1e-6)
    return overlap, overlap - (hull - union) / jnp.maximum(hull, 1e-6)


def suppress(boxes: NDArray[np.float64], scores: NDArray[np.float64], most: float = 0.3) -> NDArray[np.int64]:
    """Greedy non-maximum suppression: which boxes stay, the surest first.

    Args:
        boxes: Low and high corners, shape (n, 2 k).
        scores: Shape (n,).
        most: The largest IoU that two boxes that stay may have.
    """
    axes = boxes.shape[1] // 2
    low, high = boxes[:, :axes], boxes[:, axes:]
    volume = np.clip(high - low, 0, None).prod(1)
    left = np.argsort(-scores, kind="mergesort")
    kept = []
    while left.size:
        first, rest = left[0], left[1:]
        kept.append(first)
        common = np.clip(np.minimum(high[first], high[rest]) - np.maximum(low[first], low[rest]), 0, None).prod(1)
        left = rest[common <= most * (volume[first] + volume[rest] - common)]
    return np.array(kept, np.int64)
