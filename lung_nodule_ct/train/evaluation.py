"""A run judged on a split: every example's answer in ``predictions.parquet``, scores with intervals in ``scores.json``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lung_nodule_ct.declaration.manifest import to_json
from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.system.staging import staged_folder
from lung_nodule_ct.train.checkpoints import Checkpoints
from lung_nodule_ct.train.data import open_data_source
from lung_nodule_ct.train.metrics.classification import interval_of, patient_samples
from lung_nodule_ct.train.pages import write_pages
from lung_nodule_ct.train.predictions import Predictions
from lung_nodule_ct.train.tasks import task_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from lung_nodule_ct.read.build_folder import BuildFolder
    from lung_nodule_ct.train.runs import Run

EVALUATION: Final = "evaluation"
SCORES: Final = "scores.json"
PREDICTIONS: Final = "predictions.parquet"


def evaluate(run: Run, build: BuildFolder, split: str, *, draws: int = 1000) -> dict[str, Any]:
    """Judge a run's latest weights (their average) on a split and write ``<run>/evaluation/<split>/``.

    Args:
        run: The run.
        build: A build that holds its config.
        split: ``train``, ``validation`` or ``test``, split as the run was.
        draws: Samples of patients that the intervals come from.

    Returns:
        What ``scores.json`` holds.

    Raises:
        BuildFolderError: The build does not hold the config.
        TrainingError: There is no checkpoint, or the split cannot be judged.
        OutputError: The folder cannot be written.
    """
    recipe = run.recipe
    source = open_data_source(build, recipe, split)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with Checkpoints(run.folder, recipe) as checkpoints:
        state = checkpoints.restore(device)
    rows = Predictions(source, recipe).rows(state["average"])
    score = task_of(recipe).scorer(rows)
    values = score(np.arange(len(rows)))
    samples = patient_samples([row["patient_id"] for row in rows], score, draws=draws)
    document = {
        "recipe": run.name,
        "config": recipe.config,
        "split": split,
        "split_by": str(recipe.split_by),
        "steps": int(state["step"]),
        "seed": recipe.seed,
        "rows": len(rows),
        "patients": len({row["patient_id"] for row in rows} - {None}),
        "scores": {name: estimate(value, samples[name]) for name, value in values.items()},
    }
    target = run.folder / EVALUATION / split
    with staged_folder(target, find_foreign=_foreign) as stage:
        (stage / SCORES).write_text(to_json(document), encoding="utf-8")
        pq.write_table(pa.Table.from_pylist(rows), stage / PREDICTIONS)
        write_pages(stage, run, source, rows, document)
    return document


def read_scores(folder: Path) -> list[dict[str, Any]]:
    """What a run's evaluations say, one a split.

    Raises:
        TrainingError: The run was not evaluated, or what it says cannot be read.
    """
    files = sorted(folder.glob(f"{EVALUATION}/*/{SCORES}"))
    if not files:
        raise TrainingError(f"{folder} holds no evaluation", remedy=f"make one: lung-nodule-ct evaluate {folder}")
    try:
        return [json.loads(path.read_text("utf-8")) | {"run": folder.name} for path in files]
    except (OSError, ValueError) as error:
        raise TrainingError(f"the scores of {folder} cannot be read: {error}", remedy="evaluate it again") from error


def estimate(value: float, samples: NDArray[np.float64]) -> dict[str, float | None]:
    """A score's ``value`` with ``low`` and ``high`` of its 95 % interval; ``None`` for what is not known."""
    low, high = interval_of(samples)
    return {name: float(n) if np.isfinite(n) else None for name, n in (("value", value), ("low", low), ("high", high))}


def _foreign(folder: Path) -> str | None:
    own = {SCORES, PREDICTIONS, "index.html"}
    return next((path.name for path in folder.iterdir() if path.name not in own and path.suffix != ".png"), None)
