"""CABNet (He et al. 2020): global attention and category attention on the features of a DenseNet-121.

The attention is that of the authors' published definition. Their code offers nine backbones and their paper reports several;
DenseNet-121 (Huang et al. 2017) is taken, with the names of torchvision's ``densenet121``. A class has ``_MAPS`` maps.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import jax
import jax.numpy as jnp
from flax import nnx

from lung_nodule_ct.train.layers import Recomputed
from lung_nodule_ct.train.models.layers import average_pool, max_pool

if TYPE_CHECKING:
    from lung_nodule_ct.train.models.layers import Layers

_BLOCKS: Final = (6, 12, 24, 16)
_GROWTH: Final = 32
_STEM: Final = 64
_MAPS: Final = 5
"""Feature maps per class, ``k`` in the authors' code."""


class DenseLayer(Recomputed):
    """Two convolutions, each after batch normalisation and ReLU. The result is added to the channels of the input."""

    def __init__(self, inputs: int, layers: Layers) -> None:
        self.norm1, self.conv1 = layers.norm(inputs), layers.conv(inputs, 4 * _GROWTH, 1)
        self.norm2, self.conv2 = layers.norm(4 * _GROWTH), layers.conv(4 * _GROWTH, _GROWTH, 3)

    def forward(self, x: jax.Array) -> jax.Array:
        y = self.conv1(nnx.relu(self.norm1(x)))
        return jnp.concatenate([x, self.conv2(nnx.relu(self.norm2(y)))], -1)


class Transition(nnx.Module):
    """Half of the channels, and half of the resolution."""

    def __init__(self, inputs: int, layers: Layers) -> None:
        self.norm, self.conv = layers.norm(inputs), layers.conv(inputs, inputs // 2, 1)

    def __call__(self, x: jax.Array) -> jax.Array:
        return average_pool(self.conv(nnx.relu(self.norm(x))), 2, 2)


class DenseFeatures(nnx.Module):
    """The layers of DenseNet-121 before its classifier."""

    def __init__(self, layers: Layers, channels: int, blocks: tuple[int, ...]) -> None:
        self.blocks = blocks
        self.conv0, self.norm0 = layers.conv(channels, _STEM, 7, stride=2), layers.norm(_STEM)
        inputs = _STEM
        for number, count in enumerate(blocks, 1):
            dense = {f"denselayer{index + 1}": DenseLayer(inputs + index * _GROWTH, layers) for index in range(count)}
            setattr(self, f"denseblock{number}", nnx.Dict(dense))
            inputs += count * _GROWTH
            if number < len(blocks):
                setattr(self, f"transition{number}", Transition(inputs, layers))
                inputs //= 2
        self.norm5, self.outputs = layers.norm(inputs), inputs

    def __call__(self, x: jax.Array) -> jax.Array:
        x = max_pool(nnx.relu(self.norm0(self.conv0(x))), 3, 2, 1)
        for number, count in enumerate(self.blocks, 1):
            block = getattr(self, f"denseblock{number}")
            for index in range(count):
                x = block[f"denselayer{index + 1}"](x)
            if number < len(self.blocks):
                x = getattr(self, f"transition{number}")(x)
        return nnx.relu(self.norm5(x))


class GlobalAttention(nnx.Module):
    """Weights of the channels from their mean, then a weight of each pixel from the mean of its channels."""

    def __init__(self, channels: int, layers: Layers) -> None:
        self.conv1, self.conv2 = (layers.conv(channels, channels, 1, bias=True) for _ in range(2))

    def __call__(self, x: jax.Array) -> jax.Array:
        weights = nnx.sigmoid(self.conv2(nnx.relu(self.conv1(x.mean((1, 2), keepdims=True)))))
        x = x * weights
        return x * nnx.sigmoid(x.mean(-1, keepdims=True))


class CategoryAttention(nnx.Module):
    """A weight of each pixel from feature maps that belong to the classes, each class weighted by its largest responses."""

    def __init__(self, channels: int, classes: int, layers: Layers) -> None:
        self.classes = classes
        self.conv, self.bn = layers.conv(channels, classes * _MAPS, 1, bias=True), layers.norm(classes * _MAPS)

    def __call__(self, x: jax.Array) -> jax.Array:
        maps = nnx.relu(self.bn(self.conv(x)))
        # The gradient of jnp.max compares maps that XLA may compute twice with different rounding, and divides by zero.
        largest = jax.lax.reduce_window(maps, -jnp.inf, jax.lax.max, (1, *maps.shape[1:3], 1), (1, 1, 1, 1), "VALID")
        maps = maps.reshape(*maps.shape[:-1], self.classes, _MAPS)
        scores = largest.reshape(len(x), self.classes, _MAPS).mean(-1)
        attention = (scores[:, None, None] * maps.mean(-1)).mean(-1, keepdims=True)
        return x * attention


class CABNet(nnx.Module):
    """DenseNet-121, both attentions, and a linear layer on the mean."""

    def __init__(self, layers: Layers, channels: int, classes: int, blocks: tuple[int, ...] = _BLOCKS) -> None:
        self.features = DenseFeatures(layers, channels, blocks)
        width = self.features.outputs
        self.global_attention = GlobalAttention(width, layers)
        # the authors' Keras has these defaults of batch normalisation, and torchvision's backbone has its own
        keras = replace(layers, momentum=0.99, epsilon=1e-3)
        self.category_attention = CategoryAttention(width, classes, keras)
        self.classifier = layers.linear(width, classes)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map images (batch, y, x, channels) to logits (batch, classes)."""
        x = self.category_attention(self.global_attention(self.features(x)))
        return self.classifier(x.mean((1, 2)))


def build(name: str, layers: Layers, channels: int, classes: int) -> CABNet:  # noqa: ARG001 -- there is one variant
    """Return CABNet on DenseNet-121, with random weights."""
    return CABNet(layers, channels, classes)
