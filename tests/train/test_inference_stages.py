"""What follows a detector of volumes: the crop to the lungs, calibrated scores, and the stage that removes false positives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jax")
for needed in ("flax", "grain", "optax", "orbax.checkpoint", "tensorboardX", "tyro", "matplotlib"):
    pytest.importorskip(needed)

from altered import alter  # noqa: E402

from lung_nodule_ct.declaration.labels import VALIDATION, SplitBy  # noqa: E402
from lung_nodule_ct.errors import LungNoduleCTError, OutputError, TrainingError  # noqa: E402
from lung_nodule_ct.read.build_folder import open_build  # noqa: E402
from lung_nodule_ct.testing.hard_archives import write_hard_archives  # noqa: E402
from lung_nodule_ct.train import evaluation, false_positives, hard_benchmark, loop, metrics  # noqa: E402
from lung_nodule_ct.train.batches import open_data_source  # noqa: E402
from lung_nodule_ct.train.box_prediction import predict_volumes  # noqa: E402
from lung_nodule_ct.train.calibration import (  # noqa: E402
    Calibration,
    calibrated,
    calibration_of,
    expected_calibration_error,
    fit_calibration,
)
from lung_nodule_ct.train.data.candidates import CANDIDATES, Candidates  # noqa: E402
from lung_nodule_ct.train.data.volumes import Patches  # noqa: E402
from lung_nodule_ct.train.detection_options import InferenceOptions  # noqa: E402
from lung_nodule_ct.train.expected_scores import EXPECTED_HARD_SCORES  # noqa: E402
from lung_nodule_ct.train.hard_benchmark import HardBenchmark  # noqa: E402
from lung_nodule_ct.train.lung_regions import closed_lungs, describe_lung_crop, lung_crop_counts  # noqa: E402
from lung_nodule_ct.train.recipes import RECIPES, InputOptions  # noqa: E402
from lung_nodule_ct.train.runs import EvaluatedWeights, Run, open_run  # noqa: E402
from lung_nodule_ct.train.tasks import detection  # noqa: E402
from lung_nodule_ct.train.threshold_detector import predict_by_threshold  # noqa: E402

pytestmark = pytest.mark.train

CONFIG = "det3d_1.25mm"
SMALL = InputOptions(size=(12, 16, 16), spacing_mm=(3.0, 3.0, 3.0))
RECIPE = replace(RECIPES[CONFIG], input=SMALL, batch_size=4)


@pytest.fixture(scope="module")
def build(cli, tmp_path_factory) -> Path:
    """A build of blocks of lung, as Parquet. The last scan has no lung mask, and the masks of the others end after a quarter."""
    folder = tmp_path_factory.mktemp("blocks")
    source = write_hard_archives(folder / "in", train=8, validation=5)
    done = cli("build", CONFIG, "--source", source, "--out", folder / "build")
    assert done.returncode == 0, done.stderr

    def cut_masks(rows: list[dict]) -> None:
        for row in rows:
            mask = np.frombuffer(row["lung_mask"]["bytes"], np.uint8).reshape(row["lung_mask"]["shape"]).copy()
            mask[len(mask) // 4 :] = 0
            row["lung_mask"]["bytes"] = mask.tobytes()
        rows[-1]["lung_mask"] = rows[-1]["lung_mask_origin"] = None

    return alter(folder / "build", CONFIG, cut_masks)


# --- the crop to the lungs --------------------------------------------------------------------------------------------


def test_patches_and_boxes_outside_of_the_lungs_are_left_out(build) -> None:
    recipe = replace(RECIPE, inference=InferenceOptions(lungs=True))
    source = open_data_source(open_build(build), recipe, "validation")
    assert isinstance(source, Patches)
    seen = 0

    def apply(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A detector that finds a box of 3 voxels everywhere, on a grid."""
        nonlocal seen
        seen += len(batch["image"])
        low = np.stack(np.meshgrid(*(np.arange(0, n, 4) for n in SMALL.size), indexing="ij"), -1).reshape(-1, 3)
        boxes = np.tile(np.concatenate([low, low + 3], 1), (len(batch["image"]), 1, 1))
        return {"boxes": boxes, "scores": np.full(boxes.shape[:2], 0.5)}

    rows = list(predict_volumes(source, apply, recipe))
    cropped_patches, seen = seen, 0
    whole = list(predict_volumes(source, apply, RECIPE))
    assert cropped_patches < 0.8 * seen
    unmasked = [row["nodules_outside_lungs"] is None for row in rows]
    assert sum(unmasked) == 1
    for index, (row, before) in enumerate(zip(rows, whole, strict=True)):
        mask = source.rows.voxels(index, "lung_mask")
        if mask is None:
            assert row["boxes"] == before["boxes"]
            continue
        lungs = closed_lungs(mask, source.spacing(index))
        boxes = np.array(row["boxes"])
        x, y, z = ((boxes[:, :3] + boxes[:, 3:]) / 2).astype(int).T
        assert len(boxes) > 10
        assert lungs[z, y, x].all()
        x, y, z = np.array(row["truth_boxes"]).reshape(-1, 2, 3).mean(1).astype(int).T
        assert row["nodules_outside_lungs"] == (~lungs[z, y, x]).sum()
    assert "nodules_outside_lungs" not in whole[0]
    counts = lung_crop_counts(rows)
    assert counts is not None
    assert counts["nodules_outside"] > 0
    assert counts["cropped"] + counts["whole"] == len(rows) == 5
    assert "Predicted whole, without a lung mask: 1 scans" in describe_lung_crop(counts)
    assert lung_crop_counts(whole) is None


# --- calibrated scores ------------------------------------------------------------------------------------------------


def detections(count: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores that are too sure, and whether they are right: their logits are three times the true ones, plus 1."""
    random = np.random.default_rng(seed)
    logits = random.normal(-1, 1, count)
    return 1 / (1 + np.exp(-3 * logits - 1)), random.random(count) < 1 / (1 + np.exp(-logits))


def test_a_calibration_is_the_maximum_of_the_likelihood() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    scores, correct = detections()
    fitted = fit_calibration(scores, correct)
    assert fitted is not None
    logits, positive, negative = np.log(scores / (1 - scores)), correct.sum(), (~correct).sum()
    targets = np.where(correct, (positive + 1) / (positive + 2), 1 / (negative + 2))

    def loss(weights: np.ndarray) -> float:
        values = weights[0] * logits + weights[1]
        return float((np.logaddexp(0, values) - targets * values).sum())

    found = optimize.minimize(loss, [1.0, 0.0], method="BFGS", options={"gtol": 1e-8})
    np.testing.assert_allclose([fitted.scale, fitted.shift], found.x, atol=1e-6)
    many = fit_calibration(*detections(40_000))
    assert many is not None
    np.testing.assert_allclose([many.scale, many.shift], [1 / 3, -1 / 3], atol=0.02)
    assert loss(np.array([fitted.scale, fitted.shift])) <= found.fun + 1e-9
    sigmoid = pytest.importorskip("sklearn.calibration")._SigmoidCalibration().fit(logits, correct)
    np.testing.assert_allclose([fitted.scale, fitted.shift], [-sigmoid.a_, -sigmoid.b_], atol=1e-4)
    np.testing.assert_allclose(fitted(scores), sigmoid.predict(logits), atol=1e-4)


def test_calibrations_of_extreme_detections_are_finite_and_unfit_ones_are_none() -> None:
    separated = fit_calibration(np.array([0.0, 0.1, 0.9, 1.0]), np.array([False, False, True, True]))
    assert separated is not None
    assert np.isfinite(separated(np.array([0.0, 1.0]))).all()
    for scores, correct in (
        ([], []),
        ([0.5, 0.6], [True, True]),
        ([0.5, 0.6], [False, False]),
        ([0.5, 0.5], [True, False]),
        ([0.2, 0.3, 0.8, 0.9], [True, True, False, False]),
    ):
        assert fit_calibration(np.array(scores, float), np.array(correct, bool)) is None
    close = np.concatenate([np.linspace(0.06, 0.0601, 4000), [0.3, 0.5]])  # a map so steep makes 0.3 and 0.5 equal
    assert fit_calibration(close, np.arange(4002) >= 2000) is None
    assert fit_calibration(close[1000:3000], np.arange(2000) % 2 == 1) is not None
    with pytest.raises(TrainingError, match="order of scores"):
        Calibration(-1.0, 0.0)


def test_the_calibration_error_is_that_of_reliability_diagrams() -> None:
    curve = pytest.importorskip("sklearn.calibration").calibration_curve
    scores, correct = detections()
    share, mean = curve(correct, scores, n_bins=10)
    counts = np.histogram(scores, 10, (0, 1))[0]
    expected = (np.abs(share - mean) * counts[counts > 0]).sum() / len(scores)
    assert expected_calibration_error(scores, correct) == pytest.approx(expected, rel=1e-12)
    assert expected_calibration_error(np.array([1.0, 0.0]), np.array([True, False])) == 0
    assert expected_calibration_error(np.array([1.0, 0.0]), np.array([False, True])) == 1
    assert np.isnan(expected_calibration_error(np.zeros(0), np.zeros(0, bool)))


def volumes(count: int = 220) -> list[dict]:
    """Predictions with too sure scores. Half of the boxes may be the nodule at 0, the others are 100 mm away."""
    rows = []
    for number in range(count):
        scores, correct = detections(10, number)
        order = np.argsort(-scores)
        centers = np.where(correct[order, None], 0.0, 100.0) * np.ones(3)
        boxes = np.concatenate([centers - 4, centers + 4], 1)
        truth = {"truth_centers": [[0.0] * 3], "truth_diameters": [8.0], "truth_boxes": [[-4.0] * 3 + [4.0] * 3]}
        row = {"scores": scores[order].tolist(), "centers": centers.tolist(), "boxes": boxes.tolist()}
        rows.append({"id": str(number), "patient_id": f"{number // 2}" if number else None, **row, **truth})
    return rows


def test_calibrated_scores_have_the_same_froc_and_a_lower_error_on_other_patients() -> None:
    rows = volumes()
    half = rows[:20]
    fitted = calibration_of(half)
    assert fitted is not None
    mapped, cross = calibrated(rows[20:], fitted, held_out=True), calibrated(half, fitted, held_out=False)
    indices = np.arange(200)
    before, after = (detection.scorer(part)(indices) for part in (rows[20:], mapped))
    assert before == {name: value for name, value in after.items() if "ECE" not in name}
    assert after["ECE"] < 0.6 * after["ECE_uncalibrated"]
    assert after["ECE_uncalibrated"] == pytest.approx(
        expected_calibration_error(
            np.concatenate([row["scores"] for row in rows[20:]]),
            np.concatenate([np.array(row["centers"])[:, 0] == 0 for row in rows[20:]]),
        )
    )
    curves = [
        metrics.froc([metrics.match_centers(r["centers"], r["scores"], r["truth_centers"], [8.0]) for r in part])
        for part in (rows[20:], mapped)
    ]
    assert (curves[0].sensitivity == curves[1].sensitivity).all()
    assert (curves[0].false_positives == curves[1].false_positives).all()
    # on the split that it was fitted to, the error is that of calibrations of the other patients
    by_others = calibration_of([row for number, row in enumerate(half) if number not in (0, 8, 9, 18, 19)])
    assert by_others is not None
    assert cross[0]["held_out_scores"] == by_others(np.array(half[0]["scores"])).tolist() != cross[0]["scores"]
    assert cross[0]["scores"] == fitted(np.array(half[0]["scores"])).tolist()
    alone = calibrated(half[:1], None, held_out=False)
    assert alone[0]["scores"] == alone[0]["held_out_scores"] == half[0]["scores"]
    assert "ECE" not in before


# --- the stage that removes false positives ---------------------------------------------------------------------------

STAGE = replace(RECIPES["det3d_1.25mm-candidates"], input=InputOptions((8, 8, 8), (3.0, 3.0, 3.0), positives=0.5))


def test_candidates_are_saved_once_and_half_of_what_is_drawn_are_nodules(build, tmp_path) -> None:
    data = open_build(build)
    run = Run(tmp_path / "run", "stage", STAGE, {})
    with pytest.raises(TrainingError, match=r"no candidates\.parquet"):
        open_data_source(data, STAGE, "train", run.folder)
    false_positives.save_candidates(run, data, None)
    written = (run.folder / CANDIDATES).stat().st_mtime_ns
    false_positives.save_candidates(run, data, None)
    assert (run.folder / CANDIDATES).stat().st_mtime_ns == written

    source = open_data_source(data, STAGE, "train", run.folder)
    assert isinstance(source, Candidates)
    assert len(source.ids) == len(source.patients) == len(source) == len(source.found) > 20
    assert source.ids[0].endswith("candidate 0")
    for one in source.found:
        spacing, boxes = source.spacing(one.row), source.nodule_boxes(one.row)
        offsets = ((boxes[:, :3] + boxes[:, 3:]) / 2 - one.center) * spacing
        radii = (boxes[:, 3] - boxes[:, 0]) * spacing[0] / 2
        assert one.is_nodule == bool((np.linalg.norm(offsets, axis=1) < radii).any())
    drawn = [source.load(index % len(source), np.random.default_rng(index)) for index in range(300)]
    labels = np.array([example["label"] for example in drawn])
    assert abs(labels.mean() - 0.5) < 0.12  # 4 standard deviations
    again = source.load(7, np.random.default_rng(7))
    assert all((again[name] == drawn[7][name]).all() for name in again)
    middle = tuple(slice(n // 2 - 1, n // 2 + 2) for n in source.extent)
    brightness = np.array([example["image"][middle].mean() for example in drawn])
    assert brightness[labels == 1].mean() > -600  # nodules are in the middle of their patches
    index = next(index for index, one in enumerate(source.found) if not one.is_nodule)
    example = source.candidate(index)
    first = source.first_voxel(np.array(source.found[index].center))
    assert example["label"] == 0
    assert (example["image"] == source.cut(source.found[index].row, first)).all()

    with pytest.raises(TrainingError, match="no candidates of the split test"):
        Candidates.open(source.rows, STAGE, "test", run.folder)
    with pytest.raises(TrainingError, match="of another build"):
        Candidates.open(source.rows, STAGE, VALIDATION, run.folder)
    other = Run(tmp_path / "run", "stage", replace(STAGE, seed=1), {})
    with pytest.raises(TrainingError, match="another run"):
        false_positives.save_candidates(other, data, None)


def test_scores_are_geometric_means_and_sort_the_boxes(build, tmp_path, monkeypatch) -> None:
    source = open_data_source(open_build(build), RECIPE, VALIDATION)
    detector, stage = Run(tmp_path / "a", CONFIG, RECIPE, {}), Run(tmp_path / "b", "stage", STAGE, {})
    frame = {"truth_centers": [], "truth_diameters": []}
    rows = [
        {"id": "a", "number": 0, "scores": [0.81, 0.16], "boxes": [[8.0] * 3 + [12.0] * 3, [20.0] * 3 + [24.0] * 3]},
        {"id": "b", "number": 1, "scores": [], "boxes": []},
        {"id": "c", "number": 2, "scores": [0.25], "boxes": [[0.0, 10.0, 20.0, 4.0, 12.0, 30.0]]},
    ]
    rows = [row | frame | {"centers": [[sum(box) / 6] * 3 for box in row["boxes"]]} for row in rows]
    seen: list[Candidates] = []

    class Fixed:
        def __init__(self, candidates: Candidates, recipe: object) -> None:
            seen.append(candidates)

        def predict(self, values: object) -> list[dict[str, float]]:
            return [{"probability": value} for value in (0.01, 0.64, 0.36)]

    monkeypatch.setattr(false_positives, "Predictor", Fixed)
    monkeypatch.setattr(false_positives, "evaluated_weights", lambda run: EvaluatedWeights(None, 0, 0))
    changed = false_positives.rescore(rows, source, detector, stage)
    assert [one.row for one in seen[0].found] == [0, 0, 2]
    assert seen[0].found[2].center == (25.0, 11.0, 2.0)
    np.testing.assert_allclose(changed[0]["scores"], [0.32, 0.09])
    assert changed[0]["boxes"] == rows[0]["boxes"][::-1]
    assert changed[0]["centers"] == rows[0]["centers"][::-1]
    assert changed[0]["detector_scores"] == [0.16, 0.81]
    assert changed[0]["probabilities"] == [0.64, 0.01]
    assert changed[1]["scores"] == []
    np.testing.assert_allclose(changed[2]["scores"], [0.3])
    with pytest.raises(TrainingError, match="cannot rescore"):
        false_positives.rescore(rows, source, detector, detector)
    elsewhere = replace(stage, recipe=replace(STAGE, split_by=SplitBy.PUBLISHED))
    with pytest.raises(TrainingError, match="other configs or splits"):
        false_positives.rescore(rows, source, detector, elsewhere)


def test_a_stage_that_does_not_fit_is_refused_before_anything_is_predicted(build, tmp_path, monkeypatch) -> None:
    def predict(*_: object) -> None:
        pytest.fail("the predictions were made first")

    monkeypatch.setattr(evaluation, "Predictor", predict)
    monkeypatch.setattr(false_positives, "_detections", predict)
    data, detector = open_build(build), Run(tmp_path / "a", CONFIG, RECIPE, {})
    stage = Run(tmp_path / "b", "stage", STAGE, {})
    elsewhere = replace(stage, recipe=replace(STAGE, split_by=SplitBy.PUBLISHED))
    for other, message in ((detector, "cannot rescore"), (elsewhere, "other configs or splits")):
        with pytest.raises(TrainingError, match=message):
            evaluation.evaluate(detector, data, VALIDATION, stage=other)
    for finder, run, message in (
        (stage, stage, "cannot rescore"),
        (detector, elsewhere, "other configs or splits"),
        (None, replace(stage, recipe=replace(STAGE, config="det2d_1.25mm")), "has no det2d_1.25mm"),
    ):
        with pytest.raises(LungNoduleCTError, match=message):
            false_positives.save_candidates(run, data, finder)
    assert not (tmp_path / "b").exists(), "the folder would refuse the right command"


def test_scans_of_another_seed_are_not_used_for_a_check(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(hard_benchmark, "_TRAIN", 2)
    monkeypatch.setattr(hard_benchmark, "_VALIDATION", 1)

    def stop(*_: object) -> None:
        raise TrainingError("no gpu is available")

    monkeypatch.setattr(loop, "train", stop)
    expected = EXPECTED_HARD_SCORES[CONFIG]
    for seed, message in ((0, "no gpu"), (0, "no gpu"), (1, r'has other scans; expected .*"seed": 1.*"seed": 0')):
        recipe = replace(RECIPE, seed=seed)
        with pytest.raises(TrainingError, match=message):
            loop.check_learning(tmp_path / "run", CONFIG, recipe, expected, HardBenchmark(seed))


def test_an_unknown_patient_is_refused_before_ct_is_decoded(build, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LUNG_NODULE_CT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(TrainingError, match="has no patient 'x'"):
        HardBenchmark(0, open_build(build), "x")
    assert not (tmp_path / "cache/training").exists()


def test_a_folder_that_cannot_be_replaced_is_refused_before_anything_is_predicted(build, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(evaluation, "open_data_source", lambda *_: pytest.fail("the examples were opened first"))
    notes = tmp_path / "a/evaluation/validation/notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")
    with pytest.raises(OutputError, match=r"got notes\.txt\. Move it elsewhere"):
        evaluation.evaluate(Run(tmp_path / "a", CONFIG, RECIPE, {}), open_build(build), VALIDATION)
    assert notes.read_text() == "mine"


@pytest.mark.slow
def test_a_trained_stage_raises_the_score_of_a_detector(cli, tmp_path) -> None:
    """The detector is the one that learns nothing. Its scores are diameters, which the geometric mean allows."""
    source = write_hard_archives(tmp_path / "in", train=30, validation=16)
    assert cli("build", CONFIG, "--source", source, "--out", tmp_path / "build", "--format", "arrow").returncode == 0
    size = ("--input.size", "16", "16", "16", "--input.spacing-mm", "2", "2", "2", "--batch-size", "16")
    options = (*size, "--model.width", "8", "--optim.learning-rate", "3e-3", "--steps", "150")
    done = cli("train", tmp_path / "build", "det3d_1.25mm-candidates", "--out", tmp_path / "stage", *options)
    assert done.returncode == 0, done.stderr
    done = cli("evaluate", tmp_path / "build", tmp_path / "stage", "--draws", "20", "--json")
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)["scores"]
    assert scores["AUC"]["value"] > max(0.85, scores["detector_AUC"]["value"])
    detector = Run(tmp_path / "detector", CONFIG, replace(RECIPE, split_by=SplitBy.PATIENT), {})
    scans = open_data_source(open_build(tmp_path / "build"), detector.recipe, VALIDATION)
    assert isinstance(scans, Patches)
    alone = list(predict_by_threshold(scans))
    rescored = false_positives.rescore(alone, scans, detector, open_run(tmp_path / "stage"))
    before, after = (detection.scorer(rows)(np.arange(len(rows)))["CPM"] for rows in (alone, rescored))
    assert after > before + 0.05


@pytest.mark.slow
def test_a_detector_is_cropped_rescored_and_calibrated_by_the_command(build, cli, tmp_path) -> None:
    size = ("--input.size", "12", "16", "16", "--input.spacing-mm", "3", "3", "3", "--watch", "0", "--steps", "20")
    small = (*size, "--model.width", "4", "--model.blocks", "1", "--optim.learning-rate", "3e-3", "--batch-size", "4")
    detector, stage = tmp_path / "detector", tmp_path / "stage"
    stages = ("--inference.lungs", "--inference.calibrate")
    done = cli("train", build, CONFIG, "--out", detector, *small, *stages)
    assert done.returncode == 0, done.stderr
    done = cli("train", build, "det3d_1.25mm-candidates", "--detector", detector, "--out", stage, *small)
    assert done.returncode == 0, done.stderr
    assert open_run(stage).data["detector"]["recipe"] == CONFIG
    assert "candidates, of which" in done.stderr
    done = cli("evaluate", build, detector, "--draws", "20")
    assert done.returncode == 0, done.stderr
    assert "Cropped to the lungs: 4 scans" in done.stdout
    assert "ECE_uncalibrated" in done.stdout
    alone = json.loads((detector / "calibration.json").read_text())
    assert alone["split"] == VALIDATION
    done = cli("evaluate", build, detector, "--rescore", stage, "--draws", "20", "--split", "train")
    assert done.returncode == 0, done.stderr
    assert "the detector alone, the same rows" in done.stdout
    rescored = json.loads((detector / "calibration.json").read_text())
    assert rescored["rescored_by"] == open_run(stage).digest
    page = (detector / "evaluation/train/index.html").read_text()
    assert "The detector alone" in page
    assert "without the stage that rescores its boxes" in page
    done = cli("train", build, CONFIG, "--detector", detector, "--out", tmp_path / "other", *small)
    assert done.returncode == 2
    (detector / "calibration.json").write_text("{}")
    done = cli("evaluate", build, detector, "--rescore", stage, "--draws", "20", "--split", "train")
    assert done.returncode == 1
    assert "is not a calibration" in done.stderr
