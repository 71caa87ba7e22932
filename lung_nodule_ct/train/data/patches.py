"""Patches of volumes: around nodules with a jitter, or anywhere in the lung. Resampling is left to the device."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.geometry.boxes import convert_boxes
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.read.rows import Rows, ids_of, padded
from lung_nodule_ct.read.volumes import Volume

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from lung_nodule_ct.train.recipes import InputOptions, Recipe

_TRIES = 64


def spacing_of(row: Mapping[str, Any]) -> NDArray[np.float64]:
    """Distance of voxels z, y, x in mm; 1 where the config knows none."""
    return np.array(row.get("spacing", (1.0, 1.0, 1.0))[::-1], np.float64)


def extent_of(rows: Sequence[Mapping[str, Any]], options: InputOptions) -> tuple[int, ...]:
    """How many stored voxels z, y, x must be cut so that the patch is full in the finest of the scans."""
    if options.spacing_mm is None:
        return options.size
    finest = np.min([spacing_of(row) for row in rows], axis=0)
    return tuple(
        math.ceil(n * mm / own) + 1 for n, mm, own in zip(options.size, options.spacing_mm, finest, strict=True)
    )


def boxes_of(row: Mapping[str, Any]) -> NDArray[np.float64]:
    """The nodules as boxes around their spheres, z0 y0 x0 z1 y1 x1 on the voxel edges' scale, shape (n, 6).

    Stacks without millimetres have published boxes; nodules without one are left out.
    """
    if "spacing" not in row:
        known = [nodule["box_voxel"] for nodule in row["nodules"] if nodule["box_voxel"] is not None]
        return convert_boxes(known, "xyzxyz", "zyxzyx").astype(np.float64) if known else np.zeros((0, 6))
    middle = np.array([nodule["center_voxel"][::-1] for nodule in row["nodules"]], np.float64).reshape(-1, 3) + 0.5
    radius = np.array([nodule["diameter_mm"] / 2 for nodule in row["nodules"]])[:, None] / spacing_of(row)
    return np.concatenate([middle - radius, middle + radius], 1)


def cut(volume: NDArray[Any], low: NDArray[np.int64], extent: tuple[int, ...]) -> NDArray[Any]:
    """A patch whose first voxel is ``low`` (z, y, x); air or black where it reaches over the border."""
    middle = low + (np.array(extent) - 1) // 2
    return Volume(volume).patch(center_voxel=middle[::-1].tolist(), size=extent[::-1])


@dataclass(frozen=True)
class Patches:
    """Examples ``image`` (z, y, x) as stored, ``spacing`` (3,) of its voxels in mm, ``boxes`` (k, 6) z0 y0 x0 z1 y1 x1, ``valid`` (k,).

    A scan gives one patch each time it comes up. A box counts where its centre lies in the patch.

    Raises:
        TrainingError: No scan has a nodule, or the recipe's size is no (z, y, x), or it wants millimetres and there are none.
    """

    rows: Rows
    recipe: Recipe

    def __post_init__(self) -> None:
        if len(self.recipe.input.size) != 3:
            raise TrainingError("input.size of patches", expected="z, y, x", got=self.recipe.input.size)
        if self.recipe.input.spacing_mm is not None and "spacing" not in self.rows.light[0]:
            raise TrainingError(f"{self.recipe.config} has no millimetres", remedy="leave input.spacing_mm out")
        if not any(row["nodules"] for row in self.rows.light):
            raise TrainingError("no scan of the split has a nodule", remedy="choose another split or build")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ids(self) -> tuple[str, ...]:
        """``scan_id`` or ``case_id``."""
        return ids_of(self.rows, "scan_id", "case_id")

    @property
    def patients(self) -> tuple[str | None, ...]:
        """``patient_id``, where the config has it."""
        return self.rows.patients

    @cached_property
    def extent(self) -> tuple[int, ...]:
        """Stored voxels of an example, z, y, x."""
        return extent_of(self.rows.light, self.recipe.input)

    def volume(self, number: int) -> NDArray[Any]:
        """A scan's voxels as a view, axes (z, y, x)."""
        array = self.rows.voxels(number)
        assert array is not None  # noqa: S101 -- the column is not nullable
        return array

    def frame(self, number: int) -> Frame | None:
        """Where a scan's voxels are; ``None`` where the config has no world."""
        row = self.rows.light[number]
        if "origin" not in row:
            return None
        return Frame(tuple(row["origin"]), tuple(row["spacing"]), tuple(row["direction"]))

    def example(self, number: int, low: NDArray[np.int64]) -> dict[str, np.ndarray]:
        """The patch whose first voxel is ``low`` (z, y, x)."""
        row = self.rows.light[number]
        boxes = boxes_of(row) - np.tile(low, 2)
        middle = (boxes[:, :3] + boxes[:, 3:]) / 2
        kept, valid = padded(boxes[((middle >= 0) & (middle < self.extent)).all(1)], self.recipe.input.boxes)
        image = cut(self.volume(number), low, self.extent)
        return {"image": image, "spacing": spacing_of(row).astype(np.float32), "boxes": kept, "valid": valid}

    def load(self, number: int, random: np.random.Generator) -> dict[str, np.ndarray]:
        """A patch drawn from a scan."""
        boxes = boxes_of(self.rows.light[number])
        if len(boxes) and random.random() < self.recipe.input.positives:
            box = boxes[random.integers(len(boxes))]
            options = self.recipe.input
            side = np.array(options.size) * (options.spacing_mm or 1.0) / spacing_of(self.rows.light[number])
            middle = (box[:3] + box[3:]) / 2 + random.uniform(-0.35, 0.35, 3) * side
        else:
            middle = self._in_lung(number, random)
        return self.example(number, np.floor(middle - np.array(self.extent) / 2).astype(np.int64))

    def _in_lung(self, number: int, random: np.random.Generator) -> NDArray[np.float64]:
        """A voxel of the lung mask where there is one; else any voxel."""
        mask = self.rows.voxels(number, "lung_mask") if "direction" in self.rows.light[number] else None
        drawn = random.integers(0, self.volume(number).shape, (_TRIES, 3))
        if mask is not None and mask.shape == self.volume(number).shape:
            inside = drawn[mask[tuple(drawn.T)] > 0]
            drawn = inside if len(inside) else drawn
        return drawn[0] + 0.5
