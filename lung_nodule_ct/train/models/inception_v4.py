"""Inception-v4 (Szegedy et al. 2017): timm's ``inception_v4``.

Convolutions have no padding where nothing else is said, so that an image needs 75 pixels per axis.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import jax
import jax.numpy as jnp
from flax import nnx

from lung_nodule_ct.train.layers import Recomputed
from lung_nodule_ct.train.models.layers import average_pool, max_pool

if TYPE_CHECKING:
    from lung_nodule_ct.train.models.layers import Layers

    Size = int | tuple[int, int]

_DEPTHS: Final = (4, 7, 3)
"""Numbers of blocks A, B and C."""


class ConvNorm(nnx.Module):
    """A convolution, batch normalisation and ReLU."""

    def __init__(
        self, layers: Layers, inputs: int, outputs: int, size: Size, *, stride: int = 1, same: bool = False
    ) -> None:
        self.conv = layers.conv(inputs, outputs, size, stride=stride, padding=None if same else 0)
        self.bn = layers.norm(outputs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.relu(self.bn(self.conv(x)))


class MaxPool(nnx.Module):
    """The maximum of 3 pixels per axis, with stride 2."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return max_pool(x, 3, 2)


class AveragePool(nnx.Module):
    """The mean of 3 pixels per axis, without those outside the image."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return average_pool(x, 3, 1, 1, count_padding=False)


class Branches(Recomputed):
    """Layers, or lists of layers, of the same input. Their results are concatenated."""

    def __init__(self, **branches: Any) -> None:
        self.names = tuple(branches)
        for name, branch in branches.items():
            setattr(self, name, nnx.List(branch) if isinstance(branch, list) else branch)

    def forward(self, x: jax.Array) -> jax.Array:
        results = []
        for name in self.names:
            branch, y = getattr(self, name), x
            for layer in branch if isinstance(branch, nnx.List) else [branch]:
                y = layer(y)
            results.append(y)
        return jnp.concatenate(results, -1)


def _conv(layers: Layers, inputs: int, outputs: int, size: Size) -> ConvNorm:
    return ConvNorm(layers, inputs, outputs, size, same=True)


def _down(layers: Layers, inputs: int, outputs: int) -> ConvNorm:
    return ConvNorm(layers, inputs, outputs, 3, stride=2)


def _chain(layers: Layers, inputs: int, *steps: tuple[int, Size]) -> list[nnx.Module]:
    """Convolutions one after the other, each with its number of outputs and its size."""
    chain: list[nnx.Module] = []
    for outputs, size in steps:
        chain.append(_conv(layers, inputs, outputs, size))
        inputs = outputs
    return chain


def _stem(layers: Layers, channels: int) -> list[nnx.Module]:
    """The layers up to a stride of 8, with 384 channels."""
    return [
        _down(layers, channels, 32),
        ConvNorm(layers, 32, 32, 3),
        _conv(layers, 32, 64, 3),
        Branches(maxpool=MaxPool(), conv=_down(layers, 64, 96)),
        Branches(
            branch0=[_conv(layers, 160, 64, 1), ConvNorm(layers, 64, 96, 3)],
            branch1=[*_chain(layers, 160, (64, 1), (64, (1, 7)), (64, (7, 1))), ConvNorm(layers, 64, 96, 3)],
        ),
        Branches(conv=_down(layers, 192, 192), maxpool=MaxPool()),
    ]


def _inception_a(layers: Layers) -> Branches:
    return Branches(
        branch0=_conv(layers, 384, 96, 1),
        branch1=_chain(layers, 384, (64, 1), (96, 3)),
        branch2=_chain(layers, 384, (64, 1), (96, 3), (96, 3)),
        branch3=[AveragePool(), _conv(layers, 384, 96, 1)],
    )


def _reduction_a(layers: Layers) -> Branches:
    return Branches(
        branch0=_down(layers, 384, 384),
        branch1=[*_chain(layers, 384, (192, 1), (224, 3)), _down(layers, 224, 256)],
        branch2=MaxPool(),
    )


def _inception_b(layers: Layers) -> Branches:
    wide, high = (1, 7), (7, 1)
    return Branches(
        branch0=_conv(layers, 1024, 384, 1),
        branch1=_chain(layers, 1024, (192, 1), (224, wide), (256, high)),
        branch2=_chain(layers, 1024, (192, 1), (192, high), (224, wide), (224, high), (256, wide)),
        branch3=[AveragePool(), _conv(layers, 1024, 128, 1)],
    )


def _reduction_b(layers: Layers) -> Branches:
    return Branches(
        branch0=[_conv(layers, 1024, 192, 1), _down(layers, 192, 192)],
        branch1=[*_chain(layers, 1024, (256, 1), (256, (1, 7)), (320, (7, 1))), _down(layers, 320, 320)],
        branch2=MaxPool(),
    )


class InceptionC(Recomputed):
    """The last kind of block: two of its branches end in two convolutions of 1 x 3 and 3 x 1 pixels."""

    def __init__(self, layers: Layers) -> None:
        self.branch0 = _conv(layers, 1536, 256, 1)
        self.branch1_0 = _conv(layers, 1536, 384, 1)
        self.branch1_1a, self.branch1_1b = _conv(layers, 384, 256, (1, 3)), _conv(layers, 384, 256, (3, 1))
        self.branch2_0 = _conv(layers, 1536, 384, 1)
        self.branch2_1, self.branch2_2 = _conv(layers, 384, 448, (3, 1)), _conv(layers, 448, 512, (1, 3))
        self.branch2_3a, self.branch2_3b = _conv(layers, 512, 256, (1, 3)), _conv(layers, 512, 256, (3, 1))
        self.branch3 = nnx.List([AveragePool(), _conv(layers, 1536, 256, 1)])

    def forward(self, x: jax.Array) -> jax.Array:
        first = self.branch1_0(x)
        second = self.branch2_2(self.branch2_1(self.branch2_0(x)))
        pool, conv = self.branch3
        results = [
            self.branch0(x),
            self.branch1_1a(first),
            self.branch1_1b(first),
            self.branch2_3a(second),
            self.branch2_3b(second),
            conv(pool(x)),
        ]
        return jnp.concatenate(results, -1)


class InceptionV4(nnx.Module):
    """A stem, blocks A, B and C with reductions between them, and a linear layer on the mean."""

    def __init__(self, layers: Layers, channels: int, classes: int, blocks: tuple[int, ...] = _DEPTHS) -> None:
        first, second, third = blocks
        features = [
            *_stem(layers, channels),
            *(_inception_a(layers) for _ in range(first)),
            _reduction_a(layers),
            *(_inception_b(layers) for _ in range(second)),
            _reduction_b(layers),
            *(InceptionC(layers) for _ in range(third)),
        ]
        self.features = nnx.List(features)
        self.last_linear = layers.linear(1536, classes)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map images (batch, y, x, channels) to logits (batch, classes)."""
        for layer in self.features:
            x = layer(x)
        return self.last_linear(x.mean((1, 2)))


def build(name: str, layers: Layers, channels: int, classes: int) -> InceptionV4:  # noqa: ARG001 -- there is one variant
    """Return Inception-v4, with random weights."""
    return InceptionV4(replace(layers, epsilon=1e-3), channels, classes)
