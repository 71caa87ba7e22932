"""The stage that removes false positives: its candidates for training, and the scores that it gives the boxes of a detector."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lung_nodule_ct.declaration.labels import TRAIN, VALIDATION
from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.read.rows import split_rows
from lung_nodule_ct.system.files import write_atomically
from lung_nodule_ct.system.progress import notice
from lung_nodule_ct.train.batches import find_source
from lung_nodule_ct.train.calibration import correct_detections
from lung_nodule_ct.train.data.candidates import CANDIDATES, Candidates, candidates_in
from lung_nodule_ct.train.data.volumes import Patches
from lung_nodule_ct.train.runs import evaluated_weights
from lung_nodule_ct.train.step import Predictor
from lung_nodule_ct.train.threshold_detector import predict_by_threshold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lung_nodule_ct.read.build_folder import BuildFolder
    from lung_nodule_ct.train.data import DataSource
    from lung_nodule_ct.train.recipes import Recipe
    from lung_nodule_ct.train.runs import Run
    from lung_nodule_ct.train.tasks import Prediction

STAGE: Final = "candidates"
"""The task of the stage."""
DETECTOR: Final = "detector"
"""The entry of a run's ``data`` that identifies the detector whose candidates it is trained on."""


def detector_identity(detector: Run | None) -> dict[str, Any]:
    """What identifies the detector whose candidates a stage is trained on; without one, the detector that learns nothing."""
    if detector is None:
        return {DETECTOR: "learning-free"}
    steps = evaluated_weights(detector).steps
    return {DETECTOR: {"recipe": detector.name, "steps": steps, "run": detector.digest}}


def save_candidates(run: Run, build: BuildFolder, detector: Run | None) -> None:
    """Find the candidates of the splits train and validation, and save them in the folder of a run that has none.

    Args:
        run: The run of the stage.
        build: A build that holds its config.
        detector: The detector; ``None`` for the one that learns nothing.

    Raises:
        TrainingError: The folder holds another run, the config or the detector does not fit the stage, or no candidate for training
            is a false positive.
    """
    run.require_unchanged()
    if (run.folder / CANDIDATES).is_file():
        return
    find_source(build, run.recipe)
    if detector is not None:
        require_fitting_stage(detector, run)
    rows: list[dict[str, Any]] = []
    for split in (TRAIN, VALIDATION):
        try:
            source, predictions = _detections(
                run.recipe if detector is None else detector.recipe, build, split, detector
            )
        except TrainingError as error:
            if split == TRAIN:
                raise
            notice(f"no candidates of the split {split}: {error}")
            continue
        found = candidates_in(predictions, [correct_detections(row) for row in predictions])
        for one in found:
            z, y, x = one.center
            place = {"split": split, "id": source.ids[one.row], "number": one.row, "z": z, "y": y, "x": x}
            rows.append(place | {"score": float(one.score), "is_nodule": one.is_nodule})
        false = sum(not one.is_nodule for one in found)
        notice(f"{split}: {len(found):,} candidates, of which {false:,} are false positives")
        if split == TRAIN and not false:
            raise TrainingError(
                "no candidate for training is a false positive",
                expected="at least one",
                remedy="name another --detector",
            )
    run.save()
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer, write_page_checksum=True)
    write_atomically(run.folder / CANDIDATES, buffer.getvalue())


def _detections(
    recipe: Recipe, build: BuildFolder, split: str, detector: Run | None
) -> tuple[Patches, list[Prediction]]:
    """The scans of a split with what the detector finds in them."""
    source = Patches(split_rows(build, recipe.config, split, recipe.split_by), recipe)
    if detector is None:
        return source, list(predict_by_threshold(source))
    return source, Predictor(source, recipe).predict(evaluated_weights(detector).values)


def rescore(predictions: Sequence[Prediction], source: DataSource, detector: Run, stage: Run) -> list[Prediction]:
    """Predictions of volumes with scores that a stage has changed: the geometric mean of score and probability.

    Args:
        predictions: The predictions of a detector.
        source: Its scans.
        detector: The run of the detector.
        stage: The run of the stage.

    Returns:
        The predictions, whose boxes are sorted by the new score, with ``detector_scores`` and ``probabilities``.

    Raises:
        TrainingError: The run is not a stage that fits.
    """
    require_fitting_stage(detector, stage)
    assert isinstance(source, Patches)  # noqa: S101 -- the detector is of volumes
    found = candidates_in(predictions, [correct_detections(row) for row in predictions])
    candidates = Candidates(source.rows, stage.recipe, found)
    rows = Predictor(candidates, stage.recipe).predict(evaluated_weights(stage).values)
    probabilities = np.array([row["probability"] for row in rows])
    ends = np.cumsum([len(row["scores"]) for row in predictions])
    return [
        _with_probabilities(row, part)
        for row, part in zip(predictions, np.split(probabilities, ends[:-1]), strict=True)
    ]


def _with_probabilities(row: Prediction, probabilities: np.ndarray) -> Prediction:
    scores = np.sqrt(np.array(row["scores"], float) * probabilities)
    order = np.argsort(-scores, kind="mergesort")
    moved = {name: [row[name][index] for index in order] for name in ("boxes", "centers", "scores")}
    return {
        **row,
        **moved,
        "scores": scores[order].tolist(),
        "detector_scores": moved["scores"],
        "probabilities": probabilities[order].tolist(),
    }


def require_fitting_stage(detector: Run, stage: Run) -> None:
    """Check that a stage can rescore a detector, and that no patient who is evaluated with one was trained on by the other.

    Raises:
        TrainingError: They do not fit.
    """
    if stage.recipe.task != STAGE or detector.recipe.task != "detection" or len(detector.recipe.input.size) != 3:
        raise TrainingError(
            f"{stage.folder} cannot rescore {detector.folder}",
            expected="a detector of volumes, and a run of a recipe for candidates, such as det3d_1.25mm-candidates",
            got=f"runs of the recipes {detector.name} and {stage.name}",
        )
    expected, got = ((run.recipe.config, str(run.recipe.split_by)) for run in (detector, stage))
    if expected != got:
        raise TrainingError(
            "the detector and the stage that rescores it were trained on other configs or splits",
            expected=" split by ".join(expected),
            got=" split by ".join(got),
            remedy="train the stage with the same config and --split-by",
        )
