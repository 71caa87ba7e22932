"""Devices, and the programs that run on them: the initial state, one training step, and predictions."""

from __future__ import annotations

import os
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.system.files import cache_folder
from lung_nodule_ct.train.averaging import equal_shares_from, next_average
from lung_nodule_ct.train.network import initial_values, network, statistics_of
from lung_nodule_ct.train.placement import placement, shardings
from lung_nodule_ct.train.preprocessing import preprocess
from lung_nodule_ct.train.tasks import get_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from lung_nodule_ct.train.data import Arrays, DataSource
    from lung_nodule_ct.train.recipes import OptimOptions, Recipe
    from lung_nodule_ct.train.tasks import Prediction

    State = dict[str, Any]
    Values = dict[str, Any]
    Batch = dict[str, Any]


_ADDRESS, _PROCESSES, _PROCESS = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
_DROPOUT = 1
"""Folded into the key of a step for what the network draws. Augmentation uses the key itself."""
_LESS_OPTIMIZED: Final = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""For a program that runs once, on a CPU; other compilers may not know these options. Otherwise, to optimise the drawing of each array takes a third of the time of a run of one step."""
GRADIENT_NORM: Final = "gradient_norm"
WEIGHT_NORM: Final = "weight_norm"


def initialize_jax() -> None:
    """Connect to the other hosts if the environment names them, and keep compiled programs in the cache folder.

    Call it before the first use of a device. Compiled programs are in the folder that ``JAX_COMPILATION_CACHE_DIR`` names, if
    it is set.

    Raises:
        TrainingError: The environment has the address of the hosts, but not their number and the number of this
            process.
    """
    address = os.environ.get(_ADDRESS)
    if address is not None:
        numbers = [os.environ.get(name) for name in (_PROCESSES, _PROCESS)]
        try:
            count, process = (int(number or "") for number in numbers)
        except ValueError:
            raise TrainingError(
                f"{_ADDRESS} is set without the number of processes and the number of this one",
                expected=f"integers in {_PROCESSES} and {_PROCESS}",
                got=numbers,
            ) from None
        jax.distributed.initialize(address, count, process)
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))


def check_devices(recipe: Recipe) -> None:
    """Check that the devices are of the type that a recipe asks for, and that its batches divide evenly over them.

    Raises:
        TrainingError: They are not, or they do not.
    """
    backend = jax.default_backend()
    if recipe.device not in ("any", backend):
        raise TrainingError(
            f"no {recipe.device} is available",
            expected=recipe.device,
            got=backend,
            remedy="install JAX for this device (docs.jax.dev/en/latest/installation.html), or remove --device",
        )
    parts = jax.device_count() * recipe.optim.accumulate
    if recipe.batch_size % parts:
        raise TrainingError(
            "a batch does not divide evenly over the devices",
            expected=f"--batch-size to be a multiple of {parts}, devices times accumulated parts",
            got=recipe.batch_size,
        )


def make_optimizer(options: OptimOptions, steps: int) -> optax.GradientTransformation:
    """Return AdamW with clipped gradients, a linear warm-up and a decay. Only kernels have weight decay.

    The rate falls to 0 over all steps, or to the constant rate of the averaged steps over those before them.
    """
    end = equal_shares_from(options, steps) if options.swa_rate else steps
    highest, lowest = options.learning_rate, options.swa_rate * options.learning_rate
    warmup = min(options.warmup, max(end - 1, 0))
    if options.schedule == "cosine":
        rate = optax.warmup_cosine_decay_schedule(0.0, highest, warmup, max(end, 1), lowest)
    else:
        rising = optax.linear_schedule(0.0, highest, max(warmup, 1))
        falling = optax.polynomial_schedule(highest, lowest, 0.9, max(end - warmup, 1))
        rate = optax.join_schedules([rising, falling], [warmup])

    def is_kernel(params: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

    return optax.chain(
        optax.clip_by_global_norm(options.clip), optax.adamw(rate, weight_decay=options.weight_decay, mask=is_kernel)
    )


def initial_state(recipe: Recipe, weights: Values | None = None) -> State:
    """Return weights, the initial statistics, the average of both, the state of the optimiser, and step 0.

    Use it under ``jax.jit``. All arrays are float32 except for counts.

    Args:
        recipe: The recipe.
        weights: Its first parameters and statistics; random parameters by default.
    """
    values = initial_values(recipe) if weights is None else weights
    optimizer = make_optimizer(recipe.optim, recipe.steps).init(values["params"])
    return {**values, "average": values, "optimizer": optimizer, "step": jnp.zeros((), jnp.int32)}


def new_state(recipe: Recipe, weights: Values | None = None) -> State:
    """The initial state on all devices. The arguments are those of :func:`initial_state`."""
    make = partial(initial_state, recipe)
    places = jax.tree.map(placement(recipe.optim), jax.eval_shape(make, weights))
    options = _LESS_OPTIMIZED if jax.default_backend() == "cpu" else None
    state: State = jax.jit(make, out_shardings=places, compiler_options=options)(weights)
    return state


def make_step(recipe: Recipe) -> Callable[[State, Batch], tuple[State, dict[str, jax.Array]]]:
    """Return the compiled training step: it maps a state and a batch to the next state and the losses.

    With the losses are the norms of the gradient and of the new weights, which are not finite if one of the values is not.

    It reuses the memory of the state that it is given. Random keys depend only on the seed and on the step number.
    """
    task, net, parts = get_task(recipe), network(recipe), recipe.optim.accumulate
    optimizer = make_optimizer(recipe.optim, recipe.steps)
    place, (replicated, _) = placement(recipe.optim), shardings()

    def constrain(values: Any, sharding: Any) -> Any:
        """With divided parameters, say where arrays are: all values on each device, or as the state."""
        if not recipe.optim.shard_parameters:
            return values
        return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, sharding(leaf)), values)

    def loss(params: Any, statistics: Any, examples: Batch, counts: Batch, key: jax.Array) -> Any:
        model = net.in_training({"params": params, "statistics": statistics}, key)
        total, losses = task.loss(model, examples, recipe, counts)
        return total, (losses, statistics_of(model))

    def step(state: State, batch: Batch) -> tuple[State, dict[str, jax.Array]]:
        params, statistics = (constrain(state[name], lambda _: replicated) for name in ("params", "statistics"))
        key = jax.random.fold_in(jax.random.key(recipe.seed), state["step"])
        keys = jax.random.split(jax.random.fold_in(key, _DROPOUT), parts)
        batch, totals = task.add_targets(preprocess(batch, recipe.input, key, recipe.augment), recipe)
        # The parts are divided by a share of the count of the whole batch, so that their mean does not depend on the parts.
        counts = {name: jnp.maximum(total, 1) / parts for name, total in totals.items()}
        results = []
        # A Python loop, because on CPU XLA runs convolutions inside lax.scan on one thread, many times slower.
        for part in range(parts):
            examples = jax.tree.map(lambda leaf: leaf[part::parts], batch)  # noqa: B023 -- called at once
            compute = jax.grad(loss, has_aux=True)
            gradient, (losses, statistics) = compute(params, statistics, examples, counts, keys[part])
            results.append((gradient, losses))
        gradients, losses = jax.tree.map(lambda *leaves: sum(leaves) / parts, *results)
        gradients = constrain(gradients, place)
        updates, optimizer_state = optimizer.update(gradients, state["optimizer"], state["params"])
        values = {"params": optax.apply_updates(state["params"], updates), "statistics": statistics}
        done = state["step"] + 1
        average = next_average(state["average"], values, done, recipe)
        losses |= {GRADIENT_NORM: optax.tree.norm(gradients), WEIGHT_NORM: optax.tree.norm(values)}
        return constrain({**values, "average": average, "optimizer": optimizer_state, "step": done}, place), losses

    return jax.jit(step, donate_argnums=0)


class Predictor:
    """Predictions for the examples of a source, on all devices of this process. The program is compiled once, for any weights."""

    def __init__(self, source: DataSource, recipe: Recipe) -> None:
        self._source, self._recipe = source, recipe
        task, net = get_task(recipe), network(recipe)
        self._predict = jax.jit(
            lambda values, batch: task.predict(net.in_evaluation(values), preprocess(batch, recipe.input), recipe)
        )

    def predict(self, weights: Any, limit: int | None = None) -> list[Prediction]:
        """Return predictions together with the truth.

        Args:
            weights: Parameters and statistics, all on devices of this process; the ``average`` of a state, for example.
            limit: Maximum number of examples, counted from the first; all by default.
        """
        replicated, by_example = shardings(local=True)
        values = jax.device_put(weights, replicated)
        count = self._recipe.batch_size
        missing = -count % by_example.num_devices

        def apply(batch: Arrays) -> Arrays:
            even = {name: np.concatenate([x, np.repeat(x[-1:], missing, 0)]) for name, x in batch.items()}
            output = jax.device_get(self._predict(values, jax.device_put(even, by_example)))
            return {name: x[:count] for name, x in output.items()}

        return list(islice(get_task(self._recipe).predict_all(self._source, apply, self._recipe), limit))
