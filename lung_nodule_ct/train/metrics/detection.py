"""COCO's average precision of boxes of one class: AP, AP50, AP75, and AP of small, medium and large ones.

The rules are those of ``pycocotools.cocoeval`` (Lin et al. 2014, https://cocodataset.org/#detection-eval): at most 100 boxes an
image, ten overlaps from 0.5 to 0.95, 101 points of recall, sizes parted at 32 and 96 pixels squared.

FROC and CPM of nodule centres, by the rules of LUNA16 (Setio et al. 2017, its ``noduleCADEvaluationLUNA16.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray


OVERLAPS: Final = np.linspace(0.5, 0.95, 10)
_RECALLS: Final = np.linspace(0, 1, 101)
_MOST: Final = 100
_SIZES: Final = {"all": (0.0, 1e10), "s": (0.0, 32.0**2), "m": (32.0**2, 96.0**2), "l": (96.0**2, 1e10)}


@dataclass(frozen=True)
class Matched:
    """One image's boxes, matched to its truth. Made by :func:`match`.

    Attributes:
        scores: Descending, shape (d,), at most 100.
        hit: By size and overlap: whether the box found a nodule, shape (4, 10, d).
        ignored: Whether it counts for nothing, shape (4, 10, d).
        nodules: By size: how many nodules there are to find, shape (4,).
    """

    scores: NDArray[np.float64]
    hit: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    nodules: NDArray[np.int64]


def match(boxes: ArrayLike, scores: ArrayLike, truth: ArrayLike) -> Matched:
    """Match one image's boxes to its nodules, the surest first.

    Args:
        boxes: xmin, ymin, xmax, ymax in pixels, shape (d, 4).
        scores: Shape (d,).
        truth: The nodules' boxes, shape (g, 4).
    """
    values = np.asarray(scores, np.float64).reshape(-1)
    order = np.argsort(-values, kind="mergesort")[:_MOST]
    found = np.asarray(boxes, np.float64).reshape(-1, 4)[order]
    real = np.asarray(truth, np.float64).reshape(-1, 4)
    overlap, found_area, real_area = _overlaps(found, real)
    hit = np.zeros((len(_SIZES), len(OVERLAPS), len(found)), bool)
    ignored = np.zeros_like(hit)
    nodules = np.zeros(len(_SIZES), np.int64)
    for size, (low, high) in enumerate(_SIZES.values()):
        aside = (real_area < low) | (real_area > high)
        nodules[size] = (~aside).sum()
        outside = (found_area < low) | (found_area > high)
        places = np.argsort(aside, kind="mergesort")  # those that count come first
        for level, least in enumerate(OVERLAPS):
            to_whom = _assign(overlap[:, places], aside[places], least)
            hit[size, level] = to_whom >= 0
            of_aside = np.zeros(len(found), bool)
            of_aside[to_whom >= 0] = aside[places][to_whom[to_whom >= 0]]
            ignored[size, level] = of_aside | ((to_whom < 0) & outside)
    return Matched(values[order], hit, ignored, nodules)


def average_precision(images: Sequence[Matched]) -> dict[str, float]:
    """``AP``, ``AP50``, ``AP75``, ``APs``, ``APm``, ``APl`` over images; NaN where there is no nodule of that size."""
    curves = {name: _precision(images, size) for size, name in enumerate(_SIZES)}
    means = {name: float("nan") if curve is None else float(curve.mean()) for name, curve in curves.items()}
    whole = curves["all"]
    at = {level: float("nan") if whole is None else float(whole[place].mean()) for level, place in ((50, 0), (75, 5))}
    return {
        "AP": means["all"],
        "AP50": at[50],
        "AP75": at[75],
        "APs": means["s"],
        "APm": means["m"],
        "APl": means["l"],
    }


def _overlaps(
    found: NDArray[np.float64], real: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Intersection over union (d, g) and both areas."""
    low = np.maximum(found[:, None, :2], real[None, :, :2])
    high = np.minimum(found[:, None, 2:], real[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (found, real)]
    union = areas[0][:, None] + areas[1][None, :] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0), areas[0], areas[1]


def _assign(overlap: NDArray[np.float64], aside: NDArray[np.bool_], least: float) -> NDArray[np.int64]:
    """To which nodule each box goes, -1 to none; nodules that count are preferred to those set aside."""
    taken = np.zeros(overlap.shape[1], bool)
    to_whom = np.full(len(overlap), -1, np.int64)
    for box, row in enumerate(overlap):
        best, chosen = min(least, 1 - 1e-10), -1
        for nodule, value in enumerate(row):
            if taken[nodule]:
                continue
            if chosen >= 0 and not aside[chosen] and aside[nodule]:
                break
            if value >= best:
                best, chosen = value, nodule
        if chosen >= 0:
            taken[chosen] = True
            to_whom[box] = chosen
    return to_whom


def _precision(images: Sequence[Matched], size: int) -> NDArray[np.float64] | None:
    """Precision at each overlap and point of recall, shape (10, 101); ``None`` where there is nothing to find."""
    nodules = sum(int(image.nodules[size]) for image in images)
    if not nodules:
        return None
    scores = np.concatenate([image.scores for image in images])
    order = np.argsort(-scores, kind="mergesort")
    hit = np.concatenate([image.hit[size] for image in images], 1)[:, order]
    ignored = np.concatenate([image.ignored[size] for image in images], 1)[:, order]
    curve = np.zeros((len(OVERLAPS), len(_RECALLS)))
    right = np.cumsum(hit & ~ignored, 1, dtype=np.float64)
    wrong = np.cumsum(~hit & ~ignored, 1, dtype=np.float64)
    for level in range(len(OVERLAPS)):
        recall = right[level] / nodules
        precision = right[level] / (wrong[level] + right[level] + np.spacing(1))
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        places = np.searchsorted(recall, _RECALLS, side="left")
        within = places < len(envelope)
        curve[level, within] = envelope[places[within]]
    return curve


OPERATING_POINTS: Final = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives a scan at which the sensitivity is read."""


@dataclass(frozen=True)
class Found:
    """One scan's candidates, told apart. Made by :func:`find`.

    Attributes:
        hits: The best score of each nodule that was found.
        misses: How many nodules were not found.
        false: Scores of the false positives.
    """

    hits: NDArray[np.float64]
    misses: int
    false: NDArray[np.float64]


@dataclass(frozen=True)
class Froc:
    """A free-response ROC curve.

    Attributes:
        false_positives: A scan, ascending, shape (n,).
        sensitivity: Share of the nodules that are found, shape (n,); NaN where there is no nodule.
    """

    false_positives: NDArray[np.float64]
    sensitivity: NDArray[np.float64]

    def at(self, points: Sequence[float] = OPERATING_POINTS) -> NDArray[np.float64]:
        """The sensitivity at so many false positives a scan, by linear interpolation."""
        return np.interp(points, self.false_positives, self.sensitivity)

    @property
    def cpm(self) -> float:
        """The competition performance metric: the mean sensitivity at the seven operating points."""
        return float(self.at().mean())


def find(
    centers: ArrayLike,
    scores: ArrayLike,
    nodules: ArrayLike,
    diameters: ArrayLike,
    excluded: ArrayLike = (),
    excluded_diameters: ArrayLike = (),
) -> Found:
    """Tell one scan's candidates apart: a nodule is hit when a candidate's centre lies within its radius.

    More candidates in one nodule are one hit, by the best of them. Candidates in an excluded finding count for nothing.

    Args:
        centers: Candidates, world x, y, z in mm, shape (c, 3).
        scores: Shape (c,).
        nodules: Centres of the nodules, shape (n, 3).
        diameters: In mm, shape (n,).
        excluded: Centres of findings that shall neither help nor harm, shape (e, 3).
        excluded_diameters: In mm, shape (e,).
    """
    points = np.asarray(centers, np.float64).reshape(-1, 3)
    values = np.asarray(scores, np.float64).reshape(-1)
    inside = _within(points, nodules, diameters)
    hits = np.array([values[column].max() for column in inside.T if column.any()], np.float64)
    free = ~inside.any(1) & ~_within(points, excluded, excluded_diameters).any(1)
    return Found(hits, int(inside.shape[1] - len(hits)), values[free])


def froc(scans: Sequence[Found]) -> Froc:
    """The curve over some scans."""
    hits = np.concatenate([np.zeros(0), *(scan.hits for scan in scans)])
    false = np.concatenate([np.zeros(0), *(scan.false for scan in scans)])
    nodules = len(hits) + sum(scan.misses for scan in scans)
    thresholds = np.unique(np.concatenate([hits, false]))[::-1]
    above = [len(own) - np.searchsorted(np.sort(own), thresholds, side="left") for own in (false, hits)]
    rate, found = (np.concatenate([[0.0], counts]) for counts in above)
    return Froc(rate / max(len(scans), 1), found / nodules if nodules else np.full(len(found), np.nan))


def _within(points: NDArray[np.float64], centers: ArrayLike, diameters: ArrayLike) -> NDArray[np.bool_]:
    middle = np.asarray(centers, np.float64).reshape(-1, 3)
    squared = np.square(points[:, None] - middle[None]).sum(-1)
    near: NDArray[np.bool_] = squared < np.square(np.asarray(diameters, np.float64).reshape(-1) / 2)
    return near
