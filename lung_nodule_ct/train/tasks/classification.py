"""Which of six pathologies a nodule crop shows: softmax with class weights, or a chain of thresholds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from lung_nodule_ct.declaration.labels import PATHOLOGY, PATHOLOGY_NAMES
from lung_nodule_ct.train.feed import whole_batches
from lung_nodule_ct.train.layers import Encoder
from lung_nodule_ct.train.metrics import classification

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lung_nodule_ct.train.data.images import Crops
    from lung_nodule_ct.train.recipes import Recipe
    from lung_nodule_ct.train.tasks import Apply, Row

CLASSES = len(PATHOLOGY)


class Classifier(nnx.Module):
    """An encoder, the mean of its last stage, and one layer: six logits, or with ``ordinal`` five thresholds of one value (CORAL, Cao et al. 2020)."""

    def __init__(self, recipe: Recipe, rngs: nnx.Rngs) -> None:
        self.encoder = Encoder(2, recipe.model, rngs)
        ordinal = recipe.model.ordinal
        self.head = nnx.Linear(self.encoder.widths[-1], 1 if ordinal else CLASSES, use_bias=not ordinal, rngs=rngs)
        self.thresholds = nnx.Param(jnp.linspace(1.0, -1.0, CLASSES - 1)) if ordinal else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Shape (b, y, x, 1) to (b, 6), or (b, 5): the logit of lying above each class but the last."""
        mean = self.encoder(x)[-1].astype(jnp.float32).mean((1, 2))
        out = self.head(mean)
        return out if self.thresholds is None else out + self.thresholds[...]


def build_model(recipe: Recipe, rngs: nnx.Rngs) -> Classifier:
    """The network."""
    return Classifier(recipe, rngs)


def loss(model: Classifier, batch: dict[str, Any], recipe: Recipe) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Weighted cross-entropy; rare classes weigh more."""
    logits = model(batch["image"])
    if recipe.model.ordinal:
        above = (batch["label"][:, None] > jnp.arange(CLASSES - 1)).astype(jnp.float32)
        each = optax.sigmoid_binary_cross_entropy(logits, above).sum(1)
    else:
        each = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
    total = (each * batch["weight"]).mean()
    return total, {"loss": total}


def predict(model: Classifier, batch: dict[str, Any], recipe: Recipe) -> dict[str, jax.Array]:
    """Probabilities of the six classes, shape (b, 6)."""
    logits = model(batch["image"])
    if not recipe.model.ordinal:
        return {"probabilities": jax.nn.softmax(logits)}
    above = jax.lax.cummin(jax.nn.sigmoid(logits), axis=1)  # a chain never rises
    ends = jnp.pad(above, ((0, 0), (1, 1)), constant_values=((0, 0), (1, 0)))
    return {"probabilities": ends[:, :-1] - ends[:, 1:]}


def rows(source: Crops, apply: Apply, recipe: Recipe) -> Iterator[Row]:
    """``id, patient_id, truth, predicted``, class names, and ``probabilities``."""
    for numbers, batch in whole_batches(source, recipe.batch_size):
        for number, shares in zip(numbers, apply(batch)["probabilities"], strict=False):
            yield {
                "id": source.ids[number],
                "patient_id": source.patients[number],
                "number": number,
                "truth": PATHOLOGY_NAMES[source.labels[number]],
                "predicted": PATHOLOGY_NAMES[int(np.argmax(shares))],
                "probabilities": shares.astype(np.float64).tolist(),
            }


def scorer(answers: Sequence[Row]) -> Callable[[np.ndarray], dict[str, float]]:
    """``accuracy``, ``quadratic_kappa``, and ``malignant_AUC`` by the summed probability of the malignant classes."""
    truth, told = (np.array([PATHOLOGY_NAMES.index(row[name]) for row in answers]) for name in ("truth", "predicted"))
    malignant = np.array([entry.malignant for entry in PATHOLOGY])
    score = np.array([row["probabilities"] for row in answers]).reshape(-1, CLASSES) @ malignant

    def score_of(chosen: np.ndarray) -> dict[str, float]:
        table = classification.confusion_matrix(truth[chosen], told[chosen], CLASSES)
        return {
            "accuracy": classification.accuracy(table),
            "quadratic_kappa": classification.quadratic_kappa(table),
            "malignant_AUC": classification.area_under_curve(malignant[truth[chosen]], score[chosen]),
        }

    return score_of
