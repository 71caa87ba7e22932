"""The tasks, a module each with ``build_model, loss, predict, rows, scorer``.

- ``build_model(recipe, rngs)``: an NNX module,
- ``loss(model, batch, recipe)``: what is made small, and its parts, for a prepared batch on the device,
- ``predict(model, batch, recipe)``: answers on the device,
- ``rows(source, apply, recipe)``: a split's answers beside the truth, a dict an example, on the host; they make up ``predictions.parquet``,
- ``scorer(rows)``: gives the function that scores some of the rows, in NumPy; the bootstrap calls it many times.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np

    from lung_nodule_ct.train.data import DataSource
    from lung_nodule_ct.train.recipes import Recipe

    Apply = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
    Row = dict[str, Any]


class Task(Protocol):
    """What a module of a task holds."""

    def build_model(self, recipe: Recipe, rngs: Any) -> Any:
        """The network, its weights drawn from ``rngs``."""

    def loss(self, model: Any, batch: dict[str, Any], recipe: Recipe) -> tuple[Any, dict[str, Any]]:
        """The loss of a prepared batch, and its parts by name."""

    def predict(self, model: Any, batch: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
        """Answers to a prepared batch."""

    def rows(self, source: DataSource, apply: Apply, recipe: Recipe) -> Iterator[Row]:
        """Every example's answer beside its truth. ``apply`` prepares a batch and predicts."""

    def scorer(self, rows: Sequence[Row]) -> Callable[[np.ndarray], dict[str, float]]:
        """The scores of those of the rows that have some indices; what can be done once is done here."""


def task_of(recipe: Recipe) -> Task:
    """The module of a recipe's task."""
    return cast("Task", import_module(f"lung_nodule_ct.train.tasks.{recipe.task}"))
