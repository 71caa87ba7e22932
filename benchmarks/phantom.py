"""A chest in numbers: body, fat, lungs, vessels, heart, spine, ribs, nodules and noise, as a CT volume and a lung mask.

Not anatomy, but close enough to CT that compression, windows and detectors meet what they expect: with 10 HU of noise the
volume deflates 2.1 times, as real scans do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

AIR, FAT, TISSUE, LUNG, HEART, BONE, VESSEL = -1000.0, -95.0, 45.0, -870.0, 38.0, 420.0, 20.0
LEFT_LUNG, RIGHT_LUNG = 3, 4


@dataclass(frozen=True)
class Nodule:
    """A ball of tissue: centre x, y, z and diameter in mm, density in HU."""

    center: tuple[float, float, float]
    diameter: float
    density: float = 30.0


def make_chest(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    nodules: tuple[Nodule, ...] = (),
    *,
    seed: int = 0,
    noise: float = 10.0,
) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """A CT volume in HU and its lung mask (0 outside, 3 one lung, 4 the other), axes (z, y, x).

    The world's origin is the volume's centre; axes are the patient's (LPS).

    Args:
        shape: z, y, x.
        spacing: x, y, z in mm.
        nodules: What to put into the lungs.
        seed: Of vessels and noise.
        noise: Standard deviation in HU.
    """
    rng = np.random.default_rng(seed)
    z, y, x = (_axis(count, step) for count, step in zip(shape, reversed(spacing), strict=True))
    vessels = _vessels(rng, z[0], z[-1])
    volume = np.empty(shape, np.int16)
    mask = np.zeros(shape, np.int16)
    for index, height in enumerate(z):
        hu, mask[index] = _slice(height, y, x, vessels, nodules)
        if noise:
            hu += _smoothed(rng.standard_normal(hu.shape)) * noise
        volume[index] = np.clip(np.rint(hu), -1024, 3071)
    return volume, mask


def _axis(count: int, step: float) -> NDArray[np.float64]:
    axis: NDArray[np.float64] = (np.arange(count) - (count - 1) / 2) * step
    return axis


def _slice(
    z: float, y: NDArray[np.float64], x: NDArray[np.float64], vessels: NDArray[np.float64], nodules: tuple[Nodule, ...]
) -> tuple[NDArray[np.float64], NDArray[np.int16]]:
    yy, xx = y[:, None], x[None, :]
    hu = np.full((y.size, x.size), AIR)
    body = _ellipse(xx, yy, 0, 0, 165, 112)
    hu[body < 1] = FAT
    hu[_ellipse(xx, yy, 0, 0, 152, 100) < 1] = TISSUE
    ribs = _ellipse(xx, yy, 0, 0, 150, 98)
    hu[(ribs < 1) & (ribs > 0.88) & (np.sin((z + 1.3 * np.abs(xx) + yy) / 9) > 0.55)] = BONE
    swell = 1 + 0.0006 * z
    mask = np.zeros(hu.shape, np.int16)
    for label, side in ((LEFT_LUNG, 1), (RIGHT_LUNG, -1)):
        mask[_ellipse(xx, yy, side * 74, -4, 57 * swell, 78 * swell) < 1] = label
    mask[_ellipse(xx, yy, 14, -22, 52, 46) < 1] = 0  # the heart lies before the left lung
    inside = mask > 0
    hu[inside] = LUNG + 0.25 * (yy + 0 * xx)[inside]  # denser towards the back, where a lying patient's blood is
    hu[_ellipse(xx, yy, 14, -22, 50, 44) < 1] = HEART
    spine = _ellipse(xx, yy, 0, 74, 19, 17)
    hu[spine < 1] = BONE
    hu[spine < 0.6] = 180
    for x0, y0, dx, dy, radius in vessels:
        _disc(hu, inside, x, y, (x0 + dx * z, y0 + dy * z), radius, VESSEL)
    for nodule in nodules:
        cx, cy, cz = nodule.center
        squared = (nodule.diameter / 2) ** 2 - (z - cz) ** 2
        if squared > 0:
            _disc(hu, None, x, y, (cx, cy), float(np.sqrt(squared)), nodule.density)
    return hu, mask


def _ellipse(
    xx: NDArray[np.float64], yy: NDArray[np.float64], x0: float, y0: float, rx: float, ry: float
) -> NDArray[np.float64]:
    distance: NDArray[np.float64] = ((xx - x0) / rx) ** 2 + ((yy - y0) / ry) ** 2
    return distance


def _vessels(rng: np.random.Generator, low: float, high: float) -> NDArray[np.float64]:
    """Straight vessels: x, y at z = 0, slopes, radius. Wide ones near the middle, fine ones towards the wall."""
    count = 220
    side = np.where(rng.random(count) < 0.5, -1, 1)
    angle, reach = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.random(count))
    slope = rng.normal(0, 0.35, (2, count)) * min(1.0, 60 / max(1.0, high - low))
    radius = 0.7 + 3.2 * (1 - reach) ** 2
    return np.stack([side * 74 + 52 * reach * np.cos(angle), -4 + 72 * reach * np.sin(angle), *slope, radius], axis=1)


def _disc(
    hu: NDArray[np.float64],
    where: NDArray[np.bool_] | None,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    center: tuple[float, float],
    radius: float,
    density: float,
) -> None:
    """A disc with a soft edge of one pixel, drawn into its own window only."""
    edge = max(float(x[1] - x[0]), float(y[1] - y[0]))
    x0, x1 = np.searchsorted(x, (center[0] - radius - edge, center[0] + radius + edge))
    y0, y1 = np.searchsorted(y, (center[1] - radius - edge, center[1] + radius + edge))
    if x0 == x1 or y0 == y1:
        return
    window = hu[y0:y1, x0:x1]
    distance = np.hypot(x[None, x0:x1] - center[0], y[y0:y1, None] - center[1])
    share = np.clip((radius + edge / 2 - distance) / edge, 0, 1)
    if where is not None:
        share *= where[y0:y1, x0:x1]
    window += share * np.maximum(0, density - window)


def _smoothed(noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """Noise with the short correlation that a reconstruction kernel leaves, at the same variance."""
    for axis in (0, 1):
        noise = 0.25 * np.roll(noise, 1, axis) + 0.5 * noise + 0.25 * np.roll(noise, -1, axis)
    smooth: NDArray[np.float64] = noise / 0.375
    return smooth
