"""Scores against the field's own implementations: scikit-learn, pycocotools, LUNA16's rules."""

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
from sklearn import metrics as sk

from lung_nodule_ct.train.metrics import classification, detection

SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS, st.integers(1, 60))
def test_classes_are_judged_as_scikit_learn_does(seed, count):
    random = np.random.default_rng(seed)
    truth, told = random.integers(0, 6, (2, count))
    table = classification.confusion_matrix(truth, told, 6)
    assert (table == sk.confusion_matrix(truth, told, labels=range(6))).all()
    assert classification.accuracy(table) == pytest.approx(sk.accuracy_score(truth, told), abs=1e-12)
    if len({*truth, *told}) > 1:
        expected = sk.cohen_kappa_score(truth, told, labels=range(6), weights="quadratic")
        assert classification.quadratic_kappa(table) == pytest.approx(expected, abs=1e-12)
    score = random.integers(0, 8, count) / 8  # with ties
    if 0 < (truth < 4).sum() < count:
        assert classification.area_under_curve(truth < 4, score) == pytest.approx(
            sk.roc_auc_score(truth < 4, score), abs=1e-12
        )


def test_what_cannot_be_judged_is_not_a_number():
    assert math.isnan(classification.accuracy(np.zeros((6, 6))))
    assert math.isnan(classification.quadratic_kappa(np.diag([3, 0, 0])))
    assert math.isnan(classification.area_under_curve([True, True], [0.1, 0.2]))
    with pytest.raises(ValueError, match="classes 0 to 5, got 0 to 6"):
        classification.confusion_matrix([6], [0], 6)


def _coco(images) -> np.ndarray:
    """pycocotools' first six figures."""
    truth, found = [], []
    for number, (boxes, scores, real) in enumerate(images, 1):
        for box in real:
            size = box[2:] - box[:2]
            truth.append(
                {"id": len(truth) + 1, "image_id": number, "category_id": 1, "iscrowd": 0}
                | {"bbox": [*box[:2], *size], "area": float(size.prod())}
            )
        found += [
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
        judge = COCOeval(coco, coco.loadRes(found) if found else COCO(), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return np.where(judge.stats[:6] < 0, np.nan, judge.stats[:6])


def _images(random: np.random.Generator, count: int):
    images = []
    for _ in range(count):
        corner = random.integers(0, 300, (random.integers(0, 4), 2)).astype(float)
        real = np.concatenate([corner, corner + random.choice([6, 31, 32, 50, 96, 130], corner.shape)], 1)
        near = real[random.integers(0, len(real), 6)] if len(real) else np.zeros((0, 4))
        boxes = near + random.integers(-6, 7, near.shape)
        far = random.integers(0, 300, (random.integers(0, 130), 2)).astype(float)
        boxes = np.concatenate([boxes, np.concatenate([far, far + 40], 1)])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        images.append((boxes, random.integers(0, 20, len(boxes)) / 20, real))
    return images


@pytest.mark.parametrize("seed", range(12))
def test_average_precision_is_that_of_pycocotools(seed):
    images = _images(np.random.default_rng(seed), 1 + 2 * seed)
    if not any(len(boxes) for boxes, _, _ in images):
        images.append((np.array([[0.0, 0, 9, 9]]), np.ones(1), np.zeros((0, 4))))
    own = detection.average_precision([detection.match(*image) for image in images])
    np.testing.assert_allclose(list(own.values()), _coco(images), rtol=0, atol=1e-12, equal_nan=True)


def _luna(scans) -> np.ndarray:
    """The sensitivities as LUNA16's script reckons them, with scikit-learn's ``roc_curve``."""
    truth, scores, missed = [], [], []
    for centers, values, nodules, diameters, excluded, wide in scans:
        left = dict(enumerate(centers))
        for middle, diameter in zip(nodules, diameters, strict=True):
            matches = [i for i, c in enumerate(centers) if ((c - middle) ** 2).sum() < (diameter / 2) ** 2]
            for i in matches:
                left.pop(i, None)
            truth.append(1.0)
            scores.append(max(values[i] for i in matches) if matches else -1e9)
            missed.append(not matches)
        for middle, diameter in zip(excluded, wide, strict=True):
            for i, c in enumerate(centers):
                if ((c - middle) ** 2).sum() < (diameter / 2) ** 2:
                    left.pop(i, None)
        truth += [0.0] * len(left)
        scores += [values[i] for i in left]
        missed += [False] * len(left)
    kept = [i for i, gone in enumerate(missed) if not gone]
    found = sum(truth[i] for i in kept)
    rate, share, _ = sk.roc_curve([truth[i] for i in kept], [scores[i] for i in kept])
    return np.interp(detection.OPERATING_POINTS, rate * (len(kept) - found) / len(scans), share * found / sum(truth))


@given(SEEDS, st.integers(1, 6))
def test_froc_is_that_of_luna16(seed, count):
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
    found = [detection.find(*scan) for scan in scans]
    curve = detection.froc(found)
    if any(len(scan.hits) for scan in found) and any(len(scan.false) for scan in found):
        np.testing.assert_allclose(curve.at(), _luna(scans), rtol=0, atol=1e-12)
        assert curve.cpm == pytest.approx(_luna(scans).mean(), abs=1e-12)


def test_froc_without_candidates_or_nodules():
    assert detection.froc([detection.find([], [], [[0, 0, 0]], [5])]).cpm == 0
    assert math.isnan(detection.froc([detection.find([[0, 0, 0]], [0.5], [], [])]).cpm)


def test_intervals_draw_patients_and_not_rows():
    random = np.random.default_rng(0)
    level = random.normal(0, 1, 30)
    values = np.repeat(level, 20)  # twenty rows a patient say no more than one
    patients = [str(i) for i in range(30) for _ in range(20)]

    def mean(rows):
        return {"mean": float(values[rows].mean())}

    low, high = classification.interval_of(classification.patient_samples(patients, mean)["mean"])
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * level.std() / math.sqrt(30), rel=0.15)
    narrow = classification.interval_of(classification.patient_samples([None] * 600, mean)["mean"])
    assert narrow[1] - narrow[0] < (high - low) / 3
