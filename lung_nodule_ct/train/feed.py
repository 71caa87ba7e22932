"""Batches by step number: shuffled, cut into the hosts' shares; the same with any number of workers, hosts and restarts.

Every example of a split once, in its order, in batches of one shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grain
import jax
import numpy as np
from absl import flags

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lung_nodule_ct.train.data import DataSource, Example
    from lung_nodule_ct.train.recipes import Recipe


@dataclass(frozen=True)
class _Load:
    """One example, with the number that it can be named by."""

    source: DataSource

    def __call__(self, number: int, random: np.random.Generator) -> Example:
        return self.source.load(int(number), random) | {"number": np.array(number, np.int32)}


def host_batches(source: DataSource, recipe: Recipe, start: int = 0) -> Iterator[Example]:
    """This process's share of the batches of the steps ``start`` to the recipe's last.

    An example depends on the recipe's seed and its place in the order alone, so that nothing but the step number needs to be saved.
    """
    if recipe.workers and not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain's workers ask for flags
    epochs = -(-recipe.steps * recipe.batch_size // len(source))
    order = grain.MapDataset.range(len(source)).seed(recipe.seed).shuffle().repeat(epochs)
    shares = order.random_map(_Load(source)).batch(recipe.batch_size // jax.process_count())
    batches = shares[jax.process_index() :: jax.process_count()][start : recipe.steps]  # lazy: only these are loaded
    if not recipe.workers:
        return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)))
    options = grain.MultiprocessingOptions(num_workers=recipe.workers, per_worker_buffer_size=2)
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)).mp_prefetch(options))


def global_batches(
    source: DataSource, recipe: Recipe, sharding: jax.sharding.Sharding, start: int = 0
) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    """Numbers of this process's examples, and the batch over all devices of all processes; one is on its way ahead."""
    ahead: list[tuple[np.ndarray, dict[str, Any]]] = []
    for batch in host_batches(source, recipe, start):
        numbers = batch.pop("number")
        ahead.append(
            (numbers, {name: jax.make_array_from_process_local_data(sharding, x) for name, x in batch.items()})
        )
        if len(ahead) > 1:
            yield ahead.pop(0)
    yield from ahead


def whole_batches(source: DataSource, size: int) -> Iterator[tuple[range, Example]]:
    """Numbers of examples and their batch; the last batch is filled up with its last example."""
    for start in range(0, len(source), size):
        numbers = range(start, min(start + size, len(source)))
        yield numbers, stacked((source.load(number, np.random.default_rng(0)) for number in numbers), size)


def stacked(examples: Iterable[Example], size: int) -> Example:
    """Some examples as a batch of ``size``, the last of them repeated."""
    held = list(examples)
    held += held[-1:] * (size - len(held))
    return {name: np.stack([example[name] for example in held]) for name in held[0]}
