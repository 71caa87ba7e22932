"""Convolutions of stride 1 that keep the size of the image, in 2D and 3D.

:func:`convolve` is the only function that other modules need. On an accelerator it calls XLA's convolution. On a CPU,
XLA is slow at 3D convolutions and at the gradient of every kernel, so the same result is computed in one of three other
ways:

- Winograd's algorithm F(4, 3), for kernels of 3 pixels per axis with many channels (Lavin and Gray 2016). Along each
  axis, 4 results take 6 multiplications instead of 12. In 3D that is an eighth of the multiplications, for the result
  and for both gradients.
- In 2D otherwise, XLA's convolution with a custom gradient of the kernel.
- In 3D otherwise, 2D convolutions of slices that are stacked as channels.

All of them agree except for rounding.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    Operands = tuple[jax.Array, jax.Array]

# Winograd's matrices (Lavin and Gray) for the points 0, 1, -1, 2, -2 and infinity. The points are multiplied by 3/4,
# which reduces the rounding error to a sixth.
_TILE = 4
_POWERS = 0.75 ** np.arange(6)
_INPUT_MATRIX = (
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
_KERNEL_MATRIX = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24 * _POWERS[:3]
_OUTPUT_MATRIX = (
    np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]) * _POWERS[:4, None]
)


def convolve(x: jax.Array, kernel: jax.Array, *, native: bool | None = None) -> jax.Array:
    """Convolve images with a kernel, with stride 1 and zero padding that keeps the size.

    Args:
        x: Shape (batch, y, x, inputs) or (batch, z, y, x, inputs).
        kernel: Shape (k, k, inputs, outputs) or (k, k, k, inputs, outputs), k odd.
        native: Whether to use XLA's convolution; by default on every device except a CPU.

    Returns:
        Shape (batch, y, x, outputs) or (batch, z, y, x, outputs).
    """
    if kernel.shape[0] == 1:
        return x @ kernel.reshape(kernel.shape[-2:])
    if native is None:
        native = jax.default_backend() != "cpu"
    if native:
        return _xla_convolution(x, kernel)
    if kernel.shape[0] == 3 and x.dtype == jnp.float32 and _winograd_is_faster(x, kernel):
        return _winograd(x, kernel)
    return _convolution_2d(x, kernel) if x.ndim == 4 else _convolution_3d(x, kernel)


def _xla_convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    axes = "ZYX"[-(x.ndim - 2) :]
    layout = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
    return jax.lax.conv_general_dilated(x, kernel, (1,) * len(axes), "SAME", dimension_numbers=layout)


def _convolution_2d_gradient(operands: Operands, gradient: jax.Array) -> Operands:
    x, kernel = operands
    size, _, inputs, outputs = kernel.shape
    _, height, width, _ = x.shape
    # The barrier makes XLA transpose x once instead of once for each product.
    transposed = jax.lax.optimization_barrier(x.reshape(-1, inputs).T)
    padded = jnp.pad(gradient, ((0, 0), (size // 2, size // 2), (size // 2, size // 2), (0, 0)))
    offsets = [(row, column) for row in reversed(range(size)) for column in reversed(range(size))]
    shifted = (padded[:, row : row + height, column : column + width].reshape(-1, outputs) for row, column in offsets)
    kernel_gradient = jnp.stack([transposed @ each for each in shifted]).reshape(kernel.shape)
    return _xla_convolution(gradient, jnp.flip(kernel, (0, 1)).swapaxes(2, 3)), kernel_gradient


_convolution_2d: Any = jax.custom_vjp(_xla_convolution)
"""XLA's 2D convolution, with a gradient of the kernel that takes a fifth of the time of XLA's on a CPU.

The gradient is one matrix product per pixel of the kernel.
"""
_convolution_2d.defvjp(lambda x, kernel: (_xla_convolution(x, kernel), (x, kernel)), _convolution_2d_gradient)


def _convolution_3d(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 3D convolution as a 2D convolution of slices.

    The neighbours of a slice become channels: input channels, or output channels where there are fewer of these.
    """
    batch, depth, *plane, channels = x.shape
    size, outputs = kernel.shape[0], kernel.shape[-1]
    padding = ((0, 0), (size // 2, size // 2), (0, 0), (0, 0), (0, 0))
    if channels <= outputs:
        padded = jnp.pad(x, padding)
        neighbours = jnp.concatenate([padded[:, shift : shift + depth] for shift in range(size)], -1)
        kernel_2d = jnp.moveaxis(kernel, 0, 2).reshape(size, size, size * channels, outputs)
        slices = _convolution_2d(neighbours.reshape(batch * depth, *plane, -1), kernel_2d)
        return slices.reshape(batch, depth, *plane, outputs)
    kernel_2d = jnp.moveaxis(kernel, 0, 3).reshape(size, size, channels, size * outputs)
    slices = _convolution_2d(x.reshape(batch * depth, *plane, -1), kernel_2d)
    parts = jnp.split(jnp.pad(slices.reshape(batch, depth, *plane, -1), padding), size, -1)
    return sum(part[:, shift : shift + depth] for shift, part in enumerate(parts[1:], 1)) + parts[0][:, :depth]


def _winograd_is_faster(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether Winograd's saved multiplications cost more time than its additions and its transform of the kernel."""
    *_, inputs, outputs = kernel.shape
    tiles = len(x) * math.prod(-(-length // _TILE) for length in x.shape[1:-1])
    return min(inputs, outputs) >= 16 and inputs <= 4 * tiles


def _winograd_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, Operands]:
    tiles, weights = _to_tiles(x, _INPUT_MATRIX), _transform_kernel(kernel, _KERNEL_MATRIX)
    products = jnp.einsum("...nc,...co->...no", _join_tiles(tiles), weights)
    return _from_tiles(products.reshape(*tiles.shape[:-1], -1), _OUTPUT_MATRIX, x.shape[1:-1]), (x, kernel)


def _winograd_gradient(operands: Operands, gradient: jax.Array) -> Operands:
    # Without the barrier, XLA keeps the tiles of the forward pass, which need several times the memory of x. To compute
    # them again is faster.
    x, kernel = jax.lax.optimization_barrier(operands)
    tiles, products = _to_tiles(x, _INPUT_MATRIX), _to_tiles(gradient, _OUTPUT_MATRIX.T)
    weights = _transform_kernel(kernel, _KERNEL_MATRIX)
    kernel_gradient = jnp.einsum("...nc,...no->...co", _join_tiles(tiles), _join_tiles(products))
    x_gradient = jnp.einsum("...no,...co->...nc", _join_tiles(products), weights).reshape(tiles.shape)
    return (
        _from_tiles(x_gradient, _INPUT_MATRIX.T, x.shape[1:-1]),
        _transform_kernel(kernel_gradient, _KERNEL_MATRIX.T),
    )


_winograd: Any = jax.custom_vjp(lambda x, kernel: _winograd_forward(x, kernel)[0])
_winograd.defvjp(_winograd_forward, _winograd_gradient)


def _join_tiles(tiles: jax.Array) -> jax.Array:
    """All tiles as one axis, for a matrix product: shape (6, …, 6, batch * tiles, channels)."""
    axes = (tiles.ndim - 2) // 2
    return tiles.reshape(*tiles.shape[:axes], -1, tiles.shape[-1])


def _combine(parts: Sequence[jax.Array], matrix: np.ndarray) -> list[jax.Array]:
    """The product of a small matrix and a vector of arrays."""
    return [
        sum((float(factor) * part for factor, part in zip(row, parts, strict=True) if factor), jnp.float32(0))
        for row in matrix
    ]


def _transform_kernel(kernel: jax.Array, matrix: np.ndarray) -> jax.Array:
    """The product of a matrix and each spatial axis of a kernel.

    It is one product with the matrix of all axes, which takes more multiplications and a fraction of the time to compile.
    """
    axes = kernel.ndim - 2
    of_all_axes = jnp.asarray(reduce(np.kron, [matrix] * axes), jnp.float32)
    flat = jnp.dot(of_all_axes, kernel.reshape(of_all_axes.shape[1], -1), precision=jax.lax.Precision.HIGHEST)
    return flat.reshape(*(len(matrix),) * axes, *kernel.shape[-2:])


def _to_tiles(x: jax.Array, matrix: np.ndarray) -> jax.Array:
    """The product of a matrix and each spatial axis of each tile.

    Args:
        x: Shape (batch, z, y, x, channels), or the same in 2D.
        matrix: Shape (6, pixels of a tile per axis).

    Returns:
        Shape (6, 6, 6, batch, tiles z, tiles y, tiles x, channels).
    """
    width = matrix.shape[1]
    margin = (width - _TILE) // 2
    counts = [-(-length // _TILE) for length in x.shape[1:-1]]
    # All axes are padded at once: XLA makes a slow program of an array that is stacked and then padded.
    ends = [_TILE * count + margin - length for count, length in zip(counts, x.shape[1:-1], strict=True)]
    x = jnp.pad(x, ((0, 0), *((margin, end) for end in ends), (0, 0)))
    axis = x.ndim - 2
    for count in reversed(counts):
        flat, shape = _as_three_axes(x, axis), x.shape
        parts = [jax.lax.slice_in_dim(flat, i, i + _TILE * (count - 1) + 1, _TILE, 1) for i in range(width)]
        x = jnp.stack(_combine(parts, matrix)).reshape(-1, *shape[:axis], count, *shape[axis + 1 :])
    return x


def _from_tiles(tiles: jax.Array, matrix: np.ndarray, lengths: Sequence[int]) -> jax.Array:
    """The transpose of :func:`_to_tiles` with the transposed matrix. Pixels where tiles overlap are added."""
    axis = len(lengths)
    for _ in lengths:
        shape = tiles.shape[1:]
        parts = _combine([_as_three_axes(part, axis) for part in tiles], matrix)
        if len(parts) > _TILE:
            first, *parts, last = parts
            parts[0] += _shift(last, 1)
            parts[-1] += _shift(first, -1)
        tiles = jnp.stack(parts, 2).reshape(*shape[:axis], -1, *shape[axis + 1 :])
    return tiles[(slice(None), *(slice(length) for length in lengths))]


def _as_three_axes(x: jax.Array, axis: int) -> jax.Array:
    """The axes before ``axis`` as one axis, and those after it as another. XLA compiles that in half the time."""
    return x.reshape(math.prod(x.shape[:axis]), x.shape[axis], -1)


def _shift(x: jax.Array, steps: int) -> jax.Array:
    """Shift the second axis, filling with zeros."""
    return jax.lax.pad(x, jnp.float32(0), ((0, 0, 0), (steps, -steps, 0), (0, 0, 0)))
