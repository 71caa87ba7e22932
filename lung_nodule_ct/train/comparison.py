"""Comparisons of evaluated runs: the leakage gap of two splits, and the differences of scores on the same examples."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from lung_nodule_ct.declaration.labels import SplitBy
from lung_nodule_ct.train.evaluation import EVALUATION, PREDICTIONS, read_scores, with_interval
from lung_nodule_ct.train.false_positives import DETECTOR
from lung_nodule_ct.train.metrics import bootstrap_patients
from lung_nodule_ct.train.runs import open_run
from lung_nodule_ct.train.tasks import get_task

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from lung_nodule_ct.train.runs import Run


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


@dataclass(frozen=True)
class Difference:
    """The scores of a run minus those of another one on the same examples.

    Attributes:
        config: The config that both read.
        split: ``train``, ``validation`` or ``test``.
        first: Name of the folder of the run that is compared with.
        second: Name of the folder of the other run.
        rows: The number of examples.
        scores: The difference of each score: ``value``, and the ends of its 95 % interval, ``low`` and ``high``.
    """

    config: str
    split: str
    first: str
    second: str
    rows: int
    scores: dict[str, dict[str, float | None]]


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
    first, second = (_resampled(run, split, draws, seed) for seed, run in enumerate((published, patient)))
    name, config = published.name, published.recipe.config
    return Gap(name, config, split, published.folder.name, patient.folder.name, first.minus(second))


def differences_between(folders: Sequence[Path], *, draws: int) -> list[Difference]:
    """Return how much each run differs from the first one that was evaluated on the same examples of the same build.

    Both are scored on the same samples of patients, so that the interval of the difference is narrower than those of the scores
    would suggest. It does not include what another seed of the training would change.

    Raises:
        TrainingError: A folder holds no evaluated run.
    """
    equal: dict[_Examples, list[Run]] = {}
    for run in map(open_run, folders):
        for split in sorted({document["split"] for document in read_scores(run.folder)}):
            equal.setdefault(_examples(run, split), []).append(run)
    differences = []
    for examples, (first, *others) in equal.items():
        if not others:
            continue
        base, *compared = (_resampled(run, examples.split, draws) for run in (first, *others))
        for run, scores in zip(others, compared, strict=True):
            names = first.folder.name, run.folder.name
            differences.append(
                Difference(examples.config, examples.split, *names, len(examples.ids), scores.minus(base))
            )
    return differences


@dataclass(frozen=True)
class _Examples:
    """What a run was evaluated on. Predictions of equal examples can be compared one by one."""

    config: str
    task: str
    split: str
    data: str
    ids: tuple[tuple[str, int], ...]


def _examples(run: Run, split: str) -> _Examples:
    rows = _read_predictions(run, split, ["id", "number"])
    ids = tuple((row["id"], row["number"]) for row in rows)
    return _Examples(run.recipe.config, run.recipe.task, split, json.dumps(build_of(run), sort_keys=True), ids)


def build_of(run: Run) -> dict[str, Any]:
    """What identifies the build that a run reads: its ``data`` without the detector of a stage."""
    return {name: value for name, value in run.data.items() if name != DETECTOR}


def _read_predictions(run: Run, split: str, columns: list[str] | None = None) -> list[dict[str, Any]]:
    path = run.folder / EVALUATION / split / PREDICTIONS
    rows: list[dict[str, Any]] = pq.read_table(path, columns=columns, page_checksum_verification=True).to_pylist()
    return rows


@dataclass(frozen=True)
class _Resampled:
    """The scores of a run, and those of bootstrap samples of its patients."""

    scores: dict[str, float]
    samples: dict[str, NDArray[np.float64]]

    def minus(self, other: _Resampled) -> dict[str, dict[str, float | None]]:
        """The differences of the scores that both have, with intervals."""
        return {
            name: with_interval(value - other.scores[name], self.samples[name] - other.samples[name])
            for name, value in self.scores.items()
            if name in other.scores
        }


def _resampled(run: Run, split: str, draws: int, seed: int = 0) -> _Resampled:
    predictions = _read_predictions(run, split)
    scorer = get_task(run.recipe).scorer(predictions)
    samples = bootstrap_patients([row["patient_id"] for row in predictions], scorer, draws=draws, seed=seed)
    return _Resampled(dict(scorer(np.arange(len(predictions)))), samples)
