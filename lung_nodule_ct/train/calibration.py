"""Calibrated scores: of the boxes with a score of 0.7, seven in ten are nodules. In NumPy, without JAX.

A score becomes a probability by Platt scaling (Platt 1999): a logistic function of the logit of the score, with two numbers
that are fitted to detections of known truth. It keeps the order of the scores, so FROC does not change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.train.metrics import within

Prediction = Mapping[str, Any]

BINS: Final = 10
"""Bins of equal width of the expected calibration error."""
_SMALLEST: Final = 1e-12
"""Scores are kept this far from 0 and 1, where the logit is infinite."""
_ALIKE: Final = 1e-9
"""Scores whose logits differ by less may become equal, because numbers are rounded."""
_PARTS: Final = 5
_STEPS: Final = 100


@dataclass(frozen=True)
class Calibration:
    """A map from scores to probabilities: the logistic function of ``scale`` times the logit of a score plus ``shift``.

    Raises:
        TrainingError: The map does not rise.
    """

    scale: float
    shift: float

    def __post_init__(self) -> None:
        if not (0 < self.scale < float("inf") and np.isfinite(self.shift)):
            raise TrainingError(
                "a calibration does not keep the order of scores",
                expected="a scale above 0 and a finite shift",
                got=(self.scale, self.shift),
            )

    def __call__(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probabilities of scores."""
        return _logistic(self.scale * _logit(scores) + self.shift)


def fit_calibration(scores: NDArray[np.float64], correct: NDArray[np.bool_]) -> Calibration | None:
    """Fit a calibration by maximum likelihood, with Platt's targets, which are a little less than 1 and more than 0.

    Args:
        scores: Shape (n,).
        correct: Whether each detection is a nodule, shape (n,).

    Returns:
        ``None`` if no rising map fits: without a nodule or without a false positive, if nodules have the lower scores, or if the map is
        so steep that different scores become equal.
    """
    positive, negative = int(correct.sum()), int((~correct).sum())
    logits = _logit(scores)
    if not positive or not negative or np.ptp(logits) == 0:
        return None
    middle, spread = logits.mean(), logits.std()
    inputs = np.stack([(logits - middle) / spread, np.ones_like(logits)])
    targets = np.where(correct, (positive + 1) / (positive + 2), 1 / (negative + 2))

    def loss(weights: NDArray[np.float64]) -> float:
        values = weights @ inputs
        return float((np.logaddexp(0, values) - targets * values).sum())

    weights = np.array([0.0, np.log(targets.mean() / (1 - targets.mean()))])
    for _ in range(_STEPS):  # Newton's method; the loss is convex
        probabilities = _logistic(weights @ inputs)
        gradient = inputs @ (probabilities - targets)
        step = np.linalg.solve((inputs * (probabilities * (1 - probabilities))) @ inputs.T, gradient)
        while loss(weights - step) > loss(weights) and np.abs(step).max() > _SMALLEST:
            step /= 2
        weights = weights - step
        if np.abs(step).max() <= _SMALLEST:
            break
    scale = float(weights[0] / spread)
    if scale <= 0:
        return None
    fitted, ordered = Calibration(scale, float(weights[1] - scale * middle)), np.sort(scores)
    ties = (np.diff(fitted(ordered)) <= 0) & (np.diff(_logit(ordered)) > _ALIKE)
    return None if ties.any() else fitted


def expected_calibration_error(probabilities: NDArray[np.float64], correct: NDArray[np.bool_]) -> float:
    """The mean difference of probability and share of nodules, over bins of equal width (Naeini et al. 2015); NaN without any."""
    return _error_of_bins(_bins(probabilities, correct))


def calibration_error_scorer(
    predictions: Sequence[Prediction],
) -> Callable[[NDArray[np.int64]], dict[str, float]]:
    """Return a function that maps indices of predictions with calibrated scores to ``ECE`` and ``ECE_uncalibrated``."""
    correct = [correct_detections(row) for row in predictions]
    bins = {
        name: np.array(
            [_bins(np.array(row[column], float), true) for row, true in zip(predictions, correct, strict=True)]
        )
        for name, column in (("ECE", "held_out_scores"), ("ECE_uncalibrated", "uncalibrated_scores"))
    }
    return lambda indices: {name: _error_of_bins(rows[indices].sum(0)) for name, rows in bins.items()}


def correct_detections(row: Prediction) -> NDArray[np.bool_]:
    """Which boxes of a volume are nodules: those whose centre is within the radius of one."""
    return np.asarray(
        within(np.array(row["centers"]).reshape(-1, 3), row["truth_centers"], row["truth_diameters"]).any(1)
    )


def calibration_of(predictions: Sequence[Prediction]) -> Calibration | None:
    """The calibration that fits predictions of volumes, with their scores before any calibration."""
    scores = np.concatenate([np.zeros(0), *(np.array(row["scores"], float) for row in predictions)])
    correct = np.concatenate([np.zeros(0, bool), *map(correct_detections, predictions)])
    return fit_calibration(scores, correct)


def calibrated(
    predictions: Sequence[Prediction], calibration: Calibration | None, *, held_out: bool
) -> list[dict[str, Any]]:
    """Predictions with calibrated scores.

    Args:
        predictions: Predictions of volumes.
        calibration: The map of the scores; ``None`` leaves them.
        held_out: Whether the calibration was fitted to other patients. If not, ``held_out_scores`` are those of calibrations
            that are fitted to the other patients among the predictions, so that the calibration error is that of unseen patients.

    Returns:
        The predictions with ``scores``, ``uncalibrated_scores`` and ``held_out_scores``.
    """
    maps = [calibration] * len(predictions) if held_out else _maps_of_others(predictions)

    def mapped(scores: list[float], by: Calibration | None) -> list[float]:
        return scores if by is None else by(np.array(scores, float)).tolist()

    return [
        {
            **row,
            "scores": mapped(row["scores"], calibration),
            "uncalibrated_scores": row["scores"],
            "held_out_scores": mapped(row["scores"], other),
        }
        for row, other in zip(predictions, maps, strict=True)
    ]


def _maps_of_others(predictions: Sequence[Prediction]) -> list[Calibration | None]:
    """For each prediction, the calibration of the patients of other parts. A row of an unknown patient counts as a patient."""
    patients: dict[object, int] = {}
    parts = [
        patients.setdefault(number if row["patient_id"] is None else row["patient_id"], len(patients)) % _PARTS
        for number, row in enumerate(predictions)
    ]
    fitted = {
        part: calibration_of([row for row, other in zip(predictions, parts, strict=True) if other != part])
        for part in set(parts)
    }
    return [fitted[part] for part in parts]


def _bins(probabilities: NDArray[np.float64], correct: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The count, the sum of probabilities and the number of nodules of each bin, shape (3, bins)."""
    numbers = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    counts = (np.bincount(numbers, weights, BINS) for weights in (None, probabilities, correct))
    return np.stack([np.asarray(count, np.float64) for count in counts])


def _error_of_bins(bins: NDArray[np.float64]) -> float:
    count, probabilities, correct = bins
    return float(np.abs(probabilities - correct).sum() / count.sum()) if count.sum() else float("nan")


def _logit(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    clipped = np.clip(scores, _SMALLEST, 1 - _SMALLEST)
    logits: NDArray[np.float64] = np.log(clipped) - np.log1p(-clipped)
    return logits


def _logistic(values: NDArray[np.float64]) -> NDArray[np.float64]:
    probabilities: NDArray[np.float64] = np.exp(-np.logaddexp(0, -values))
    return probabilities
