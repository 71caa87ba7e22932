"""The leakage gap: how much higher a recipe scores on the published split than on a split by patient.

The published splits share patients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from lung_nodule_ct.declaration.labels import TRAIN, VALIDATION, SplitBy
from lung_nodule_ct.train.batches import open_data_source
from lung_nodule_ct.train.evaluation import EVALUATION, PREDICTIONS, evaluate, read_scores, with_interval
from lung_nodule_ct.train.loop import train
from lung_nodule_ct.train.metrics import bootstrap_patients
from lung_nodule_ct.train.runs import Run, data_identity, file_identity, open_run
from lung_nodule_ct.train.step import check_devices
from lung_nodule_ct.train.tasks import get_task

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from lung_nodule_ct.read.build_folder import BuildFolder
    from lung_nodule_ct.train.recipes import Recipe


@dataclass(frozen=True)
class Gap:
    """The scores on the published split minus those on the split by patient.

    Attributes:
        recipe: The recipe's name.
        config: The config that it reads.
        split: ``train``, ``validation`` or ``test``, the same in both runs.
        published: Name of the folder of the run on the published split.
        patient: Name of the folder of the run on the split by patient.
        scores: The difference of each score: ``value``, and the ends of its 95 % interval, ``low`` and ``high``.
    """

    recipe: str
    config: str
    split: str
    published: str
    patient: str
    scores: dict[str, dict[str, float | None]]


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


def gaps_between(folders: Sequence[Path], *, draws: int) -> list[Gap]:
    """Return the gap of each pair of evaluated runs that differ only in how they were split.

    The two validation splits hold different patients. Each of them is resampled independently, and the interval is that
    of the differences.

    Raises:
        TrainingError: A folder holds no evaluated run.
    """
    runs = [(open_run(folder), {document["split"] for document in read_scores(folder)}) for folder in folders]
    gaps = []
    for (published, published_splits), (patient, patient_splits) in product(runs, runs):
        split_by = published.recipe.split_by, patient.recipe.split_by
        if split_by != (SplitBy.PUBLISHED, SplitBy.PATIENT):
            continue
        if published.differences(patient).keys() == {"recipe.split_by"}:
            gaps += [_gap(published, patient, split, draws) for split in sorted(published_splits & patient_splits)]
    return gaps


def _gap(published: Run, patient: Run, split: str, draws: int) -> Gap:
    (first, first_samples), (second, second_samples) = (
        _resampled_scores(run, split, draws, seed) for seed, run in enumerate((published, patient))
    )
    scores = {
        name: with_interval(first[name] - second[name], first_samples[name] - second_samples[name]) for name in first
    }
    return Gap(published.name, published.recipe.config, split, published.folder.name, patient.folder.name, scores)


def _resampled_scores(
    run: Run, split: str, draws: int, seed: int
) -> tuple[dict[str, float], dict[str, NDArray[np.float64]]]:
    """The scores of a run, and those of bootstrap samples of its patients."""
    predictions: list[dict[str, Any]] = pq.read_table(
        run.folder / EVALUATION / split / PREDICTIONS, page_checksum_verification=True
    ).to_pylist()
    scorer = get_task(run.recipe).scorer(predictions)
    samples = bootstrap_patients([row["patient_id"] for row in predictions], scorer, draws=draws, seed=seed)
    return scorer(np.arange(len(predictions))), samples
