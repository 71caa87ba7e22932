"""The training loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax

from lung_nodule_ct.declaration.labels import TRAIN
from lung_nodule_ct.train.batches import global_batches, open_data_source
from lung_nodule_ct.train.devices import check_devices, shardings
from lung_nodule_ct.train.runs import Checkpoints
from lung_nodule_ct.train.step import initial_state, make_step
from lung_nodule_ct.train.training_log import TrainingLog, ValidationCurve

if TYPE_CHECKING:
    from lung_nodule_ct.read.build_folder import BuildFolder
    from lung_nodule_ct.train.runs import Run


def train(run: Run, build: BuildFolder) -> None:
    """Train a run to its last step. It continues from the latest checkpoint, if there is one.

    Raises:
        BuildFolderError: The build does not hold the config.
        TrainingError: The data, the devices or the folder do not fit the recipe, or a loss is not finite.
    """
    recipe = run.recipe
    check_devices(recipe)
    source = open_data_source(build, recipe, TRAIN)
    run.save()
    replicated, by_example = shardings()
    with Checkpoints(run.folder, recipe) as checkpoints:
        if checkpoints.exist:
            state = checkpoints.restore(replicated)
        else:
            state = jax.jit(lambda: initial_state(recipe), out_shardings=replicated)()
        start = int(state["step"])
        checkpoints.delete_after(start)
        train_step, curve = make_step(recipe), ValidationCurve(run, build, start)
        with TrainingLog(run.folder, recipe, source, start) as log:
            for step, (indices, batch) in enumerate(global_batches(source, recipe, by_example, start), start):
                with jax.transfer_guard("disallow"):
                    state, losses = train_step(state, batch)
                log.add(step, indices, losses)
                if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
                    log.flush()  # so that no checkpoint is saved after a loss that is not finite
                    curve.add(state, step + 1)
                    checkpoints.save(state, step + 1)
