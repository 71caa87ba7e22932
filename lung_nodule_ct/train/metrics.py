"""Scores in NumPy, without JAX: classification, average precision of boxes, FROC of nodule centres, and intervals.

- Classification: confusion matrix, accuracy, quadratic weighted kappa, area under the ROC curve.
- Average precision of boxes of one class, by the rules of ``pycocotools.cocoeval`` (Lin et al. 2014): at most 100 boxes
  per image, ten IoU thresholds from 0.5 to 0.95, 101 points of recall, and size limits at 32² and 96² pixels.
- FROC and CPM of nodule centres, by the rules of LUNA16 (Setio et al. 2017, ``noduleCADEvaluationLUNA16.py``).
- Intervals by bootstrap over patients. Images of one patient are not independent, so patients are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

_IOU_THRESHOLDS: Final = np.linspace(0.5, 0.95, 10)
_RECALLS: Final = np.linspace(0, 1, 101)
_MAX_BOXES: Final = 100
_AREAS: Final = {"all": (0.0, 1e10), "s": (0.0, 32.0**2), "m": (32.0**2, 96.0**2), "l": (96.0**2, 1e10)}

OPERATING_POINTS: Final = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""The numbers of false positives per scan at which CPM takes the sensitivity."""


# --- classification ---------------------------------------------------------------------------------------------------


def confusion_matrix(truth: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Count predictions by true class (row) and predicted class (column).

    Args:
        truth: Class indices, shape (n,).
        predicted: Class indices, shape (n,).
        classes: The number of classes, including those that do not occur.

    Returns:
        Shape (classes, classes).

    Raises:
        ValueError: The lengths differ, or an index is out of range.
    """
    pair = np.stack([np.asarray(truth, np.int64), np.asarray(predicted, np.int64)])
    if pair.size and not 0 <= pair.min() <= pair.max() < classes:
        raise ValueError(f"expected classes 0 to {classes - 1}, got {pair.min()} to {pair.max()}")
    return np.bincount(pair[0] * classes + pair[1], minlength=classes * classes).reshape(classes, classes)


def accuracy(confusion: ArrayLike) -> float:
    """The fraction of correct predictions; NaN without predictions."""
    table = np.asarray(confusion, np.float64)
    return float(np.trace(table) / table.sum()) if table.sum() else float("nan")


def quadratic_kappa(confusion: ArrayLike) -> float:
    """Cohen's kappa with quadratic weights (Cohen 1968), as ``sklearn.metrics.cohen_kappa_score(weights="quadratic")``.

    NaN if chance alone explains the table: without predictions, or with a single class that is both true and predicted.
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
    """The area under the ROC curve: how often a positive has a higher score than a negative, ties counted half.

    Args:
        positive: Whether each example is positive, shape (n,).
        score: Higher for positives, shape (n,).

    Returns:
        0 to 1; NaN without positives or without negatives.
    """
    truth, values = np.asarray(positive, bool), np.asarray(score, np.float64)
    negatives = np.sort(values[~truth])
    positives = values[truth]
    if not negatives.size or not positives.size:
        return float("nan")
    below = np.searchsorted(negatives, positives, side="left")
    up_to = np.searchsorted(negatives, positives, side="right")
    return float((below + up_to).sum() / (2 * negatives.size * positives.size))


# --- average precision ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MatchedBoxes:
    """The predicted boxes of one image, matched to its nodules. Made by :func:`match_boxes`.

    Attributes:
        scores: In descending order, shape (d,), d at most 100.
        hit: Whether each box is matched to a nodule, by area and IoU threshold, shape (4, 10, d).
        ignored: Whether each box is neither a hit nor a false positive, shape (4, 10, d).
        nodules: The number of nodules by area, shape (4,).
    """

    scores: NDArray[np.float64]
    hit: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    nodules: NDArray[np.int64]


def match_boxes(boxes: ArrayLike, scores: ArrayLike, truth: ArrayLike) -> MatchedBoxes:
    """Match the predicted boxes of one image to its nodules, the highest score first.

    Args:
        boxes: xmin, ymin, xmax, ymax in pixels, shape (d, 4).
        scores: Shape (d,).
        truth: The boxes of the nodules, shape (g, 4).
    """
    values = np.asarray(scores, np.float64).reshape(-1)
    order = np.argsort(-values, kind="mergesort")[:_MAX_BOXES]
    predicted = np.asarray(boxes, np.float64).reshape(-1, 4)[order]
    true = np.asarray(truth, np.float64).reshape(-1, 4)
    overlap, predicted_area, true_area = _overlaps(predicted, true)
    hit = np.zeros((len(_AREAS), len(_IOU_THRESHOLDS), len(predicted)), bool)
    ignored = np.zeros_like(hit)
    nodules = np.zeros(len(_AREAS), np.int64)
    for area, (low, high) in enumerate(_AREAS.values()):
        excluded = (true_area < low) | (true_area > high)
        nodules[area] = (~excluded).sum()
        outside = (predicted_area < low) | (predicted_area > high)
        counted_first = np.argsort(excluded, kind="mergesort")
        for level, threshold in enumerate(_IOU_THRESHOLDS):
            matches = _assign(overlap[:, counted_first], excluded[counted_first], threshold)
            matched = matches >= 0
            hit[area, level] = matched
            to_excluded = np.zeros(len(predicted), bool)
            to_excluded[matched] = excluded[counted_first][matches[matched]]
            ignored[area, level] = to_excluded | (~matched & outside)
    return MatchedBoxes(values[order], hit, ignored, nodules)


def average_precision(images: Sequence[MatchedBoxes]) -> dict[str, float]:
    """``AP``, ``AP50``, ``AP75``, ``APs``, ``APm`` and ``APl`` of images; NaN if no nodule has such an area."""
    curves = {name: _precision(images, area) for area, name in enumerate(_AREAS)}
    means = {name: float("nan") if curve is None else float(curve.mean()) for name, curve in curves.items()}
    curve = curves["all"]
    at_50, at_75 = (float("nan") if curve is None else float(curve[level].mean()) for level in (0, 5))
    sizes = {f"AP{area}": means[area] for area in ("s", "m", "l")}
    return {"AP": means["all"], "AP50": at_50, "AP75": at_75, **sizes}


def _overlaps(
    predicted: NDArray[np.float64], true: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Intersection over union, shape (d, g), and the areas or volumes of both."""
    axes = predicted.shape[-1] // 2
    low = np.maximum(predicted[:, None, :axes], true[None, :, :axes])
    high = np.minimum(predicted[:, None, axes:], true[None, :, axes:])
    common = np.clip(high - low, 0, None).prod(-1)
    areas = [(boxes[:, axes:] - boxes[:, :axes]).prod(-1) for boxes in (predicted, true)]
    union = areas[0][:, None] + areas[1][None, :] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0), areas[0], areas[1]


def _assign(overlap: NDArray[np.float64], excluded: NDArray[np.bool_], threshold: float) -> NDArray[np.int64]:
    """The index of the nodule that each box is matched to, -1 for none. Nodules that are not excluded come first."""
    taken = np.zeros(overlap.shape[1], bool)
    matches = np.full(len(overlap), -1, np.int64)
    for box, row in enumerate(overlap):
        best, chosen = min(threshold, 1 - 1e-10), -1
        for nodule, value in enumerate(row):
            if taken[nodule]:
                continue
            if chosen >= 0 and not excluded[chosen] and excluded[nodule]:
                break
            if value >= best:
                best, chosen = value, nodule
        if chosen >= 0:
            taken[chosen] = True
            matches[box] = chosen
    return matches


def _precision(images: Sequence[MatchedBoxes], area: int) -> NDArray[np.float64] | None:
    """Precision by IoU threshold and recall, shape (10, 101); ``None`` without nodules."""
    nodules = sum(int(image.nodules[area]) for image in images)
    if not nodules:
        return None
    scores = np.concatenate([image.scores for image in images])
    order = np.argsort(-scores, kind="mergesort")
    hit = np.concatenate([image.hit[area] for image in images], 1)[:, order]
    ignored = np.concatenate([image.ignored[area] for image in images], 1)[:, order]
    curve = np.zeros((len(_IOU_THRESHOLDS), len(_RECALLS)))
    true_positives = np.cumsum(hit & ~ignored, 1, dtype=np.float64)
    false_positives = np.cumsum(~hit & ~ignored, 1, dtype=np.float64)
    for level in range(len(_IOU_THRESHOLDS)):
        recall = true_positives[level] / nodules
        precision = true_positives[level] / (false_positives[level] + true_positives[level] + np.spacing(1))
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        positions = np.searchsorted(recall, _RECALLS, side="left")
        reached = positions < len(envelope)
        curve[level, reached] = envelope[positions[reached]]
    return curve


# --- FROC -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MatchedCenters:
    """The candidates of one scan, matched to its nodules. Made by :func:`match_centers`.

    Attributes:
        hits: The highest score of the candidates in each nodule that has one.
        misses: The number of nodules without a candidate.
        false_positives: The scores of the candidates outside all nodules.
    """

    hits: NDArray[np.float64]
    misses: int
    false_positives: NDArray[np.float64]


@dataclass(frozen=True)
class FrocCurve:
    """A free-response ROC curve.

    Attributes:
        false_positives: Mean number per scan, ascending, shape (n,).
        sensitivity: The fraction of nodules with a candidate, shape (n,); NaN without nodules.
    """

    false_positives: NDArray[np.float64]
    sensitivity: NDArray[np.float64]

    def sensitivity_at(self, points: Sequence[float] = OPERATING_POINTS) -> NDArray[np.float64]:
        """The sensitivity at given numbers of false positives per scan, by linear interpolation."""
        return np.interp(points, self.false_positives, self.sensitivity)

    @property
    def cpm(self) -> float:
        """The competition performance metric: the mean sensitivity at the seven operating points."""
        return float(self.sensitivity_at().mean())


def match_centers(
    centers: ArrayLike,
    scores: ArrayLike,
    nodules: ArrayLike,
    diameters: ArrayLike,
    excluded: ArrayLike = (),
    excluded_diameters: ArrayLike = (),
) -> MatchedCenters:
    """Match the candidates of one scan to its nodules: one is hit by a candidate whose centre is within its radius.

    Several candidates in one nodule are one hit, with the highest of their scores. Candidates in an excluded finding
    are ignored.

    Args:
        centers: Centres of the candidates, world x, y, z in mm, shape (c, 3).
        scores: Shape (c,).
        nodules: Centres of the nodules, shape (n, 3).
        diameters: Diameters of the nodules in mm, shape (n,).
        excluded: Centres of excluded findings, shape (e, 3).
        excluded_diameters: In mm, shape (e,).
    """
    points = np.asarray(centers, np.float64).reshape(-1, 3)
    values = np.asarray(scores, np.float64).reshape(-1)
    inside = within(points, nodules, diameters)
    hits = np.array([values[column].max() for column in inside.T if column.any()], np.float64)
    outside = ~inside.any(1) & ~within(points, excluded, excluded_diameters).any(1)
    return MatchedCenters(hits, int(inside.shape[1] - len(hits)), values[outside])


@dataclass(frozen=True)
class HitSizes:
    """How well the boxes of hits fit: of each nodule with a candidate in it, that with the highest score.

    Attributes:
        overlap: Their intersection over union, shape (hits,).
        ratio: The mean side of the predicted box divided by that of the nodule, shape (hits,).
    """

    overlap: NDArray[np.float64]
    ratio: NDArray[np.float64]


def hit_sizes(
    centers: ArrayLike, scores: ArrayLike, boxes: ArrayLike, nodules: ArrayLike, diameters: ArrayLike, truth: ArrayLike
) -> HitSizes:
    """Compare the boxes of one scan with those of its nodules, which FROC does not.

    Args:
        centers: Centres of the candidates, shape (c, 3), in the coordinates of ``nodules``.
        scores: Shape (c,).
        boxes: Boxes of the candidates, low and high corners, shape (c, 6).
        nodules: Centres of the nodules, shape (n, 3).
        diameters: Diameters of the nodules, shape (n,).
        truth: Boxes of the nodules in the coordinates of ``boxes``, shape (n, 6).
    """
    predicted, true = (np.asarray(array, np.float64).reshape(-1, 6) for array in (boxes, truth))
    inside = within(np.asarray(centers, np.float64).reshape(-1, 3), nodules, diameters)
    found = np.flatnonzero(inside.any(0))
    if not found.size:
        return HitSizes(np.zeros(0), np.zeros(0))
    surest = np.where(inside[:, found], np.asarray(scores, np.float64)[:, None], -np.inf).argmax(0)
    sides = [(part[:, 3:] - part[:, :3]).mean(1) for part in (predicted[surest], true[found])]
    overlap = _overlaps(predicted[surest], true[found])[0]
    return HitSizes(np.diagonal(overlap).copy(), sides[0] / np.maximum(sides[1], 1e-9))


def froc(scans: Sequence[MatchedCenters]) -> FrocCurve:
    """Compute the FROC curve of scans."""
    hits = np.concatenate([np.zeros(0), *(scan.hits for scan in scans)])
    false_positives = np.concatenate([np.zeros(0), *(scan.false_positives for scan in scans)])
    nodules = len(hits) + sum(scan.misses for scan in scans)
    thresholds = np.unique(np.concatenate([hits, false_positives]))[::-1]
    false_counts, hit_counts = (
        np.concatenate([[0.0], len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left")])
        for scores in (false_positives, hits)
    )
    sensitivity = hit_counts / nodules if nodules else np.full(len(hit_counts), np.nan)
    return FrocCurve(false_counts / max(len(scans), 1), sensitivity)


def within(points: NDArray[np.float64], centers: ArrayLike, diameters: ArrayLike) -> NDArray[np.bool_]:
    """Whether each point lies in each sphere, shape (points, spheres)."""
    middle = np.asarray(centers, np.float64).reshape(-1, 3)
    squared = np.square(points[:, None] - middle[None]).sum(-1)
    inside: NDArray[np.bool_] = squared < np.square(np.asarray(diameters, np.float64).reshape(-1) / 2)
    return inside


# --- intervals --------------------------------------------------------------------------------------------------------


def bootstrap_patients(
    patients: Sequence[str | None],
    scores: Callable[[NDArray[np.int64]], Mapping[str, float]],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, NDArray[np.float64]]:
    """Compute scores of samples of patients, who are drawn with replacement.

    Args:
        patients: The patient of each row. A row of an unknown patient (``None``) is drawn by itself.
        scores: Returns the scores of the rows with given indices.
        draws: The number of samples.
        seed: The same seed draws the same samples.

    Returns:
        The values of each score, shape (draws,).
    """
    groups: dict[object, list[int]] = {}
    for row, patient in enumerate(patients):
        groups.setdefault(row if patient is None else patient, []).append(row)
    members = [np.array(rows, np.int64) for rows in groups.values()]
    random = np.random.default_rng(seed)
    samples: dict[str, list[float]] = {}
    for _ in range(draws if members else 0):
        chosen = random.integers(len(members), size=len(members))
        for name, value in scores(np.concatenate([members[index] for index in chosen])).items():
            samples.setdefault(name, []).append(value)
    return {name: np.array(values, np.float64) for name, values in samples.items()}


def percentile_interval(samples: NDArray[np.float64], level: float = 0.95) -> tuple[float, float]:
    """Return the ends of the percentile interval (Efron 1979); NaN if the score of most samples is undefined.

    Args:
        samples: The score of each sample, shape (n,), NaN where it is undefined, for example without positives.
        level: The fraction of the samples that the interval holds.
    """
    known = samples[np.isfinite(samples)]
    if 2 * known.size < samples.size:
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
