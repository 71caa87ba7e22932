"""Convolutions with kernels of 3 a side in fewer multiplications: Winograd's F(4, 3) along each axis (Lavin and Gray 2016).

Along one axis 4 results take 6 multiplications in place of 12, so in 3D one result takes 216 / 64 in place of 27, and so do both
gradients. What is left besides are additions and one matrix product for each of the 6 x 6 x 6 places of a tile.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    Held = tuple[jax.Array, jax.Array]

_TILE = 4
# Lavin and Gray's matrices for the points 0, 1, -1, 2, -2 and infinity, all points times 3/4: rounding is a sixth of what it is without.
_POWERS = 0.75 ** np.arange(6)
_DATA = (
    np.array(
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ]
    )
    / _POWERS
)
_KERNEL = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24 * _POWERS[:3]
_RESULT = (
    np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]) * _POWERS[:4, None]
)


def tiles(x: jax.Array) -> int:
    """How many there are in an array of shape (b, …, channels)."""
    return len(x) * math.prod(-(-length // _TILE) for length in x.shape[1:-1])


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, Held]:
    data, flat = _split(x, _DATA), _turned(kernel, _KERNEL)
    product = jnp.einsum("...nc,...co->...no", _rows(data), flat)
    return _merged(product.reshape(*data.shape[:-1], -1), _RESULT, x.shape[1:-1]), (x, kernel)


def _back(held: Held, above: jax.Array) -> tuple[jax.Array, jax.Array]:
    # made anew, without which XLA keeps them: that takes less time than several times the memory
    x, kernel = jax.lax.optimization_barrier(held)
    data, product, flat = _split(x, _DATA), _split(above, _RESULT.T), _turned(kernel, _KERNEL)
    by_kernel = jnp.einsum("...nc,...no->...co", _rows(data), _rows(product))
    by_data = jnp.einsum("...no,...co->...nc", _rows(product), flat).reshape(data.shape)
    return _merged(by_data, _DATA.T, x.shape[1:-1]), _turned(by_kernel, _KERNEL.T)


winograd: Any = jax.custom_vjp(lambda x, kernel: _forward(x, kernel)[0])
"""Shapes (b, …, inputs) and (3, …, 3, inputs, outputs) to (b, …, outputs): stride 1, the size is kept."""
winograd.defvjp(_forward, _back)


def _rows(tiled: jax.Array) -> jax.Array:
    """All tiles in one axis, as matrix products want them."""
    axes = (tiled.ndim - 2) // 2
    return tiled.reshape(*tiled.shape[:axes], -1, tiled.shape[-1])


def _mixed(parts: Sequence[jax.Array], matrix: np.ndarray) -> list[jax.Array]:
    """A small matrix times a vector of arrays."""
    return [
        sum((float(by) * part for by, part in zip(row, parts, strict=True) if by), jnp.float32(0)) for row in matrix
    ]


def _turned(kernel: jax.Array, matrix: np.ndarray) -> jax.Array:
    """A matrix along each axis but the last two."""
    for _ in range(kernel.ndim - 2):
        _, *others, inputs, outputs = kernel.shape
        parts = [part.reshape(-1, inputs * outputs) for part in kernel]
        kernel = jnp.stack(_mixed(parts, matrix), 1).reshape(*others, -1, inputs, outputs)
    return kernel


def _split(x: jax.Array, matrix: np.ndarray) -> jax.Array:
    """Shape (b, z, y, x, c) to (6, 6, 6, b, tiles, tiles, tiles, c): a matrix times the pixels of each tile, along each axis."""
    taken = matrix.shape[1]
    rim = (taken - _TILE) // 2
    counts = [-(-length // _TILE) for length in x.shape[1:-1]]
    # all axes at once: XLA makes a slow program of a stack that is then padded
    ends = [_TILE * count + rim - length for count, length in zip(counts, x.shape[1:-1], strict=True)]
    x = jnp.pad(x, ((0, 0), *((rim, end) for end in ends), (0, 0)))
    at = x.ndim - 2
    for count in reversed(counts):
        flat, shape = _flat(x, at), x.shape
        parts = [jax.lax.slice_in_dim(flat, i, i + _TILE * (count - 1) + 1, _TILE, 1) for i in range(taken)]
        x = jnp.stack(_mixed(parts, matrix)).reshape(-1, *shape[:at], count, *shape[at + 1 :])
    return x


def _merged(tiled: jax.Array, matrix: np.ndarray, lengths: Sequence[int]) -> jax.Array:
    """The transpose of :func:`_split` with the transpose of the matrix: where tiles overlap, their pixels are added."""
    at = len(lengths)
    for _ in lengths:
        shape = tiled.shape[1:]
        parts = _mixed([_flat(part, at) for part in tiled], matrix)
        if len(parts) > _TILE:
            first, *parts, last = parts
            parts[0] += _moved(last, 1)
            parts[-1] += _moved(first, -1)
        tiled = jnp.stack(parts, 2).reshape(*shape[:at], -1, *shape[at + 1 :])
    return tiled[(slice(None), *(slice(length) for length in lengths))]


def _flat(x: jax.Array, axis: int) -> jax.Array:
    """What is before an axis and what is after it as one axis each: XLA compiles that in half the time."""
    return x.reshape(math.prod(x.shape[:axis]), x.shape[axis], -1)


def _moved(x: jax.Array, by: int) -> jax.Array:
    """By so many places along the second axis, zeros coming in."""
    return jax.lax.pad(x, jnp.float32(0), ((0, 0, 0), (by, -by, 0), (0, 0, 0)))
