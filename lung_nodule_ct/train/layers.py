"""Layers in any number of dimensions, from NNX's bricks: convolution, group normalisation, residual block, encoder.

GroupNorm in place of BatchNorm, so that weights are all the state there is; average-then-convolve in place of strided
convolutions, which XLA is slow at on CPU (a 3 x 3 x 3 one's gradient: 344 ms against 26).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx

from lung_nodule_ct.train.convolution import tiles, winograd

if TYPE_CHECKING:
    from lung_nodule_ct.train.recipes import ModelOptions


class Conv(nnx.Module):
    """A convolution of stride 1 that keeps the size.

    Args:
        axes: 2 or 3.
        inputs: Channels in.
        outputs: Channels out.
        size: Of the kernel, odd.
        bias: What the bias begins as.
        options: Computing type, and how convolutions are made.
        rngs: Of the weights (He et al. 2015).
    """

    def __init__(
        self,
        axes: int,
        inputs: int,
        outputs: int,
        size: int,
        *,
        options: ModelOptions,
        rngs: nnx.Rngs,
        bias: float = 0.0,
    ) -> None:
        shape = (size,) * axes + (inputs, outputs)
        self.kernel = nnx.Param(nnx.initializers.he_normal()(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.full(outputs, bias, jnp.float32))
        self.dtype = jnp.bfloat16 if options.bf16 else jnp.float32
        native = options.native_conv
        self.size = size
        self.native = jax.default_backend() != "cpu" if native is None else native

    def __call__(self, x: jax.Array) -> jax.Array:
        """Shape (b, …, channels) to (b, …, channels)."""
        x, kernel = x.astype(self.dtype), self.kernel[...].astype(self.dtype)
        convolve = _pointwise if self.size == 1 else _native if self.native else _on_cpu
        return convolve(x, kernel) + self.bias[...].astype(self.dtype)


def _pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return x @ kernel.reshape(kernel.shape[-2:])


def _native(x: jax.Array, kernel: jax.Array) -> jax.Array:
    axes = "ZYX"[-(x.ndim - 2) :]
    layout = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
    return jax.lax.conv_general_dilated(x, kernel, (1,) * len(axes), "SAME", dimension_numbers=layout)


def _on_cpu(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A convolution in the way that takes least of a CPU's time."""
    *_, inputs, outputs = kernel.shape
    # with few channels or tiles the additions and the kernel's turning take more than they spare
    worth = min(inputs, outputs) >= 16 and inputs <= 4 * tiles(x)
    if worth and kernel.shape[0] == 3 and x.dtype == jnp.float32:
        return winograd(x, kernel)
    return _flat(x, kernel) if x.ndim == 4 else _stacked(x, kernel)


def _flat_back(held: tuple[jax.Array, jax.Array], above: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = held
    size, _, inputs, outputs = kernel.shape
    _, height, width, _ = x.shape
    # turned over once, for a product a place of the kernel
    turned = jax.lax.optimization_barrier(x.reshape(-1, inputs).T)
    around = jnp.pad(above, ((0, 0), (size // 2, size // 2), (size // 2, size // 2), (0, 0)))
    places = [(row, column) for row in reversed(range(size)) for column in reversed(range(size))]
    moved = (around[:, row : row + height, column : column + width].reshape(-1, outputs) for row, column in places)
    by_kernel = jnp.stack([turned @ each for each in moved]).reshape(kernel.shape)
    return _native(above, jnp.flip(kernel, (0, 1)).swapaxes(2, 3)), by_kernel


_flat: Any = jax.custom_vjp(_native)
"""A 2D convolution with its own gradient of the kernel: XLA's on CPU takes five times what its multiplications do."""
_flat.defvjp(lambda x, kernel: (_native(x, kernel), (x, kernel)), _flat_back)


def _stacked(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 3D convolution as a 2D one of slices: a slice's neighbours are channels, of what goes in or, where fewer, of what comes out."""
    batch, depth, *plane, channels = x.shape
    size, outputs = kernel.shape[0], kernel.shape[-1]
    around = ((0, 0), (size // 2, size // 2), (0, 0), (0, 0), (0, 0))
    if channels <= outputs:
        deep = jnp.pad(x, around)
        near = jnp.concatenate([deep[:, shift : shift + depth] for shift in range(size)], -1)
        flat = jnp.moveaxis(kernel, 0, 2).reshape(size, size, size * channels, outputs)
        return _flat(near.reshape(batch * depth, *plane, -1), flat).reshape(batch, depth, *plane, outputs)
    flat = jnp.moveaxis(kernel, 0, 3).reshape(size, size, channels, size * outputs)
    deep = jnp.pad(_flat(x.reshape(batch * depth, *plane, -1), flat).reshape(batch, depth, *plane, -1), around)
    parts = jnp.split(deep, size, -1)
    return sum(part[:, shift : shift + depth] for shift, part in enumerate(parts[1:], 1)) + parts[0][:, :depth]


def halve(x: jax.Array) -> jax.Array:
    """Means over 2 pixels along each axis; an odd one at the end stands twice."""
    fill = [(0, 0), *((0, n % 2) for n in x.shape[1:-1]), (0, 0)]
    return _blocks(jnp.pad(x, fill, mode="edge"), 2).mean(-2)


def _blocks(x: jax.Array, side: int) -> jax.Array:
    """Shape (b, y, x, c) to (b, y / side, x / side, side², c); likewise in 3D."""
    batch, *lengths, channels = x.shape
    axes = len(lengths)
    split = x.reshape(batch, *(part for n in lengths for part in (n // side, side)), channels)
    order = (0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), 2 * axes + 1)
    return split.transpose(order).reshape(batch, *(n // side for n in lengths), side**axes, channels)


def double(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Each pixel twice along each axis, cut to ``shape``: by broadcasting, since the gradient of a repeat is a slow scatter."""
    for axis, length in enumerate(shape, 1):
        twice = jnp.broadcast_to(jnp.expand_dims(x, axis + 1), (*x.shape[: axis + 1], 2, *x.shape[axis + 1 :]))
        x = jax.lax.slice_in_dim(twice.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :]), 0, length, axis=axis)
    return x


def norm(channels: int, options: ModelOptions, rngs: nnx.Rngs) -> nnx.GroupNorm:
    """Group normalisation (Wu and He 2018) in groups of about 8 channels."""
    groups = math.gcd(channels, max(1, channels // 8))
    return nnx.GroupNorm(channels, num_groups=groups, dtype=jnp.bfloat16 if options.bf16 else jnp.float32, rngs=rngs)


class Block(nnx.Module):
    """A basic residual block (He et al. 2016), with squeeze and excitation (Hu et al. 2018) where the options say so."""

    def __init__(self, axes: int, inputs: int, outputs: int, options: ModelOptions, rngs: nnx.Rngs) -> None:
        self.first = Conv(axes, inputs, outputs, 3, options=options, rngs=rngs)
        self.first_norm = norm(outputs, options, rngs)
        self.second = Conv(axes, outputs, outputs, 3, options=options, rngs=rngs)
        self.second_norm = norm(outputs, options, rngs)
        self.skip = Conv(axes, inputs, outputs, 1, options=options, rngs=rngs) if inputs != outputs else None
        narrow = max(4, outputs // 16)
        self.squeeze = nnx.Linear(outputs, narrow, rngs=rngs) if options.squeeze else None
        self.excite = nnx.Linear(narrow, outputs, rngs=rngs) if options.squeeze else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Shape (b, …, inputs) to (b, …, outputs)."""
        y = self.second_norm(self.second(nnx.relu(self.first_norm(self.first(x)))))
        if self.squeeze is not None and self.excite is not None:
            middle = y.mean(tuple(range(1, y.ndim - 1)), keepdims=True)
            y = y * nnx.sigmoid(self.excite(nnx.relu(self.squeeze(middle)))).astype(y.dtype)
        return nnx.relu((x if self.skip is None else self.skip(x)) + y)


class Encoder(nnx.Module):
    """A ResNet whose first layer takes ``patch`` pixels a side together; gives the features of every stage.

    Stage i has stride ``patch * 2**i`` and ``width * 2**i`` channels. Blocks 3, 4, 6, 3 make it ResNet-34.
    """

    def __init__(self, axes: int, options: ModelOptions, rngs: nnx.Rngs) -> None:
        self.axes, self.patch = axes, options.patch
        widths = [options.width * 2**stage for stage in range(len(options.blocks))]
        self.stem = Conv(axes, options.patch**axes, widths[0], 3, options=options, rngs=rngs)
        self.stem_norm = norm(widths[0], options, rngs)
        stages = zip(pairwise([widths[0], *widths]), options.blocks, strict=True)
        self.stages = nnx.List(
            [
                nnx.List([Block(axes, wide if n else narrow, wide, options, rngs) for n in range(count)])
                for (narrow, wide), count in stages
            ]
        )
        self.widths = tuple(widths)

    def __call__(self, x: jax.Array) -> list[Any]:
        """Shape (b, …, 1) to a list of (b, … / stride, channels); each axis is first filled up to whole patches."""
        fill = [(0, 0), *((0, -n % self.patch) for n in x.shape[1:-1]), (0, 0)]
        x = _blocks(jnp.pad(x, fill), self.patch)
        x = nnx.relu(self.stem_norm(self.stem(x.reshape(*x.shape[:-2], -1))))
        features = []
        for place, stage in enumerate(self.stages):
            x = halve(x) if place else x
            for block in stage:
                x = block(x)
            features.append(x)
        return features
