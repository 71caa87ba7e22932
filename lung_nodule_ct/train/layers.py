"""Layers in 2D and 3D, built from NNX: convolution, group normalisation, residual block, encoder.

Arrays have the batch first and the channels last: (batch, y, x, channels) or (batch, z, y, x, channels).

The normalisation is GroupNorm, so that an example does not depend on the others of its batch. Resolution is reduced by
average pooling before a convolution of stride 1, because XLA is slow at strided convolutions on a CPU.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import nnx

from lung_nodule_ct.train.convolution import convolve

if TYPE_CHECKING:
    from lung_nodule_ct.train.recipes import ModelOptions


class Conv(nnx.Module):
    """A convolution of stride 1 that keeps the size of the image.

    Args:
        axes: 2 or 3.
        inputs: Number of input channels.
        outputs: Number of output channels.
        size: Pixels of the kernel per axis, odd.
        bias: Initial value of the bias.
        options: Give the computing type and whether XLA's convolution is used.
        rngs: Random keys of the weights (He et al. 2015).
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
        self.dtype = compute_dtype(options)
        self.native = options.native_conv

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map shape (batch, …, inputs) to (batch, …, outputs)."""
        x, kernel = x.astype(self.dtype), self.kernel[...].astype(self.dtype)
        return convolve(x, kernel, native=self.native) + self.bias[...].astype(self.dtype)


class Recomputed(nnx.Module):
    """A part of a network whose activations are computed again for its gradient, instead of being kept, where ``remat`` is set.

    Its subclasses define ``forward``, from one array to another one. Statistics are updated once, and what is drawn is drawn again.
    """

    remat = False

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.remat(type(self).forward)(self, x) if self.remat else self.forward(x)

    def forward(self, x: jax.Array) -> jax.Array:
        """What the part computes."""
        raise NotImplementedError


def compute_dtype(options: ModelOptions) -> jax.typing.DTypeLike:
    """The type that layers compute in. Weights are float32 in any case."""
    bf16 = jax.default_backend() != "cpu" if options.bf16 is None else options.bf16
    return jnp.bfloat16 if bf16 else jnp.float32


def group_norm(channels: int, options: ModelOptions, rngs: nnx.Rngs) -> nnx.GroupNorm:
    """Group normalisation (Wu and He 2018) in groups of about 8 channels."""
    groups = math.gcd(channels, max(1, channels // 8))
    return nnx.GroupNorm(channels, num_groups=groups, dtype=compute_dtype(options), rngs=rngs)


def average_pool(x: jax.Array) -> jax.Array:
    """Mean over 2 pixels along each axis. An odd last pixel is repeated."""
    padding = [(0, 0), *((0, n % 2) for n in x.shape[1:-1]), (0, 0)]
    return split_into_blocks(jnp.pad(x, padding, mode="edge"), 2).mean(-2)


def upsample(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Repeat each pixel twice along each axis, and cut the result to ``shape``."""
    for axis, length in enumerate(shape, 1):
        # jnp.repeat would be simpler, but its gradient is a slow scatter
        pairs = jnp.broadcast_to(jnp.expand_dims(x, axis + 1), (*x.shape[: axis + 1], 2, *x.shape[axis + 1 :]))
        x = jax.lax.slice_in_dim(pairs.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :]), 0, length, axis=axis)
    return x


def split_into_blocks(x: jax.Array, side: int) -> jax.Array:
    """Split an image into square or cubic blocks.

    Args:
        x: Shape (batch, y, x, channels), or the same in 3D; each length is a multiple of ``side``.
        side: Pixels of a block per axis.

    Returns:
        Shape (batch, y / side, x / side, side², channels), in 3D with side³.
    """
    batch, *lengths, channels = x.shape
    axes = len(lengths)
    split = x.reshape(batch, *(part for n in lengths for part in (n // side, side)), channels)
    order = (0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), 2 * axes + 1)
    return split.transpose(order).reshape(batch, *(n // side for n in lengths), side**axes, channels)


class Block(Recomputed):
    """A basic residual block (He et al. 2016), optionally with squeeze and excitation (Hu et al. 2018)."""

    def __init__(self, axes: int, inputs: int, outputs: int, options: ModelOptions, rngs: nnx.Rngs) -> None:
        self.first = Conv(axes, inputs, outputs, 3, options=options, rngs=rngs)
        self.first_norm = group_norm(outputs, options, rngs)
        self.second = Conv(axes, outputs, outputs, 3, options=options, rngs=rngs)
        self.second_norm = group_norm(outputs, options, rngs)
        self.skip = Conv(axes, inputs, outputs, 1, options=options, rngs=rngs) if inputs != outputs else None
        hidden = max(4, outputs // 16)
        self.squeeze = nnx.Linear(outputs, hidden, rngs=rngs) if options.squeeze else None
        self.excite = nnx.Linear(hidden, outputs, rngs=rngs) if options.squeeze else None

    def forward(self, x: jax.Array) -> jax.Array:
        """Map shape (batch, …, inputs) to (batch, …, outputs)."""
        y = self.second_norm(self.second(nnx.relu(self.first_norm(self.first(x)))))
        if self.squeeze is not None and self.excite is not None:
            mean = y.mean(tuple(range(1, y.ndim - 1)), keepdims=True)
            y = y * nnx.sigmoid(self.excite(nnx.relu(self.squeeze(mean)))).astype(y.dtype)
        return nnx.relu((x if self.skip is None else self.skip(x)) + y)


class Bottleneck(Recomputed):
    """A residual block of three convolutions, of which the middle one has a quarter of the channels (He et al. 2016)."""

    def __init__(self, axes: int, inputs: int, outputs: int, options: ModelOptions, rngs: nnx.Rngs) -> None:
        narrow = outputs // 4
        plan = ((inputs, narrow, 1), (narrow, narrow, 3), (narrow, outputs, 1))
        self.layers = nnx.List([Conv(axes, a, b, size, options=options, rngs=rngs) for a, b, size in plan])
        self.norms = nnx.List([group_norm(b, options, rngs) for _, b, _ in plan])
        self.skip = Conv(axes, inputs, outputs, 1, options=options, rngs=rngs) if inputs != outputs else None

    def forward(self, x: jax.Array) -> jax.Array:
        """Map shape (batch, …, inputs) to (batch, …, outputs)."""
        y = x
        for number, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            y = norm(layer(nnx.relu(y) if number else y))
        return nnx.relu((x if self.skip is None else self.skip(x)) + y)


class Encoder(nnx.Module):
    """A small residual network of our own, whose first layer sees blocks of ``patch`` pixels per axis as channels.

    Stage i has stride ``patch * 2**i`` and ``width * 2**i`` channels, or four times as many with bottlenecks.
    """

    def __init__(self, axes: int, options: ModelOptions, rngs: nnx.Rngs) -> None:
        self.axes, self.patch = axes, options.patch
        wider, block = (4, Bottleneck) if options.bottleneck else (1, Block)
        widths = [wider * options.width * 2**stage for stage in range(len(options.blocks))]
        self.stem = Conv(axes, options.patch**axes, options.width, 3, options=options, rngs=rngs)
        self.stem_norm = group_norm(options.width, options, rngs)
        stages = zip(pairwise([options.width, *widths]), options.blocks, strict=True)
        self.stages = nnx.List(
            [
                nnx.List([block(axes, outputs if n else inputs, outputs, options, rngs) for n in range(count)])
                for (inputs, outputs), count in stages
            ]
        )
        self.widths = tuple(widths)

    def __call__(self, x: jax.Array) -> list[jax.Array]:
        """Return the features of every stage.

        Args:
            x: Shape (batch, …, 1). Each axis is padded to a multiple of ``patch``.

        Returns:
            One array per stage, shape (batch, … / stride, channels).
        """
        padding = [(0, 0), *((0, -n % self.patch) for n in x.shape[1:-1]), (0, 0)]
        x = split_into_blocks(jnp.pad(x, padding), self.patch)
        x = nnx.relu(self.stem_norm(self.stem(x.reshape(*x.shape[:-2], -1))))
        features = []
        for index, stage in enumerate(self.stages):
            x = average_pool(x) if index else x
            for block in stage:
                x = block(x)
            features.append(x)
        return features
