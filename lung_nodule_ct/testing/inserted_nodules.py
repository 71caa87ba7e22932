"""Irregular nodules with known truth, put into a CT volume: solid, part-solid and ground-glass, of the paper's sizes.

The volume may be a phantom or a real scan. A nodule never makes a voxel darker, so vessels and walls stay where they are
denser. Only the voxels around a nodule are computed, so the cost does not depend on the size of the scan.

Arrays have the axes (z, y, x). Spacings and positions are z, y, x too, as the arrays are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Int16s = NDArray[np.int16]

_DIAMETERS: Final = ((4, 10, 0.4033), (10, 20, 0.3978), (20, 30, 0.1437), (30, 36, 0.0552))
"""Lowest and highest diameter in mm, and the share of the nodules as the paper reports it. It has no bounds; these are 4 and 36."""
KINDS: Final = ("solid", "ground-glass", "part-solid")
_SHARES: Final = (0.6, 0.25, 0.15)
_WAVES: Final = (2, 3, 3, 4, 5, 6, 8, 10)
"""Waves of the surface of a nodule around its centre."""
SPREAD_MM: Final = 0.65
"""Standard deviation of the blur of a scanner."""
_TEXTURE_HU: Final = 30.0
_DENSE_HU: Final = -600.0
"""No nodule is centred in denser voxels."""
_ATTACHED_HU: Final = -300.0
_ATTACHED: Final = 0.6
"""The share of the nodules that touch a vessel or a wall."""
_TRIES: Final = 400


@dataclass(frozen=True)
class InsertedNodule:
    """A nodule to put into a volume.

    Attributes:
        center: z, y, x in voxels; 0 is the centre of the first voxel.
        diameter_mm: Its mean diameter.
        kind: One of :data:`KINDS`.
        contrast: The difference from the surrounding voxels is multiplied by it.

    Raises:
        ValueError: The kind does not exist, or the diameter or the contrast is not positive.
    """

    center: tuple[float, float, float]
    diameter_mm: float
    kind: str = "solid"
    contrast: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {self.kind!r}")
        for name, value in (("diameter_mm", self.diameter_mm), ("contrast", self.contrast)):
            if not value > 0:
                raise ValueError(f"{name}: expected a positive number, got {value}")


def draw_diameter(random: np.random.Generator) -> float:
    """Draw a diameter in mm, distributed as the paper reports them."""
    shares = np.array([share for *_, share in _DIAMETERS])
    low, high, _ = _DIAMETERS[random.choice(len(_DIAMETERS), p=shares / shares.sum())]
    return float(random.uniform(low, high))


def draw_nodule(
    volume: Int16s,
    lung: NDArray[np.bool_],
    spacing: Sequence[float],
    random: np.random.Generator,
    *,
    others: Sequence[InsertedNodule] = (),
    contrast: float = 1.0,
    diameter_mm: float | None = None,
) -> InsertedNodule | None:
    """Draw a nodule whose centre is a dark voxel of the lung. It may touch vessels and walls.

    Args:
        volume: Hounsfield units.
        lung: The voxels of the lungs.
        spacing: z, y, x in mm.
        random: Source of the kind, size and position.
        others: Nodules that are already there. The new one does not touch them.
        contrast: Its contrast.
        diameter_mm: Its diameter; drawn by :func:`draw_diameter` by default.

    Returns:
        The nodule, or ``None`` if no place was found.
    """
    diameter = draw_diameter(random) if diameter_mm is None else diameter_mm
    kind = KINDS[random.choice(len(KINDS), p=_SHARES)]
    steps, shape = np.array(spacing), np.array(volume.shape)
    margin = np.minimum(np.ceil(min(diameter / 2, 6.0) / steps), (shape - 1) // 2).astype(int)
    is_attached = random.random() < _ATTACHED
    for _ in range(_TRIES):
        center = random.integers(margin, shape - margin)
        if not lung[tuple(center)] or volume[tuple(center)] > _DENSE_HU:
            continue
        near = tuple(slice(at - side, at + side + 1) for at, side in zip(center, margin, strict=True))
        if lung[near].mean() < 0.7 or (is_attached and volume[near].max() < _ATTACHED_HU):
            continue
        distances = [np.linalg.norm((center - other.center) * steps) for other in others]
        if any(d < (diameter + other.diameter_mm) / 2 + 4 for d, other in zip(distances, others, strict=True)):
            continue
        z, y, x = center.tolist()
        return InsertedNodule((z, y, x), diameter, kind, contrast)
    return None


def insert_nodule(
    volume: Int16s, spacing: Sequence[float], nodule: InsertedNodule, random: np.random.Generator
) -> Int16s:
    """Return a copy of a volume with a nodule of an irregular surface and a texture of its own.

    Args:
        volume: Hounsfield units, axes (z, y, x).
        spacing: z, y, x in mm.
        nodule: The nodule.
        random: Source of its surface, density and texture.

    Example:
        >>> lung = np.full((16, 16, 16), -850, np.int16)
        >>> nodule = InsertedNodule((8, 8, 8), 8.0)
        >>> inserted = insert_nodule(lung, (1.0, 1.0, 1.0), nodule, np.random.default_rng(0))
        >>> bool(inserted[8, 8, 8] > -200), int(inserted[0, 0, 0])
        (True, -850)
    """
    steps = np.array(spacing)
    reach = np.ceil((nodule.diameter_mm * 0.8 + 4 * SPREAD_MM) / steps)
    low = np.clip(np.floor(np.array(nodule.center) - reach), 0, None).astype(int)
    high = np.clip(np.ceil(np.array(nodule.center) + reach) + 1, None, volume.shape).astype(int)
    window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    found = volume[window].astype(np.float64)
    center = np.array(nodule.center) - low
    density = {"solid": random.normal(20, 40), "ground-glass": random.uniform(-650, -350), "part-solid": -500.0}
    share = _coverage(found.shape, center, nodule.diameter_mm, steps, random)
    change = share * np.maximum(density[nodule.kind] - found, 0)
    if nodule.kind == "part-solid":
        core = _coverage(found.shape, center, nodule.diameter_mm * 0.5, steps, random)
        change += core * np.maximum(30 - found - change, 0)
    texture = blur(random.standard_normal(found.shape), 0.7 / steps) * _TEXTURE_HU
    changed = volume.copy()
    changed[window] = np.clip(np.rint(found + (change + texture * share) * nodule.contrast), -1024, 3071)
    return changed


def blur(values: Floats, widths: Sequence[float] | Floats) -> Floats:
    """A Gaussian blur. The values at the border continue outside.

    Args:
        values: Any number of axes.
        widths: Standard deviation along each axis, in voxels.
    """
    for axis, width in enumerate(widths):
        reach = max(1, round(3 * width))
        kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(width, 1e-3)) ** 2)
        kernel /= kernel.sum()
        padding = [(reach, reach) if other == axis else (0, 0) for other in range(values.ndim)]
        padded, count = np.pad(values, padding, mode="edge"), values.shape[axis]
        values = sum(w * np.take(padded, range(k, k + count), axis) for k, w in enumerate(kernel))
    return values


def _coverage(
    shape: tuple[int, ...], center: Floats, diameter: float, steps: Floats, random: np.random.Generator
) -> Floats:
    """How much of each voxel is nodule, 0 to 1: a ball whose surface has random waves, as a scanner blurs it."""
    axes = [(np.arange(n) - at) * step for n, at, step in zip(shape, center, steps, strict=True)]
    offset = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    distance = np.linalg.norm(offset, axis=-1)
    direction = offset / np.maximum(distance, 1e-6)[..., None]
    bump = np.zeros(shape)
    for waves in _WAVES:
        axis = random.normal(size=3)
        height, phase = random.normal(0, 0.10 / (1 + waves / 4)), random.uniform(0, 2 * np.pi)
        bump += height * np.cos(waves * (direction @ (axis / np.linalg.norm(axis))) + phase)
    edge = float(steps.mean())
    inside = np.clip((diameter / 2 * (1 + bump) - distance) / edge + 0.5, 0, 1)
    return blur(inside, SPREAD_MM / steps)
