"""A patient's scans in the order of time: a patch at each scan's largest nodule, until nodules are tracked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from lung_nodule_ct.declaration.labels import PATHOLOGY
from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.read.rows import Rows
from lung_nodule_ct.train.data.patches import boxes_of, cut, extent_of, spacing_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from lung_nodule_ct.train.recipes import Recipe

UNKNOWN = -1


@dataclass(frozen=True)
class Sequences:
    """Examples of one patient and slice thickness, t scans, the latest last.

    ``image`` (t, z, y, x), ``spacing`` (t, 3), ``years`` (t,) since the first of them, ``present`` (t,), ``malignant`` 1, 0 or -1 where
    no pathology is known or the nodules' disagree, ``change`` of the largest nodule's diameter from the first to the last of them in
    mm, and ``changed``: whether there are two to compare.

    Raises:
        TrainingError: No patient of the split has a scan with a nodule.
    """

    rows: Rows
    recipe: Recipe

    def __post_init__(self) -> None:
        if len(self.recipe.input.size) != 3 or self.recipe.input.spacing_mm is None:
            raise TrainingError("patches of sequences need input.size and input.spacing_mm", expected="z, y, x")
        if not self._groups:
            raise TrainingError("no scan of the split has a nodule", remedy="choose another split or build")

    def __len__(self) -> int:
        return len(self._groups)

    @property
    def ids(self) -> tuple[str, ...]:
        """Patient and thickness."""
        first = [self.rows.light[group[0]] for group in self._groups]
        return tuple(f"{row['patient_id']} at {row['slice_thickness_mm']:g} mm" for row in first)

    @property
    def patients(self) -> tuple[str | None, ...]:
        """``patient_id``."""
        return tuple(self.rows.light[group[0]]["patient_id"] for group in self._groups)

    @cached_property
    def _groups(self) -> list[list[int]]:
        """Rows with a nodule, by patient and thickness, in the order of time, the latest only."""

        def key(number: int) -> tuple[Any, ...]:
            row = self.rows.light[number]
            return row["patient_id"], row["slice_thickness_mm"]

        def time(number: int) -> int:
            return int(self.rows.light[number]["timepoint"])

        usable = sorted(
            (n for n, row in enumerate(self.rows.light) if row["nodules"]), key=lambda n: (*key(n), time(n))
        )
        return [list(group)[-self.recipe.input.scans :] for _, group in groupby(usable, key)]

    @cached_property
    def _extent(self) -> tuple[int, ...]:
        return extent_of(self.rows.light, self.recipe.input)

    def nodules(self, number: int) -> list[tuple[float, NDArray[np.float64]]]:
        """The largest nodule of each scan of a patient, in the order of time: diameter in mm, and its centre in the scan's patch.

        The centre is z, y, x in stored voxels from the middle of the patch's first one.
        """
        found = []
        for place in self._groups[number]:
            row = self.rows.light[place]
            largest = _largest(row)
            middle = boxes_of(row)[largest].reshape(2, 3).mean(0)
            found.append((row["nodules"][largest]["diameter_mm"], middle - self._first_voxel(middle) - 0.5))
        return found

    def _first_voxel(self, middle: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.floor(middle - np.array(self._extent) / 2).astype(np.int64)

    def load(self, number: int, random: np.random.Generator) -> dict[str, np.ndarray]:  # noqa: ARG002 -- nothing is drawn
        """One patient's scans."""
        group = self._groups[number]
        rows = [self.rows.light[place] for place in group]
        room = self.recipe.input.scans
        before = room - len(group)
        image = np.zeros((room, *self._extent), np.int16)
        spacing = np.ones((room, 3), np.float32)
        for slot, (place, row) in enumerate(zip(group, rows, strict=True), before):
            low = self._first_voxel(boxes_of(row)[_largest(row)].reshape(2, 3).mean(0))
            volume = self.rows.voxels(place)
            assert volume is not None  # noqa: S101 -- the column is not nullable
            image[slot] = cut(volume, low, self._extent)
            spacing[slot] = spacing_of(row)
        days = np.array([row["days_since_first"] for row in rows], np.float32)
        size = [diameter for diameter, _ in self.nodules(number)]
        return {
            "image": image,
            "spacing": spacing,
            "years": np.concatenate([np.zeros(before, np.float32), (days - days[0]) / np.float32(365.25)]),
            "present": np.arange(room) >= before,
            "malignant": np.array(_malignant(rows), np.int32),
            "change": np.array(size[-1] - size[0], np.float32),
            "changed": np.array(len(group) > 1),
        }


def _largest(row: Mapping[str, Any]) -> int:
    return int(np.argmax([nodule["diameter_mm"] for nodule in row["nodules"]]))


def _malignant(rows: list[dict[str, Any]]) -> int:
    known = {row["nodules"][_largest(row)]["pathology"] for row in rows} - {None}
    verdicts = {PATHOLOGY[index].malignant for index in known}
    return int(verdicts.pop()) if len(verdicts) == 1 else UNKNOWN
