"""Scores compared with reference implementations: scikit-learn, pycocotools and the rules of LUNA16."""

from __future__ import annotations

import contextlib
import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn import metrics as sklearn_metrics

from lung_nodule_ct.train import metrics

pytestmark = pytest.mark.train

SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS, st.integers(1, 60))
def test_classification_scores_equal_those_of_scikit_learn(seed, count):
    random = np.random.default_rng(seed)
    truth, predicted = random.integers(0, 6, (2, count))
    table = metrics.confusion_matrix(truth, predicted, 6)
    assert (table == sklearn_metrics.confusion_matrix(truth, predicted, labels=range(6))).all()
    assert metrics.accuracy(table) == pytest.approx(sklearn_metrics.accuracy_score(truth, predicted), abs=1e-12)
    if len({*truth, *predicted}) > 1:
        expected = sklearn_metrics.cohen_kappa_score(truth, predicted, labels=range(6), weights="quadratic")
        assert metrics.quadratic_kappa(table) == pytest.approx(expected, abs=1e-12)
    score = random.integers(0, 8, count) / 8  # with ties
    if 0 < (truth < 4).sum() < count:
        assert metrics.area_under_curve(truth < 4, score) == pytest.approx(
            sklearn_metrics.roc_auc_score(truth < 4, score), abs=1e-12
        )


def test_undefined_scores_are_nan():
    assert math.isnan(metrics.accuracy(np.zeros((6, 6))))
    assert math.isnan(metrics.quadratic_kappa(np.diag([3, 0, 0])))
    assert math.isnan(metrics.area_under_curve([True, True], [0.1, 0.2]))
    with pytest.raises(ValueError, match="classes 0 to 5, got 0 to 6"):
        metrics.confusion_matrix([6], [0], 6)


def _coco(images) -> np.ndarray:
    """Return the first six scores of pycocotools."""
    truth, predicted = [], []
    for number, (boxes, scores, true_boxes) in enumerate(images, 1):
        for box in true_boxes:
            size = box[2:] - box[:2]
            truth.append(
                {"id": len(truth) + 1, "image_id": number, "category_id": 1, "iscrowd": 0}
                | {"bbox": [*box[:2], *size], "area": float(size.prod())}
            )
        predicted += [
            {"image_id": number, "category_id": 1, "bbox": [*box[:2], *(box[2:] - box[:2])], "score": float(score)}
            for box, score in zip(boxes, scores, strict=True)
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": number} for number in range(1, len(images) + 1)],
            "annotations": truth,
            "categories": [{"id": 1}],
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(predicted) if predicted else COCO(), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.where(evaluation.stats[:6] < 0, np.nan, evaluation.stats[:6])


def _images(random: np.random.Generator, count: int):
    images = []
    for _ in range(count):
        corner = random.integers(0, 300, (random.integers(0, 4), 2)).astype(float)
        true_boxes = np.concatenate([corner, corner + random.choice([6, 31, 32, 50, 96, 130], corner.shape)], 1)
        near = true_boxes[random.integers(0, len(true_boxes), 6)] if len(true_boxes) else np.zeros((0, 4))
        boxes = near + random.integers(-6, 7, near.shape)
        far = random.integers(0, 300, (random.integers(0, 130), 2)).astype(float)
        boxes = np.concatenate([boxes, np.concatenate([far, far + 40], 1)])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        images.append((boxes, random.integers(0, 20, len(boxes)) / 20, true_boxes))
    return images


@pytest.mark.parametrize("seed", range(12))
def test_average_precision_equals_that_of_pycocotools(seed):
    images = _images(np.random.default_rng(seed), 1 + 2 * seed)
    if not any(len(boxes) for boxes, _, _ in images):
        images.append((np.array([[0.0, 0, 9, 9]]), np.ones(1), np.zeros((0, 4))))
    scores = metrics.average_precision([metrics.match_boxes(*image) for image in images])
    np.testing.assert_allclose(list(scores.values()), _coco(images), rtol=0, atol=1e-12, equal_nan=True)


def _luna(scans) -> np.ndarray:
    """Return the sensitivities that the script of LUNA16 computes with ``roc_curve`` of scikit-learn."""
    truth, scores, missed = [], [], []
    for centers, values, nodules, diameters, excluded, excluded_diameters in scans:
        unmatched = dict(enumerate(centers))
        for nodule, diameter in zip(nodules, diameters, strict=True):
            matches = [i for i, c in enumerate(centers) if ((c - nodule) ** 2).sum() < (diameter / 2) ** 2]
            for i in matches:
                unmatched.pop(i, None)
            truth.append(1.0)
            scores.append(max(values[i] for i in matches) if matches else -1e9)
            missed.append(not matches)
        for finding, diameter in zip(excluded, excluded_diameters, strict=True):
            for i, c in enumerate(centers):
                if ((c - finding) ** 2).sum() < (diameter / 2) ** 2:
                    unmatched.pop(i, None)
        truth += [0.0] * len(unmatched)
        scores += [values[i] for i in unmatched]
        missed += [False] * len(unmatched)
    kept = [i for i, is_missed in enumerate(missed) if not is_missed]
    hits = sum(truth[i] for i in kept)
    rate, recall, _ = sklearn_metrics.roc_curve([truth[i] for i in kept], [scores[i] for i in kept])
    return np.interp(metrics.OPERATING_POINTS, rate * (len(kept) - hits) / len(scans), recall * hits / sum(truth))


@given(SEEDS, st.integers(1, 6))
def test_froc_equals_that_of_luna16(seed, count):
    random = np.random.default_rng(seed)
    scans = [
        (
            random.uniform(0, 40, (40, 3)),
            random.integers(0, 30, 40) / 30,
            random.uniform(0, 40, (3, 3)),
            random.uniform(5, 25, 3),
            random.uniform(0, 40, (2, 3)),
            random.uniform(5, 25, 2),
        )
        for _ in range(count)
    ]
    matched = [metrics.match_centers(*scan) for scan in scans]
    curve = metrics.froc(matched)
    if any(len(scan.hits) for scan in matched) and any(len(scan.false_positives) for scan in matched):
        np.testing.assert_allclose(curve.sensitivity_at(), _luna(scans), rtol=0, atol=1e-12)
        assert curve.cpm == pytest.approx(_luna(scans).mean(), abs=1e-12)


def test_the_sizes_of_hits_are_those_of_the_surest_candidates():
    def cube(center, side):
        return [*(c - side / 2 for c in center), *(c + side / 2 for c in center)]

    nodules, diameters = [[10, 10, 10], [30, 30, 30], [50, 50, 50]], [8, 8, 8]
    centers = [[10, 10, 10], [10, 10, 10], [30, 30, 31], [70, 70, 70]]
    boxes = [cube(centers[0], 8), cube(centers[1], 16), cube(centers[2], 8), cube(centers[3], 4)]
    truth = [cube(center, 8) for center in nodules]
    sizes = metrics.hit_sizes(centers, [0.4, 0.9, 0.3, 0.99], boxes, nodules, diameters, truth)
    np.testing.assert_allclose(sizes.overlap, [8**3 / 16**3, 7 / 9])  # the third nodule is missed
    np.testing.assert_allclose(sizes.ratio, [2, 1])
    first = metrics.hit_sizes(centers, [0.91, 0.9, 0.3, 0.99], boxes, nodules, diameters, truth)
    np.testing.assert_allclose(first.overlap, [1, 7 / 9])
    for missed in (
        metrics.hit_sizes([], [], [], nodules, diameters, truth),
        metrics.hit_sizes(centers, [1] * 4, boxes, [], [], []),
    ):
        assert missed.overlap.shape == missed.ratio.shape == (0,)


def test_froc_without_candidates_is_zero_and_without_nodules_is_nan():
    assert metrics.froc([metrics.match_centers([], [], [[0, 0, 0]], [5])]).cpm == 0
    assert math.isnan(metrics.froc([metrics.match_centers([[0, 0, 0]], [0.5], [], [])]).cpm)


def test_intervals_resample_patients_and_not_rows():
    random = np.random.default_rng(0)
    level = random.normal(0, 1, 30)
    values = np.repeat(level, 20)  # twenty equal rows per patient
    patients = [str(i) for i in range(30) for _ in range(20)]

    def mean(rows):
        return {"mean": float(values[rows].mean())}

    low, high = metrics.percentile_interval(metrics.bootstrap_patients(patients, mean)["mean"])
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * level.std() / math.sqrt(30), rel=0.15)
    narrow = metrics.percentile_interval(metrics.bootstrap_patients([None] * 600, mean)["mean"])
    assert narrow[1] - narrow[0] < (high - low) / 3
