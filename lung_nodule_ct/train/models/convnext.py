"""ConvNeXt-T (Liu et al. 2022): timm's ``convnext_tiny``, without stochastic depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import jax
import jax.numpy as jnp
from flax import nnx

from lung_nodule_ct.train.layers import Recomputed

if TYPE_CHECKING:
    from lung_nodule_ct.train.models.layers import Layers

_DEPTHS: Final = (3, 3, 9, 3)
_WIDTHS: Final = (96, 192, 384, 768)
_INITIAL_SCALE: Final = 1e-6


def _layer_norm(channels: int, layers: Layers) -> nnx.LayerNorm:
    # the default of NNX subtracts two large numbers for the variance
    return nnx.LayerNorm(channels, epsilon=1e-6, use_fast_variance=False, dtype=layers.dtype, rngs=layers.rngs)


class Mlp(nnx.Module):
    """Two linear layers at each pixel, with GELU between them."""

    def __init__(self, channels: int, layers: Layers) -> None:
        self.fc1, self.fc2 = layers.linear(channels, 4 * channels), layers.linear(4 * channels, channels)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(nnx.gelu(self.fc1(x), approximate=False))


class Block(Recomputed):
    """A depthwise convolution of 7 pixels, layer normalisation, and an MLP, whose result has a small scale at first."""

    def __init__(self, channels: int, layers: Layers) -> None:
        self.conv_dw = layers.conv(channels, channels, 7, groups=channels, bias=True)
        self.norm = _layer_norm(channels, layers)
        self.mlp = Mlp(channels, layers)
        self.gamma = nnx.Param(jnp.full(channels, _INITIAL_SCALE))

    def forward(self, x: jax.Array) -> jax.Array:
        y = self.mlp(self.norm(self.conv_dw(x)))
        return x + y * self.gamma[...].astype(y.dtype)


class Stage(nnx.Module):
    """Blocks of one resolution. All stages but the first begin with a convolution of stride 2."""

    def __init__(self, inputs: int, channels: int, depth: int, layers: Layers, *, first: bool) -> None:
        down = (
            []
            if first
            else [_layer_norm(inputs, layers), layers.conv(inputs, channels, 2, stride=2, bias=True, padding=0)]
        )
        self.downsample = nnx.List(down)
        self.blocks = nnx.List([Block(channels, layers) for _ in range(depth)])

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in (*self.downsample, *self.blocks):
            x = layer(x)
        return x


class Head(nnx.Module):
    """Layer normalisation and a linear layer on the mean of the image."""

    def __init__(self, channels: int, classes: int, layers: Layers) -> None:
        self.norm, self.fc = _layer_norm(channels, layers), layers.linear(channels, classes)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc(self.norm(x.mean((1, 2))))


class ConvNeXt(nnx.Module):
    """A stem of stride 4 and four stages."""

    def __init__(self, layers: Layers, channels: int, classes: int, blocks: tuple[int, ...] = _DEPTHS) -> None:
        stem = layers.conv(channels, _WIDTHS[0], 4, stride=4, bias=True, padding=0)
        self.stem = nnx.List([stem, _layer_norm(_WIDTHS[0], layers)])
        inputs = (_WIDTHS[0], *_WIDTHS)
        self.stages = nnx.List(
            [
                Stage(inputs[index], width, depth, layers, first=not index)
                for index, (width, depth) in enumerate(zip(_WIDTHS, blocks, strict=True))
            ]
        )
        self.head = Head(_WIDTHS[-1], classes, layers)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map images (batch, y, x, channels) to logits (batch, classes)."""
        for layer in (*self.stem, *self.stages):
            x = layer(x)
        return self.head(x)


def build(name: str, layers: Layers, channels: int, classes: int) -> ConvNeXt:  # noqa: ARG001 -- there is one variant
    """Return ConvNeXt-T, with random weights."""
    return ConvNeXt(layers, channels, classes)
