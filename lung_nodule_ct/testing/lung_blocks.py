"""Blocks of lung as hard negatives for a detector: vessel trees, bronchi, chest wall with ribs, mediastinum, fissures, noise.

A block is not anatomy, but it has what surrounds nodules in scans: branches that are as wide as a small nodule,
junctions of vessels, a wall with bumps, thin sheets, and the noise of a scanner, which is correlated within a slice.

Arrays have the axes (z, y, x). Positions and spacings are z, y, x in millimetres, as the arrays are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.testing.inserted_nodules import SPREAD_MM, blur
from lung_nodule_ct.testing.phantoms import LEFT_LUNG, Phantom

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_LUNG, _TISSUE, _FAT, _BONE, _VESSEL, _AIR, _FISSURE = -865.0, 45.0, -95.0, 380.0, 35.0, -985.0, -620.0
_THINNEST_MM: Final = 0.7
"""Radius of the last branches of a vessel."""


def make_lung_block(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], random: np.random.Generator
) -> Phantom:
    """Return a block of lung next to the chest wall, with a mask of the lung. It has no nodule.

    Args:
        shape: z, y, x in voxels.
        spacing: z, y, x in mm.
        random: Source of everything in it.

    Example:
        >>> block = make_lung_block((24, 48, 48), (2.0, 2.0, 2.0), np.random.default_rng(0))
        >>> block.volume.shape, bool((block.lung_mask > 0).mean() > 0.4)
        ((24, 48, 48), True)
    """
    steps = np.array(spacing)
    z, y, x = _axes(shape, spacing)
    extent = np.array(shape) * steps
    hu = np.zeros(shape) + _LUNG + random.normal(0, 12) + 0.35 * (y - extent[1] / 2)
    hu += blur(random.standard_normal(shape), 3.0 / steps) * 120  # patches of more and of less air
    _draw_fissures(hu, (z, y, x), extent, random)
    mirrored = random.random() < 0.5
    side = (extent[2] - x) if mirrored else x
    wall, rib, center = _chest_wall(z, y, extent, random)
    tissue = np.clip((wall - side) / steps[2] + 0.5, 0, 1)
    heart = _mediastinum(z, y, extent, random)
    tissue = np.maximum(tissue, np.clip((side - heart) / steps[2] + 0.5, 0, 1))
    lung = tissue < 0.5
    for number in range(random.integers(6, 10)):
        tree = _draw_tree(extent, random)
        if mirrored:
            tree = tree * np.array([1, 1, -1, 1, 1, -1, 1]) + np.array([0, 0, extent[2], 0, 0, extent[2], 0])
        tubes = tube_coverage(shape, spacing, tree)
        hu += tubes * np.maximum(_VESSEL - hu, 0)
        if number == 0:  # a bronchus
            lumen = tree - np.array([0, 0, 0, 0, 0, 0, 0.9])
            hu += tube_coverage(shape, spacing, lumen[lumen[:, 6] > 0.5]) * (_AIR - hu)
    hu += tissue * (_TISSUE - hu)
    depth = wall - side
    hu[(depth > 7) & (depth < 12)] = _FAT
    hu[(np.abs(rib) < 5) & (depth > center - 4.5) & (depth < center + 4.5)] = _BONE
    hu = blur(hu, SPREAD_MM / steps)
    noise = blur(random.standard_normal(shape), (0.3, *(0.7 / steps[1:])))
    hu += noise / noise.std() * random.uniform(12, 35)
    volume = np.clip(np.rint(hu), -1024, 3071).astype(np.int16)
    frame = Frame(spacing=(float(spacing[2]), float(spacing[1]), float(spacing[0])))
    return Phantom(volume, np.where(lung, np.int16(LEFT_LUNG), np.int16(0)), frame)


def _axes(shape: Sequence[int], spacing: Sequence[float]) -> tuple[Floats, Floats, Floats]:
    """Positions z, y, x in mm, shaped so that they broadcast to the block."""
    z, y, x = np.meshgrid(
        *(np.arange(n) * mm for n, mm in zip(shape, spacing, strict=True)), indexing="ij", sparse=True
    )
    return z, y, x


def _draw_tree(extent: Floats, random: np.random.Generator) -> Floats:
    """A vessel that enters the block from the side opposite to the wall; see :func:`grow_tree`."""
    z, y = extent[:2] * random.uniform(0.15, 0.85, 2)
    direction = np.array([*random.normal(0, 0.35, 2), -1.0])
    return grow_tree(np.array([z, y, extent[2] - 6]), direction, random.uniform(2.4, 4.4), random)


def grow_tree(start: Floats, direction: Floats, radius: float, random: np.random.Generator) -> Floats:
    """Grow a vessel that bends and branches.

    Args:
        start: z, y, x in mm.
        direction: z, y, x.
        radius: Radius at the start in mm.
        random: Source of lengths, bends and branches.

    Returns:
        One straight segment per row: start and end z, y, x, and the radius, shape (n, 7).
    """
    segments = []
    growing = [(start, direction / np.linalg.norm(direction), radius)]
    while growing:
        at, along, wide = growing.pop()
        for _ in range(random.integers(2, 5)):
            along = along + random.normal(0, 0.2, 3)
            along /= np.linalg.norm(along)
            end = at + along * random.uniform(3.0, 7.0)
            segments.append(np.concatenate([at, end, [wide]]))
            at, wide = end, wide * 0.98
        turn = random.normal(0, 0.75, 3)
        larger = random.uniform(0.75, 0.95)
        branches = [(along + 0.4 * turn, wide * larger), (along - turn, wide * (1.55 - larger))]
        growing += [(at, way / np.linalg.norm(way), new) for way, new in branches if new > _THINNEST_MM]
    return np.array(segments)


def tube_coverage(shape: Sequence[int], spacing: Sequence[float], segments: Floats) -> Floats:
    """How much of each voxel is in a tube, 0 to 1.

    Args:
        shape: z, y, x in voxels.
        spacing: z, y, x in mm.
        segments: Rows of :func:`grow_tree`.
    """
    covered, steps = np.zeros(shape), np.array(spacing)
    edge = float(steps.mean())
    for row in segments:
        start, end, radius = row[:3], row[3:6], float(row[6])
        low = np.clip(np.floor((np.minimum(start, end) - radius - edge) / steps), 0, None).astype(int)
        high = np.minimum(np.ceil((np.maximum(start, end) + radius + edge) / steps) + 1, shape).astype(int)
        if (high <= low).any():
            continue
        axes = [np.arange(a, b) * step for a, b, step in zip(low, high, steps, strict=True)]
        points = np.stack(np.meshgrid(*axes, indexing="ij"), -1) - start
        along = end - start
        share = np.clip(points @ along / (along @ along), 0, 1)
        distance = np.linalg.norm(points - share[..., None] * along, axis=-1)
        window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        # a thin tube fills a part of its voxels only
        inside = np.clip((radius - distance) / edge + 0.5, 0, 1) * min(1.0, (2 * radius / edge) ** 2)
        covered[window] = np.maximum(covered[window], inside)
    return covered


def _draw_fissures(hu: Floats, axes: Sequence[Floats], extent: Floats, random: np.random.Generator) -> None:
    """Draw one or two thin curved sheets."""
    z, y, x = axes
    for _ in range(random.integers(1, 3)):
        normal = random.normal(size=3) * np.array([1.0, 1.0, 0.4])
        normal /= np.linalg.norm(normal)
        offset = normal @ (extent * random.uniform(0.3, 0.7, 3))
        bend = random.normal(0, 4) * np.sin(x / extent[2] * np.pi + random.uniform(0, 3))
        distance = np.abs(z * normal[0] + y * normal[1] + x * normal[2] - offset + bend)
        hu += np.clip(1.2 - distance, 0, 1) * np.maximum(_FISSURE - hu, 0)


def _chest_wall(z: Floats, y: Floats, extent: Floats, random: np.random.Generator) -> tuple[Floats, Floats, float]:
    """Thickness of the wall over (z, y), distance along z from the nearest rib, and depth of the ribs' centre, in mm."""
    period, phase, slope = random.uniform(22, 28), random.uniform(0, 25), random.uniform(-0.25, 0.25)
    rib = (z + slope * y + phase) % period - period / 2
    curve = (y - extent[1] * random.uniform(0.4, 0.6)) ** 2 / random.uniform(140, 260)
    bumps = 1.5 * np.exp(-((rib / 5) ** 2)) + 1.2 * np.sin(y / 9 + phase) * np.sin(z / 11 + phase)
    for _ in range(random.integers(0, 3)):  # thickenings of the pleura, which are not nodules
        at_z, at_y = random.uniform(0, 1, 2) * extent[:2]
        wide = random.uniform(6, 14)
        bumps = bumps + random.uniform(2, 4) * np.exp(-(((z - at_z) / wide) ** 2) - ((y - at_y) / wide) ** 2)
    return random.uniform(8, 14) + curve + bumps, rib, random.uniform(4, 6)


def _mediastinum(z: Floats, y: Floats, extent: Floats, random: np.random.Generator) -> Floats:
    """Where the mediastinum begins over (z, y), in mm from the outer side of the block."""
    bulge = random.uniform(0, 14) * np.exp(-(((y - extent[1] * random.uniform(0.2, 0.5)) / 30) ** 2)) * (1 + 0 * z)
    edge: Floats = (
        extent[2] - random.uniform(6, 14) - bulge - 2.0 * np.sin(z / 14 + random.uniform(0, 6)) * np.cos(y / 17)
    )
    return edge
