"""What some weights answer to the examples of a split, on one device."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import jax

from lung_nodule_ct.train.step import make_predict
from lung_nodule_ct.train.tasks import task_of

if TYPE_CHECKING:
    import numpy as np

    from lung_nodule_ct.train.data import DataSource
    from lung_nodule_ct.train.recipes import Recipe
    from lung_nodule_ct.train.tasks import Row


class Predictions:
    """Compiled once, for any weights of the recipe's network."""

    def __init__(self, source: DataSource, recipe: Recipe) -> None:
        self._source, self._recipe = source, recipe
        self._predict = make_predict(recipe)

    def rows(self, weights: Any, most: int | None = None) -> list[Row]:
        """Answers beside the truth, of all examples or of the first ``most``; the weights lie on one device."""
        device = jax.tree.leaves(weights)[0].sharding

        def apply(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return jax.device_get(self._predict(weights, jax.device_put(batch, device)))

        return list(islice(task_of(self._recipe).rows(self._source, apply, self._recipe), most))
