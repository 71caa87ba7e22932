"""EfficientNet-B0 (Tan and Le 2019): timm's ``efficientnet_b0``, without dropout and stochastic depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import jax
from flax import nnx

from lung_nodule_ct.train.layers import Recomputed

if TYPE_CHECKING:
    from lung_nodule_ct.train.models.layers import Layers

_STAGES: Final = (
    (3, 1, 1, 16),
    (3, 2, 6, 24),
    (5, 2, 6, 40),
    (3, 2, 6, 80),
    (5, 1, 6, 112),
    (5, 2, 6, 192),
    (3, 1, 6, 320),
)
"""Pixels of the kernel, stride, expansion and channels of each stage."""
_DEPTHS: Final = (1, 2, 2, 3, 3, 4, 1)
_STEM: Final = 32
_FEATURES: Final = 1280


class SqueezeExcite(nnx.Module):
    """Weights of channels from their mean. The bottleneck is a quarter of the block's input, not of its expansion."""

    def __init__(self, channels: int, reduced: int, layers: Layers) -> None:
        self.conv_reduce = layers.conv(channels, reduced, 1, bias=True)
        self.conv_expand = layers.conv(reduced, channels, 1, bias=True)

    def __call__(self, x: jax.Array) -> jax.Array:
        mean = x.mean((1, 2), keepdims=True)
        return x * nnx.sigmoid(self.conv_expand(nnx.silu(self.conv_reduce(mean))))


class SeparableBlock(Recomputed):
    """The block of the first stage: a depthwise convolution, squeeze and excitation, and a linear projection."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, layers: Layers) -> None:
        self.skip = stride == 1 and inputs == outputs
        self.conv_dw = layers.conv(inputs, inputs, size, stride=stride, groups=inputs)
        self.bn1 = layers.norm(inputs)
        self.se = SqueezeExcite(inputs, inputs // 4, layers)
        self.conv_pw, self.bn2 = layers.conv(inputs, outputs, 1), layers.norm(outputs)

    def forward(self, x: jax.Array) -> jax.Array:
        y = self.se(nnx.silu(self.bn1(self.conv_dw(x))))
        y = self.bn2(self.conv_pw(y))
        return x + y if self.skip else y


class InvertedBlock(Recomputed):
    """The same with an expansion of the channels before it (MobileNetV2, Sandler et al. 2018)."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, expansion: int, layers: Layers) -> None:
        width = inputs * expansion
        self.skip = stride == 1 and inputs == outputs
        self.conv_pw, self.bn1 = layers.conv(inputs, width, 1), layers.norm(width)
        self.conv_dw = layers.conv(width, width, size, stride=stride, groups=width)
        self.bn2 = layers.norm(width)
        self.se = SqueezeExcite(width, inputs // 4, layers)
        self.conv_pwl, self.bn3 = layers.conv(width, outputs, 1), layers.norm(outputs)

    def forward(self, x: jax.Array) -> jax.Array:
        y = nnx.silu(self.bn1(self.conv_pw(x)))
        y = self.se(nnx.silu(self.bn2(self.conv_dw(y))))
        y = self.bn3(self.conv_pwl(y))
        return x + y if self.skip else y


class EfficientNet(nnx.Module):
    """A stem of stride 2, seven stages, a convolution of 1 pixel, and a linear layer on the mean."""

    def __init__(self, layers: Layers, channels: int, classes: int, blocks: tuple[int, ...] = _DEPTHS) -> None:
        self.conv_stem, self.bn1 = layers.conv(channels, _STEM, 3, stride=2), layers.norm(_STEM)
        stages, inputs = [], _STEM
        for count, (size, first_stride, expansion, outputs) in zip(blocks, _STAGES, strict=True):
            stage: list[SeparableBlock | InvertedBlock] = []
            for index in range(count):
                stride = 1 if index else first_stride
                stage.append(
                    SeparableBlock(inputs, outputs, size, stride, layers)
                    if expansion == 1
                    else InvertedBlock(inputs, outputs, size, stride, expansion, layers)
                )
                inputs = outputs
            stages.append(nnx.List(stage))
        self.blocks = nnx.List(stages)
        self.conv_head, self.bn2 = layers.conv(inputs, _FEATURES, 1), layers.norm(_FEATURES)
        self.classifier = layers.linear(_FEATURES, classes)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map images (batch, y, x, channels) to logits (batch, classes)."""
        x = nnx.silu(self.bn1(self.conv_stem(x)))
        for stage in self.blocks:
            for block in stage:
                x = block(x)
        x = nnx.silu(self.bn2(self.conv_head(x)))
        return self.classifier(x.mean((1, 2)))


def build(name: str, layers: Layers, channels: int, classes: int) -> EfficientNet:  # noqa: ARG001 -- there is one variant
    """Return EfficientNet-B0, with random weights."""
    return EfficientNet(layers, channels, classes)
