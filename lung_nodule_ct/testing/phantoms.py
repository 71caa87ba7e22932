"""Phantoms: a chest with lungs, vessels and nodules as a CT volume, and single lesions of six textures.

A phantom is not anatomy. It is close enough to CT that compression, windows and detectors meet what they expect: with 10 HU
of noise a volume deflates 2.1 times, as real scans do.

Arrays have the axes (z, y, x). Positions are x, y, z in LPS millimetres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from lung_nodule_ct.geometry.display import Orientation
from lung_nodule_ct.geometry.frame import IDENTITY, Frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Int16s = NDArray[np.int16]

LEFT_LUNG: Final = 3
RIGHT_LUNG: Final = 4
"""Labels of the lungs in a mask, as the dataset publishes them; 0 is outside."""

TEXTURES: Final = ("solid", "part-solid", "ground-glass", "cavity", "speckled", "calcified")
"""Textures of :func:`make_lesion`, one for each pathology class."""

_AIR, _FAT, _TISSUE, _LUNG, _HEART, _BONE, _MARROW, _VESSEL = -1000.0, -95.0, 45.0, -870.0, 38.0, 420.0, 180.0, 20.0
_VESSELS = 220


@dataclass(frozen=True)
class PhantomNodule:
    """A sphere of tissue.

    Attributes:
        center_world: x, y, z in LPS mm.
        diameter_mm: Its diameter.
        density_hu: Its density in Hounsfield units. A sphere never makes a voxel darker.

    Raises:
        ValueError: The diameter is not positive.
    """

    center_world: tuple[float, float, float]
    diameter_mm: float
    density_hu: float = 30.0

    def __post_init__(self) -> None:
        if not self.diameter_mm > 0:
            raise ValueError(f"diameter_mm: expected a positive number, got {self.diameter_mm}")


@dataclass(frozen=True, eq=False)
class Phantom:
    """A CT volume with its lung mask.

    Attributes:
        volume: Hounsfield units, int16, axes (z, y, x).
        lung_mask: 0, :data:`LEFT_LUNG` or :data:`RIGHT_LUNG`, int16, the volume's shape.
        frame: Where the voxels are.

    Raises:
        ValueError: The two arrays have different shapes.
    """

    volume: Int16s
    lung_mask: Int16s
    frame: Frame

    def __post_init__(self) -> None:
        if self.volume.shape != self.lung_mask.shape:
            raise ValueError(f"lung_mask: expected the shape {self.volume.shape}, got {self.lung_mask.shape}")

    def reoriented(self, direction: Sequence[float]) -> Phantom:
        """Return the same phantom, stored along other axes. Every voxel keeps its position in the world.

        Args:
            direction: The new direction matrix, row by row, as in :class:`~lung_nodule_ct.geometry.frame.Frame`. Axes may
                only be exchanged and reversed.

        Raises:
            ValueError: The matrix does more than that.

        Example:
            >>> chest = make_chest((2, 3, 4), (1.0, 2.0, 5.0))
            >>> mirrored = chest.reoriented((-1, 0, 0, 0, 1, 0, 0, 0, 1))
            >>> mirrored.frame.origin, chest.frame.origin
            ((1.5, -2.0, -2.5), (-1.5, -2.0, -2.5))
            >>> bool((mirrored.volume == chest.volume[:, :, ::-1]).all())
            True
        """
        target = Frame(direction=tuple(direction))
        relative = self.frame.matrix.T @ target.matrix  # its columns are the new axes in terms of the old ones
        x, y, z = (int(axis) for axis in np.abs(relative).argmax(axis=0))
        if sorted((x, y, z)) != [0, 1, 2] or not np.allclose(np.sort(np.abs(relative), axis=0), [[0], [0], [1]]):
            raise ValueError(f"direction: expected axes that are only exchanged or reversed, got {tuple(direction)}")
        signs = relative[[x, y, z], range(3)]
        turn = Orientation((x, y, z), (bool(signs[0] < 0), bool(signs[1] < 0), bool(signs[2] < 0)))
        corner = np.zeros(3)
        for axis, flipped in zip(turn.axes, turn.flipped, strict=True):
            corner[axis] = self.volume.shape[2 - axis] - 1 if flipped else 0
        return Phantom(
            np.ascontiguousarray(turn.volume(self.volume)),
            np.ascontiguousarray(turn.volume(self.lung_mask)),
            _frame(self.frame.to_world(corner), turn.extent(self.frame.spacing), target.direction),
        )

    def voxel_of(self, nodule: PhantomNodule) -> tuple[int, int, int]:
        """Return the voxel x, y, z that is nearest to the centre of a nodule."""
        x, y, z = (round(index) for index in self.frame.to_voxel(nodule.center_world).tolist())
        return x, y, z

    def box_in_slice(self, nodule: PhantomNodule, z: int) -> tuple[int, int, int, int] | None:
        """Return the box of a nodule in slice ``z``: xmin, ymin, xmax, ymax in pixels.

        Returns:
            The box, or ``None`` where the nodule's radius in the slice is at most one pixel.

        Example:
            >>> nodule = PhantomNodule((70, 20, 0), 18)
            >>> chest = make_chest((16, 60, 84), (4.0, 4.0, 1.25), [nodule])
            >>> chest.voxel_of(nodule), chest.box_in_slice(nodule, 8), chest.box_in_slice(nodule, 15)
            ((59, 34, 8), (57, 32, 61, 36), None)
        """
        depth = (z - self.frame.to_voxel(nodule.center_world)[2]) * self.frame.spacing[2]
        radius = math.sqrt(max(0.0, (nodule.diameter_mm / 2) ** 2 - depth**2))
        x, y, _ = self.voxel_of(nodule)
        dx, dy = radius / self.frame.spacing[0], radius / self.frame.spacing[1]
        return (round(x - dx), round(y - dy), round(x + dx), round(y + dy)) if min(dx, dy) > 1 else None

    def with_thick_slices(self, count: int) -> Phantom:
        """Return the phantom with ``count`` slices averaged into one, as a reconstruction of thicker slices would be.

        The mask of a thick slice is that of its first thin one.

        Raises:
            ValueError: The number of slices is not a multiple of ``count``.

        Example:
            >>> thick = make_chest((8, 4, 4), (1.0, 1.0, 1.25)).with_thick_slices(4)
            >>> thick.volume.shape, thick.frame.spacing, thick.frame.origin[2]
            ((2, 4, 4), (1.0, 1.0, 5.0), -2.5)
        """
        slices, height, width = self.volume.shape
        if count < 1 or slices % count:
            raise ValueError(f"count: expected a divisor of {slices} slices, got {count}")
        averaged = self.volume.reshape(slices // count, count, height, width).mean(axis=1)
        origin = self.frame.to_world((0, 0, (count - 1) / 2))  # the middle of the first group
        x, y, z = self.frame.spacing
        frame = _frame(origin, (x, y, z * count), self.frame.direction)
        return Phantom(np.rint(averaged).astype(np.int16), self.lung_mask[::count], frame)


def make_chest(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    nodules: Sequence[PhantomNodule] = (),
    *,
    seed: int = 0,
    noise: float = 10.0,
) -> Phantom:
    """Return a chest: body, fat, lungs, vessels, heart, spine, ribs, nodules and noise.

    The origin of the world is the centre of the volume, and the volume is stored along the patient's axes.

    Args:
        shape: z, y, x in voxels.
        spacing: x, y, z in mm.
        nodules: The nodules to draw; the left lung is about (74, -4, 0), the right one (-74, -4, 0).
        seed: Seed of vessels and noise.
        noise: Standard deviation of the noise in HU.

    Example:
        >>> chest = make_chest((5, 60, 84), (4.0, 4.0, 1.25), [PhantomNodule((70, 20, 0), 18)], noise=0)
        >>> x, y, z = chest.frame.to_voxel((70, 20, 0)).round().astype(int)
        >>> int(chest.volume[z, y, x]), int(chest.lung_mask[z, y, x])
        (30, 3)
    """
    random = np.random.default_rng(seed)
    z, y, x = (_centered_axis(count, step) for count, step in zip(shape, reversed(spacing), strict=True))
    vessels = _draw_vessels(random, z[0], z[-1])
    volume = np.empty(shape, np.int16)
    mask = np.zeros(shape, np.int16)
    for index, height in enumerate(z):
        hu, mask[index] = _draw_slice(height, y, x, vessels, nodules)
        if noise:
            hu += _smooth(random.standard_normal(hu.shape)) * noise
        volume[index] = np.clip(np.rint(hu), -1024, 3071)
    return Phantom(volume, mask, _frame(np.array([x[0], y[0], z[0]]), spacing))


def make_lesion(
    texture: str,
    shape: Sequence[int],
    spacing: Sequence[float],
    center: Sequence[float],
    diameter: float,
    random: np.random.Generator,
) -> Floats:
    """Return noisy tissue with one lesion, as densities from 0 to 1 with the axes (z, y, x) or (y, x).

    Args:
        texture: One of :data:`TEXTURES`.
        shape: z, y, x or y, x in voxels.
        spacing: x, y, z or x, y in mm.
        center: x, y, z or x, y in mm from the centre of the first voxel.
        diameter: Diameter of the lesion in mm.
        random: Source of the noise. Every texture draws the same numbers from it.

    Raises:
        ValueError: The texture does not exist.

    Example:
        >>> density = make_lesion("solid", (9, 9), (1.0, 1.0), (4.0, 4.0), 6.0, np.random.default_rng(0))
        >>> density.shape, bool(density[4, 4] > 0.8), bool(density[0, 0] < 0.4)
        ((9, 9), True, True)
    """
    if texture not in TEXTURES:
        raise ValueError(f"texture: expected one of {', '.join(TEXTURES)}, got {texture!r}")
    steps, middle = tuple(reversed(spacing)), tuple(reversed(center))
    axes = np.meshgrid(*(np.arange(count) * step for count, step in zip(shape, steps, strict=True)), indexing="ij")
    squared = sum((axis - at) ** 2 for axis, at in zip(axes, middle, strict=True))
    distance: Floats = np.sqrt(squared) / (diameter / 2)  # in radii
    noise = random.normal(0, 0.04, tuple(shape))
    speckles = random.random(distance.shape) < 0.5
    inside = np.clip((1.05 - distance) * 8, 0, 1)
    core = np.clip((0.55 - distance) * 8, 0, 1)
    lesions: dict[str, Floats] = {
        "solid": inside * 0.85,
        "part-solid": inside * 0.35 + core * 0.5,
        "ground-glass": inside * 0.35,
        "cavity": (inside - core) * 0.85,
        "speckled": inside * speckles * 0.8,
        "calcified": inside * 0.55 + np.clip((0.35 - distance) * 8, 0, 1) * 0.45,
    }
    density: np.ndarray = np.clip(0.12 + noise + lesions[texture], 0, 1)
    return density


def _frame(origin: Floats, spacing: tuple[float, float, float], direction: tuple[float, ...] = IDENTITY) -> Frame:
    """A frame whose origin has nine decimals at most, so that -119.4 mm is not written as -119.39999999999999."""
    x, y, z = (round(value, 9) for value in origin.tolist())
    return Frame((x, y, z), spacing, direction)


def _centered_axis(count: int, step: float) -> Floats:
    axis: Floats = (np.arange(count, dtype=np.float64) - (count - 1) / 2) * step
    return axis


def _draw_slice(
    z: float, y: Floats, x: Floats, vessels: Floats, nodules: Sequence[PhantomNodule]
) -> tuple[Floats, Int16s]:
    """One axial slice in HU, without noise, and its mask."""
    yy, xx = y[:, None], x[None, :]
    hu = np.full((y.size, x.size), _AIR)
    hu[_ellipse(xx, yy, 0, 0, 165, 112) < 1] = _FAT
    hu[_ellipse(xx, yy, 0, 0, 152, 100) < 1] = _TISSUE
    ribs = _ellipse(xx, yy, 0, 0, 150, 98)
    hu[(ribs < 1) & (ribs > 0.88) & (np.sin((z + 1.3 * np.abs(xx) + yy) / 9) > 0.55)] = _BONE
    swell = 1 + 0.0006 * z
    mask = np.zeros(hu.shape, np.int16)
    for label, side in ((LEFT_LUNG, 1), (RIGHT_LUNG, -1)):
        mask[_ellipse(xx, yy, side * 74, -4, 57 * swell, 78 * swell) < 1] = label
    mask[_ellipse(xx, yy, 14, -22, 52, 46) < 1] = 0  # the heart lies in front of the left lung
    inside = mask > 0
    hu[inside] = _LUNG + 0.25 * (yy + 0 * xx)[inside]  # denser towards the back, where the blood of a lying patient is
    hu[_ellipse(xx, yy, 14, -22, 50, 44) < 1] = _HEART
    spine = _ellipse(xx, yy, 0, 74, 19, 17)
    hu[spine < 1] = _BONE
    hu[spine < 0.6] = _MARROW
    for x0, y0, dx, dy, radius in vessels:
        _draw_disc(hu, inside, x, y, (x0 + dx * z, y0 + dy * z), radius, _VESSEL)
    for nodule in nodules:
        cx, cy, cz = nodule.center_world
        squared = (nodule.diameter_mm / 2) ** 2 - (z - cz) ** 2
        if squared > 0:
            _draw_disc(hu, None, x, y, (cx, cy), float(np.sqrt(squared)), nodule.density_hu)
    return hu, mask


def _ellipse(xx: Floats, yy: Floats, x0: float, y0: float, rx: float, ry: float) -> Floats:
    """The squared distance from the centre of an ellipse: 1 on its edge."""
    distance: Floats = ((xx - x0) / rx) ** 2 + ((yy - y0) / ry) ** 2
    return distance


def _draw_vessels(random: np.random.Generator, low: float, high: float) -> Floats:
    """Straight vessels, one per row: x and y at z = 0, their slopes, the radius. They are wide near the middle."""
    side = np.where(random.random(_VESSELS) < 0.5, -1, 1)
    angle, reach = random.uniform(0, 2 * np.pi, _VESSELS), np.sqrt(random.random(_VESSELS))
    slope = random.normal(0, 0.35, (2, _VESSELS)) * min(1.0, 60 / max(1.0, high - low))
    radius = 0.7 + 3.2 * (1 - reach) ** 2
    return np.stack([side * 74 + 52 * reach * np.cos(angle), -4 + 72 * reach * np.sin(angle), *slope, radius], axis=1)


def _draw_disc(
    hu: Floats,
    where: NDArray[np.bool_] | None,
    x: Floats,
    y: Floats,
    center: tuple[float, float],
    radius: float,
    density: float,
) -> None:
    """Draw a disc with a soft edge of one pixel into a slice, where ``where`` allows it."""
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


def _smooth(noise: Floats) -> Floats:
    """Noise with the short correlation that a reconstruction kernel leaves, at the same variance."""
    for axis in (0, 1):
        noise = 0.25 * np.roll(noise, 1, axis) + 0.5 * noise + 0.25 * np.roll(noise, -1, axis)
    smoothed: Floats = noise / 0.375
    return smoothed
