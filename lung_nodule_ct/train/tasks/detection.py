"""Detection of nodules in slices and volumes, with the same code in 2D and 3D.

There are two heads. ``center`` is anchor-free: a heatmap of centres with a penalty-reduced focal loss, as in CenterNet
(Zhou et al. 2019), and the distances from the cell to the four or six sides of the box, as in FCOS (Tian et al. 2019),
with a GIoU loss. ``anchors`` has anchors on every level of a feature pyramid, with a focal loss (Lin et al. 2017).

In this module, boxes are low and high corners in array order, shape (…, 2 n) for n axes.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from lung_nodule_ct.train import metrics
from lung_nodule_ct.train.box_prediction import predict_slices, predict_volumes
from lung_nodule_ct.train.box_targets import (
    adaptive_targets,
    anchor_targets,
    center_targets,
    hard_negative_loss,
    heatmap_loss,
)
from lung_nodule_ct.train.boxes import encode, exchange_axes, intersection_over_union, split_corners
from lung_nodule_ct.train.calibration import calibration_error_scorer
from lung_nodule_ct.train.data.images import Slices
from lung_nodule_ct.train.layers import Conv, Encoder, compute_dtype, upsample
from lung_nodule_ct.train.models import build_network, detector_module
from lung_nodule_ct.train.models.layers import Layers
from lung_nodule_ct.train.preprocessing import normalise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lung_nodule_ct.train.data.volumes import Patches
    from lung_nodule_ct.train.recipes import Recipe
    from lung_nodule_ct.train.tasks import Apply, Prediction

# Initial bias of the score, so that the many empty cells have a probability of 0.01 at first (Lin et al. 2017).
_INITIAL_LOGIT: Final = -math.log((1 - 0.01) / 0.01)
_ANCHOR_SIDES: Final = (2.0, 2.0 * 2 ** (1 / 3), 2.0 * 2 ** (2 / 3))
"""Sides of the anchors of the head ``anchors``, in strides."""
_MAX_CANDIDATES: Final = 64
"""Candidate boxes per image or patch before suppression."""


class Detector(nnx.Module):
    """An encoder, a feature pyramid, and a head on its finest level, or with anchors on every level."""

    def __init__(self, recipe: Recipe, rngs: nnx.Rngs) -> None:
        options = recipe.model
        self.axes = axes = 3 if len(recipe.input.size) == 3 else 2
        self.encoder = Encoder(axes, options, rngs)
        with_anchors = options.head == "anchors"
        self.outputs = len(options.blocks) if with_anchors else 1
        width, anchors = 2 * options.width, len(_ANCHOR_SIDES) if with_anchors else 1
        self.across = nnx.List(
            [Conv(axes, inputs, width, 1, options=options, rngs=rngs) for inputs in self.encoder.widths]
        )
        self.tower = nnx.List([Conv(axes, width, width, 3, options=options, rngs=rngs) for _ in range(options.tower)])
        self.score = Conv(axes, width, anchors, 3, options=options, rngs=rngs, bias=_INITIAL_LOGIT)
        self.shape = Conv(axes, width, anchors * 2 * axes, 3, options=options, rngs=rngs)
        # Small weights keep the first outputs near the biases (Lin et al. 2017). Otherwise, 3D anchors learn nothing.
        for last in (self.score, self.shape):
            kernel = last.kernel[...]
            last.kernel[...] = nnx.initializers.normal(0.01)(rngs.params(), kernel.shape, kernel.dtype)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Predict a score and a box for each of the m anchors of :func:`_anchors`.

        Returns:
            Logits (batch, m), and encoded boxes (batch, m, 2 n).
        """
        features = self.encoder(x)
        levels = [self.across[-1](features[-1])]
        for index in range(len(features) - 2, -1, -1):
            finer = self.across[index](features[index])
            levels.append(finer + upsample(levels[-1], finer.shape[1:-1]))
        logits, shapes = [], []
        for level in levels[::-1][: self.outputs]:
            y = nnx.relu(level)
            for layer in self.tower:
                y = nnx.relu(layer(y))
            logits.append(self.score(y).astype(jnp.float32).reshape(len(x), -1))
            shapes.append(self.shape(y).astype(jnp.float32).reshape(len(x), -1, 2 * self.axes))
        return jnp.concatenate(logits, 1), jnp.concatenate(shapes, 1)


def _anchors(recipe: Recipe, shape: tuple[int, ...]) -> jax.Array:
    """The anchors in an image of that shape, (m, 2 n). Those of the head ``center`` are the cells of its finest level."""
    return jnp.concatenate(_anchors_of_levels(recipe, shape))


def _anchors_of_levels(recipe: Recipe, shape: tuple[int, ...]) -> list[jax.Array]:
    options = recipe.model
    with_anchors = options.head == "anchors"
    made = []
    for stage in range(len(options.blocks) if with_anchors else 1):
        stride = options.patch * 2**stage
        cells = tuple(-(-length // stride) for length in shape)
        made.append(_make_anchors(cells, stride, _ANCHOR_SIDES if with_anchors else (1.0,)))
    return made


def _make_anchors(shape: tuple[int, ...], stride: int, sides: tuple[float, ...]) -> jax.Array:
    """Boxes around the centres of cells, with ``sides`` in strides, shape (cells * sides, 2 n)."""
    grid = jnp.stack(jnp.meshgrid(*(jnp.arange(n) for n in shape), indexing="ij"), -1)
    center = ((grid.reshape(-1, 1, len(shape)) + 0.5) * stride).astype(jnp.float32)
    half = jnp.array(sides)[:, None] * stride / 2
    return jnp.concatenate([center - half, center + half], -1).reshape(-1, 2 * len(shape))


def _decode_boxes(shapes: jax.Array, anchors: jax.Array, recipe: Recipe) -> jax.Array:
    """The boxes that the head predicts, shape (batch, m, 2 n)."""
    axes = anchors.shape[-1] // 2
    low, high = split_corners(anchors)
    center, side = (low + high) / 2, high - low
    if recipe.model.head == "center":
        distances = jax.nn.softplus(shapes) * jnp.tile(side, 2)
        return jnp.concatenate([center - distances[..., :axes], center + distances[..., axes:]], -1)
    center = center + shapes[..., :axes] * side
    side = side * jnp.exp(jnp.clip(shapes[..., axes:], -4, 4))
    return jnp.concatenate([center - side / 2, center + side / 2], -1)


def build_model(recipe: Recipe, rngs: nnx.Rngs) -> Any:
    """Return the network: our own, or a published one."""
    if recipe.model.network is None:
        return Detector(recipe, rngs)
    layers = Layers(rngs, dtype=compute_dtype(recipe.model))
    return build_network(recipe.model.network, layers, channels=1, classes=1)


def _as_published(batch: dict[str, Any], name: str) -> dict[str, Any]:
    """A batch as a published network takes it: normalised grey values, and boxes x0 y0 x1 y1."""
    result = batch | {"image": normalise(batch["image"], name)}
    return result | {"boxes": exchange_axes(batch["boxes"])} if "boxes" in batch else result


def add_targets(batch: dict[str, Any], recipe: Recipe) -> tuple[dict[str, Any], dict[str, Any]]:
    """Add ``heat``, ``counted``, ``weight`` and ``truth`` of each anchor, and count the positive ones and the weights.

    A published network has its own targets.
    """
    if (name := recipe.model.network) is not None:
        return detector_module(name).add_targets(_as_published(batch, name))
    levels = _anchors_of_levels(recipe, batch["image"].shape[1:-1])
    anchors = jnp.concatenate(levels)
    if recipe.model.head == "center":
        targets: Callable[..., tuple[jax.Array, ...]] = center_targets
    elif recipe.model.matching == "atss":
        targets = partial(adaptive_targets, [len(level) for level in levels])
    else:
        targets = anchor_targets
    heat, counted, weight, matches = jax.vmap(lambda boxes, valid: targets(anchors, boxes, valid))(
        batch["boxes"], batch["valid"]
    )
    truth = jnp.take_along_axis(batch["boxes"], matches[..., None], 1)
    added = {"heat": heat, "counted": counted, "weight": weight, "truth": truth}
    return batch | added, {"positive": (heat == 1).sum(), "weight": weight.sum()}


def loss(
    model: Any, batch: dict[str, Any], recipe: Recipe, counts: dict[str, Any]
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the focal loss of the scores plus the loss of the boxes, each per positive anchor; of a published network, its own."""
    if recipe.model.network is not None:
        losses = detector_module(recipe.model.network).losses(model, batch, counts)
        total = jnp.sum(jnp.stack(list(losses.values())))
        return total, {"loss": total} | losses
    logits, shapes = model(batch["image"])
    anchors = _anchors(recipe, batch["image"].shape[1:-1])
    heat, counted, weight, truth = (batch[name] for name in ("heat", "counted", "weight", "truth"))
    if recipe.model.head == "center":
        score_losses = heatmap_loss(logits, heat)
        box_losses = 1 - intersection_over_union(_decode_boxes(shapes, anchors, recipe), truth)[1]
    else:
        score_losses = (
            hard_negative_loss(logits, heat, counted, recipe.model.hard_negatives)
            if recipe.model.hard_negatives
            else optax.sigmoid_focal_loss(logits, heat, alpha=0.25, gamma=2.0) * counted
        )
        box_losses = optax.huber_loss(shapes, encode(truth, anchors), delta=0.11).sum(-1) / 0.11
    where = score_losses.sum() / counts["positive"]
    boxes = (box_losses * weight).sum() / counts["weight"]
    return where + boxes, {"loss": where + boxes, "loss_where": where, "loss_boxes": boxes}


def predict(model: Any, batch: dict[str, Any], recipe: Recipe) -> dict[str, jax.Array]:
    """Return the highest ``scores`` (batch, k) and their ``boxes`` (batch, k, 2 n)."""
    if (name := recipe.model.network) is not None:
        found, found_scores = detector_module(name).candidates(model, normalise(batch["image"], name))
        return {"scores": found_scores, "boxes": exchange_axes(found)}
    logits, shapes = model(batch["image"])
    scores, kept = jax.lax.top_k(logits, min(_MAX_CANDIDATES, logits.shape[1]))
    anchors = _anchors(recipe, batch["image"].shape[1:-1])
    boxes = jnp.take_along_axis(_decode_boxes(shapes, anchors, recipe), kept[..., None], 1)
    return {"scores": jax.nn.sigmoid(scores), "boxes": boxes}


def predict_all(source: Slices | Patches, apply: Apply, recipe: Recipe) -> Iterator[Prediction]:
    """Yield ``id``, ``patient_id``, ``number``, ``boxes``, ``scores``, and true boxes, or centres and diameters."""
    return (
        predict_slices(source, apply, recipe) if isinstance(source, Slices) else predict_volumes(source, apply, recipe)
    )


def scorer(predictions: Sequence[Prediction]) -> Callable[[np.ndarray], dict[str, float]]:
    """Score slices by COCO's ``AP`` to ``APl``; volumes by ``CPM``, the sensitivity at 1 and 4 false positives, and ``hit_IoU``.

    ``hit_IoU`` is the median IoU of the surest hits with their nodules: FROC does not judge the size of boxes. If scores are
    calibrated, ``ECE`` and ``ECE_uncalibrated`` are the calibration errors of unseen patients; lower is better.
    """
    if predictions and "centers" not in predictions[0]:
        images = [metrics.match_boxes(row["boxes"], row["scores"], row["truth_boxes"]) for row in predictions]
        return lambda indices: metrics.average_precision([images[index] for index in indices])
    scans = [
        metrics.match_centers(row["centers"], row["scores"], row["truth_centers"], row["truth_diameters"])
        for row in predictions
    ]
    overlaps = [sizes_of_hits(row).overlap for row in predictions]
    is_calibrated = bool(predictions) and "uncalibrated_scores" in predictions[0]
    calibration_errors = calibration_error_scorer(predictions) if is_calibrated else None

    def scores(indices: np.ndarray) -> dict[str, float]:
        curve = metrics.froc([scans[index] for index in indices])
        at_1, at_4 = curve.sensitivity_at((1.0, 4.0))
        hits = np.concatenate([np.zeros(0), *(overlaps[index] for index in indices)])
        overlap = float(np.median(hits)) if hits.size else float("nan")
        values = {
            "CPM": curve.cpm,
            "sensitivity_at_1": float(at_1),
            "sensitivity_at_4": float(at_4),
            "hit_IoU": overlap,
        }
        return values if calibration_errors is None else values | calibration_errors(indices)

    return scores


def sizes_of_hits(row: Prediction) -> metrics.HitSizes:
    """How well the boxes of the hits in a volume fit."""
    names = ("centers", "scores", "boxes", "truth_centers", "truth_diameters", "truth_boxes")
    return metrics.hit_sizes(*(row[name] for name in names))
