"""Classification of candidates into nodules and false positives, by a small 3D network: the second stage of a detector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from lung_nodule_ct.train import metrics
from lung_nodule_ct.train.batches import load_ahead, stack_examples
from lung_nodule_ct.train.layers import Encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lung_nodule_ct.train.data import Arrays
    from lung_nodule_ct.train.data.candidates import Candidates
    from lung_nodule_ct.train.recipes import Recipe
    from lung_nodule_ct.train.tasks import Apply, Prediction


class CandidateNetwork(nnx.Module):
    """A 3D encoder, the mean of its last stage with equal and with learned weights, and a linear layer."""

    def __init__(self, recipe: Recipe, rngs: nnx.Rngs) -> None:
        self.encoder = Encoder(3, recipe.model, rngs)
        width = self.encoder.widths[-1]
        self.attention = nnx.Linear(width, 1, rngs=rngs)
        self.head = nnx.Linear(2 * width, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map patches (batch, z, y, x, 1) to the logits of nodules (batch,)."""
        features = self.encoder(x)[-1].astype(jnp.float32)
        features = features.reshape(len(x), -1, features.shape[-1])
        weights = nnx.softmax(self.attention(features), axis=1)
        return self.head(jnp.concatenate([features.mean(1), (weights * features).sum(1)], 1))[:, 0]


def build_model(recipe: Recipe, rngs: nnx.Rngs) -> CandidateNetwork:
    """Return the network."""
    return CandidateNetwork(recipe, rngs)


def add_targets(batch: dict[str, Any], recipe: Recipe) -> tuple[dict[str, Any], dict[str, Any]]:  # noqa: ARG001
    """Return the batch, whose losses are divided by the number of examples."""
    return batch, {"examples": jnp.array(len(batch["label"]), jnp.float32)}


def loss(
    model: CandidateNetwork,
    batch: dict[str, Any],
    recipe: Recipe,  # noqa: ARG001 -- every task takes it
    counts: dict[str, Any],
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the cross-entropy."""
    each = optax.sigmoid_binary_cross_entropy(model(batch["image"]), batch["label"].astype(jnp.float32))
    total = each.sum() / counts["examples"]
    return total, {"loss": total}


def predict(model: CandidateNetwork, batch: dict[str, Any], recipe: Recipe) -> dict[str, jax.Array]:  # noqa: ARG001
    """Return the ``probability`` of a nodule, shape (batch,)."""
    return {"probability": jax.nn.sigmoid(model(batch["image"]))}


def predict_all(source: Candidates, apply: Apply, recipe: Recipe) -> Iterator[Prediction]:
    """Yield ``id``, ``patient_id``, ``number``, ``is_nodule``, ``probability``, and the ``detector_score``."""
    size = recipe.batch_size
    groups = [range(start, min(start + size, len(source))) for start in range(0, len(source), size)]

    def load(indices: range) -> Arrays:
        return stack_examples(map(source.candidate, indices), size)

    for indices, batch in zip(groups, load_ahead(load, groups, recipe.threads), strict=True):
        for index, probability in zip(indices, apply(batch)["probability"], strict=False):
            yield {
                "id": source.ids[index],
                "patient_id": source.patients[index],
                "number": index,
                "is_nodule": source.found[index].is_nodule,
                "probability": float(probability),
                "detector_score": source.found[index].score,
            }


def scorer(predictions: Sequence[Prediction]) -> Callable[[np.ndarray], dict[str, float]]:
    """Score the areas under the ROC curves ``AUC``, by the probability, and ``detector_AUC``, by the score of the detector."""
    truth, probability, detector = (
        np.array([row[name] for row in predictions]) for name in ("is_nodule", "probability", "detector_score")
    )
    return lambda indices: {
        "AUC": metrics.area_under_curve(truth[indices], probability[indices]),
        "detector_AUC": metrics.area_under_curve(truth[indices], detector[indices]),
    }
