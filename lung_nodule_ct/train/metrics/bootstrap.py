"""Intervals by bootstrap over patients: slices and scans of one patient are no independent draws, so patients are drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray


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
