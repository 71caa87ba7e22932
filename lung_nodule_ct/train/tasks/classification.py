"""Classification of nodule crops into six pathologies, by softmax with class weights or by a chain of thresholds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from lung_nodule_ct.declaration.labels import PATHOLOGY, PATHOLOGY_NAMES
from lung_nodule_ct.train import metrics
from lung_nodule_ct.train.batches import evaluation_batches
from lung_nodule_ct.train.layers import Encoder, compute_dtype
from lung_nodule_ct.train.models import build_network
from lung_nodule_ct.train.models.layers import Layers
from lung_nodule_ct.train.preprocessing import normalise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lung_nodule_ct.train.data.images import Crops
    from lung_nodule_ct.train.recipes import Recipe
    from lung_nodule_ct.train.tasks import Apply, Prediction

CLASSES = len(PATHOLOGY)


class Classifier(nnx.Module):
    """An encoder, the mean of its last stage, and a linear layer.

    The output is six logits. With ``ordinal`` it is one value with five thresholds (CORAL, Cao et al. 2020).
    """

    def __init__(self, recipe: Recipe, rngs: nnx.Rngs) -> None:
        self.encoder = Encoder(2, recipe.model, rngs)
        ordinal = recipe.model.ordinal
        self.head = nnx.Linear(self.encoder.widths[-1], 1 if ordinal else CLASSES, use_bias=not ordinal, rngs=rngs)
        self.thresholds = nnx.Param(jnp.linspace(1.0, -1.0, CLASSES - 1)) if ordinal else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map images (batch, y, x, 1) to logits (batch, 6), or with ``ordinal`` to logits of the thresholds (batch, 5)."""
        mean = self.encoder(x)[-1].astype(jnp.float32).mean((1, 2))
        out = self.head(mean)
        return out if self.thresholds is None else out + self.thresholds[...]


def build_model(recipe: Recipe, rngs: nnx.Rngs) -> Any:
    """Return the network: our own, or a published one."""
    if recipe.model.network is None:
        return Classifier(recipe, rngs)
    layers = Layers(rngs, dtype=compute_dtype(recipe.model))
    return build_network(recipe.model.network, layers, channels=1, classes=CLASSES)


def _logits(model: Any, image: jax.Array, recipe: Recipe) -> jax.Array:
    if recipe.model.network is None:
        return model(image)
    return model(normalise(image, recipe.model.network)).astype(jnp.float32)


def add_targets(batch: dict[str, Any], recipe: Recipe) -> tuple[dict[str, Any], dict[str, Any]]:  # noqa: ARG001
    """Return the batch, whose losses are divided by the number of examples."""
    return batch, {"examples": jnp.array(len(batch["label"]), jnp.float32)}


def loss(
    model: Any, batch: dict[str, Any], recipe: Recipe, counts: dict[str, Any]
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the cross-entropy, by default with larger weights of rare classes. Of mixed crops, it is that of both by their shares."""
    logits = _logits(model, batch["image"], recipe)
    each = _cross_entropy(logits, batch["label"], recipe) * batch["weight"]
    if "share" in batch:
        other = _cross_entropy(logits, batch["other_label"], recipe) * batch["other_weight"]
        each = batch["share"] * each + (1 - batch["share"]) * other
    total = each.sum() / counts["examples"]
    return total, {"loss": total}


def _cross_entropy(logits: jax.Array, label: jax.Array, recipe: Recipe) -> jax.Array:
    """The cross-entropy of each example, shape (batch,)."""
    if recipe.model.ordinal:
        above = (label[:, None] > jnp.arange(CLASSES - 1)).astype(jnp.float32)
        return optax.sigmoid_binary_cross_entropy(logits, above).sum(1)
    if not recipe.loss.label_smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, label)
    targets = optax.smooth_labels(jax.nn.one_hot(label, CLASSES), recipe.loss.label_smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def predict(model: Any, batch: dict[str, Any], recipe: Recipe) -> dict[str, jax.Array]:
    """Return the ``probabilities`` of the six classes, shape (batch, 6)."""
    logits = _logits(model, batch["image"], recipe)
    if not recipe.model.ordinal:
        return {"probabilities": jax.nn.softmax(logits)}
    above = jax.lax.cummin(jax.nn.sigmoid(logits), axis=1)  # probabilities of a chain never increase
    padded = jnp.pad(above, ((0, 0), (1, 1)), constant_values=((0, 0), (1, 0)))
    return {"probabilities": padded[:, :-1] - padded[:, 1:]}


def predict_all(source: Crops, apply: Apply, recipe: Recipe) -> Iterator[Prediction]:
    """Yield ``id``, ``patient_id``, ``number``, the class names ``truth`` and ``predicted``, and ``probabilities``."""
    for indices, batch in evaluation_batches(source, recipe):
        for index, probabilities in zip(indices, apply(batch)["probabilities"], strict=False):
            yield {
                "id": source.ids[index],
                "patient_id": source.patients[index],
                "number": index,
                "truth": PATHOLOGY_NAMES[source.labels[index]],
                "predicted": PATHOLOGY_NAMES[int(np.argmax(probabilities))],
                "probabilities": probabilities.astype(np.float64).tolist(),
            }


def scorer(predictions: Sequence[Prediction]) -> Callable[[np.ndarray], dict[str, float]]:
    """Score ``accuracy``, ``quadratic_kappa`` and ``malignant_AUC``, by the summed probability of malignant classes."""
    truth, predicted = (
        np.array([PATHOLOGY_NAMES.index(row[name]) for row in predictions]) for name in ("truth", "predicted")
    )
    malignant = np.array([pathology.malignant for pathology in PATHOLOGY])
    malignancy = np.array([row["probabilities"] for row in predictions]).reshape(-1, CLASSES) @ malignant

    def scores(indices: np.ndarray) -> dict[str, float]:
        confusion = metrics.confusion_matrix(truth[indices], predicted[indices], CLASSES)
        return {
            "accuracy": metrics.accuracy(confusion),
            "quadratic_kappa": metrics.quadratic_kappa(confusion),
            "malignant_AUC": metrics.area_under_curve(malignant[truth[indices]], malignancy[indices]),
        }

    return scores
