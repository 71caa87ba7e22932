"""A feature pyramid (Lin et al. 2017) on a ResNet-50, with the names of torchvision's ``resnet_fpn_backbone``.

Batch normalisation is trained, as in torchvision's detectors without weights of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import jax
import jax.numpy as jnp
from flax import nnx

from lung_nodule_ct.train.models.resnet import VARIANTS, ResNet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lung_nodule_ct.train.models.layers import Layers

WIDTH: Final = 256
"""Channels of every level."""
_STAGE_WIDTHS: Final = (256, 512, 1024, 2048)
_KERNELS: Final = nnx.initializers.variance_scaling(1.0, "fan_in", "uniform")


def resize_nearest(x: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Resize an image (batch, y, x, channels) to ``shape`` pixels along y and x, as torchvision's pyramid does."""
    for axis, length in enumerate(shape, 1):
        stored = x.shape[axis]
        if length == 2 * stored:  # a gather would have a slow gradient
            x = jnp.stack([x, x], axis + 1).reshape(*x.shape[:axis], length, *x.shape[axis + 1 :])
        else:
            x = jnp.take(x, jnp.arange(length) * stored // length, axis)
    return x


class LastLevels(nnx.Module):
    """Two further levels, by convolutions of stride 2 of the last level."""

    def __init__(self, layers: Layers) -> None:
        self.p6, self.p7 = (layers.conv(WIDTH, WIDTH, 3, stride=2, bias=True, kernel_init=_KERNELS) for _ in range(2))

    def __call__(self, x: jax.Array) -> list[jax.Array]:
        sixth = self.p6(x)
        return [sixth, self.p7(nnx.relu(sixth))]


class FeaturePyramid(nnx.Module):
    """Features of several stages with the same number of channels, each added to the coarser one.

    Args:
        stages: The channels of the stages.
        layers: Makes the layers.
        last: Whether two further levels follow.
    """

    def __init__(self, stages: Sequence[int], layers: Layers, *, last: bool) -> None:
        def convolutions(sizes: Sequence[int], pixels: int) -> nnx.List:
            made = [layers.conv(inputs, WIDTH, pixels, bias=True, kernel_init=_KERNELS) for inputs in sizes]
            return nnx.List([nnx.List([conv]) for conv in made])

        self.inner_blocks = convolutions(stages, 1)
        self.layer_blocks = convolutions([WIDTH] * len(stages), 3)
        self.extra_blocks = LastLevels(layers) if last else None

    def __call__(self, features: Sequence[jax.Array]) -> list[jax.Array]:
        """Map the features of the stages to levels, the finest first."""
        inner: jax.Array | None = None
        levels = []
        for index in range(len(features) - 1, -1, -1):
            across = self.inner_blocks[index][0](features[index])
            inner = across if inner is None else across + resize_nearest(inner, across.shape[1:3])
            levels.append(self.layer_blocks[index][0](inner))
        levels.reverse()
        return levels if self.extra_blocks is None else levels + self.extra_blocks(levels[-1])


class Backbone(nnx.Module):
    """A ResNet-50 without its linear layer, and the pyramid of its last stages.

    Args:
        layers: Makes the layers.
        channels: Channels of the image.
        blocks: Bottlenecks per stage.
        stages: Number of stages in the pyramid, counted from the last.
        last: Whether two further levels follow.
    """

    def __init__(self, layers: Layers, channels: int, blocks: tuple[int, ...], *, stages: int, last: bool) -> None:
        self.body = ResNet(layers, channels, 0, VARIANTS["resnet50"], blocks)
        self.fpn = FeaturePyramid(_STAGE_WIDTHS[-stages:], layers, last=last)
        self.stages = stages

    def __call__(self, x: jax.Array) -> list[jax.Array]:
        """Map images (batch, y, x, channels) to the levels, the finest first."""
        return self.fpn(self.body.features(x)[-self.stages :])
