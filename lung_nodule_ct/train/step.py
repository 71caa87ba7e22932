"""One training step on the device: prepare, gradients part by part, AdamW, average of the weights. A pure function of state and batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from lung_nodule_ct.train.preprocessing import preprocess
from lung_nodule_ct.train.tasks import task_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from lung_nodule_ct.train.recipes import OptimOptions, Recipe

    State = dict[str, Any]
    Batch = dict[str, Any]


def optimizer_of(options: OptimOptions, steps: int) -> optax.GradientTransformation:
    """AdamW after clipping, with warm-up and cosine over so many steps; only kernels decay."""
    warmup = min(options.warmup, max(steps - 1, 0))
    rate = optax.warmup_cosine_decay_schedule(0.0, options.learning_rate, warmup, max(steps, 2))

    def kernels(params: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

    return optax.chain(
        optax.clip_by_global_norm(options.clip), optax.adamw(rate, weight_decay=options.weight_decay, mask=kernels)
    )


def graph_of(recipe: Recipe) -> Any:
    """The network without its weights, to be merged with them."""
    task = task_of(recipe)
    return nnx.split(nnx.eval_shape(lambda: task.build_model(recipe, nnx.Rngs(recipe.seed))))[0]


def new_state(recipe: Recipe) -> State:
    """Weights from the recipe's seed, their average, the optimiser's state and step 0, all float32 but the counts. To be jitted."""
    model = task_of(recipe).build_model(recipe, nnx.Rngs(recipe.seed))
    params = nnx.to_pure_dict(nnx.split(model)[1])
    optimizer = optimizer_of(recipe.optim, recipe.steps).init(params)
    return {"params": params, "average": params, "optimizer": optimizer, "step": jnp.zeros((), jnp.int32)}


def make_step(recipe: Recipe) -> Callable[[State, Batch], tuple[State, dict[str, jax.Array]]]:
    """The step, jitted; it takes the state's buffers for the next state. Random keys follow from the seed and the step number."""
    task, graph, parts = task_of(recipe), graph_of(recipe), recipe.optim.accumulate
    optimizer = optimizer_of(recipe.optim, recipe.steps)

    def loss(params: Any, batch: Batch, key: jax.Array) -> Any:
        return task.loss(nnx.merge(graph, params), preprocess(batch, recipe.input, key), recipe)

    def step(state: State, batch: Batch) -> tuple[State, dict[str, jax.Array]]:
        params = state["params"]
        keys = jax.random.split(jax.random.fold_in(jax.random.key(recipe.seed), state["step"]), parts)
        answers = []
        for part in range(
            parts
        ):  # no lax.scan: XLA on CPU runs convolutions inside of a loop on one thread, many times slower
            piece = jax.tree.map(lambda leaf: leaf[part::parts], batch)  # noqa: B023 -- used at once
            answers.append(jax.grad(loss, has_aux=True)(params, piece, keys[part]))
        grads, told = jax.tree.map(lambda *leaves: sum(leaves) / parts, *answers)
        updates, optimizer_state = optimizer.update(grads, state["optimizer"], params)
        params = optax.apply_updates(params, updates)
        done = state["step"] + 1
        decay = jnp.minimum(recipe.optim.ema, done / (done + 9.0))  # the first weights are soon forgotten
        average = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state["average"], params)
        return {"params": params, "average": average, "optimizer": optimizer_state, "step": done}, told

    return jax.jit(step, donate_argnums=0)


def make_predict(recipe: Recipe) -> Callable[[Any, Batch], dict[str, jax.Array]]:
    """Prepare and predict, jitted: weights and a batch to answers."""
    task, graph = task_of(recipe), graph_of(recipe)
    return jax.jit(
        lambda params, batch: task.predict(nnx.merge(graph, params), preprocess(batch, recipe.input), recipe)
    )
