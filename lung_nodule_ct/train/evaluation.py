"""Evaluation of a run on a split: ``predictions.parquet``, ``scores.json`` with intervals, plots and a page."""

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
from lung_nodule_ct.train.batches import open_data_source
from lung_nodule_ct.train.hard_benchmark import benchmark_statement
from lung_nodule_ct.train.metrics import bootstrap_patients, percentile_interval
from lung_nodule_ct.train.pages import EVALUATION_PAGE, write_evaluation_page
from lung_nodule_ct.train.runs import BENCHMARK, Checkpoints
from lung_nodule_ct.train.step import Predictor
from lung_nodule_ct.train.tasks import get_task
from lung_nodule_ct.train.threshold_detector import is_learning_free_possible, predict_by_threshold

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from lung_nodule_ct.read.build_folder import BuildFolder
    from lung_nodule_ct.train.recipes import Recipe
    from lung_nodule_ct.train.runs import Run
    from lung_nodule_ct.train.tasks import Prediction

EVALUATION: Final = "evaluation"
PREDICTIONS: Final = "predictions.parquet"
LEARNING_FREE: Final = "learning_free"
"""The entry of ``scores.json`` with the scores of the detector that learns nothing."""
_SCORES: Final = "scores.json"


def evaluate(
    run: Run, build: BuildFolder, split: str, *, draws: int = 1000, with_learning_free: bool = False
) -> dict[str, Any]:
    """Evaluate the averaged weights of a run on a split, and write ``<run>/evaluation/<split>/``.

    They are those of the latest checkpoint, or, if the recipe selects them, those with the best score of watched examples.

    Args:
        run: The run.
        build: A build that holds its config.
        split: ``train``, ``validation`` or ``test``, split as in training.
        draws: The number of bootstrap samples for the intervals.
        with_learning_free: Also score the detector that learns nothing, if the examples are scans with nodules to detect. A run
            of the hard benchmark is always compared with it.

    Returns:
        The content of ``scores.json``.

    Raises:
        BuildFolderError: The build does not hold the config.
        TrainingError: There is no checkpoint, or the split has no examples that can be scored.
        OutputError: The folder cannot be written.
    """
    recipe = run.recipe
    source = open_data_source(build, recipe, split)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with Checkpoints(run.folder, recipe, best=recipe.select == "best") as checkpoints:
        state = checkpoints.restore(lambda _: device)
    steps = trained = int(state["step"])
    if recipe.select == "best":
        with Checkpoints(run.folder, recipe) as checkpoints:
            trained = checkpoints.latest_step or steps
    predictions = Predictor(source, recipe).predict(state["average"])
    domain = run.data.get(BENCHMARK)
    document = {
        "recipe": run.name,
        "config": recipe.config,
        "split": split,
        "split_by": str(recipe.split_by),
        "steps": steps,
        "trained_steps": trained,
        "select": recipe.select,
        "seed": recipe.seed,
        "draws": draws,
        "rows": len(predictions),
        "patients": len({row["patient_id"] for row in predictions} - {None}),
        "scores": _scores(recipe, predictions, draws),
    }
    if domain is not None:
        document["statement"] = benchmark_statement(domain)
    if (domain is not None or with_learning_free) and is_learning_free_possible(source):
        document[LEARNING_FREE] = _scores(recipe, list(predict_by_threshold(source)), draws)
    target = run.folder / EVALUATION / split
    with staged_folder(target, find_foreign=_foreign_file, kind="evaluation") as stage:
        (stage / _SCORES).write_text(to_json(document), encoding="utf-8")
        pq.write_table(pa.Table.from_pylist(predictions), stage / PREDICTIONS, write_page_checksum=True)
        write_evaluation_page(stage, run, source, predictions, document)
    return document


def _scores(recipe: Recipe, predictions: Sequence[Prediction], draws: int) -> dict[str, dict[str, float | None]]:
    """The scores of predictions with their intervals."""
    scorer = get_task(recipe).scorer(predictions)
    samples = bootstrap_patients([row["patient_id"] for row in predictions], scorer, draws=draws)
    scores = scorer(np.arange(len(predictions)))
    return {name: with_interval(value, samples[name]) for name, value in scores.items()}


def read_scores(folder: Path) -> list[dict[str, Any]]:
    """Read the scores of a run's evaluations, one document per split, with the run's name added as ``run``.

    Raises:
        TrainingError: The run was not evaluated, or the scores cannot be read.
    """
    files = sorted(folder.glob(f"{EVALUATION}/*/{_SCORES}"))
    if not files:
        raise TrainingError(f"{folder} holds no evaluation", remedy=f"make one: lung-nodule-ct evaluate BUILD {folder}")
    try:
        return [json.loads(path.read_text("utf-8")) | {"run": folder.name} for path in files]
    except (OSError, ValueError) as error:
        raise TrainingError(f"the scores of {folder} cannot be read: {error}", remedy="evaluate it again") from error


def with_interval(value: float, samples: NDArray[np.float64]) -> dict[str, float | None]:
    """A score as ``value``, with the ends of its 95 % interval as ``low`` and ``high``; ``None`` where undefined."""
    low, high = percentile_interval(samples)
    numbers = {"value": value, "low": low, "high": high}
    return {name: float(number) if np.isfinite(number) else None for name, number in numbers.items()}


def _foreign_file(folder: Path) -> str | None:
    """The name of a file that no evaluation has written, if there is one."""
    written = {_SCORES, PREDICTIONS, EVALUATION_PAGE}
    return next((path.name for path in folder.iterdir() if path.name not in written and path.suffix != ".png"), None)
