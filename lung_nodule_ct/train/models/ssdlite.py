"""SSDLite (Sandler et al. 2018) on a MobileNetV3-Large (Howard et al. 2019): torchvision's ``ssdlite320_mobilenet_v3_large``.

Images are resized to 320 x 320 pixels. The last stage has half of the channels, as in the reference without weights of another
backbone, and in its published weights. Boxes are x0 y0 x1 y1 in this module.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from lung_nodule_ct.train.layers import Recomputed
from lung_nodule_ct.train.models.ssd import SingleShot, losses

if TYPE_CHECKING:
    from collections.abc import Callable

    from lung_nodule_ct.train.models.layers import Layers

    Activation = Callable[[jax.Array], jax.Array]

__all__ = ["MAX_BOXES", "MAX_IOU", "MIN_SCORE", "add_targets", "anchors", "build", "candidates", "losses"]

MIN_SCORE: Final = 0.001
MAX_IOU: Final = 0.55
MAX_BOXES: Final = 300


class Bottleneck(NamedTuple):
    """The numbers of a block: pixels of the kernel, channels within and after it, and so on."""

    size: int
    expanded: int
    outputs: int
    squeeze: bool = False
    hard: bool = True
    stride: int = 1


_STEM: Final = 16
_FIRST: Final = (
    Bottleneck(3, 16, 16, hard=False),
    Bottleneck(3, 64, 24, hard=False, stride=2),
    Bottleneck(3, 72, 24, hard=False),
    Bottleneck(5, 72, 40, squeeze=True, hard=False, stride=2),
    Bottleneck(5, 120, 40, squeeze=True, hard=False),
    Bottleneck(5, 120, 40, squeeze=True, hard=False),
    Bottleneck(3, 240, 80, stride=2),
    Bottleneck(3, 200, 80),
    Bottleneck(3, 184, 80),
    Bottleneck(3, 184, 80),
    Bottleneck(3, 480, 112, squeeze=True),
    Bottleneck(3, 672, 112, squeeze=True),
)
_DIVIDED: Final = Bottleneck(5, 672, 80, squeeze=True, stride=2)
"""The first level is the result of its expansion."""
_LAST: Final = (Bottleneck(5, 480, 80, squeeze=True),) * 2
_EXTRA: Final = (512, 256, 256, 128)
_WIDTHS: Final = (672, 480, *_EXTRA)
_RATIOS: Final = ((2, 3),) * len(_WIDTHS)
_KERNELS: Final = nnx.initializers.normal(0.03)


def _conv_norm(layers: Layers, inputs: int, outputs: int, size: int, **options: Any) -> nnx.List:
    return nnx.List([layers.conv(inputs, outputs, size, kernel_init=_KERNELS, **options), layers.norm(outputs)])


def _apply(pair: nnx.List, x: jax.Array, activation: Activation | None = None) -> jax.Array:
    conv, norm = pair
    x = norm(conv(x))
    return x if activation is None else activation(x)


class SqueezeExcite(nnx.Module):
    """Weights of channels from their mean, by two convolutions of 1 pixel and a piecewise linear sigmoid."""

    def __init__(self, channels: int, layers: Layers) -> None:
        quarter = channels // 4
        reduced = max(8, (quarter + 4) // 8 * 8)
        reduced += 8 if reduced < 0.9 * quarter else 0  # the nearest multiple of 8, at most 10 % less
        self.fc1 = layers.conv(channels, reduced, 1, bias=True, kernel_init=_KERNELS)
        self.fc2 = layers.conv(reduced, channels, 1, bias=True, kernel_init=_KERNELS)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * nnx.hard_sigmoid(self.fc2(nnx.relu(self.fc1(x.mean((1, 2), keepdims=True)))))


def _layers_of(inputs: int, numbers: Bottleneck, layers: Layers) -> list[Any]:
    """The expansion, unless it would change nothing, the depthwise convolution, squeeze and excitation, and the projection."""
    width = numbers.expanded
    made: list[Any] = [] if width == inputs else [_conv_norm(layers, inputs, width, 1)]
    made.append(_conv_norm(layers, width, width, numbers.size, stride=numbers.stride, groups=width))
    if numbers.squeeze:
        made.append(SqueezeExcite(width, layers))
    return [*made, _conv_norm(layers, width, numbers.outputs, 1)]


def _run(steps: list[Any], x: jax.Array, numbers: Bottleneck) -> jax.Array:
    activation = nnx.hard_swish if numbers.hard else nnx.relu
    *others, last = steps
    for step in others:
        x = step(x) if isinstance(step, SqueezeExcite) else _apply(step, x, activation)
    return _apply(last, x)


class InvertedResidual(Recomputed):
    """A block, added to its input if the shape is the same."""

    def __init__(self, inputs: int, numbers: Bottleneck, layers: Layers) -> None:
        self.block = nnx.List(_layers_of(inputs, numbers, layers))
        self.numbers, self.skip = numbers, numbers.stride == 1 and inputs == numbers.outputs

    def forward(self, x: jax.Array) -> jax.Array:
        y = _run(list(self.block), x, self.numbers)
        return x + y if self.skip else y


class Extractor(nnx.Module):
    """MobileNetV3-Large in two parts, and four further blocks. Its results are six levels."""

    def __init__(self, layers: Layers, channels: int) -> None:
        widths = pairwise([_STEM, *(numbers.outputs for numbers in _FIRST)])
        blocks = [
            InvertedResidual(inputs, numbers, layers) for (inputs, _), numbers in zip(widths, _FIRST, strict=True)
        ]
        expansion, *rest = _layers_of(_FIRST[-1].outputs, _DIVIDED, layers)
        stem = _conv_norm(layers, channels, _STEM, 3, stride=2)
        divided = nnx.Dict({str(index): layer for index, layer in enumerate(rest, 1)})
        last = [InvertedResidual(numbers.outputs, numbers, layers) for numbers in _LAST]
        final = _conv_norm(layers, _LAST[-1].outputs, _WIDTHS[1], 1)
        self.features = nnx.List([nnx.List([stem, *blocks, expansion]), nnx.List([divided, *last, final])])
        extra = []
        for inputs, outputs in pairwise([_WIDTHS[1], *_EXTRA]):
            middle = outputs // 2
            depthwise = _conv_norm(layers, middle, middle, 3, stride=2, groups=middle)
            extra.append(
                nnx.List([_conv_norm(layers, inputs, middle, 1), depthwise, _conv_norm(layers, middle, outputs, 1)])
            )
        self.extra = nnx.List(extra)

    def __call__(self, x: jax.Array) -> list[jax.Array]:
        stem, *blocks, expansion = self.features[0]
        x = _apply(stem, x, nnx.hard_swish)
        for block in blocks:
            x = block(x)
        results = [_apply(expansion, x, nnx.hard_swish)]
        divided, *blocks, final = self.features[1]
        x = _run([divided[name] for name in sorted(divided)], results[0], _DIVIDED)
        for block in blocks:
            x = block(x)
        results.append(_apply(final, x, nnx.hard_swish))
        for block in self.extra:
            x = results[-1]
            for pair in block:
                x = _apply(pair, x, nnx.relu6)
            results.append(x)
        return results


class ScoringHead(nnx.Module):
    """A depthwise convolution and one of 1 pixel for each level, with ``columns`` values per anchor."""

    def __init__(self, columns: int, layers: Layers) -> None:
        self.columns = columns
        blocks = []
        for width, ratios in zip(_WIDTHS, _RATIOS, strict=True):
            outputs = columns * (2 + 2 * len(ratios))
            last = layers.conv(width, outputs, 1, bias=True, kernel_init=_KERNELS)
            blocks.append(nnx.List([_conv_norm(layers, width, width, 3, groups=width), last]))
        self.module_list = nnx.List(blocks)

    def __call__(self, levels: list[jax.Array]) -> jax.Array:
        results = []
        for (pair, last), x in zip(self.module_list, levels, strict=True):
            y = last(_apply(pair, x, nnx.relu6)).reshape(len(x), -1, self.columns)
            results.append(y.astype(jnp.promote_types(y.dtype, jnp.float32)))
        return jnp.concatenate(results, 1)


class Head(nnx.Module):
    """Both heads."""

    def __init__(self, classes: int, layers: Layers) -> None:
        self.classification_head, self.regression_head = ScoringHead(classes + 1, layers), ScoringHead(4, layers)


class SSDLite(nnx.Module):
    """The extractor and a head on each of its six results."""

    def __init__(self, layers: Layers, channels: int, classes: int) -> None:
        layers = replace(layers, momentum=0.97, epsilon=1e-3)
        self.backbone, self.head = Extractor(layers, channels), Head(classes, layers)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Map images (batch, 320, 320, channels) to logits (batch, m, 1 + classes) and coded boxes (batch, m, 4)."""
        levels = self.backbone(x)
        return self.head.classification_head(levels), self.head.regression_head(levels)


def build(name: str, layers: Layers, channels: int, classes: int) -> SSDLite:  # noqa: ARG001 -- there is one variant
    """Return SSDLite320, with random weights."""
    return SSDLite(layers, channels, classes)


_CELLS: Final = (20, 10, 5, 3, 2, 1)
_SHOT: Final = SingleShot(
    size=320,
    cells=_CELLS,
    divisors=_CELLS,
    scales=(*(0.2 + 0.75 * level / 5 for level in range(6)), 1.0),
    ratios=_RATIOS,
    most=300,
)
anchors, add_targets, candidates = _SHOT.anchors, _SHOT.add_targets, _SHOT.candidates
