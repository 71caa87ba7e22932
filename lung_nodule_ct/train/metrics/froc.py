"""FROC and CPM of nodule centres, by the rules of LUNA16 (Setio et al. 2017, its ``noduleCADEvaluationLUNA16.py``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

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
