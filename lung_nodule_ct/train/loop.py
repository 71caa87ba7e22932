"""The loop: devices, state, batches, step, journal, scores over time, checkpoint. Everything else is elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.train.checkpoints import Checkpoints
from lung_nodule_ct.train.data import open_data_source
from lung_nodule_ct.train.feed import global_batches
from lung_nodule_ct.train.journal import Journal
from lung_nodule_ct.train.step import make_step, new_state
from lung_nodule_ct.train.validation_curve import ValidationCurve

if TYPE_CHECKING:
    from lung_nodule_ct.read.build_folder import BuildFolder
    from lung_nodule_ct.train.runs import Run


def train(run: Run, build: BuildFolder) -> None:
    """Train a run to its last step, from its latest checkpoint on.

    Raises:
        BuildFolderError: The build does not hold the config.
        TrainingError: The data, the devices or the folder do not fit the recipe, or a loss is not finite.
    """
    recipe = run.recipe
    check_devices(run)
    source = open_data_source(build, recipe, "train")
    run.begin()
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    everywhere, shared = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
    with Checkpoints(run.folder, recipe) as checkpoints:
        fresh = jax.jit(lambda: new_state(recipe), out_shardings=everywhere)
        state = checkpoints.restore(everywhere) if checkpoints.any else fresh()
        start = int(state["step"])
        checkpoints.forget_after(start)
        advance, watch = make_step(recipe), ValidationCurve(run, build, start)
        with Journal(run.folder, recipe, source, start) as journal:
            for step, (numbers, batch) in enumerate(global_batches(source, recipe, shared, start), start):
                with jax.transfer_guard("disallow"):
                    state, told = advance(state, batch)
                journal.note(step, numbers, told)
                if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
                    journal.flush()  # what is saved has finite losses
                    watch.note(state, step + 1)  # and a score
                    checkpoints.save(state, step + 1)


def check_devices(run: Run) -> None:
    """Whether the devices are those that the recipe asks for, and share its batches evenly.

    Raises:
        TrainingError: They are not, or do not.
    """
    wanted, found = run.recipe.device, jax.default_backend()
    if wanted not in ("any", found):
        remedy = "install jax for it, as docs.jax.dev/installation says, or leave --device out"
        raise TrainingError(f"there is no {wanted}", expected=wanted, got=found, remedy=remedy)
    together = jax.device_count() * run.recipe.optim.accumulate
    if run.recipe.batch_size % together:
        raise TrainingError(
            "a batch does not divide by the devices",
            expected=f"--batch-size to be a multiple of {together}, devices times accumulated parts",
            got=run.recipe.batch_size,
        )
