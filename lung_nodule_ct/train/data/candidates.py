"""Patches around the candidates of a detector, which are nodules or false positives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import pyarrow.parquet as pq

from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.train.data.volumes import VolumeSource

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from lung_nodule_ct.read.rows import Rows
    from lung_nodule_ct.train.data import Arrays
    from lung_nodule_ct.train.recipes import Recipe

CANDIDATES: Final = "candidates.parquet"
"""The file of the candidates, in the folder of the run."""
_ID_COLUMNS: Final = ("scan_id", "case_id")
_OFFSET: Final = 0.25
"""Largest distance of the centre of a patch from that of its nodule along each axis, in diameters."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A candidate of a scan.

    Attributes:
        row: The scan, among the rows of its split.
        center: z, y, x in stored voxels, on the scale of voxel edges.
        score: The score of the detector.
        is_nodule: Whether its centre is within the radius of a nodule.
    """

    row: int
    center: tuple[float, float, float]
    score: float
    is_nodule: bool


@dataclass(frozen=True)
class Candidates(VolumeSource):
    """Patches around candidates. An epoch has one per candidate.

    An example has ``image`` (z, y, x), ``spacing`` (3,) in mm, and ``label``, 1 for a nodule. For training, the share
    ``input.positives`` of the examples are nodules: candidates that are one, and annotated ones, which the detector may have missed.

    Attributes:
        found: The candidates.
    """

    found: tuple[Candidate, ...]

    @classmethod
    def open(cls, rows: Rows, recipe: Recipe, split: str, folder: Path | None) -> Self:
        """The candidates of a split that were saved in the folder of a run.

        Raises:
            TrainingError: There are none of that split, or they are of another build.
        """
        path = None if folder is None else folder / CANDIDATES
        if path is None or not path.is_file():
            raise TrainingError(
                f"a run of {recipe.task} has no {CANDIDATES}",
                remedy="train it with lung-nodule-ct train, which finds them",
            )
        try:
            saved = pq.read_table(path, page_checksum_verification=True).to_pylist()
            of_split = [row for row in saved if row["split"] == split]
            found = tuple(
                Candidate(row["number"], (row["z"], row["y"], row["x"]), row["score"], row["is_nodule"])
                for row in of_split
            )
        except (OSError, ValueError, KeyError) as error:
            raise TrainingError(f"{path} cannot be read: {error}", remedy="train again with another --out") from error
        if not found:
            raise TrainingError(
                f"{path} has no candidates of the split {split}", remedy="evaluate the detector with --rescore instead"
            )
        scans = rows.ids(*_ID_COLUMNS)
        for row in of_split:
            if row["number"] >= len(scans) or scans[row["number"]] != row["id"]:
                raise TrainingError(
                    f"{path} is of another build", expected=f"the scan {row['id']} as row {row['number']} of {split}"
                )
        return cls(rows, recipe, found)

    def __len__(self) -> int:
        return len(self.found)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The scan and the number of each candidate."""
        scans = self.rows.ids(*_ID_COLUMNS)
        return tuple(f"{scans[one.row]}, candidate {number}" for number, one in enumerate(self.found))

    @cached_property
    def patients(self) -> tuple[str | None, ...]:
        """``patient_id`` of each candidate."""
        patients = self.rows.patients
        return tuple(patients[one.row] for one in self.found)

    def candidate(self, index: int) -> Arrays:
        """The example of a candidate."""
        one = self.found[index]
        return self._example(one.row, np.array(one.center), is_nodule=one.is_nodule)

    def load(self, index: int, random: np.random.Generator) -> Arrays:
        """Load a candidate, or draw one if the share of nodules requires it."""
        if random.random() < self.recipe.input.positives:
            return self._example(*self._draw_nodule(random), is_nodule=True)
        false = self._false_positives
        return self.candidate(int(false[random.integers(len(false))]) if self.found[index].is_nodule else index)

    def _example(self, row: int, center: NDArray[np.float64], *, is_nodule: bool) -> Arrays:
        return {
            "image": self.cut(row, self.first_voxel(center)),
            "spacing": self.spacing(row).astype(np.float32),
            "label": np.array(is_nodule, np.int32),
        }

    def _draw_nodule(self, random: np.random.Generator) -> tuple[int, NDArray[np.float64]]:
        """The scan and the centre of a candidate that is a nodule, or a point near the centre of an annotated nodule."""
        number = int(random.integers(len(self._hits) + len(self._annotated)))
        if number < len(self._hits):
            one = self.found[self._hits[number]]
            return one.row, np.array(one.center)
        row, box = self._annotated[number - len(self._hits)]
        return row, (box[:3] + box[3:]) / 2 + random.uniform(-_OFFSET, _OFFSET, 3) * (box[3:] - box[:3])

    @cached_property
    def _hits(self) -> NDArray[np.int64]:
        return np.flatnonzero([one.is_nodule for one in self.found])

    @cached_property
    def _false_positives(self) -> NDArray[np.int64]:
        return np.flatnonzero([not one.is_nodule for one in self.found])

    @cached_property
    def _annotated(self) -> list[tuple[int, NDArray[np.float64]]]:
        return [(row, box) for row in range(len(self.rows)) for box in self.nodule_boxes(row)]


def candidates_in(predictions: Sequence[dict[str, Any]], hits: Sequence[NDArray[np.bool_]]) -> tuple[Candidate, ...]:
    """The boxes of predicted volumes as candidates.

    Args:
        predictions: Predictions of volumes.
        hits: Of each of them, which boxes are nodules.
    """
    return tuple(
        Candidate(row["number"], ((z0 + z1) / 2, (y0 + y1) / 2, (x0 + x1) / 2), score, bool(hit))
        for row, is_nodule in zip(predictions, hits, strict=True)
        for (x0, y0, z0, x1, y1, z1), score, hit in zip(row["boxes"], row["scores"], is_nodule, strict=True)
    )
