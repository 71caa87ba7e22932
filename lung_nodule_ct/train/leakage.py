"""The leakage gap: how much higher a recipe scores on the published split than on a split by patient.

The published splits share patients. The gap itself is computed by :func:`.gaps_between`.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from lung_nodule_ct.declaration.labels import TRAIN, VALIDATION, SplitBy
from lung_nodule_ct.train.batches import open_data_source
from lung_nodule_ct.train.evaluation import evaluate
from lung_nodule_ct.train.loop import train
from lung_nodule_ct.train.runs import Run, data_identity, file_identity
from lung_nodule_ct.train.step import check_devices

if TYPE_CHECKING:
    from pathlib import Path

    from lung_nodule_ct.read.build_folder import BuildFolder
    from lung_nodule_ct.train.recipes import Recipe


def train_both(
    folder: Path, name: str, recipe: Recipe, build: BuildFolder, *, draws: int, pretrained: Path | None = None
) -> list[Path]:
    """Train a recipe on both splits and evaluate each run on its own validation split.

    The runs are ``<folder>/published`` and ``<folder>/patient``. Finished runs are not trained again, and interrupted
    ones continue.

    Raises:
        BuildFolderError: The build does not hold the config.
        TrainingError: One of the splits has no rows or cannot be scored, which is checked before training, or training
            fails.
    """
    data, weights = data_identity(build, recipe.config), file_identity(pretrained)
    runs = [Run(folder / by, name, replace(recipe, split_by=by), data, weights) for by in SplitBy]
    for run in runs:
        run.require_unchanged()
    check_devices(recipe)
    for run, split in product(runs, (TRAIN, VALIDATION)):
        open_data_source(build, run.recipe, split)
    for run in runs:
        train(run, build, pretrained)
        evaluate(run, build, VALIDATION, draws=draws)
    return [run.folder for run in runs]
