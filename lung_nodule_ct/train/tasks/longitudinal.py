"""What a patient's scans say together: malignancy of the largest nodule, and how its diameter changes.

With ``model.last_only`` the same network sees the last scan only: what it scores less is what time adds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from lung_nodule_ct.train.feed import whole_batches
from lung_nodule_ct.train.layers import Encoder
from lung_nodule_ct.train.metrics import classification

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lung_nodule_ct.train.data.sequences import Sequences
    from lung_nodule_ct.train.recipes import Recipe
    from lung_nodule_ct.train.tasks import Apply, Row

_MM = 10.0  # diameters are told in centimetres, so that both losses weigh alike


class Follow(nnx.Module):
    """One 3D encoder for all scans; then the last scan's features, what changed since the first, the mean, and the time between."""

    def __init__(self, recipe: Recipe, rngs: nnx.Rngs) -> None:
        self.encoder = Encoder(3, recipe.model, rngs)
        wide = self.encoder.widths[-1]
        self.last_only = recipe.model.last_only
        self.hidden = nnx.Linear(3 * wide + 2, wide, rngs=rngs)
        self.head = nnx.Linear(wide, 2, rngs=rngs)

    def __call__(self, images: jax.Array, years: jax.Array, present: jax.Array) -> jax.Array:
        """Shapes (b, t, z, y, x, 1), (b, t), (b, t) to (b, 2): the logit of malignancy, and the change in centimetres."""
        if self.last_only:
            images, years, present = images[:, -1:], jnp.zeros_like(years[:, -1:]), present[:, -1:]
        count = images.shape[:2]
        features = self.encoder(images.reshape(-1, *images.shape[2:]))[-1].astype(jnp.float32)
        features = features.mean((1, 2, 3)).reshape(*count, -1)
        seen = present[..., None].astype(jnp.float32)
        mean = (features * seen).sum(1) / jnp.maximum(seen.sum(1), 1)
        first = jnp.take_along_axis(features, jnp.argmax(present, 1)[:, None, None], 1)[:, 0]
        time = jnp.stack([jnp.log1p(years[:, -1]), seen[..., 0].sum(1) - 1], 1)
        both = jnp.concatenate([features[:, -1], features[:, -1] - first, mean, time], 1)
        return self.head(nnx.relu(self.hidden(both)))


def build_model(recipe: Recipe, rngs: nnx.Rngs) -> Follow:
    """The network."""
    return Follow(recipe, rngs)


def loss(model: Follow, batch: dict[str, Any], recipe: Recipe) -> tuple[jax.Array, dict[str, jax.Array]]:  # noqa: ARG001 -- every task takes it
    """Cross-entropy of malignancy where it is known, and Huber loss of the change where there is one."""
    told = model(batch["image"], batch["years"], batch["present"])
    known, changed = batch["malignant"] >= 0, batch["changed"]
    cross = optax.sigmoid_binary_cross_entropy(told[:, 0], (batch["malignant"] == 1).astype(jnp.float32))
    malignant = jnp.where(known, cross, 0).sum() / jnp.maximum(known.sum(), 1)
    miss = optax.huber_loss(told[:, 1], batch["change"] / _MM)
    change = jnp.where(changed, miss, 0).sum() / jnp.maximum(changed.sum(), 1)
    return malignant + change, {"loss": malignant + change, "loss_malignant": malignant, "loss_change": change}


def predict(model: Follow, batch: dict[str, Any], recipe: Recipe) -> dict[str, jax.Array]:  # noqa: ARG001
    """``malignant``, a probability, and ``change`` in mm, both (b,)."""
    told = model(batch["image"], batch["years"], batch["present"])
    return {"malignant": jax.nn.sigmoid(told[:, 0]), "change": told[:, 1] * _MM}


def rows(source: Sequences, apply: Apply, recipe: Recipe) -> Iterator[Row]:
    """``id, patient_id, number``, probability and truth of malignancy (null where unknown), told and true change in mm."""
    for numbers, batch in whole_batches(source, recipe.batch_size):
        answer = apply(batch)
        for place, number in enumerate(numbers):
            truth = int(batch["malignant"][place])
            yield {
                "id": source.ids[number],
                "patient_id": source.patients[number],
                "number": number,
                "malignant": float(answer["malignant"][place]),
                "truth_malignant": bool(truth) if truth >= 0 else None,
                "change_mm": float(answer["change"][place]),
                "truth_change_mm": float(batch["change"][place]) if batch["changed"][place] else None,
            }


def scorer(answers: Sequence[Row]) -> Callable[[np.ndarray], dict[str, float]]:
    """``malignant_AUC`` and the mean absolute error of the change in mm; beside it what the mean change of these rows would miss by."""
    known = np.array([row["truth_malignant"] is not None for row in answers], bool)
    changed = np.array([row["truth_change_mm"] is not None for row in answers], bool)
    positive = np.array([bool(row["truth_malignant"]) for row in answers])
    sure, told = (np.array([row[name] for row in answers]) for name in ("malignant", "change_mm"))
    true = np.array([row["truth_change_mm"] or 0.0 for row in answers])

    def score_of(chosen: np.ndarray) -> dict[str, float]:
        judged, moved = chosen[known[chosen]], chosen[changed[chosen]]
        miss = np.abs(told[moved] - true[moved])
        blind = np.abs(true[moved] - true[moved].mean()) if moved.size else miss
        return {
            "malignant_AUC": classification.area_under_curve(positive[judged], sure[judged]),
            "change_error_mm": float(miss.mean()) if moved.size else float("nan"),
            "change_error_of_mean_mm": float(blind.mean()) if moved.size else float("nan"),
        }

    return score_of
