"""RetinaNet (Lin et al. 2017) on a ResNet-50 with a feature pyramid: torchvision's ``retinanet_resnet50_fpn``.

Images are not resized to 800 pixels. Boxes are x0 y0 x1 y1 in this module.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from lung_nodule_ct.train import boxes as coding
from lung_nodule_ct.train.layers import Recomputed
from lung_nodule_ct.train.models.pyramid import WIDTH, Backbone

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lung_nodule_ct.train.models.layers import Layers

MIN_SCORE: Final = 0.05
MAX_IOU: Final = 0.5
MAX_BOXES: Final = 300
_CANDIDATES: Final = 1000
"""Candidates per level."""
_STRIDES: Final = (8, 16, 32, 64, 128)
_SIZES: Final = tuple((size, int(size * 2 ** (1 / 3)), int(size * 2 ** (2 / 3))) for size in (32, 64, 128, 256, 512))
_RATIOS: Final = (0.5, 1.0, 2.0)
_ANCHORS: Final = len(_SIZES[0]) * len(_RATIOS)
_KERNELS: Final = nnx.initializers.normal(0.01)
_INITIAL_LOGIT: Final = -math.log((1 - 0.01) / 0.01)


class Tower(Recomputed):
    """Four convolutions, the same on all levels."""

    def __init__(self, layers: Layers) -> None:
        convs = [layers.conv(WIDTH, WIDTH, 3, bias=True, kernel_init=_KERNELS) for _ in range(4)]
        self.conv = nnx.List([nnx.List([conv]) for conv in convs])

    def features(self, x: jax.Array) -> jax.Array:
        """The result of the last convolution."""
        for (conv,) in self.conv:
            x = nnx.relu(conv(x))
        return x


class ClassificationHead(Tower):
    """The logits of the anchors."""

    def __init__(self, classes: int, layers: Layers) -> None:
        super().__init__(layers)
        self.cls_logits = layers.conv(WIDTH, _ANCHORS * classes, 3, bias=True, kernel_init=_KERNELS)
        self.cls_logits.bias[...] = jnp.full(_ANCHORS * classes, _INITIAL_LOGIT)
        self.classes = classes

    def forward(self, x: jax.Array) -> jax.Array:
        return self.cls_logits(self.features(x)).reshape(len(x), -1, self.classes)


class RegressionHead(Tower):
    """The coded boxes of the anchors."""

    def __init__(self, layers: Layers) -> None:
        super().__init__(layers)
        self.bbox_reg = layers.conv(WIDTH, _ANCHORS * 4, 3, bias=True, kernel_init=_KERNELS)

    def forward(self, x: jax.Array) -> jax.Array:
        return self.bbox_reg(self.features(x)).reshape(len(x), -1, 4)


class Head(nnx.Module):
    """Both heads."""

    def __init__(self, classes: int, layers: Layers) -> None:
        self.classification_head, self.regression_head = ClassificationHead(classes, layers), RegressionHead(layers)


class RetinaNet(nnx.Module):
    """A backbone and two heads on its five levels."""

    def __init__(self, layers: Layers, channels: int, classes: int, blocks: tuple[int, ...] = (3, 4, 6, 3)) -> None:
        self.backbone = Backbone(layers, channels, blocks, stages=3, last=True)
        self.head = Head(classes, layers)

    def __call__(self, x: jax.Array) -> tuple[list[jax.Array], list[jax.Array]]:
        """Map images (batch, y, x, channels) to the logits (batch, m, classes) and coded boxes (batch, m, 4) of each level."""
        levels, head = self.backbone(x), self.head
        pairs = [(head.classification_head(level), head.regression_head(level)) for level in levels]
        logits, codes = zip(*pairs, strict=True)
        return list(logits), list(codes)


def build(name: str, layers: Layers, channels: int, classes: int) -> RetinaNet:  # noqa: ARG001 -- there is one variant
    """Return RetinaNet, with random weights."""
    return RetinaNet(layers, channels, classes)


def anchors(image: tuple[int, int]) -> list[NDArray[np.float32]]:
    """The anchors of each level in an image of (y, x) pixels."""
    made = []
    for stride, sizes in zip(_STRIDES, _SIZES, strict=True):
        cells = -(-image[0] // stride), -(-image[1] // stride)
        made.append(coding.grid_anchors(cells, image, sizes, _RATIOS))
    return made


def add_targets(batch: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Match the anchors to ``boxes``, of which some are ``valid``. Losses are divided by the number of images.

    Returns:
        The batch with ``matches`` and ``codes`` of each anchor, and the counts.
    """
    every = jnp.concatenate(anchors(batch["image"].shape[1:3]))
    overlap = jax.vmap(lambda boxes, valid: coding.overlaps(boxes, valid, every))(batch["boxes"], batch["valid"])
    matches = jax.vmap(lambda x: coding.match(x, 0.5, 0.4, low_quality=True))(overlap)
    codes = coding.encode(coding.matched(batch["boxes"], matches), every)
    return batch | {"matches": matches, "codes": codes}, {"images": jnp.array(len(matches), jnp.float32)}


def losses(model: RetinaNet, batch: dict[str, Any], counts: dict[str, Any]) -> dict[str, jax.Array]:
    """The focal loss of the scores, and the L1 loss of the boxes, each per positive anchor of an image."""
    logits, codes = (
        jnp.concatenate(levels, 1).astype(jnp.promote_types(levels[0].dtype, jnp.float32))
        for levels in model(batch["image"])
    )
    positive, counted = batch["matches"] >= 0, batch["matches"] != coding.BETWEEN
    labels = positive[..., None].astype(logits.dtype)
    focal = (optax.sigmoid_focal_loss(logits, labels, alpha=0.25, gamma=2.0).sum(-1) * counted).sum(1)
    distance = (jnp.abs(codes - batch["codes"]).sum(-1) * positive).sum(1)
    number = jnp.maximum(positive.sum(1), 1)
    return {
        "loss_where": (focal / number).sum() / counts["images"],
        "loss_boxes": (distance / number).sum() / counts["images"],
    }


def candidates(model: RetinaNet, image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The best candidates of each level: boxes (batch, k, 4), clipped to the image, and scores (batch, k)."""
    shape = image.shape[1:3]
    found, scores = [], []
    for logits, codes, level in zip(*model(image), anchors(shape), strict=True):
        best, index = jax.lax.top_k(logits[..., 0], min(_CANDIDATES, len(level)))
        kept = jnp.take_along_axis(codes, index[..., None], 1).astype(jnp.promote_types(codes.dtype, jnp.float32))
        found.append(coding.clip_to(coding.decode(kept, jnp.array(level)[index]), shape))
        scores.append(jax.nn.sigmoid(best.astype(kept.dtype)))
    return jnp.concatenate(found, 1), jnp.concatenate(scores, 1)
