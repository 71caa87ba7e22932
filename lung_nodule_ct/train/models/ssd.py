"""SSD300 (Liu et al. 2016) on a VGG-16: torchvision's ``ssd300_vgg16``.

Images are resized to 300 x 300 pixels. Boxes are x0 y0 x1 y1 in this module.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from lung_nodule_ct.train import boxes as coding
from lung_nodule_ct.train.models.layers import max_pool

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lung_nodule_ct.train.models.layers import Layers

MIN_SCORE: Final = 0.01
MAX_IOU: Final = 0.45
MAX_BOXES: Final = 200
_WEIGHTS: Final = (10.0, 5.0)
"""Weights of shift and size of coded boxes."""
_NEGATIVES: Final = 3
"""Negative anchors per positive one that count in the loss, those of the largest loss."""
_RATIOS: Final = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
_WIDTHS: Final = (512, 1024, 512, 256, 256, 256)
_KERNELS: Final = nnx.initializers.xavier_uniform()
_FIRST: Final = {"0": 64, "2": 64, "5": 128, "7": 128, "10": 256, "12": 256, "14": 256, "17": 512, "19": 512, "21": 512}
"""Channels of the convolutions up to conv4_3, by their position in torchvision's ``vgg16``."""
_STAGES: Final = (("0", "2"), ("5", "7"), ("10", "12", "14"), ("17", "19", "21"))
"""The convolutions of each resolution."""
_EXTRA: Final = ((256, 512, 2, 1), (128, 256, 2, 1), (128, 256, 1, 0), (128, 256, 1, 0))
"""Channels of both convolutions, and stride and padding of the second one."""


def _convolve(convs: nnx.List, x: jax.Array) -> jax.Array:
    """Convolutions one after the other, each with ReLU."""
    for conv in convs:
        x = nnx.relu(conv(x))
    return x


class Extractor(nnx.Module):
    """VGG-16 and five further blocks. The first of six results is normalised at each pixel.

    Where ``remat`` is set, what the convolutions of a resolution compute is computed again for the gradient.
    """

    remat = False

    def __init__(self, layers: Layers, channels: int) -> None:
        def conv(inputs: int, outputs: int, size: int, **options: Any) -> nnx.Conv:
            return layers.conv(inputs, outputs, size, bias=True, kernel_init=_KERNELS, **options)

        def vgg(inputs: int, outputs: int) -> nnx.Conv:
            return layers.conv(inputs, outputs, 3, bias=True)

        self.scale_weight = nnx.Param(jnp.full(512, 20.0))
        sides = zip(_FIRST, pairwise([channels, *_FIRST.values()]), strict=True)
        self.features = nnx.Dict({name: vgg(inputs, outputs) for name, (inputs, outputs) in sides})
        last = nnx.Dict({"1": conv(512, 1024, 3, dilation=6), "3": conv(1024, 1024, 1)})
        first = nnx.Dict({**{name: vgg(512, 512) for name in ("1", "3", "5")}, "7": last})
        blocks, inputs = [first], 1024
        for middle, outputs, stride, padding in _EXTRA:
            second = conv(middle, outputs, 3, stride=stride, padding=padding)
            blocks.append(nnx.Dict({"0": conv(inputs, middle, 1), "2": second}))
            inputs = outputs
        self.extra = nnx.List(blocks)

    def __call__(self, x: jax.Array) -> list[jax.Array]:
        convolve = nnx.remat(_convolve) if self.remat else _convolve
        for index, names in enumerate(_STAGES):
            # the third pooling counts a last window that is only partly inside the image
            x = max_pool(x, 2, 2, ceil=index == 3) if index else x
            x = convolve(nnx.List([self.features[name] for name in names]), x)
        norm = jnp.maximum(jnp.sqrt(jnp.square(x).sum(-1, keepdims=True)), 1e-12)
        results = [self.scale_weight[...].astype(x.dtype) * (x / norm)]
        first, *others = self.extra
        x = convolve(nnx.List([first[name] for name in ("1", "3", "5")]), max_pool(x, 2, 2))
        x = max_pool(x, 3, 1, 1)
        results.append(nnx.relu(first["7"]["3"](nnx.relu(first["7"]["1"](x)))))
        for block in others:
            results.append(nnx.relu(block["2"](nnx.relu(block["0"](results[-1])))))
        return results


class ScoringHead(nnx.Module):
    """A convolution for each level, with ``columns`` values per anchor."""

    def __init__(self, columns: int, layers: Layers) -> None:
        self.columns = columns
        self.module_list = nnx.List(
            [
                layers.conv(width, columns * (2 + 2 * len(ratios)), 3, bias=True, kernel_init=_KERNELS)
                for width, ratios in zip(_WIDTHS, _RATIOS, strict=True)
            ]
        )

    def __call__(self, levels: list[jax.Array]) -> jax.Array:
        pairs = zip(self.module_list, levels, strict=True)
        return jnp.concatenate([conv(x).reshape(len(x), -1, self.columns) for conv, x in pairs], 1)


class Head(nnx.Module):
    """Both heads."""

    def __init__(self, classes: int, layers: Layers) -> None:
        self.classification_head, self.regression_head = ScoringHead(classes + 1, layers), ScoringHead(4, layers)


class SSD(nnx.Module):
    """The extractor and a head on each of its six results."""

    def __init__(self, layers: Layers, channels: int, classes: int) -> None:
        self.backbone, self.head = Extractor(layers, channels), Head(classes, layers)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Map images (batch, 300, 300, channels) to logits (batch, m, 1 + classes) and coded boxes (batch, m, 4)."""
        levels = self.backbone(x)
        results = self.head.classification_head(levels), self.head.regression_head(levels)
        logits, codes = (result.astype(jnp.promote_types(result.dtype, jnp.float32)) for result in results)
        return logits, codes


def build(name: str, layers: Layers, channels: int, classes: int) -> SSD:  # noqa: ARG001 -- there is one variant
    """Return SSD300, with random weights."""
    return SSD(layers, channels, classes)


@dataclass(frozen=True)
class SingleShot:
    """What SSD and SSDLite do with the same arithmetic and different numbers.

    Attributes:
        size: Pixels per axis that images are resized to.
        cells: Cells per axis of each level.
        divisors: Cells that would cover the image exactly.
        scales: Sides of the default boxes of each level, in images, and one more.
        ratios: Aspect ratios of each level.
        most: Number of candidates.
    """

    size: int
    cells: tuple[int, ...]
    divisors: tuple[float, ...]
    scales: tuple[float, ...]
    ratios: tuple[tuple[int, ...], ...]
    most: int

    def anchors(self) -> NDArray[np.float32]:
        """The default boxes of all levels, shape (m, 4)."""
        made = []
        for level, (cells, divisor, ratios) in enumerate(zip(self.cells, self.divisors, self.ratios, strict=True)):
            scale, following = self.scales[level], self.scales[level + 1]
            sides = [(scale, scale), (math.sqrt(scale * following),) * 2]
            for ratio in ratios:
                long, short = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
                sides += [(long, short), (short, long)]
            half = np.clip(np.array(sides, np.float32), 0, 1) / 2
            centers = ((np.arange(cells) + 0.5) / divisor).astype(np.float32)
            y, x = np.meshgrid(centers, centers, indexing="ij")
            center = np.stack([x, y], -1).reshape(-1, 1, 2)
            made.append(np.concatenate([center - half, center + half], -1).reshape(-1, 4))
        return np.concatenate(made) * np.float32(self.size)

    def _resize(self, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The image with ``size`` pixels along each axis, and the factors of boxes."""
        height, width = image.shape[1:3]
        shape = (len(image), self.size, self.size, image.shape[-1])
        resized = jax.image.resize(image, shape, "linear", antialias=False)
        return resized, jnp.array([self.size / width, self.size / height] * 2, image.dtype)

    def add_targets(self, batch: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Resize the images and the ``boxes``, of which some are ``valid``, and match the anchors to them.

        Returns:
            The batch with ``matches`` and ``codes`` of each anchor, and the number of positive anchors.
        """
        image, factors = self._resize(batch["image"])
        boxes, every = batch["boxes"] * factors, jnp.array(self.anchors())

        def matches_of(boxes: jax.Array, valid: jax.Array) -> jax.Array:
            overlap = coding.overlaps(boxes, valid, every)
            best = jnp.where(valid, overlap.argmax(1), len(every))  # out of range for padding, and then dropped
            matches = coding.match(overlap, 0.5, 0.5, low_quality=False)
            return matches.at[best].set(jnp.arange(len(boxes)), mode="drop")

        matches = jax.vmap(matches_of)(boxes, batch["valid"])
        codes = coding.encode(coding.matched(boxes, matches), every, _WEIGHTS)
        return batch | {"image": image, "matches": matches, "codes": codes}, {"positive": (matches >= 0).sum()}

    def candidates(self, model: Any, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The best candidates: boxes (batch, k, 4), clipped to the image, and scores (batch, k)."""
        resized, factors = self._resize(image)
        logits, codes = model(resized)
        scores, index = jax.lax.top_k(jax.nn.softmax(logits)[..., 1], self.most)
        kept = jnp.take_along_axis(codes, index[..., None], 1)
        boxes = coding.decode(kept, jnp.array(self.anchors())[index], _WEIGHTS)
        return coding.clip_to(boxes, (self.size, self.size)) / factors, scores


def losses(model: Any, batch: dict[str, Any], counts: dict[str, Any]) -> dict[str, jax.Array]:
    """The cross-entropy of the positive and of the hardest negative anchors, and the smooth L1 loss of the boxes."""
    logits, codes = model(batch["image"])
    positive = batch["matches"] >= 0
    each = optax.softmax_cross_entropy_with_integer_labels(logits, positive.astype(jnp.int32))
    order = jnp.argsort(jnp.where(positive, jnp.inf, -each), axis=1)
    rank = jnp.argsort(order, axis=1)
    hard = rank < _NEGATIVES * positive.sum(1, keepdims=True)
    where = (each * (positive | hard)).sum() / counts["positive"]
    distance = optax.huber_loss(codes, batch["codes"]).sum(-1)
    return {"loss_where": where, "loss_boxes": (distance * positive).sum() / counts["positive"]}


_STEPS: Final = (8, 16, 32, 64, 100, 300)
_SHOT: Final = SingleShot(
    size=300,
    cells=(38, 19, 10, 5, 3, 1),
    divisors=tuple(300 / step for step in _STEPS),
    scales=(0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05),
    ratios=_RATIOS,
    most=400,
)
anchors, add_targets, candidates = _SHOT.anchors, _SHOT.add_targets, _SHOT.candidates
