"""Scans of one patient at several dates, with known warps and known growth.

The chest of :func:`lung_nodule_ct.testing.phantoms.make_chest` gets lungs that end above and below, and vessels in all directions, so that
every place has a neighbourhood of its own. Each scan is that chest after a warp (position, breath, a smooth deformation), with the lesions
drawn as spheres where the warp takes them. Needs the extra ``imaging`` (SciPy).

Arrays have the axes (z, y, x). Positions are x, y, z in LPS millimetres.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lung_nodule_ct.geometry.affine import Affine, rotation
from lung_nodule_ct.geometry.boxes import sphere_box
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.system.imports import optional_imports
from lung_nodule_ct.testing.phantoms import Phantom, PhantomNodule, make_chest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lung_nodule_ct.geometry.frame import WorldPoints

    Floats = NDArray[np.float64]

VESSELS: Final = 420
"""Number of short vessels in both lungs."""

_VESSEL_HU, _TISSUE_HU, _AIR_HU = 20.0, 45.0, -1000.0
_WAVE_MM = (90.0, 180.0)
"""Wavelengths of the smooth deformation."""
_INVERSE_STEPS = 7


@dataclass(frozen=True)
class Warp:
    """How a chest differs from the first scan: its position, its breath, and a smooth deformation.

    Attributes:
        shift_mm: x, y, z.
        rotation_deg: Around x, y, z.
        scale: Along x, y, z.
        bend_mm: Root mean square of the smooth deformation.
        seed: Of the deformation.

    Raises:
        ValueError: A scale is not positive, or the deformation would fold.
    """

    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rotation_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    bend_mm: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.scale) <= 0:
            raise ValueError(f"scale: expected positive numbers, got {self.scale}")
        if not 0 <= self.bend_mm <= 8:
            raise ValueError(f"bend_mm: expected 0 to 8, so that the deformation does not fold, got {self.bend_mm}")

    @property
    def affine(self) -> Affine:
        """The affine part."""
        return Affine.from_arrays(rotation(self.rotation_deg) * np.array(self.scale), self.shift_mm)

    def to_scan(self, points: Floats) -> WorldPoints:
        """Return where points of the first chest are in this scan, shape (n, 3)."""
        moved: WorldPoints = self.affine.map(points + self._bend(points))
        return moved

    def to_chest(self, points: Floats) -> WorldPoints:
        """Return where points of this scan are in the first chest, shape (n, 3): the inverse, within 0.02 mm."""
        wanted = self.affine.inverse.map(points)
        found: WorldPoints = wanted
        for _ in range(_INVERSE_STEPS if self.bend_mm else 0):
            found = wanted - self._bend(found)
        return found

    def _bend(self, points: Floats) -> Floats:
        if not self.bend_mm:
            return np.zeros_like(points)
        random = np.random.default_rng(self.seed)
        total = np.zeros_like(points)
        for axis in range(3):
            for _ in range(2):
                direction = random.normal(size=3)
                wave = 2 * np.pi * direction / np.linalg.norm(direction) / random.uniform(*_WAVE_MM)
                total[..., axis] += np.sin(points @ wave + random.uniform(0, 2 * np.pi))
        bent: Floats = total * (self.bend_mm / np.sqrt(3))
        return bent


@dataclass(frozen=True)
class Lesion:
    """A sphere of tissue that grows.

    Attributes:
        center_world: In the first chest: x, y, z in LPS mm.
        diameters_mm: One per scan; ``None`` where it does not exist, or is not annotated.
        density_hu: Its density.

    Raises:
        ValueError: A diameter is not positive.
    """

    center_world: tuple[float, float, float]
    diameters_mm: tuple[float | None, ...]
    density_hu: float = 30.0

    def __post_init__(self) -> None:
        if any(diameter is not None and not diameter > 0 for diameter in self.diameters_mm):
            raise ValueError(f"diameters_mm: expected positive numbers or None, got {self.diameters_mm}")


@dataclass(frozen=True, eq=False)
class FollowUp:
    """One scan of a patient.

    Attributes:
        phantom: Volume, lung mask and frame.
        warp: How the chest was moved.
        days: Days since the first scan.
        nodules: Of each lesion, its place and size in this scan; ``None`` where it does not exist.
    """

    phantom: Phantom
    warp: Warp
    days: int
    nodules: tuple[PhantomNodule | None, ...]

    def row(self, patient_id: str, timepoint: int) -> dict[str, Any]:
        """Return the scan as a row of ``longitudinal``, with an annotation for each nodule."""
        frame = self.phantom.frame
        return {
            "patient_id": patient_id,
            "scan_id": f"{patient_id}-{timepoint + 1}",
            "timepoint": timepoint,
            "days_since_first": self.days,
            "slice_thickness_mm": frame.spacing[2],
            "volume": self.phantom.volume,
            "lung_mask": self.phantom.lung_mask.astype(np.uint8),
            "origin": frame.origin,
            "spacing": frame.spacing,
            "direction": frame.direction,
            "nodules": [_annotation(nodule, self.phantom) for nodule in self.nodules if nodule is not None],
        }


def make_followups(
    days: Sequence[int],
    lesions: Sequence[Lesion] = (),
    warps: Sequence[Warp] | None = None,
    *,
    shape: tuple[int, int, int] = (64, 128, 160),
    spacing: tuple[float, float, float] = (2.2, 2.2, 2.5),
    seed: int = 0,
    noise: float = 10.0,
) -> tuple[FollowUp, ...]:
    """Return scans of one patient.

    Args:
        days: Days of the scans since the first one.
        lesions: What is drawn in them, with one diameter per scan.
        warps: How the chest of each scan is moved; by default not at all.
        shape: z, y, x in voxels.
        spacing: x, y, z in mm.
        seed: Of the patient's vessels, and of the noise.
        noise: Standard deviation of the noise in HU.

    Raises:
        ValueError: The numbers of warps or of diameters differ from that of the days.
        MissingExtraError: The extra ``imaging`` is not installed.

    Example:
        >>> lesion = Lesion((74.0, 20.0, 0.0), (8.0, 10.0))
        >>> first, second = make_followups((0, 180), [lesion], [Warp(), Warp((4.0, 0.0, 0.0))], shape=(12, 60, 84), spacing=(4.0, 4.0, 5.0))
        >>> second.nodules[0].center_world, second.nodules[0].diameter_mm
        ((78.0, 20.0, 0.0), 10.0)
    """
    used = tuple(warps) if warps is not None else (Warp(),) * len(days)
    if len(used) != len(days) or any(len(lesion.diameters_mm) != len(days) for lesion in lesions):
        raise ValueError(f"expected one warp and one diameter of each lesion per scan, for {len(days)} scans")
    chest = make_chest(shape, spacing, seed=seed, noise=0)
    chest = _with_lungs_that_end(chest)
    chest = replace(chest, volume=_with_vessels(chest, seed))
    return tuple(
        _scan(chest, warp, day, [(lesion, lesion.diameters_mm[index]) for lesion in lesions], (seed, index), noise)
        for index, (warp, day) in enumerate(zip(used, days, strict=True))
    )


def _annotation(nodule: PhantomNodule, phantom: Phantom) -> dict[str, Any]:
    voxel = phantom.frame.to_voxel(nodule.center_world)
    box = sphere_box(tuple(voxel.tolist()), nodule.diameter_mm, phantom.frame.spacing, phantom.volume.shape)
    return {
        "center_world": nodule.center_world,
        "diameter_mm": nodule.diameter_mm,
        "center_voxel": tuple(voxel.tolist()),
        "box_voxel": box.clipped,
    }


def _with_lungs_that_end(chest: Phantom) -> Phantom:
    """A diaphragm with two domes below, and apices above."""
    z, y, x = (_world_axis(chest.frame, count, axis) for axis, count in zip((2, 1, 0), chest.volume.shape, strict=True))
    reach = max(abs(z[0]), abs(z[-1]))
    across = ((np.abs(x)[None, :] - 74) / 57) ** 2 + ((y[:, None] + 4) / 78) ** 2
    floor = -0.62 * reach - 0.25 * reach * across
    roof = 0.85 * reach - 0.45 * reach * across
    ends = (z[:, None, None] < floor) | (z[:, None, None] > roof)
    closed = ends & (chest.lung_mask > 0)
    volume, mask = chest.volume.copy(), chest.lung_mask.copy()
    volume[closed] = _TISSUE_HU
    mask[closed] = 0
    return Phantom(volume, mask, chest.frame)


def _with_vessels(chest: Phantom, seed: int) -> NDArray[np.int16]:
    """Short vessels in all directions, each a cylinder with soft ends."""
    random = np.random.default_rng((seed, 1))
    volume = chest.volume.astype(np.float64)
    inside = chest.lung_mask > 0
    cells = np.flatnonzero(inside)
    if not cells.size:
        return chest.volume
    steps = np.array(chest.frame.spacing)[::-1]
    for cell in random.choice(cells, VESSELS):
        start = np.array(np.unravel_index(cell, inside.shape)) * steps
        direction = random.normal(size=3)
        direction /= np.linalg.norm(direction)
        length, radius = random.uniform(8, 30), random.uniform(0.8, 2.4)
        ends = np.stack([start, start + direction * length])
        low = np.maximum(0, np.floor((ends.min(axis=0) - radius) / steps - 1)).astype(int)
        high = np.minimum(inside.shape, np.ceil((ends.max(axis=0) + radius) / steps + 2)).astype(int)
        if (high <= low).any():
            continue
        box = tuple(slice(first, last) for first, last in zip(low, high, strict=True))
        points = np.stack(
            np.meshgrid(*(np.arange(a, b) * s for a, b, s in zip(low, high, steps, strict=True)), indexing="ij"), -1
        )
        along = np.clip((points - start) @ direction, 0, length)
        distance = np.linalg.norm(points - start - along[..., None] * direction, axis=-1)
        edge = steps.max()
        share = np.clip((radius + edge / 2 - distance) / edge, 0, 1) * min(1.0, 2 * radius / edge) * inside[box]
        volume[box] += share * np.maximum(0, _VESSEL_HU - volume[box])
    return np.rint(volume).astype(np.int16)


def _scan(
    chest: Phantom,
    warp: Warp,
    days: int,
    lesions: Sequence[tuple[Lesion, float | None]],
    seed: tuple[int, int],
    noise: float,
) -> FollowUp:
    with optional_imports("imaging", "follow-up scans"):
        from scipy import ndimage  # noqa: PLC0415 -- an extra
    frame, shape = chest.frame, chest.volume.shape
    nodules: list[PhantomNodule | None] = []
    for lesion, diameter in lesions:
        x, y, z = warp.to_scan(np.array([lesion.center_world]))[0].round(9).tolist()
        nodules.append(None if diameter is None else PhantomNodule((x, y, z), diameter, lesion.density_hu))
    random = np.random.default_rng((*seed, 2))
    volume, mask = np.empty(shape, np.int16), np.empty(shape, np.int16)
    yy, xx = np.indices(shape[1:])
    for index in range(shape[0]):
        voxels = np.stack([xx, yy, np.full_like(xx, index)], -1).reshape(-1, 3)
        world = frame.to_world(voxels)
        source = frame.to_voxel(warp.to_chest(world)).T[::-1]
        hu = ndimage.map_coordinates(chest.volume, source, output=np.float32, order=1, cval=_AIR_HU)
        labels = ndimage.map_coordinates(chest.lung_mask, source, order=0, cval=0)
        for nodule in nodules:
            if nodule is not None:
                share = _sphere_share(world, nodule, frame.spacing)
                hu += share * np.maximum(0, nodule.density_hu - hu)
        if noise:
            hu += ndimage.gaussian_filter(random.standard_normal(shape[1:]), 0.6).ravel() * (noise * 2.1)
        volume[index] = np.clip(np.rint(hu), -1024, 3071).reshape(shape[1:])
        mask[index] = labels.reshape(shape[1:])
    return FollowUp(Phantom(volume, mask, frame), warp, days, tuple(nodules))


def _sphere_share(world: WorldPoints, nodule: PhantomNodule, spacing: tuple[float, float, float]) -> Floats:
    """The share of each voxel within a sphere, the mean of a few points in the voxel."""
    radius = nodule.diameter_mm / 2
    offset = world - np.array(nodule.center_world)
    near = np.flatnonzero((np.abs(offset) < radius + max(spacing)).all(axis=1))
    share = np.zeros(len(world))
    parts = (np.arange(5) - 2) / 5
    inner = np.stack(np.meshgrid(parts, parts, parts), -1).reshape(-1, 3) * np.array(spacing)
    squares: NDArray[Any] = np.square(offset[near, None] + inner).sum(axis=2)
    share[near] = (squares < radius**2).mean(axis=1)
    return share


def _world_axis(frame: Frame, count: int, axis: int) -> Floats:
    return np.asarray(frame.origin[axis] + np.arange(count) * frame.spacing[axis], np.float64)
