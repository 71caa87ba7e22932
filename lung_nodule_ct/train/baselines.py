"""The paper's baselines: every published network by the paper's protocol, on the published split and on a split by patient.

A network on a split is a run like any other, in ``OUT/NETWORK/SPLIT``. A run that fails is a row with its reason, and the
others go on.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import jax

from lung_nodule_ct.declaration.labels import TRAIN, VALIDATION, SplitBy
from lung_nodule_ct.errors import LungNoduleCTError, TrainingError
from lung_nodule_ct.system.progress import notice
from lung_nodule_ct.train.baseline_tables import BaselineRow, read_rows, write_tables
from lung_nodule_ct.train.batches import open_data_source
from lung_nodule_ct.train.evaluation import evaluate, read_scores
from lung_nodule_ct.train.loop import train
from lung_nodule_ct.train.models import NETWORKS, get_network
from lung_nodule_ct.train.recipes import published_name, published_recipe, published_steps
from lung_nodule_ct.train.runs import Run, data_identity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from lung_nodule_ct.read.build_folder import BuildFolder
    from lung_nodule_ct.train.recipes import Recipe

    Configure = Callable[[str, Recipe], Recipe]
    """Changes the recipe of a name, by the options of the command line for example."""


def with_published_steps(build: BuildFolder, name: str, default: Recipe, configure: Configure) -> Recipe:
    """The recipe of a published network with the paper's number of epochs, unless ``configure`` changes the steps.

    Raises:
        BuildFolderError: The build does not hold the config.
        TrainingError: The training split has no rows, or does not fit the recipe.
    """
    return configure(name, replace(default, steps=_protocol_steps(build, configure(name, default))))


def _protocol_steps(build: BuildFolder, recipe: Recipe) -> int:
    return published_steps(recipe, len(open_data_source(build, recipe, TRAIN)))


@dataclass(frozen=True)
class _Job:
    """A network and a split, and how it is trained unless that is not possible."""

    row: BaselineRow
    run: Run | None


def train_baselines(
    folder: Path, build: BuildFolder, configure: Configure, *, only: Sequence[str] = (), draws: int = 1000
) -> list[BaselineRow]:
    """Train and evaluate published networks on both splits, and write the tables after each of them.

    Finished runs are neither trained nor evaluated again, and interrupted ones continue.

    Args:
        folder: The folder of the tables and, by network and split, of the runs.
        build: A build that holds the configs.
        configure: Changes the recipes.
        only: The networks to train, all by default. The rows of others remain as an earlier command wrote them.
        draws: The number of bootstrap samples for the intervals.

    Returns:
        One row per network and split, in the order of the paper's tables.

    Raises:
        TrainingError: The network is unknown, the build has no config for one, an option does not fit, or the folder holds other runs.
            Nothing is trained then.
    """
    chosen = [get_network(name).name for name in only] or list(NETWORKS)
    for network in chosen:
        name = published_name(network)
        configure(name, published_recipe(name, network))  # an option that does not fit ends the command
    needed = sorted({published_name(network) for network in chosen})
    if not set(needed) & set(build.configs):
        raise TrainingError(
            f"{build.folder} has no config that the networks are trained on",
            expected=" or ".join(needed),
            got=", ".join(build.configs),
            remedy=f"build {' and '.join(needed)}",
        )
    jobs = [_plan(folder, build, configure, network, by) for network, by in product(chosen, SplitBy)]
    for job in jobs:
        if job.run is not None:
            job.run.require_unchanged()
    rows = {(row.network, row.split_by): row for row in read_rows(folder)}
    for number, job in enumerate(jobs, 1):
        row = _finish(job, build, draws, f"{number} of {len(jobs)}, {job.row.network}, {job.row.split_by} split")
        rows[row.network, row.split_by] = row
        ordered = [rows.get(key, BaselineRow.untrained(*key)) for key in product(NETWORKS, map(str, SplitBy))]
        if jax.process_index() == 0:
            write_tables(folder, ordered, build)
        jax.clear_caches()  # the programs of this network are of no use to the next
    return ordered


def _plan(folder: Path, build: BuildFolder, configure: Configure, network: str, by: SplitBy) -> _Job:
    name, row = published_name(network), BaselineRow.untrained(network, str(by))
    default = replace(published_recipe(name, network), split_by=by)
    try:
        steps = _protocol_steps(build, configure(name, default))
        recipe = configure(name, replace(default, steps=steps))
        open_data_source(build, recipe, VALIDATION)
        data = data_identity(build, recipe.config)
    except LungNoduleCTError as error:
        return _Job(replace(row, problem=str(error)), None)
    run = Run(folder / network / by, name, recipe, data)
    return _Job(replace(row, steps=recipe.steps, protocol_steps=steps), run)


def _finish(job: _Job, build: BuildFolder, draws: int, title: str) -> BaselineRow:
    if job.run is None:
        notice(f"{title}: cannot be trained: {job.row.problem}")
        return job.row
    try:
        document = _evaluation(job.run, draws)
        notice(f"{title}: {'training' if document is None else 'finished before'}")
        if document is None:
            train(job.run, build)
            document = evaluate(job.run, build, VALIDATION, draws=draws)
    except Exception as error:
        known = isinstance(error, LungNoduleCTError)
        problem = str(error) if known else f"{type(error).__name__}: {error}".splitlines()[0]
        notice(f"{title}: failed: {problem}" if known else f"{title}: failed\n{traceback.format_exc()}")
        return replace(job.row, problem=problem)
    return replace(
        job.row,
        problem=None,
        draws=draws,
        rows=document["rows"],
        patients=document["patients"],
        scores=document["scores"],
    )


def _evaluation(run: Run, draws: int) -> dict[str, Any] | None:
    """The scores of the last step of a run, with as many draws; ``None`` if there are none."""
    try:
        documents = read_scores(run.folder)
    except TrainingError:
        return None
    wanted = {"split": VALIDATION, "trained_steps": run.recipe.steps, "draws": draws}
    return next((document for document in documents if document.items() >= wanted.items()), None)
