"""Faster R-CNN (Ren et al. 2015) on a ResNet-50 with a feature pyramid: torchvision's ``fasterrcnn_resnet50_fpn``.

Images are not resized to 800 pixels. Boxes are x0 y0 x1 y1 in this module. The numbers of proposals and samples are fixed, so
that the program is compiled once: those that an image does not have are padding.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from lung_nodule_ct.train import boxes as coding
from lung_nodule_ct.train.models.pyramid import WIDTH, Backbone

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lung_nodule_ct.train.models.layers import Layers

MIN_SCORE: Final = 0.05
MAX_IOU: Final = 0.5
MAX_BOXES: Final = 100
_STRIDES: Final = (4, 8, 16, 32, 64)
_SIZES: Final = (32, 64, 128, 256, 512)
_RATIOS: Final = (0.5, 1.0, 2.0)
_PROPOSALS: Final = {True: 2000, False: 1000}
"""Proposals per level before suppression, and per image after it, in training and in evaluation."""
_PROPOSAL_IOU: Final = 0.7
_SMALLEST: Final = {"proposal": 1e-3, "box": 1e-2}
"""The smallest side in pixels of what is kept."""
_ANCHOR_SAMPLES: Final = (256, 128)
"""Anchors of an image in the loss, and the most positive ones of them."""
_BOX_SAMPLES: Final = (512, 128)
_BETA: Final = 1 / 9
"""Where the loss of boxes changes from quadratic to linear."""
_WEIGHTS: Final = (10.0, 5.0)
_POOLED: Final = 7
"""Pixels per axis of the features of a box."""
_SAMPLING: Final = 2
"""Samples per pixel and axis of these features."""
_HIDDEN: Final = 1024
_KERNELS: Final = nnx.initializers.normal(0.01)


class ProposalHead(nnx.Module):
    """A convolution, and the logits and coded boxes of the anchors."""

    def __init__(self, layers: Layers) -> None:
        count = len(_RATIOS)
        self.conv = nnx.List([nnx.List([layers.conv(WIDTH, WIDTH, 3, bias=True, kernel_init=_KERNELS)])])
        self.cls_logits = layers.conv(WIDTH, count, 1, bias=True, kernel_init=_KERNELS)
        self.bbox_pred = layers.conv(WIDTH, 4 * count, 1, bias=True, kernel_init=_KERNELS)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = nnx.relu(self.conv[0][0](x))
        return _wide(self.cls_logits(x).reshape(len(x), -1)), _wide(self.bbox_pred(x).reshape(len(x), -1, 4))


class BoxHead(nnx.Module):
    """Two linear layers on the features of a box."""

    def __init__(self, layers: Layers) -> None:
        self.fc6 = layers.linear(WIDTH * _POOLED**2, _HIDDEN)
        self.fc7 = layers.linear(_HIDDEN, _HIDDEN)

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.relu(self.fc7(nnx.relu(self.fc6(x))))


class Predictor(nnx.Module):
    """The logits of background and classes, and the coded boxes of each of them."""

    def __init__(self, classes: int, layers: Layers) -> None:
        self.cls_score = layers.linear(_HIDDEN, 1 + classes)
        self.bbox_pred = layers.linear(_HIDDEN, 4 * (1 + classes))

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return _wide(self.cls_score(x)), _wide(self.bbox_pred(x).reshape(*x.shape[:-1], -1, 4))


class FasterRCNN(nnx.Module):
    """A backbone, a network that proposes boxes, and one that classifies and corrects them."""

    def __init__(self, layers: Layers, channels: int, classes: int, blocks: tuple[int, ...] = (3, 4, 6, 3)) -> None:
        self.backbone = Backbone(layers, channels, blocks, stages=4, last=False)
        self.rpn = nnx.Dict({"head": ProposalHead(layers)})
        self.roi_heads = nnx.Dict({"box_head": BoxHead(layers), "box_predictor": Predictor(classes, layers)})
        self.draws = nnx.Rngs(samples=0)

    def propose(self, x: jax.Array) -> tuple[list[jax.Array], list[jax.Array], list[jax.Array]]:
        """Map images (batch, y, x, channels) to four levels of features, and to logits and coded boxes of five levels."""
        levels = self.backbone(x)
        pairs = [self.rpn["head"](level) for level in (*levels, levels[-1][:, ::2, ::2])]
        logits, codes = zip(*pairs, strict=True)
        return levels, list(logits), list(codes)

    def classify(self, levels: list[jax.Array], boxes: jax.Array, height: int) -> tuple[jax.Array, jax.Array]:
        """The logits (batch, n, 1 + classes) and coded boxes (batch, n, 1 + classes, 4) of boxes (batch, n, 4).

        ``height`` is that of the images.
        """
        pooled = jax.vmap(lambda boxes, *features: align(features, boxes, height))(boxes, *levels)
        return self.roi_heads["box_predictor"](self.roi_heads["box_head"](pooled))


def build(name: str, layers: Layers, channels: int, classes: int) -> FasterRCNN:  # noqa: ARG001 -- there is one variant
    """Return Faster R-CNN, with random weights."""
    return FasterRCNN(layers, channels, classes)


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def anchors(image: tuple[int, int]) -> list[NDArray[np.float32]]:
    """The anchors of each level in an image of (y, x) pixels."""
    made = []
    for stride, size in zip(_STRIDES, _SIZES, strict=True):
        cells = -(-image[0] // stride), -(-image[1] // stride)
        made.append(coding.grid_anchors(cells, image, (size,), _RATIOS))
    return made


def align(levels: tuple[jax.Array, ...], boxes: jax.Array, height: int) -> jax.Array:
    """The features of boxes by bilinear samples (He et al. 2017) from the level that fits their size (Lin et al. 2017).

    Args:
        levels: Features of one image, each (y, x, channels).
        boxes: Shape (n, 4).
        height: Pixels of the image along y.

    Returns:
        Shape (n, channels * 7 * 7), the channels first.
    """
    lowest = round(math.log2(height / levels[0].shape[0]))
    low, high = coding.split_corners(boxes)
    area = (high - low).prod(-1)
    level = jnp.floor(4 + jnp.log2(jnp.sqrt(jnp.maximum(area, 1e-12)) / 224) + 1e-6).astype(jnp.int32)
    level = jnp.clip(level - lowest, 0, len(levels) - 1)
    shapes = jnp.array([features.shape[:2] for features in levels])[level]  # of each box, along y and x
    starts = jnp.cumsum(jnp.array([0, *(features.shape[0] * features.shape[1] for features in levels[:-1])]))[level]
    scale = (0.5 ** (level + lowest))[:, None].astype(boxes.dtype)
    first, last = low[:, ::-1] * scale, high[:, ::-1] * scale
    samples = _POOLED * _SAMPLING
    steps = jnp.maximum(last - first, 1) / samples
    position = first[..., None] + (jnp.arange(samples) + 0.5) * steps[..., None]  # (n, 2, samples)
    edge = (shapes - 1)[..., None]
    position = jnp.clip(position, 0, edge)
    before = jnp.floor(position).astype(jnp.int32)
    weight = (position - before).astype(levels[0].dtype)
    flat = jnp.concatenate([features.reshape(-1, features.shape[-1]) for features in levels])
    total = jnp.zeros((), flat.dtype)
    for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
        corner = jnp.minimum(before + jnp.array([y, x])[:, None], edge)
        share = jnp.abs(jnp.array([1 - y, 1 - x])[:, None] - weight)
        index = starts[:, None, None] + corner[:, 0, :, None] * shapes[:, 1, None, None] + corner[:, 1, None, :]
        total += flat[index] * (share[:, 0, :, None] * share[:, 1, None, :])[..., None]
    pooled = total.reshape(len(boxes), _POOLED, _SAMPLING, _POOLED, _SAMPLING, -1).mean((2, 4))
    return jnp.moveaxis(pooled, -1, 1).reshape(len(boxes), -1)


def _kept(boxes: jax.Array, max_iou: float) -> jax.Array:
    """Which boxes, the highest score first, remain after greedy suppression."""
    iou = coding.intersection_over_union(boxes[:, None], boxes)[0]
    suppressing = jnp.triu(iou > max_iou, 1)

    def repeat(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        # A box is kept if no kept box before it suppresses it. Each round decides at least one more box.
        _, kept = state
        return kept, ~(suppressing & kept[:, None]).any(0)

    start = jnp.ones(len(boxes), bool)
    return jax.lax.while_loop(lambda state: (state[0] != state[1]).any(), repeat, (~start, start))[1]


def _is_large(boxes: jax.Array, smallest: float) -> jax.Array:
    low, high = coding.split_corners(boxes)
    return (high - low >= smallest).all(-1)


def proposals(
    logits: list[jax.Array], codes: list[jax.Array], image: tuple[int, int], *, training: bool
) -> tuple[jax.Array, jax.Array]:
    """The proposals of each image (batch, n, 4), the highest score first, and which are no padding (batch, n)."""
    limit = _PROPOSALS[training]
    found, scores = [], []
    for level_logits, level_codes, level in zip(logits, codes, anchors(image), strict=True):
        best, index = jax.lax.top_k(level_logits, min(limit, len(level)))
        kept = jnp.take_along_axis(level_codes, index[..., None], 1)
        decoded = coding.clip_to(coding.decode(kept, jnp.array(level)[index]), image)
        large = _is_large(decoded, _SMALLEST["proposal"])
        # what is too small becomes an empty box, which suppresses nothing
        remains = jax.vmap(lambda boxes: _kept(boxes, _PROPOSAL_IOU))(jnp.where(large[..., None], decoded, 0)) & large
        found.append(decoded)
        scores.append(jnp.where(remains, best, -jnp.inf))
    every = jnp.concatenate(scores, 1)
    best, index = jax.lax.top_k(every, min(limit, every.shape[1]))
    boxes = jnp.take_along_axis(jnp.concatenate(found, 1), index[..., None], 1)
    return jax.lax.stop_gradient(boxes), jnp.isfinite(best)


def _priorities(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Random numbers from 0 to 1. Samples with higher ones are drawn."""
    return jax.random.uniform(key, shape)


def _draw(
    key: jax.Array, positive: jax.Array, negative: jax.Array, limits: tuple[int, int]
) -> tuple[jax.Array, jax.Array]:
    """Draw samples of each image, at most ``limits[1]`` of them positive.

    Returns:
        Their indices (batch, limits[0]), the positive ones first, and which are no padding.
    """
    count, most = min(limits[0], positive.shape[1]), limits[1]
    priority = _priorities(key, positive.shape)
    order = jnp.argsort(jnp.where(positive, -priority, jnp.inf), axis=1)
    drawn = positive & (jnp.argsort(order, axis=1) < most)
    best, index = jax.lax.top_k(jnp.where(drawn, 2 + priority, jnp.where(negative, priority, -1)), count)
    return index, best >= 0


def add_targets(batch: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Match the anchors to ``boxes``, of which some are ``valid``.

    Returns:
        The batch with ``matches`` of each anchor, and the number of anchors in the loss and of images.
    """
    every = jnp.concatenate(anchors(batch["image"].shape[1:3]))
    overlap = jax.vmap(lambda boxes, valid: coding.overlaps(boxes, valid, every))(batch["boxes"], batch["valid"])
    matches = jax.vmap(lambda x: coding.match(x, 0.7, 0.3, low_quality=True))(overlap)
    positive = jnp.minimum((matches >= 0).sum(1), _ANCHOR_SAMPLES[1])
    samples = positive + jnp.minimum((matches == coding.BELOW).sum(1), _ANCHOR_SAMPLES[0] - positive)
    return batch | {"matches": matches}, {"anchors": samples.sum(), "images": jnp.array(len(matches), jnp.float32)}


def _smooth(difference: jax.Array) -> jax.Array:
    return optax.huber_loss(difference, delta=_BETA).sum(-1) / _BETA


def losses(model: FasterRCNN, batch: dict[str, Any], counts: dict[str, Any]) -> dict[str, jax.Array]:
    """The losses of the proposals and of the classified boxes, each of samples drawn from the random stream of the model."""
    image, matches = batch["image"], batch["matches"]
    shape, truth = image.shape[1:3], batch["boxes"]
    levels, logits, codes = model.propose(image)
    index, counted = _draw(model.draws.samples(), matches >= 0, matches == coding.BELOW, _ANCHOR_SAMPLES)
    chosen = jnp.take_along_axis(matches, index, 1)
    labels = (chosen >= 0) & counted
    picked = jnp.take_along_axis(jnp.concatenate(logits, 1), index, 1)
    anchor_where = optax.sigmoid_binary_cross_entropy(picked, labels.astype(picked.dtype))
    targets = coding.encode(coding.matched(truth, chosen), jnp.concatenate(anchors(shape))[index])
    anchor_boxes = _smooth(jnp.take_along_axis(jnp.concatenate(codes, 1), index[..., None], 1) - targets)

    found, exists = proposals(logits, codes, shape, training=True)
    every, exists = jnp.concatenate([found, truth], 1), jnp.concatenate([exists, batch["valid"]], 1)
    overlap = jax.vmap(coding.overlaps)(truth, batch["valid"], every)
    matches = jax.vmap(lambda x: coding.match(x, 0.5, 0.5, low_quality=False))(overlap)
    index, drawn = _draw(model.draws.samples(), exists & (matches >= 0), exists & (matches < 0), _BOX_SAMPLES)
    chosen, boxes = jnp.take_along_axis(matches, index, 1), jnp.take_along_axis(every, index[..., None], 1)
    positive = (chosen >= 0) & drawn
    classes, corrections = model.classify(levels, boxes, shape[0])
    where = optax.softmax_cross_entropy_with_integer_labels(classes, positive.astype(jnp.int32))
    distance = _smooth(corrections[:, :, 1] - coding.encode(coding.matched(truth, chosen), boxes, _WEIGHTS))
    # of a part of a batch, the share of its images
    samples = jnp.maximum(drawn.sum(), 1) * counts["images"] / len(image)
    return {
        "loss_objects": (anchor_where * counted).sum() / counts["anchors"],
        "loss_proposals": (anchor_boxes * labels).sum() / counts["anchors"],
        "loss_where": (where * drawn).sum() / samples,
        "loss_boxes": (distance * positive).sum() / samples,
    }


def candidates(model: FasterRCNN, image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The classified proposals: boxes (batch, k, 4), clipped to the image, and scores (batch, k), 0 for padding."""
    shape = image.shape[1:3]
    levels, logits, codes = model.propose(image)
    found, exists = proposals(logits, codes, shape, training=False)
    classes, corrections = model.classify(levels, found, shape[0])
    boxes = coding.clip_to(coding.decode(corrections[:, :, 1], found, _WEIGHTS), shape)
    scores = jax.nn.softmax(classes)[..., 1]
    return boxes, jnp.where(exists & _is_large(boxes, _SMALLEST["box"]), scores, 0)
