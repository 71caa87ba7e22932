"""Tasks: one module per task, with the functions of :class:`Task`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np

    from lung_nodule_ct.train.data import Arrays, DataSource
    from lung_nodule_ct.train.recipes import Recipe

    Apply = Callable[[Arrays], Arrays]
    Prediction = dict[str, Any]


class Task(Protocol):
    """The functions of a task's module.

    The first four run on the device, and their batches are preprocessed. The last two run on the host.
    """

    def build_model(self, recipe: Recipe, rngs: Any) -> Any:
        """Return the network as an NNX module, with random weights."""

    def add_targets(self, batch: dict[str, Any], recipe: Recipe) -> tuple[dict[str, Any], dict[str, Any]]:
        """Add to a batch what the network is to predict, and return it with the counts that sums of losses are divided by."""

    def loss(
        self, model: Any, batch: dict[str, Any], recipe: Recipe, counts: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """Return the loss of a batch, and the parts of it by name.

        If the batch is a part of a larger one, ``counts`` are those of the larger one divided by the number of parts.
        """

    def predict(self, model: Any, batch: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
        """Return predictions for a batch."""

    def predict_all(self, source: DataSource, apply: Apply, recipe: Recipe) -> Iterator[Prediction]:
        """Yield the prediction for each example together with the truth: the rows of ``predictions.parquet``.

        ``apply`` preprocesses a batch and predicts.
        """

    def scorer(self, predictions: Sequence[Prediction]) -> Callable[[np.ndarray], dict[str, float]]:
        """Return a function that maps indices of predictions to the scores of these predictions.

        The bootstrap calls that function many times, so what does not depend on the indices is computed before.
        """


def get_task(recipe: Recipe) -> Task:
    """The module of a recipe's task."""
    return cast("Task", import_module(f"lung_nodule_ct.train.tasks.{recipe.task}"))
