"""Evaluation of a run on a split: ``predictions.parquet``, ``scores.json`` with intervals, plots and a page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lung_nodule_ct.declaration.labels import VALIDATION
from lung_nodule_ct.declaration.manifest import to_json
from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.system.files import write_atomically
from lung_nodule_ct.system.progress import notice
from lung_nodule_ct.system.staging import staged_folder
from lung_nodule_ct.train.batches import open_data_source
from lung_nodule_ct.train.calibration import Calibration, calibrated, calibration_of
from lung_nodule_ct.train.false_positives import require_fitting_stage, rescore
from lung_nodule_ct.train.hard_benchmark import benchmark_statement
from lung_nodule_ct.train.lung_regions import lung_crop_counts
from lung_nodule_ct.train.metrics import bootstrap_patients, percentile_interval
from lung_nodule_ct.train.pages import DETECTOR_ALONE, EVALUATION_PAGE, LEARNING_FREE, write_evaluation_page
from lung_nodule_ct.train.runs import BENCHMARK, evaluated_weights
from lung_nodule_ct.train.step import Predictor
from lung_nodule_ct.train.tasks import get_task
from lung_nodule_ct.train.threshold_detector import is_learning_free_possible, predict_by_threshold

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from lung_nodule_ct.read.build_folder import BuildFolder
    from lung_nodule_ct.train.data import DataSource
    from lung_nodule_ct.train.recipes import Recipe
    from lung_nodule_ct.train.runs import Run
    from lung_nodule_ct.train.tasks import Prediction

EVALUATION: Final = "evaluation"
PREDICTIONS: Final = "predictions.parquet"
_SCORES: Final = "scores.json"
_CALIBRATION: Final = "calibration.json"


def evaluate(
    run: Run,
    build: BuildFolder,
    split: str,
    *,
    stage: Run | None = None,
    draws: int = 1000,
    with_learning_free: bool = False,
) -> dict[str, Any]:
    """Evaluate the averaged weights of a run on a split, and write ``<run>/evaluation/<split>/``.

    They are those of the latest checkpoint, or, if the recipe selects them, those with the best score of watched examples.

    Args:
        run: The run.
        build: A build that holds its config.
        split: ``train``, ``validation`` or ``test``, split as in training.
        stage: The run of a stage that rescores the boxes of a detector of volumes; see :func:`.rescore`.
        draws: The number of bootstrap samples for the intervals.
        with_learning_free: Also score the detector that learns nothing, if the examples are scans with nodules to detect. A run
            of the hard benchmark is always compared with it.

    Returns:
        The content of ``scores.json``.

    Raises:
        BuildFolderError: The build does not hold the config.
        TrainingError: There is no checkpoint, the stage is for another config or split, or the split has no examples to score.
        OutputError: The folder cannot be written, or holds other files, which is checked first.
    """
    if stage is not None:
        require_fitting_stage(run, stage)
    target = run.folder / EVALUATION / split
    # The folder is checked and claimed before hours of predictions.
    with staged_folder(target, find_foreign=_foreign_file, kind="evaluation", remedy="move it elsewhere") as folder:
        source, predictions, document = _evaluated(
            run, build, split, stage=stage, draws=draws, with_learning_free=with_learning_free
        )
        (folder / _SCORES).write_text(to_json(document), encoding="utf-8")
        pq.write_table(pa.Table.from_pylist(predictions), folder / PREDICTIONS, write_page_checksum=True)
        write_evaluation_page(folder, run, source, predictions, document)
    return document


def _evaluated(
    run: Run, build: BuildFolder, split: str, *, stage: Run | None, draws: int, with_learning_free: bool
) -> tuple[DataSource, list[Prediction], dict[str, Any]]:
    """The examples of a split, their predictions, and the content of ``scores.json``."""
    recipe = run.recipe
    source = open_data_source(build, recipe, split, run.folder)
    weights = evaluated_weights(run)
    alone = predictions = Predictor(source, recipe).predict(weights.values)
    if stage is not None:
        predictions = rescore(alone, source, run, stage)
    calibration = None
    if recipe.inference.calibrate:

        def of_validation() -> list[Prediction]:
            if split == VALIDATION:
                return predictions
            try:
                others = open_data_source(build, recipe, VALIDATION)
            except TrainingError as error:
                notice(f"scores are not calibrated: {error}")
                return []
            found = Predictor(others, recipe).predict(weights.values)
            return found if stage is None else rescore(found, others, run, stage)

        calibration = _calibration(run, stage, split, weights.steps, of_validation)
        predictions = calibrated(predictions, calibration.map, held_out=split != VALIDATION)
    domain = run.data.get(BENCHMARK)
    document = {
        "recipe": run.name,
        "config": recipe.config,
        "split": split,
        "split_by": str(recipe.split_by),
        "steps": weights.steps,
        "trained_steps": weights.trained_steps,
        "select": recipe.select,
        "seed": recipe.seed,
        "draws": draws,
        "rows": len(predictions),
        "patients": len({row["patient_id"] for row in predictions} - {None}),
        "scores": _scores(recipe, predictions, draws),
    }
    if calibration is not None:
        document["calibration"] = calibration.document()
    if stage is not None:
        document["rescored_by"] = {"run": stage.folder.name, "recipe": stage.name}
        document[DETECTOR_ALONE] = _scores(recipe, alone, draws)
    if (lungs := lung_crop_counts(predictions)) is not None:
        document["lungs"] = lungs
    if domain is not None:
        document["statement"] = benchmark_statement(domain)
    if (domain is not None or with_learning_free) and is_learning_free_possible(source):
        document[LEARNING_FREE] = _scores(recipe, list(predict_by_threshold(source)), draws)
    return source, predictions, document


@dataclass(frozen=True)
class _SavedCalibration:
    """The content of ``calibration.json``.

    Attributes:
        steps: The number of steps of the weights whose scores it calibrates.
        split: The split that it was fitted on.
        rescored_by: The digest of the run that rescores the boxes; ``None`` for the scores of the detector alone.
        map: The calibration, ``None`` if no rising map fits.
    """

    steps: int
    split: str
    rescored_by: str | None
    map: Calibration | None

    def document(self) -> dict[str, Any]:
        """What is written; ``scale`` and ``shift`` are null if no rising map fits."""
        scale, shift = (None, None) if self.map is None else (self.map.scale, self.map.shift)
        return {
            "steps": self.steps,
            "split": self.split,
            "rescored_by": self.rescored_by,
            "scale": scale,
            "shift": shift,
        }


def _calibration(
    run: Run, stage: Run | None, split: str, steps: int, of_validation: Callable[[], list[Prediction]]
) -> _SavedCalibration:
    """The calibration of a run's scores. It is fitted to the split validation, and saved.

    Evaluations of other splits use the saved one, if it is of the same weights.
    """
    path, rescored_by = run.folder / _CALIBRATION, None if stage is None else stage.digest
    if split != VALIDATION and path.is_file():
        saved = _read_calibration(path)
        if (saved.steps, saved.rescored_by) == (steps, rescored_by):
            return saved
    made = _SavedCalibration(steps, VALIDATION, rescored_by, calibration_of(of_validation()))
    write_atomically(path, to_json(made.document()))
    return made


def _read_calibration(path: Path) -> _SavedCalibration:
    try:
        saved = json.loads(path.read_text("utf-8"))
        scale, shift = saved["scale"], saved["shift"]
        fitted = None if scale is None else Calibration(scale, shift)
        return _SavedCalibration(saved["steps"], saved["split"], saved["rescored_by"], fitted)
    except (OSError, ValueError, KeyError, TypeError, TrainingError) as error:
        raise TrainingError(
            f"{path} is not a calibration: {error}", remedy="evaluate the split validation, which writes it again"
        ) from error


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
