"""Prediction from all scans of a patient: malignancy of a nodule, and the change of its diameter.

The nodule is a track, or the largest one of each scan in a build without tracks.
With ``model.last_only`` the same network sees only the last scan. The difference of the scores is what earlier scans
add.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from lung_nodule_ct.train import metrics
from lung_nodule_ct.train.batches import evaluation_batches
from lung_nodule_ct.train.layers import Encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lung_nodule_ct.train.data.volumes import Sequences
    from lung_nodule_ct.train.recipes import Recipe
    from lung_nodule_ct.train.tasks import Apply, Prediction

_MM_PER_CM: Final = 10.0  # the network predicts centimetres, which gives both losses a similar weight


class SequenceNetwork(nnx.Module):
    """One 3D encoder for all scans, and two linear layers.

    The layers see the features of the last scan, their change since the first scan, their mean, and the time between
    the scans.
    """

    def __init__(self, recipe: Recipe, rngs: nnx.Rngs) -> None:
        self.encoder = Encoder(3, recipe.model, rngs)
        width = self.encoder.widths[-1]
        self.last_only = recipe.model.last_only
        self.hidden = nnx.Linear(3 * width + 2, width, rngs=rngs)
        self.head = nnx.Linear(width, 2, rngs=rngs)

    def __call__(self, images: jax.Array, years: jax.Array, present: jax.Array) -> jax.Array:
        """Predict from sequences of t scans.

        Args:
            images: Shape (batch, t, z, y, x, 1).
            years: Years since the first scan, shape (batch, t).
            present: Which scans are real, shape (batch, t).

        Returns:
            The logit of malignancy and the change in cm, shape (batch, 2).
        """
        if self.last_only:
            images, years, present = images[:, -1:], jnp.zeros_like(years[:, -1:]), present[:, -1:]
        shape = images.shape[:2]
        features = self.encoder(images.reshape(-1, *images.shape[2:]))[-1].astype(jnp.float32)
        features = features.mean((1, 2, 3)).reshape(*shape, -1)
        weights = present[..., None].astype(jnp.float32)
        mean = (features * weights).sum(1) / jnp.maximum(weights.sum(1), 1)
        first = jnp.take_along_axis(features, jnp.argmax(present, 1)[:, None, None], 1)[:, 0]
        time = jnp.stack([jnp.log1p(years[:, -1]), weights[..., 0].sum(1) - 1], 1)
        summary = jnp.concatenate([features[:, -1], features[:, -1] - first, mean, time], 1)
        return self.head(nnx.relu(self.hidden(summary)))


def build_model(recipe: Recipe, rngs: nnx.Rngs) -> SequenceNetwork:
    """Return the network."""
    return SequenceNetwork(recipe, rngs)


def add_targets(batch: dict[str, Any], recipe: Recipe) -> tuple[dict[str, Any], dict[str, Any]]:  # noqa: ARG001
    """Return the batch, and the number of sequences with a known malignancy and with a change."""
    return batch, {"known": (batch["malignant"] >= 0).sum(), "changed": batch["changed"].sum()}


def loss(
    model: SequenceNetwork,
    batch: dict[str, Any],
    recipe: Recipe,  # noqa: ARG001 -- every task takes it
    counts: dict[str, Any],
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the cross-entropy of known malignancy plus the Huber loss of the change between two scans."""
    output = model(batch["image"], batch["years"], batch["present"])
    known, changed = batch["malignant"] >= 0, batch["changed"]
    cross_entropy = optax.sigmoid_binary_cross_entropy(output[:, 0], (batch["malignant"] == 1).astype(jnp.float32))
    malignant = jnp.where(known, cross_entropy, 0).sum() / counts["known"]
    error = optax.huber_loss(output[:, 1], batch["change"] / _MM_PER_CM)
    change = jnp.where(changed, error, 0).sum() / counts["changed"]
    return malignant + change, {"loss": malignant + change, "loss_malignant": malignant, "loss_change": change}


def predict(model: SequenceNetwork, batch: dict[str, Any], recipe: Recipe) -> dict[str, jax.Array]:  # noqa: ARG001
    """Return ``malignant``, a probability, and ``change`` in mm, both of shape (batch,)."""
    output = model(batch["image"], batch["years"], batch["present"])
    return {"malignant": jax.nn.sigmoid(output[:, 0]), "change": output[:, 1] * _MM_PER_CM}


def predict_all(source: Sequences, apply: Apply, recipe: Recipe) -> Iterator[Prediction]:
    """Yield ``id``, ``patient_id``, ``number``, and the predicted and true malignancy and change (null if unknown)."""
    for indices, batch in evaluation_batches(source, recipe):
        output = apply(batch)
        for position, index in enumerate(indices):
            malignancy = int(batch["malignant"][position])
            yield {
                "id": source.ids[index],
                "patient_id": source.patients[index],
                "number": index,
                "malignant": float(output["malignant"][position]),
                "truth_malignant": bool(malignancy) if malignancy >= 0 else None,
                "change_mm": float(output["change"][position]),
                "truth_change_mm": float(batch["change"][position]) if batch["changed"][position] else None,
            }


def scorer(predictions: Sequence[Prediction]) -> Callable[[np.ndarray], dict[str, float]]:
    """Score ``malignant_AUC`` and ``change_error_mm``, the mean absolute error of the change.

    ``change_error_of_mean_mm`` is the error of predicting the mean change of these rows for each of them.
    """
    known = np.array([row["truth_malignant"] is not None for row in predictions], bool)
    changed = np.array([row["truth_change_mm"] is not None for row in predictions], bool)
    malignant = np.array([bool(row["truth_malignant"]) for row in predictions])
    probability, change = (np.array([row[name] for row in predictions]) for name in ("malignant", "change_mm"))
    true_change = np.array([row["truth_change_mm"] or 0.0 for row in predictions])

    def scores(indices: np.ndarray) -> dict[str, float]:
        with_malignancy, with_change = indices[known[indices]], indices[changed[indices]]
        true = true_change[with_change]
        error = np.abs(change[with_change] - true)
        error_of_mean = np.abs(true - true.mean()) if true.size else error
        return {
            "malignant_AUC": metrics.area_under_curve(malignant[with_malignancy], probability[with_malignancy]),
            "change_error_mm": float(error.mean()) if true.size else float("nan"),
            "change_error_of_mean_mm": float(error_of_mean.mean()) if true.size else float("nan"),
        }

    return scores
