"""How well classes are told: confusion matrix, accuracy, quadratic weighted kappa, area under the ROC curve.

Intervals by bootstrap over patients: slices and scans of one patient are no independent draws, so patients are drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray


def confusion_matrix(truth: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Counts, shape (classes, classes); rows are the truth, columns the prediction.

    Args:
        truth: Class indices, shape (n,).
        predicted: Class indices, shape (n,).
        classes: How many classes there are, absent ones included.

    Raises:
        ValueError: The two differ in length, or an index is no class.
    """
    pair = np.stack([np.asarray(truth, np.int64), np.asarray(predicted, np.int64)])
    if pair.size and not 0 <= pair.min() <= pair.max() < classes:
        raise ValueError(f"expected classes 0 to {classes - 1}, got {pair.min()} to {pair.max()}")
    return np.bincount(pair[0] * classes + pair[1], minlength=classes * classes).reshape(classes, classes)


def accuracy(confusion: ArrayLike) -> float:
    """Share of the predictions that are right; NaN of no predictions."""
    table = np.asarray(confusion, np.float64)
    return float(np.trace(table) / table.sum()) if table.sum() else float("nan")


def quadratic_kappa(confusion: ArrayLike) -> float:
    """Cohen's kappa with quadratic weights (Cohen 1968), as ``sklearn.metrics.cohen_kappa_score(weights="quadratic")``.

    NaN where chance alone explains everything: no predictions, or one class on both sides.
    """
    table = np.asarray(confusion, np.float64)
    if not table.sum():
        return float("nan")
    expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
    order = np.arange(len(table))
    weights = np.square(order[:, None] - order[None, :])
    by_chance = (weights * expected).sum()
    return float(1 - (weights * table).sum() / by_chance) if by_chance else float("nan")


def area_under_curve(positive: ArrayLike, score: ArrayLike) -> float:
    """Area under the ROC curve: how often a positive scores above a negative, ties counted half (Mann and Whitney).

    Args:
        positive: True where it is one, shape (n,).
        score: The higher, the more positive, shape (n,).

    Returns:
        0 to 1; NaN where one of the two classes is absent.
    """
    truth, values = np.asarray(positive, bool), np.asarray(score, np.float64)
    negatives = np.sort(values[~truth])
    positives = values[truth]
    if not negatives.size or not positives.size:
        return float("nan")
    below = np.searchsorted(negatives, positives, side="left")
    up_to = np.searchsorted(negatives, positives, side="right")
    return float((below + up_to).sum() / (2 * negatives.size * positives.size))


def patient_samples(
    patients: Sequence[str | None],
    statistic: Callable[[NDArray[np.int64]], Mapping[str, float]],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, NDArray[np.float64]]:
    """Some scores of samples of the patients, who are drawn with replacement.

    Args:
        patients: The patient of each row; a row of an unknown patient (``None``) is drawn on its own.
        statistic: The scores of the rows with these indices.
        draws: How many samples.
        seed: The same seed draws the same samples.

    Returns:
        By score, shape (draws,).
    """
    groups: dict[object, list[int]] = {}
    for row, patient in enumerate(patients):
        groups.setdefault(row if patient is None else patient, []).append(row)
    members = [np.array(rows, np.int64) for rows in groups.values()]
    random = np.random.default_rng(seed)
    samples: dict[str, list[float]] = {}
    for _ in range(draws if members else 0):
        chosen = random.integers(len(members), size=len(members))
        for name, value in statistic(np.concatenate([members[place] for place in chosen])).items():
            samples.setdefault(name, []).append(value)
    return {name: np.array(values, np.float64) for name, values in samples.items()}


def interval_of(samples: NDArray[np.float64], level: float = 0.95) -> tuple[float, float]:
    """The percentile interval (Efron 1979): low and high. NaN where more than half of the samples have no such score.

    Args:
        samples: The score of each sample, shape (n,); NaN where it has none (one patient alone, say).
        level: The share of the samples that the interval holds.
    """
    known = samples[np.isfinite(samples)]
    if 2 * known.size < samples.size:
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
