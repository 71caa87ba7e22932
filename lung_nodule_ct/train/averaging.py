"""The average of the weights that is evaluated: a moving one, or that of the last part of the training with equal shares.

Weights that were averaged need other statistics of batch normalisation than each of them (Izmailov et al. 2018). They are
measured again on training examples.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import jax
import jax.numpy as jnp

from lung_nodule_ct.train.network import network, statistics_of
from lung_nodule_ct.train.preprocessing import preprocess
from lung_nodule_ct.train.tasks import get_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lung_nodule_ct.train.recipes import OptimOptions, Recipe

    State = dict[str, Any]
    Values = dict[str, Any]
    Batch = dict[str, Any]

MEASURED_BATCHES: Final = 100
"""The number of training batches, from the first, that statistics are measured on."""


def equal_shares_from(options: OptimOptions, steps: int) -> int:
    """The number of steps, of a run of ``steps``, after which weights are averaged with equal shares."""
    return math.floor(steps * (1 - options.swa))


def next_average(average: Values, values: Values, done: jax.Array, recipe: Recipe) -> Values:
    """The average after a step.

    Args:
        average: The average before.
        values: Parameters and statistics after the step.
        done: The number of finished steps.
        recipe: The recipe.
    """
    # a small decay at first, to forget the random weights
    kept = jnp.minimum(recipe.optim.ema, done / (done + 9.0))
    if recipe.optim.swa:
        count = done - equal_shares_from(recipe.optim, recipe.steps)
        kept = jnp.where(count > 0, 1 - 1 / jnp.maximum(count, 1), kept)
    return jax.tree.map(lambda old, new: kept * old + (1 - kept) * new, average, values)


def needs_statistics(recipe: Recipe, state: State, steps: int) -> bool:
    """Whether the average after a number of steps has statistics that must be measured."""
    return steps > equal_shares_from(recipe.optim, recipe.steps) and bool(jax.tree.leaves(state["statistics"]))


def make_measure(recipe: Recipe, replicated: jax.sharding.Sharding) -> Callable[[Values, Iterable[Batch]], Values]:
    """Return a function that measures the statistics of weights: their mean over batches, augmented as in training.

    It maps parameters and statistics, and batches of training examples, to parameters and measured statistics.

    Args:
        recipe: The recipe.
        replicated: How the statistics are distributed, a copy on each device.
    """
    task, net, parts = get_task(recipe), network(recipe), recipe.optim.accumulate

    def updated(values: Values, batch: Batch, number: int, start: float) -> Values:
        """The statistics after a batch if all of them are ``start`` before, averaged over its parts."""
        same = jax.tree.map(lambda leaf: jnp.full_like(leaf, start), values["statistics"])
        key = jax.random.fold_in(jax.random.key(recipe.seed), number)
        batch, totals = task.add_targets(preprocess(batch, recipe.input, key, recipe.augment), recipe)
        counts = {name: jnp.maximum(total, 1) / parts for name, total in totals.items()}
        results = []
        for part in range(parts):
            model = net.in_training(values | {"statistics": same}, jax.random.fold_in(key, part + 1))
            examples = jax.tree.map(lambda leaf: leaf[part::parts], batch)  # noqa: B023 -- called at once
            task.loss(model, examples, recipe, counts)
            results.append(statistics_of(model))
        return jax.tree.map(lambda *leaves: sum(leaves) / parts, *results)

    compiled = jax.jit(updated, out_shardings=replicated)

    def measure(values: Values, batches: Iterable[Batch]) -> Values:
        numbered = enumerate(batches)
        number, batch = next(numbered)
        total = compiled(values, batch, number, 0.0)
        # A layer keeps a share of the statistics before, which the difference between starts shows.
        kept = jax.tree.map(jnp.subtract, compiled(values, batch, number, 1.0), total)
        for number, batch in numbered:
            total = jax.tree.map(jnp.add, total, compiled(values, batch, number, 0.0))

        def mean(added: jax.Array, share: jax.Array, old: jax.Array) -> jax.Array:
            """The mean of a statistic; the old one of a layer that was not used."""
            return jnp.where(share < 1, added / (number + 1) / (1 - share), old)

        return values | {"statistics": jax.tree.map(mean, total, kept, values["statistics"])}

    return measure
