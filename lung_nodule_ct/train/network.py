"""A network as a pure function: its graph, and the three kinds of values that the graph is combined with.

- Parameters have gradients and belong to the optimiser.
- Statistics are what training updates without a gradient: the running mean and variance of batch normalisation.
- Random streams draw what is dropped. They are not stored: a key for each of them is derived from the key of the step, so
  that a run that was continued draws the same.

A network behaves differently in training and in evaluation: batch normalisation uses the batch or its running statistics,
and dropout drops or does not. Both variants have the same values.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx

from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.system.progress import notice
from lung_nodule_ct.train.models import get_network
from lung_nodule_ct.train.models.weights import by_torch_names, first_names, load_weights, read_safetensors
from lung_nodule_ct.train.tasks import get_task

if TYPE_CHECKING:
    from pathlib import Path

    from lung_nodule_ct.train.recipes import Recipe

    Values = dict[str, Any]


@dataclass(frozen=True)
class Network:
    """The graph of a network, without its values.

    Attributes:
        training_graph: The graph in training.
        evaluation_graph: The same in evaluation.
        streams: The shapes and types of the keys and counts of the random streams.
    """

    training_graph: Any
    evaluation_graph: Any
    streams: Values

    def in_training(self, values: Values, key: jax.Array) -> Any:
        """The network with ``values`` as it is trained. What it draws depends on the key only."""
        streams = _random_streams(self.streams, key)
        return nnx.merge(self.training_graph, values["params"], values["statistics"], streams)

    def in_evaluation(self, values: Values) -> Any:
        """The network with ``values`` as it is evaluated. It draws nothing."""
        streams = _random_streams(self.streams, jax.random.key(0))
        return nnx.merge(self.evaluation_graph, values["params"], values["statistics"], streams)


def network(recipe: Recipe) -> Network:
    """The network of a recipe. No values are computed."""
    model = nnx.eval_shape(lambda: get_task(recipe).build_model(recipe, nnx.Rngs(recipe.seed)))
    if recipe.model.remat:
        model.set_attributes(remat=True)
    model.train()
    training_graph, _, _, streams = _split(model)
    model.eval()
    return Network(training_graph, _split(model)[0], streams)


def initial_values(recipe: Recipe) -> Values:
    """The random parameters of a recipe's network, ``params``, and its initial ``statistics``."""
    _, params, statistics, _ = _split(get_task(recipe).build_model(recipe, nnx.Rngs(recipe.seed)))
    return {"params": params, "statistics": statistics}


def read_pretrained(recipe: Recipe, path: Path) -> Values:
    """The parameters and statistics of a published network from a file of its reference's weights.

    Layers that depend on the number of classes are shapes and types if the file has another number.

    Raises:
        TrainingError: The recipe has no published network, or the file does not fit it.
    """
    if recipe.model.network is None:
        raise TrainingError(f"{path} does not fit a network of our own", remedy="name a published one with --model")
    weights = read_safetensors(path)
    head = get_network(recipe.model.network).head
    try:
        return load_weights(jax.eval_shape(partial(initial_values, recipe)), weights, new=head)
    except TrainingError as error:
        problem = f"{path} does not fit {recipe.model.network}: {error.problem}"
        raise TrainingError(problem, expected=error.expected, got=error.got, remedy=error.remedy) from None


def pretrained_values(recipe: Recipe, path: Path) -> Values:
    """The values of :func:`read_pretrained`, with random ones where the file has another number of classes, and a notice of them.

    Raises:
        TrainingError: The recipe has no published network, or the file does not fit it.
    """
    loaded = read_pretrained(recipe, path)
    leaves, structure = jax.tree.flatten(loaded)
    drawn_names = [name for name, value in by_torch_names(loaded).items() if isinstance(value, jax.ShapeDtypeStruct)]
    if drawn_names:
        notice(f"{path} has another number of classes: random weights for {first_names(drawn_names)}")

    def random() -> list[Any]:
        drawn = jax.tree.leaves(initial_values(recipe))
        return [
            new if isinstance(leaf, jax.ShapeDtypeStruct) else None for leaf, new in zip(leaves, drawn, strict=True)
        ]

    drawn = jax.jit(random)()  # XLA draws only what is returned
    return structure.unflatten([leaf if new is None else new for leaf, new in zip(leaves, drawn, strict=True)])


def statistics_of(model: Any) -> Values:
    """The statistics of a network, updated by the batches that it was called with in training."""
    return nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))


def _split(model: Any) -> tuple[Any, Values, Values, Values]:
    """The graph, the parameters, the statistics and the random streams. NNX refuses a network that holds anything else."""
    graph, *states = nnx.split(model, nnx.Param, nnx.BatchStat, nnx.RngState)
    params, statistics, streams = map(nnx.to_pure_dict, states)
    return graph, params, statistics, streams


def _random_streams(streams: Values, key: jax.Array) -> Values:
    """A key for every stream, all different, and counts of 0."""
    leaves, structure = jax.tree.flatten(streams)
    values = [
        jax.random.fold_in(key, index)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else jnp.zeros(leaf.shape, leaf.dtype)
        for index, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, values)
