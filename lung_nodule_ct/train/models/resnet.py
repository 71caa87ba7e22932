"""ResNet-50 (He et al. 2016), ResNeXt-50, SE-ResNet-50 and Res2Net-50: one residual network with four kinds of bottleneck.

Names, shapes and arithmetic are those of timm's ``resnet50``, ``resnext50_32x4d``, ``seresnet50`` and
``res2net50_26w_4s``. As in all of these, the convolution of 3 pixels has the stride, not the first one of 1 pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import jax
import jax.numpy as jnp
from flax import nnx

from lung_nodule_ct.train.layers import Recomputed
from lung_nodule_ct.train.models.layers import average_pool, max_pool

if TYPE_CHECKING:
    from lung_nodule_ct.train.models.layers import Layers

_EXPANSION: Final = 4


@dataclass(frozen=True)
class Variant:
    """What distinguishes the networks.

    Attributes:
        groups: Groups of the convolution of 3 pixels (ResNeXt, Xie et al. 2017).
        base_width: Channels of each group in the first stage.
        scale: Number of parts of a bottleneck that are convolved one after the other (Res2Net, Gao et al. 2019).
        squeeze: Whether blocks have squeeze and excitation (Hu et al. 2018).
    """

    groups: int = 1
    base_width: int = 64
    scale: int = 1
    squeeze: bool = False


VARIANTS: Final = {
    "resnet50": Variant(),
    "resnext50": Variant(groups=32, base_width=4),
    "se_resnet50": Variant(squeeze=True),
    "res2net50": Variant(base_width=26, scale=4),
}


class SqueezeExcite(nnx.Module):
    """Weights of channels from their mean, by two convolutions of 1 pixel."""

    def __init__(self, channels: int, layers: Layers) -> None:
        self.fc1 = layers.conv(channels, channels // 16, 1, bias=True)
        self.fc2 = layers.conv(channels // 16, channels, 1, bias=True)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * nnx.sigmoid(self.fc2(nnx.relu(self.fc1(x.mean((1, 2), keepdims=True)))))


class Bottleneck(Recomputed):
    """A residual block with convolutions of 1, 3 and 1 pixels."""

    def __init__(self, inputs: int, planes: int, stride: int, layers: Layers, variant: Variant, *, first: bool) -> None:
        width = planes * variant.base_width // 64 * variant.groups
        outputs = planes * _EXPANSION
        self.first, self.stride, self.scale = first, stride, variant.scale
        self.conv1, self.bn1 = layers.conv(inputs, width * self.scale, 1), layers.norm(width * self.scale)
        if self.scale == 1:
            self.conv2 = layers.conv(width, width, 3, stride=stride, groups=variant.groups)
            self.bn2 = layers.norm(width)
        else:
            parts = range(self.scale - 1)
            self.convs = nnx.List([layers.conv(width, width, 3, stride=stride) for _ in parts])
            self.bns = nnx.List([layers.norm(width) for _ in parts])
        self.conv3, self.bn3 = layers.conv(width * self.scale, outputs, 1), layers.norm(outputs)
        self.se = SqueezeExcite(outputs, layers) if variant.squeeze else None
        shortcut = [layers.conv(inputs, outputs, 1, stride=stride), layers.norm(outputs)] if first else []
        self.downsample = nnx.List(shortcut)

    def forward(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.bn1(self.conv1(x)))
        y = nnx.relu(self.bn2(self.conv2(y))) if self.scale == 1 else self._multi_scale(y)
        y = self.bn3(self.conv3(y))
        if self.se is not None:
            y = self.se(y)
        for layer in self.downsample:
            x = layer(x)
        return nnx.relu(x + y)

    def _multi_scale(self, y: jax.Array) -> jax.Array:
        """Convolve each part together with the result of the part before it. The last part is not convolved."""
        *parts, last = jnp.split(y, self.scale, -1)
        results: list[jax.Array] = []
        for part, conv, norm in zip(parts, self.convs, self.bns, strict=True):
            # the first block of a stage convolves the parts independently
            joined = part if self.first or not results else results[-1] + part
            results.append(nnx.relu(norm(conv(joined))))
        results.append(average_pool(last, 3, self.stride, 1) if self.first else last)
        return jnp.concatenate(results, -1)


class ResNet(nnx.Module):
    """A stem, four stages of bottlenecks, and a linear layer on the mean of the last stage.

    Args:
        layers: Makes the layers.
        channels: Channels of the image.
        classes: Number of classes; 0 for no linear layer, then there are only :meth:`features`.
        variant: The kind of bottleneck.
        blocks: Bottlenecks per stage.
    """

    def __init__(
        self,
        layers: Layers,
        channels: int,
        classes: int,
        variant: Variant = VARIANTS["resnet50"],
        blocks: tuple[int, ...] = (3, 4, 6, 3),
    ) -> None:
        self.conv1, self.bn1 = layers.conv(channels, 64, 7, stride=2), layers.norm(64)
        self.stages = tuple(f"layer{stage + 1}" for stage in range(len(blocks)))
        inputs = 64
        for stage, (name, count) in enumerate(zip(self.stages, blocks, strict=True)):
            planes, made = 64 * 2**stage, []
            for index in range(count):
                stride = 2 if stage and not index else 1
                made.append(Bottleneck(inputs, planes, stride, layers, variant, first=not index))
                inputs = planes * _EXPANSION
            setattr(self, name, nnx.List(made))
        self.fc = layers.linear(inputs, classes) if classes else None

    def features(self, x: jax.Array) -> list[jax.Array]:
        """Map images (batch, y, x, channels) to the results of the stages, with strides 4, 8, 16 and 32."""
        x = max_pool(nnx.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        results = []
        for name in self.stages:
            for block in getattr(self, name):
                x = block(x)
            results.append(x)
        return results

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map images (batch, y, x, channels) to logits (batch, classes)."""
        assert self.fc is not None  # noqa: S101 -- a backbone is not called
        return self.fc(self.features(x)[-1].mean((1, 2)))


def build(name: str, layers: Layers, channels: int, classes: int) -> ResNet:
    """Return one of the four networks, with random weights."""
    return ResNet(layers, channels, classes, VARIANTS[name])
