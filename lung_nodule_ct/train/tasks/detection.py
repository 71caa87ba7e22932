"""How boxes of any dimension overlap: IoU, GIoU, and the suppression of those that say the same twice.

Where nodules are, in 2D and 3D by the same code: a centre heatmap with sides (anchor-free), or RetinaNet.

The anchor-free head follows CenterNet (Zhou et al. 2019: heatmap, penalty-reduced focal loss) and FCOS (Tian et al. 2019: sides from
the cell), with GIoU on the sides. RetinaNet is Lin et al. 2017: anchors on a feature pyramid, focal loss.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from lung_nodule_ct.train.data.images import Slices
from lung_nodule_ct.train.data.patches import Patches, boxes_of, spacing_of
from lung_nodule_ct.train.feed import stacked, whole_batches
from lung_nodule_ct.train.layers import Conv, Encoder, double
from lung_nodule_ct.train.metrics import detection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from lung_nodule_ct.train.recipes import Recipe
    from lung_nodule_ct.train.tasks import Apply, Row


def iou(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Intersection over union, and its generalised form (Rezatofighi et al. 2019), of boxes in array order.

    Args:
        a: Low and high corners, shape (…, 2 n); broadcasts with ``b``.
        b: The same.
    """
    axes = a.shape[-1] // 2
    (a0, a1), (b0, b1) = ((box[..., :axes], box[..., axes:]) for box in (a, b))
    common = jnp.clip(jnp.minimum(a1, b1) - jnp.maximum(a0, b0), 0).prod(-1)
    union = jnp.clip(a1 - a0, 0).prod(-1) + jnp.clip(b1 - b0, 0).prod(-1) - common
    hull = (jnp.maximum(a1, b1) - jnp.minimum(a0, b0)).prod(-1)
    overlap = common / jnp.maximum(union, 1e-6)
    return overlap, overlap - (hull - union) / jnp.maximum(hull, 1e-6)


def suppress(boxes: NDArray[np.float64], scores: NDArray[np.float64], most: float = 0.3) -> NDArray[np.int64]:
    """Greedy non-maximum suppression: which boxes stay, the surest first.

    Args:
        boxes: Low and high corners, shape (n, 2 k).
        scores: Shape (n,).
        most: The largest IoU that two boxes that stay may have.
    """
    axes = boxes.shape[1] // 2
    low, high = boxes[:, :axes], boxes[:, axes:]
    volume = np.clip(high - low, 0, None).prod(1)
    left = np.argsort(-scores, kind="mergesort")
    kept = []
    while left.size:
        first, rest = left[0], left[1:]
        kept.append(first)
        common = np.clip(np.minimum(high[first], high[rest]) - np.maximum(low[first], low[rest]), 0, None).prod(1)
        left = rest[common <= most * (volume[first] + volume[rest] - common)]
    return np.array(kept, np.int64)


_PRIOR = -math.log((1 - 0.01) / 0.01)  # so that the many empty cells begin at a probability of 0.01 (Lin et al. 2017)
_ANCHORS = (2.0, 2.0 * 2 ** (1 / 3), 2.0 * 2 ** (2 / 3))  # sides in strides
_CANDIDATES = 64
_LEAST = 0.01
_SHARE = 0.25  # how far patches of a volume overlap


class Detector(nnx.Module):
    """An encoder, a pyramid from coarse to fine, and a head of two convolutions on its finest level, or on each for RetinaNet."""

    def __init__(self, recipe: Recipe, rngs: nnx.Rngs) -> None:
        options = recipe.model
        self.axes = axes = axes_of(recipe)
        self.encoder = Encoder(axes, options, rngs)
        self.retina = options.head == "retina"
        self.strides = tuple(options.patch * 2**stage for stage in range(len(options.blocks) if self.retina else 1))
        wide, kinds = 2 * options.width, len(_ANCHORS) if self.retina else 1
        self.across = nnx.List(
            [Conv(axes, width, wide, 1, options=options, rngs=rngs) for width in self.encoder.widths]
        )
        self.tower = Conv(axes, wide, wide, 3, options=options, rngs=rngs)
        self.score = Conv(axes, wide, kinds, 3, options=options, rngs=rngs, bias=_PRIOR)
        self.shape = Conv(axes, wide, kinds * 2 * axes, 3, options=options, rngs=rngs)
        # Both begin near the prior (Lin et al. 2017); without that 3D anchors learn nothing.
        for last in (self.score, self.shape):
            kernel = last.kernel[...]
            last.kernel[...] = nnx.initializers.normal(0.01)(rngs.params(), kernel.shape, kernel.dtype)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Logits (b, m), shapes (b, m, 2 n), and the places (m, 2 n) that they are told from: cells' or anchors' boxes."""
        features = self.encoder(x)
        levels = [self.across[-1](features[-1])]
        for place in range(len(features) - 2, -1, -1):
            finer = self.across[place](features[place])
            levels.append(finer + double(levels[-1], finer.shape[1:-1]))
        logits, shapes, places = [], [], []
        for level, stride in zip(levels[::-1], self.strides, strict=False):
            y = nnx.relu(self.tower(nnx.relu(level)))
            logits.append(self.score(y).astype(jnp.float32).reshape(len(x), -1))
            shapes.append(self.shape(y).astype(jnp.float32).reshape(len(x), -1, 2 * self.axes))
            places.append(_places(level.shape[1:-1], stride, _ANCHORS if self.retina else (1.0,)))
        return jnp.concatenate(logits, 1), jnp.concatenate(shapes, 1), jnp.concatenate(places)


def axes_of(recipe: Recipe) -> int:
    """2 or 3: volumes have patches of (z, y, x), slices (y, x) or whatever holds them."""
    return 3 if len(recipe.input.size) == 3 else 2


def _places(shape: tuple[int, ...], stride: int, sides: tuple[float, ...]) -> jax.Array:
    """Boxes of so many strides a side around the cells' middles, shape (cells x sides, 2 n)."""
    grid = jnp.stack(jnp.meshgrid(*(jnp.arange(n) for n in shape), indexing="ij"), -1)
    middle = ((grid.reshape(-1, 1, len(shape)) + 0.5) * stride).astype(jnp.float32)
    half = jnp.array(sides)[:, None] * stride / 2
    return jnp.concatenate([middle - half, middle + half], -1).reshape(-1, 2 * len(shape))


def _boxes(shapes: jax.Array, places: jax.Array, recipe: Recipe) -> jax.Array:
    """What the head says, as boxes, shape (b, m, 2 n)."""
    axes = places.shape[-1] // 2
    low, high = places[:, :axes], places[:, axes:]
    middle, side = (low + high) / 2, high - low
    if recipe.model.head == "center":
        sides = jax.nn.softplus(shapes) * jnp.tile(side, 2)
        return jnp.concatenate([middle - sides[..., :axes], middle + sides[..., axes:]], -1)
    middle = middle + shapes[..., :axes] * side
    side = side * jnp.exp(jnp.clip(shapes[..., axes:], -4, 4))
    return jnp.concatenate([middle - side / 2, middle + side / 2], -1)


def build_model(recipe: Recipe, rngs: nnx.Rngs) -> Detector:
    """The network."""
    return Detector(recipe, rngs)


def loss(model: Detector, batch: dict[str, Any], recipe: Recipe) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Focal loss of where nodules are, and the loss of their boxes, both by the number of what is positive."""
    logits, shapes, places = model(batch["image"])
    told = _boxes(shapes, places, recipe)
    targets = _center_targets if recipe.model.head == "center" else _anchor_targets
    heat, counts, weight, whose = jax.vmap(lambda boxes, valid: targets(places, boxes, valid))(
        batch["boxes"], batch["valid"]
    )
    truth = jnp.take_along_axis(batch["boxes"], whose[..., None], 1)
    if recipe.model.head == "center":
        where = _heat_loss(logits, heat)
        each = 1 - iou(told, truth)[1]
    else:
        where = optax.sigmoid_focal_loss(logits, heat, alpha=0.25, gamma=2.0) * counts
        axes = places.shape[-1] // 2
        side = places[:, axes:] - places[:, :axes]
        middles = [(box[..., :axes] + box[..., axes:]) / 2 for box in (truth, places)]
        size = jnp.maximum(truth[..., axes:] - truth[..., :axes], 1e-3)
        wanted = jnp.concatenate([(middles[0] - middles[1]) / side, jnp.log(size / side)], -1)
        each = optax.huber_loss(shapes, wanted, delta=0.11).sum(-1) / 0.11
    found = where.sum() / jnp.maximum((heat == 1).sum(), 1)
    boxes = (each * weight).sum() / jnp.maximum(weight.sum(), 1)
    return found + boxes, {"loss": found + boxes, "loss_where": found, "loss_boxes": boxes}


def _heat_loss(logits: jax.Array, heat: jax.Array) -> jax.Array:
    """Penalty-reduced focal loss (Law and Deng 2018): cells near a centre are punished less for being sure."""
    p = jax.nn.sigmoid(logits)
    right = -jax.nn.log_sigmoid(logits) * jnp.square(1 - p)
    wrong = -jax.nn.log_sigmoid(-logits) * jnp.square(p) * (1 - heat) ** 4
    return jnp.where(heat == 1, right, wrong)


def _center_targets(places: jax.Array, boxes: jax.Array, valid: jax.Array) -> tuple[jax.Array, ...]:
    """Heat (m,), 1 at the cell of a centre; which cells count (m,); how much each cell's box counts (m,); whose it is (m,)."""
    axes = places.shape[-1] // 2
    low, high = boxes[:, :axes], boxes[:, axes:]
    stride = places[0, axes] - places[0, 0]
    cells = jnp.floor(places[:, None, :axes] / stride + 0.5)
    steps = cells - jnp.floor((low + high) / 2 / stride)
    spread = jnp.maximum((high - low) / stride / 6, 0.4)
    heats = jnp.exp(-jnp.square(steps / spread).sum(-1) / 2) * valid
    heat, whose = heats.max(1), heats.argmax(1)
    return heat, jnp.ones_like(heat), jnp.where(heat > 0.5, heat, 0), whose


def _anchor_targets(places: jax.Array, boxes: jax.Array, valid: jax.Array) -> tuple[jax.Array, ...]:
    """As :func:`_center_targets`, of anchors: 1 from IoU 0.5 up and for each nodule's best, not counted between 0.4 and 0.5."""
    overlap = jnp.where(valid, iou(places[:, None], boxes[None])[0], -1)
    best, whose = overlap.max(1), overlap.argmax(1)
    chosen = jnp.where(valid, overlap.argmax(0), len(places))  # out of range: nobody's
    forced = jnp.zeros(len(places), bool).at[chosen].set(True, mode="drop")
    whose = whose.at[chosen].set(jnp.arange(len(boxes)), mode="drop")
    positive = (best >= 0.5) | forced
    heat = positive.astype(jnp.float32)
    return heat, (positive | (best < 0.4)).astype(jnp.float32), heat, whose


def predict(model: Detector, batch: dict[str, Any], recipe: Recipe) -> dict[str, jax.Array]:
    """The surest candidates: ``scores`` (b, k), ``boxes`` (b, k, 2 n) in the patch, the surest first."""
    logits, shapes, places = model(batch["image"])
    scores, kept = jax.lax.top_k(logits, min(_CANDIDATES, logits.shape[1]))
    boxes = jnp.take_along_axis(_boxes(shapes, places, recipe), kept[..., None], 1)
    return {"scores": jax.nn.sigmoid(scores), "boxes": boxes}


def rows(source: Slices | Patches, apply: Apply, recipe: Recipe) -> Iterator[Row]:
    """``id, patient_id, number``, ``boxes`` and ``scores``, and the truth: boxes of slices, centres and diameters of volumes."""
    return _slice_rows(source, apply, recipe) if isinstance(source, Slices) else _volume_rows(source, apply, recipe)


def _slice_rows(source: Slices, apply: Apply, recipe: Recipe) -> Iterator[Row]:
    for numbers, batch in whole_batches(source, recipe.batch_size):
        answer = apply(batch)
        for number, boxes, scores in zip(numbers, answer["boxes"], answer["scores"], strict=False):
            kept, sure = _final(boxes, scores)
            yield {
                "id": source.ids[number],
                "patient_id": source.patients[number],
                "number": number,
                "boxes": kept[:, [1, 0, 3, 2]].tolist(),
                "scores": sure.tolist(),
                "truth_boxes": source.truth(number).tolist(),
            }


def _volume_rows(source: Patches, apply: Apply, recipe: Recipe) -> Iterator[Row]:
    """Each volume by overlapping patches; boxes as x0 y0 z0 x1 y1 z1 on the voxel edges' scale."""
    for number in range(len(source)):
        row, frame = source.rows.light[number], source.frame(number)
        lows = _tiles(source, number, recipe)
        found, sure = [np.zeros((0, 6))], [np.zeros(0)]
        # back from resampled voxels to stored ones
        wanted = recipe.input.spacing_mm
        scale = np.ones(3) if wanted is None else np.array(wanted) / spacing_of(row)
        shift = (np.array(source.extent) - scale * recipe.input.size) / 2
        for start in range(0, len(lows), recipe.batch_size):
            part = lows[start : start + recipe.batch_size]
            answer = apply(stacked((source.example(number, low) for low in part), recipe.batch_size))
            for low, boxes, scores in zip(part, answer["boxes"], answer["scores"], strict=False):
                found.append(boxes * np.tile(scale, 2) + np.tile(shift + low, 2))
                sure.append(scores)
        kept, scores = _final(np.concatenate(found), np.concatenate(sure))
        middle = ((kept[:, :3] + kept[:, 3:]) / 2)[:, ::-1] - 0.5
        truth = boxes_of(row)
        if frame is None:
            places = ((truth[:, :3] + truth[:, 3:]) / 2)[:, ::-1] - 0.5
            sizes = (truth[:, 3:] - truth[:, :3]).mean(1)
        else:
            middle = frame.to_world(middle)
            places = np.array([nodule["center_world"] for nodule in row["nodules"]]).reshape(-1, 3)
            sizes = np.array([nodule["diameter_mm"] for nodule in row["nodules"]])
        yield {
            "id": source.ids[number],
            "patient_id": source.patients[number],
            "number": number,
            "boxes": kept[:, [2, 1, 0, 5, 4, 3]].tolist(),
            "scores": scores.tolist(),
            "centers": middle.tolist(),
            "truth_centers": places.tolist(),
            "truth_diameters": sizes.tolist(),
        }


def _tiles(source: Patches, number: int, recipe: Recipe) -> list[np.ndarray]:
    """First voxels of the patches that cover a volume."""
    shape = np.array(source.volume(number).shape)
    seen = np.array(recipe.input.size, float)
    if recipe.input.spacing_mm is not None:
        seen = seen * recipe.input.spacing_mm / spacing_of(source.rows.light[number])
    aside = (np.array(source.extent) - seen) / 2  # what is cut but not seen
    axes = []
    for length, side, unseen in zip(shape, seen, aside, strict=True):
        count = max(1, math.ceil((length - side) / (side * (1 - _SHARE))) + 1)
        starts = np.linspace(0, max(length - side, 0), count) if length > side else np.array([(length - side) / 2])
        axes.append(np.round(starts - unseen).astype(np.int64))
    return [np.array(low) for low in np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)]


def _final(boxes: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    boxes, scores = boxes[scores >= _LEAST].astype(np.float64), scores[scores >= _LEAST].astype(np.float64)
    kept = suppress(boxes, scores)[:100]
    return boxes[kept], scores[kept]


def scorer(answers: Sequence[Row]) -> Callable[[np.ndarray], dict[str, float]]:
    """COCO's ``AP`` to ``APl`` of slices; of volumes ``CPM`` and the sensitivity at 1 and 4 false positives a scan."""
    if answers and "centers" not in answers[0]:
        matched = [detection.match(row["boxes"], row["scores"], row["truth_boxes"]) for row in answers]
        return lambda chosen: detection.average_precision([matched[place] for place in chosen])
    found = [
        detection.find(row["centers"], row["scores"], row["truth_centers"], row["truth_diameters"]) for row in answers
    ]

    def score_of(chosen: np.ndarray) -> dict[str, float]:
        curve = detection.froc([found[place] for place in chosen])
        at_1, at_4 = curve.at((1.0, 4.0))
        return {"CPM": curve.cpm, "sensitivity_at_1": float(at_1), "sensitivity_at_4": float(at_4)}

    return score_of
