"""Are the values of a scan Hounsfield units? The peaks of fat and muscle, the mean of the lungs, and the grid of the values.

Hounsfield units are defined by air (-1000) and water (0). Fat has about -100 HU, muscle about 50 (30 to 90 with contrast), and lungs
have -950 to -700 on average, in emphysema and at expiration, too. A wrong intercept or slope moves these; a slope, a window or a wrapped
byte also leaves gaps in the grid of values, or cuts off bone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

OFFSET: Final = 32768
"""The index of the value 0 in a histogram of int16 values."""

FAT_HU: Final = (-135.0, -65.0)
MUSCLE_HU: Final = (10.0, 125.0)
LUNG_HU: Final = (-960.0, -680.0)
LEAST_HIGHEST_HU: Final = 350
"""Bone is denser than this in every chest; a window cuts it off."""

_SEARCH = {"fat": (-165, -40), "muscle": (-10, 160)}
"""Where each peak is searched, in HU."""
_SMOOTH = 8.0
_LEAST_SHARE = 2e-5
"""A peak holds at least this share of all voxels in each HU."""
_GAPS = 0.2
"""Largest share of values from -150 to 120 that never occur."""
_LEAST_PER_VALUE = 100
_MIN_AIR, _MIN_TISSUE = 0.05, 0.05


@dataclass(frozen=True, slots=True)
class Calibration:
    """Whether the values of a scan look like Hounsfield units.

    Attributes:
        fat: The peak of fat in HU, ``None`` if there is none between -165 and -40, as in lean patients.
        muscle: The peak of muscle, ``None`` if there is none between -10 and 160.
        lung: The mean of the lungs, ``None`` if no lung was found.
        highest: The highest value.
        gaps: The share of the values from -150 to 120 that never occur, beyond what chance explains.
        faults: What does not fit Hounsfield units, in words; empty for a sound scan.
    """

    fat: int | None
    muscle: int | None
    lung: float | None
    highest: int
    gaps: float
    faults: tuple[str, ...]


def calibrate(
    counts: NDArray[np.int64], smooth: NDArray[np.int64] | None = None, lung: float | None = None
) -> Calibration:
    """Judge the values of a scan by their histogram.

    Args:
        counts: How often each value from -32768 occurs, shape (65536,).
        smooth: The same for averages over cells of some voxels, in which noise does not hide the peaks; by default ``counts``.
        lung: The mean of the values in the lungs, if lungs were found.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> parts = [(-850, 60, 40_000), (-100, 20, 20_000), (50, 20, 40_000), (700, 100, 2_000)]
        >>> values = np.concatenate([rng.normal(mean, width, n) for mean, width, n in parts]).astype(int)
        >>> calibrate(np.bincount(values + 32768, minlength=65536)).faults
        ()
        >>> calibrate(np.bincount(values + 1024 + 32768, minlength=65536)).faults[0]
        'no peak of muscle between -10 and 160 HU'
    """
    used = np.flatnonzero(counts)
    peaks = counts if smooth is None else smooth
    least = _LEAST_SHARE * float(peaks[OFFSET - 1000 :].sum())
    fat, muscle = (_peak(peaks, *_SEARCH[name], least=least) for name in ("fat", "muscle"))
    soft = counts[OFFSET - 150 : OFFSET + 120]
    # a value that occurs n times on average is missing by chance with the probability exp(-n)
    by_chance = np.exp(-ndimage.gaussian_filter1d(soft.astype(np.float64), _SMOOTH)).mean()
    gaps = max(0.0, float((soft == 0).mean() - by_chance))
    highest = int(used[-1]) - OFFSET
    faults = [
        f"{name} at {value:.0f}, expected {low:.0f} to {high:.0f} HU"
        for name, value, (low, high) in (("fat", fat, FAT_HU), ("muscle", muscle, MUSCLE_HU), ("lungs", lung, LUNG_HU))
        if value is not None and not low <= value <= high
    ]
    if muscle is None:
        faults.append(f"no peak of muscle between {_SEARCH['muscle'][0]} and {_SEARCH['muscle'][1]} HU")
    if highest < LEAST_HIGHEST_HU:
        faults.append(f"highest value {highest}, where bone has more than {LEAST_HIGHEST_HU}")
    if gaps > _GAPS and soft.sum() > _LEAST_PER_VALUE * len(soft):
        faults.append(f"{100 * gaps:.0f} % of the values from -150 to 120 never occur, as after a change of scale")
    total = max(int(counts.sum()), 1)
    if counts[OFFSET - 1100 : OFFSET - 300].sum() < _MIN_AIR * total:
        faults.append("hardly any value between -1100 and -300, where lung is")
    if counts[OFFSET - 150 : OFFSET + 150].sum() < _MIN_TISSUE * total:
        faults.append("hardly any value between -150 and 150, where soft tissue is")
    return Calibration(fat, muscle, lung, highest, gaps, tuple(faults))


def _peak(counts: NDArray[Any], low: int, high: int, least: float) -> int | None:
    """The most frequent value in a range after smoothing, ``None`` if it is rare or at an end of the range."""
    margin = round(4 * _SMOOTH)
    part = counts[OFFSET + low - margin : OFFSET + high + margin].astype(np.float64)
    smoothed = ndimage.gaussian_filter1d(part, _SMOOTH)[margin:-margin]
    best = int(smoothed.argmax())
    return None if best in (0, len(smoothed) - 1) or smoothed[best] < least else low + best
