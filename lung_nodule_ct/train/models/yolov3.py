"""YOLOv3 (Redmon and Farhadi 2018) on a Darknet-53, after its authors' ``yolov3.cfg`` and ``yolo_layer.c``.

Layers have the names of MMDetection's ``yolov3_d53``, whose weights are published with them. Images are padded to a multiple of
32 pixels. Boxes are x0 y0 x1 y1 in this module.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from lung_nodule_ct.train import boxes as coding
from lung_nodule_ct.train.layers import Recomputed
from lung_nodule_ct.train.models.pyramid import resize_nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lung_nodule_ct.train.models.layers import Layers

MIN_SCORE: Final = 0.005
MAX_IOU: Final = 0.45
MAX_BOXES: Final = 100
_CANDIDATES: Final = 1000
_IGNORED_IOU: Final = 0.5
"""The objectness of an anchor that is not matched does not count if its predicted box has a larger IoU with a true one."""
_STRIDES: Final = (32, 16, 8)
_PRIORS: Final = ((10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326))
"""Widths and heights of the anchors in pixels. The three largest are on the coarsest level."""
_ANCHORS: Final = len(_PRIORS) // len(_STRIDES)
_WIDTHS: Final = (32, 64, 128, 256, 512, 1024)
_BLOCKS: Final = (1, 2, 8, 8, 4)
"""Residual blocks of the five stages. The last three results are used."""
_KERNELS: Final = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")


class ConvNorm(nnx.Module):
    """A convolution, batch normalisation, and a leaky ReLU."""

    def __init__(self, layers: Layers, inputs: int, outputs: int, size: int, *, stride: int = 1) -> None:
        self.conv = layers.conv(inputs, outputs, size, stride=stride, kernel_init=_KERNELS)
        self.bn = layers.norm(outputs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.leaky_relu(self.bn(self.conv(x)), 0.1)


class Residual(Recomputed):
    """Two convolutions, the first with half of the channels, added to the input."""

    def __init__(self, layers: Layers, width: int) -> None:
        self.conv1, self.conv2 = ConvNorm(layers, width, width // 2, 1), ConvNorm(layers, width // 2, width, 3)

    def forward(self, x: jax.Array) -> jax.Array:
        return x + self.conv2(self.conv1(x))


class Stage(nnx.Module):
    """A convolution of stride 2 and residual blocks."""

    def __init__(self, layers: Layers, inputs: int, outputs: int, blocks: int) -> None:
        self.conv = ConvNorm(layers, inputs, outputs, 3, stride=2)
        self.names = tuple(f"res{index}" for index in range(blocks))
        for name in self.names:
            setattr(self, name, Residual(layers, outputs))

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.conv(x)
        for name in self.names:
            x = getattr(self, name)(x)
        return x


class Darknet(nnx.Module):
    """Darknet-53 without its linear layer. Its results are those of all stages, the finest first."""

    def __init__(self, layers: Layers, channels: int, blocks: Sequence[int]) -> None:
        self.conv1 = ConvNorm(layers, channels, _WIDTHS[0], 3)
        self.names = tuple(f"conv_res_block{index}" for index in range(1, len(blocks) + 1))
        for name, (inputs, outputs), count in zip(self.names, pairwise(_WIDTHS), blocks, strict=True):
            setattr(self, name, Stage(layers, inputs, outputs, count))

    def __call__(self, x: jax.Array) -> list[jax.Array]:
        x = self.conv1(x)
        results = []
        for name in self.names:
            x = getattr(self, name)(x)
            results.append(x)
        return results


class DetectionBlock(Recomputed):
    """Five convolutions, of 1 and 3 pixels in turn."""

    def __init__(self, layers: Layers, inputs: int, outputs: int) -> None:
        self.conv1 = ConvNorm(layers, inputs, outputs, 1)
        self.conv2 = ConvNorm(layers, outputs, 2 * outputs, 3)
        self.conv3 = ConvNorm(layers, 2 * outputs, outputs, 1)
        self.conv4 = ConvNorm(layers, outputs, 2 * outputs, 3)
        self.conv5 = ConvNorm(layers, 2 * outputs, outputs, 1)

    def forward(self, x: jax.Array) -> jax.Array:
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5):
            x = conv(x)
        return x


class Neck(nnx.Module):
    """A block on each of the last three stages, the coarsest first. The finer ones also see the coarser block's result."""

    def __init__(self, layers: Layers) -> None:
        self.detect1 = DetectionBlock(layers, 1024, 512)
        self.conv1, self.detect2 = ConvNorm(layers, 512, 256, 1), DetectionBlock(layers, 256 + 512, 256)
        self.conv2, self.detect3 = ConvNorm(layers, 256, 128, 1), DetectionBlock(layers, 128 + 256, 128)

    def __call__(self, stages: Sequence[jax.Array]) -> list[jax.Array]:
        *_, fine, middle, coarse = stages
        results = [self.detect1(coarse)]
        for conv, block, stage in ((self.conv1, self.detect2, middle), (self.conv2, self.detect3, fine)):
            larger = resize_nearest(conv(results[-1]), (stage.shape[1], stage.shape[2]))
            results.append(block(jnp.concatenate([larger, stage], -1)))
        return results


class Head(nnx.Module):
    """Two convolutions on each level, with the values of three anchors per cell."""

    def __init__(self, layers: Layers, classes: int) -> None:
        self.columns = 5 + classes
        sides = _WIDTHS[-1:-4:-1]
        self.convs_bridge = nnx.List([ConvNorm(layers, width // 2, width, 3) for width in sides])
        self.convs_pred = nnx.List(
            [layers.conv(width, _ANCHORS * self.columns, 1, bias=True, kernel_init=_KERNELS) for width in sides]
        )

    def __call__(self, levels: Sequence[jax.Array]) -> jax.Array:
        results = []
        for bridge, conv, x in zip(self.convs_bridge, self.convs_pred, levels, strict=True):
            y = conv(bridge(x)).reshape(len(x), -1, self.columns)
            results.append(y.astype(jnp.promote_types(y.dtype, jnp.float32)))
        return jnp.concatenate(results, 1)


class YOLOv3(nnx.Module):
    """The network. Its batch normalisation keeps 0.99 of the running statistics, as the authors' does."""

    def __init__(self, layers: Layers, channels: int, classes: int, blocks: Sequence[int] = _BLOCKS) -> None:
        layers = replace(layers, momentum=0.99)
        self.backbone, self.neck = Darknet(layers, channels, blocks), Neck(layers)
        self.bbox_head = Head(layers, classes)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map images (batch, y, x, channels) to values of each anchor, (batch, m, 5 + classes).

        They are the logits of the centre within the cell, the logarithm of the sides in those of the anchor, and the logits
        of the objectness and of the classes.
        """
        return self.bbox_head(self.neck(self.backbone(x)))


def build(name: str, layers: Layers, channels: int, classes: int) -> YOLOv3:  # noqa: ARG001 -- there is one variant
    """Return YOLOv3, with random weights."""
    return YOLOv3(layers, channels, classes)


def _pad(image: jax.Array) -> jax.Array:
    """The image with zeros at its end, so that its sides are multiples of the largest stride."""
    ends = [(0, -length % _STRIDES[0]) for length in image.shape[1:3]]
    return jnp.pad(image, ((0, 0), *ends, (0, 0)))


def _cells(image: tuple[int, int]) -> list[tuple[int, int]]:
    """The cells of each level along y and x."""
    coarse = -(-image[0] // _STRIDES[0]), -(-image[1] // _STRIDES[0])
    return [(coarse[0] * factor, coarse[1] * factor) for factor in (_STRIDES[0] // stride for stride in _STRIDES)]


def anchors(image: tuple[int, int]) -> list[NDArray[np.float32]]:
    """The anchors of each level in an image of (y, x) pixels, around the centres of cells, shape (cells * 3, 4)."""
    made = []
    for level, (stride, cells) in enumerate(zip(_STRIDES, _cells(image), strict=True)):
        half = np.array(_level_priors(level), np.float32) / 2
        y, x = np.meshgrid(*((np.arange(count, dtype=np.float32) + 0.5) * stride for count in cells), indexing="ij")
        center = np.stack([x, y], -1).reshape(-1, 1, 2)
        made.append(np.concatenate([center - half, center + half], -1).reshape(-1, 4))
    return made


def _level_priors(level: int) -> tuple[tuple[int, int], ...]:
    end = len(_PRIORS) - _ANCHORS * level
    return _PRIORS[end - _ANCHORS : end]


def _cells_per_side(image: tuple[int, int]) -> NDArray[np.float32]:
    """The strides divided by the widths and heights of the anchors, shape (m, 2)."""
    made = []
    for level, (stride, (y, x)) in enumerate(zip(_STRIDES, _cells(image), strict=True)):
        made.append(np.tile(stride / np.array(_level_priors(level), np.float32), (y * x, 1)))
    return np.concatenate(made)


def _decode(values: jax.Array, image: tuple[int, int]) -> jax.Array:
    """The boxes that the first four values predict, shape (batch, m, 4)."""
    shift = (jax.nn.sigmoid(values[..., :2]) - 0.5) * _cells_per_side(image)
    return coding.decode(jnp.concatenate([shift, values[..., 2:4]], -1), jnp.concatenate(anchors(image)))


def _responsible(boxes: jax.Array, image: tuple[int, int]) -> jax.Array:
    """The index of the anchor for each box, shape (boxes,): the one most similar in shape, in the cell of its centre."""
    low, high = coding.split_corners(boxes)
    sides, priors = (high - low)[:, None], jnp.array(_PRIORS, boxes.dtype)
    common = jnp.minimum(sides, priors).prod(-1)
    best = (common / (sides.prod(-1) + priors.prod(-1) - common)).argmax(1)
    level = len(_STRIDES) - 1 - best // _ANCHORS
    cells = np.array(_cells(image))
    first = np.cumsum([0, *(_ANCHORS * cells.prod(1))[:-1]])
    stride, (y, x) = jnp.array(_STRIDES)[level], jnp.array(cells)[level].T
    column, row = ((low + high) / 2 // stride[:, None]).astype(jnp.int32).T
    row, column = jnp.clip(row, 0, y - 1), jnp.clip(column, 0, x - 1)
    return jnp.array(first)[level] + (row * x + column) * _ANCHORS + best % _ANCHORS


def add_targets(batch: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Match one anchor to each of the ``boxes``, of which some are ``valid``. Of two boxes with the same anchor, it is the last.

    Losses are divided by the number of images.

    Returns:
        The batch with ``matches``, ``codes`` and ``weights`` of each anchor, and the counts.
    """
    image = _pad(batch["image"])
    shape = image.shape[1:3]
    every = jnp.concatenate(anchors(shape))

    def matches_of(boxes: jax.Array, valid: jax.Array) -> jax.Array:
        index = jnp.where(valid, _responsible(boxes, shape), len(every))  # out of range for padding, and then dropped
        return jnp.full(len(every), coding.BELOW).at[index].max(jnp.arange(len(boxes)), mode="drop")

    matches = jax.vmap(matches_of)(batch["boxes"], batch["valid"])
    boxes = coding.matched(batch["boxes"], matches)
    shift, size = coding.split_corners(coding.encode(boxes, every))
    codes = jnp.concatenate([shift / _cells_per_side(shape) + 0.5, size], -1)
    low, high = coding.split_corners(boxes)
    weights = 2 - (high - low).prod(-1) / (shape[0] * shape[1])
    added = {"image": image, "matches": matches, "codes": codes, "weights": weights}
    return batch | added, {"images": jnp.array(len(matches), jnp.float32)}


def losses(model: Any, batch: dict[str, Any], counts: dict[str, Any]) -> dict[str, jax.Array]:
    """The cross-entropies of objectness and class, and the loss of the boxes, each summed over an image.

    The loss of a box is the cross-entropy of its centre within the cell and half of the squared error of the logarithms of its
    sides. Small boxes weigh up to twice as much as large ones.
    """
    values = model(batch["image"])
    found = _decode(jax.lax.stop_gradient(values), batch["image"].shape[1:3])
    overlap = jax.vmap(coding.overlaps)(batch["boxes"], batch["valid"], found).max(1)
    positive, codes = batch["matches"] >= 0, batch["codes"]
    counted = positive | ~(overlap > _IGNORED_IOU)
    objects = optax.sigmoid_binary_cross_entropy(values[..., 4], positive.astype(values.dtype)) * counted
    centers = optax.sigmoid_binary_cross_entropy(values[..., :2], codes[..., :2]).sum(-1)
    sides = jnp.square(values[..., 2:4] - codes[..., 2:]).sum(-1) / 2
    return {
        "loss_objects": objects.sum() / counts["images"],
        "loss_where": (-jax.nn.log_sigmoid(values[..., 5]) * positive).sum() / counts["images"],
        "loss_boxes": ((centers + sides) * batch["weights"] * positive).sum() / counts["images"],
    }


def candidates(model: Any, image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The best candidates: boxes (batch, k, 4), clipped to the image, and scores (batch, k), objectness times class."""
    padded = _pad(image)
    values = model(padded)
    scores = jax.nn.sigmoid(values[..., 4]) * jax.nn.sigmoid(values[..., 5])
    best, index = jax.lax.top_k(scores, min(_CANDIDATES, scores.shape[1]))
    boxes = jnp.take_along_axis(_decode(values, padded.shape[1:3]), index[..., None], 1)
    return coding.clip_to(boxes, image.shape[1:3]), best
