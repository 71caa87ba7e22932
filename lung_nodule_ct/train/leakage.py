"""What a split that shares patients adds to a score: one recipe on the published split and on the one by patient."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from lung_nodule_ct.declaration.labels import TRAIN, VALIDATION, SplitBy
from lung_nodule_ct.train.data import open_data_source
from lung_nodule_ct.train.evaluation import EVALUATION, PREDICTIONS, estimate, evaluate, read_scores
from lung_nodule_ct.train.loop import train
from lung_nodule_ct.train.metrics.classification import patient_samples
from lung_nodule_ct.train.runs import Run, data_of, open_run
from lung_nodule_ct.train.tasks import task_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from lung_nodule_ct.read.build_folder import BuildFolder
    from lung_nodule_ct.train.recipes import Recipe


@dataclass(frozen=True)
class Gap:
    """How much higher the scores on the published split are than those on the split by patient.

    Attributes:
        recipe: Its name.
        config: What it reads.
        split: ``train``, ``validation`` or ``test``, in both.
        published: The folder's name of the run on the published split.
        patient: That of the run by patient.
        scores: The difference by score: ``value``, and ``low`` and ``high`` of its 95 % interval.
    """

    recipe: str
    config: str
    split: str
    published: str
    patient: str
    scores: dict[str, dict[str, float | None]]


def train_both(folder: Path, name: str, recipe: Recipe, build: BuildFolder, *, draws: int) -> list[Path]:
    """Train a recipe on both splits and judge each on its validation split, in ``<folder>/published`` and ``<folder>/patient``.

    What was trained before is not trained again; a run that was stopped goes on.

    Raises:
        BuildFolderError: The build does not hold the config.
        TrainingError: One of the splits cannot be trained or judged on (before anything is trained), or as :func:`train`.
    """
    data = data_of(build, recipe.config)
    runs = [Run(folder / by, name, replace(recipe, split_by=by), data) for by in SplitBy]
    for run, split in product(runs, (TRAIN, VALIDATION)):
        open_data_source(build, run.recipe, split)
    for run in runs:
        train(run, build)
        evaluate(run, build, VALIDATION, draws=draws)
    return [run.folder for run in runs]


def gaps_between(folders: Sequence[Path], *, draws: int) -> list[Gap]:
    """The gap of each two evaluated runs that differ in nothing but how they were split.

    The two validation splits hold other patients, so each is drawn for itself and the differences of the draws give the interval.

    Raises:
        TrainingError: A folder holds no run.
    """
    runs = [(open_run(folder), {document["split"] for document in read_scores(folder)}) for folder in folders]
    gaps = []
    for (one, judged), (other, also_judged) in product(runs, runs):
        apart = SplitBy.PUBLISHED, SplitBy.PATIENT
        if (one.recipe.split_by, other.recipe.split_by) != apart or one.differences(other).keys() - {"recipe.split_by"}:
            continue
        gaps += [_gap(one, other, split, draws) for split in sorted(judged & also_judged)]
    return gaps


def _gap(published: Run, patient: Run, split: str, draws: int) -> Gap:
    (first, first_drawn), (second, second_drawn) = (
        _drawn(run, split, draws, seed) for seed, run in enumerate((published, patient))
    )
    scores = {name: estimate(first[name] - second[name], first_drawn[name] - second_drawn[name]) for name in first}
    name, config = published.name, published.recipe.config
    return Gap(name, config, split, published.folder.name, patient.folder.name, scores)


def _drawn(run: Run, split: str, draws: int, seed: int) -> tuple[dict[str, float], dict[str, NDArray[np.float64]]]:
    """The scores of a run, and of samples of its patients."""
    rows: list[dict[str, Any]] = pq.read_table(run.folder / EVALUATION / split / PREDICTIONS).to_pylist()
    score = task_of(run.recipe).scorer(rows)
    samples = patient_samples([row["patient_id"] for row in rows], score, draws=draws, seed=seed)
    return score(np.arange(len(rows))), samples
