"""Data sources of 3D patches, cut from volumes: patches of single scans, and a patch of each scan of a patient.

Patches are cut in stored voxels. They are resampled to the recipe's spacing on the device.

Boxes are z0 y0 x0 z1 y1 x1 on the scale of voxel edges: voxel i reaches from i to i + 1.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

import numpy as np

from lung_nodule_ct.declaration.labels import PATHOLOGY
from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.geometry.boxes import convert_boxes
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.read.volumes import PADDING, Volume
from lung_nodule_ct.train.data import RowSource, pad_boxes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lung_nodule_ct.train.data import Arrays

UNKNOWN_MALIGNANCY: Final = -1
_LUNG_DRAWS: Final = 64


@dataclass(frozen=True)
class VolumeSource(RowSource):
    """The part that is the same for all sources of patches. Rows are scans or stacks.

    Raises:
        TrainingError: No row has a nodule, or the recipe's size is not (z, y, x), or the recipe has a spacing and the
            config has none.
    """

    def __post_init__(self) -> None:
        options = self.recipe.input
        if len(options.size) != 3:
            raise TrainingError("patches need an input.size of three axes", expected="z, y, x", got=options.size)
        if options.spacing_mm is not None and not self.rows.schema.has_frame:
            raise TrainingError(
                f"the volumes of {self.recipe.config} have no spacing in mm", remedy="remove input.spacing_mm"
            )
        if not any(row["nodules"] for row in self.rows.metadata):
            raise TrainingError("no scan of the split has a nodule", remedy="choose another split or build")

    def volume(self, row: int) -> NDArray[Any]:
        """The voxels of a row as a view, axes (z, y, x)."""
        voxels = self.rows.voxels(row)
        assert voxels is not None  # noqa: S101 -- the column is not nullable
        return voxels

    def frame(self, row: int) -> Frame | None:
        """The frame of a row, ``None`` if the config has no world coordinates."""
        return Frame.from_row(self.rows.metadata[row])

    def spacing(self, row: int) -> NDArray[np.float64]:
        """Voxel spacing z, y, x in mm; 1, 1, 1 if the config has no spacing."""
        if not self.rows.schema.has_frame:
            return np.ones(3)
        return np.array(self.rows.metadata[row]["spacing"][::-1], np.float64)

    def sized_nodules(self, row: int) -> list[dict[str, Any]]:
        """The nodules of a scan whose diameter is known."""
        return [nodule for nodule in self.rows.metadata[row]["nodules"] if nodule["diameter_mm"] is not None]

    def nodule_boxes(self, row: int) -> NDArray[np.float64]:
        """The boxes of the nodules of a row, shape (n, 6).

        Of scans, they are the bounding boxes of the spheres of :meth:`sized_nodules`. Stacks have no spheres in mm, so there
        they are the published boxes, without the nodules that have none.
        """
        if not self.rows.schema.has_frame:
            nodules = self.rows.metadata[row]["nodules"]
            boxes = [nodule["box_voxel"] for nodule in nodules if nodule["box_voxel"] is not None]
            return convert_boxes(boxes, "xyzxyz", "zyxzyx").astype(np.float64) if boxes else np.zeros((0, 6))
        nodules = self.sized_nodules(row)
        center = np.array([nodule["center_voxel"][::-1] for nodule in nodules], np.float64).reshape(-1, 3) + 0.5
        radius = np.array([nodule["diameter_mm"] / 2 for nodule in nodules])[:, None] / self.spacing(row)
        return np.concatenate([center - radius, center + radius], 1)

    @cached_property
    def extent(self) -> tuple[int, ...]:
        """Size of the patches in stored voxels, z, y, x: enough for the scan with the smallest spacing."""
        options = self.recipe.input
        if options.spacing_mm is None:
            return options.size
        finest = np.min([self.spacing(row) for row in range(len(self.rows))], axis=0)
        sides = zip(options.size, options.spacing_mm, finest, strict=True)
        return tuple(math.ceil(count * mm / step) + 1 for count, mm, step in sides)

    def first_voxel(self, center: NDArray[np.float64]) -> NDArray[np.int64]:
        """The first voxel (z, y, x) of the patch around a point."""
        return np.floor(center - np.array(self.extent) / 2).astype(np.int64)

    def cut(self, row: int, first_voxel: NDArray[np.int64]) -> NDArray[Any]:
        """Cut a patch of size ``extent``. Outside the volume it is filled with air, or with black in 8-bit stacks."""
        center = first_voxel + (np.array(self.extent) - 1) // 2
        volume = Volume(self.volume(row))
        outside = PADDING[volume.array.dtype.name]  # a nodule may be outside its volume
        return volume.patch(center_voxel=center[::-1].tolist(), size=self.extent[::-1], outside=outside)


@dataclass(frozen=True)
class Patches(VolumeSource):
    """Patches of single scans: at a nodule with a random offset, or anywhere in the lung. An epoch has one per scan.

    An example has ``image`` (z, y, x), ``spacing`` (3,) in mm, ``boxes`` (k, 6), and ``valid`` (k,), which boxes are
    real. A box belongs to the patch if its centre lies in the patch.
    """

    id_columns: ClassVar[tuple[str, ...]] = ("scan_id", "case_id")

    def patch(self, index: int, first_voxel: NDArray[np.int64]) -> Arrays:
        """Return the example whose first voxel is given (z, y, x)."""
        boxes = self.nodule_boxes(index) - np.tile(first_voxel, 2)
        center = (boxes[:, :3] + boxes[:, 3:]) / 2
        inside = ((center >= 0) & (center < self.extent)).all(1)
        padded, valid = pad_boxes(boxes[inside], self._most_boxes)
        return {
            "image": self.cut(index, first_voxel),
            "spacing": self.spacing(index).astype(np.float32),
            "boxes": padded,
            "valid": valid,
        }

    @cached_property
    def _most_boxes(self) -> int:
        return max(self.recipe.input.boxes, *(len(row["nodules"]) for row in self.rows.metadata))

    def grid(self, index: int, overlap: float) -> list[NDArray[np.int64]]:
        """The first voxels (z, y, x) of patches that cover a scan.

        Args:
            index: The scan.
            overlap: The fraction by which neighbouring patches overlap, at least.
        """
        axes = []
        for length, side, extent in zip(self.volume(index).shape, self._side(index), self.extent, strict=True):
            margin = (extent - side) / 2  # voxels that are cut but lie outside the resampled patch
            count = max(1, math.ceil((length - side) / (side * (1 - overlap))) + 1)
            starts = np.linspace(0, max(length - side, 0), count) if length > side else np.array([(length - side) / 2])
            axes.append(np.round(starts - margin).astype(np.int64))
        return [np.array(first) for first in np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)]

    def _side(self, index: int) -> NDArray[np.float64]:
        """The size of a resampled patch in stored voxels of a scan, z, y, x."""
        options = self.recipe.input
        return np.array(options.size) * (options.spacing_mm or 1.0) / self.spacing(index)

    def load(self, index: int, random: np.random.Generator) -> Arrays:
        """Draw a patch of a scan."""
        boxes = self.nodule_boxes(index)
        if len(boxes) and random.random() < self.recipe.input.positives:
            box = boxes[random.integers(len(boxes))]
            center = (box[:3] + box[3:]) / 2 + random.uniform(-0.35, 0.35, 3) * self._side(index)
        else:
            center = self._draw_in_lung(index, random)
        return self.patch(index, self.first_voxel(center))

    def _draw_in_lung(self, index: int, random: np.random.Generator) -> NDArray[np.float64]:
        """Draw a voxel of the lung mask, or any voxel if there is no mask."""
        volume = self.volume(index)
        mask = self.rows.voxels(index, "lung_mask") if "lung_mask" in self.rows.schema.names else None
        draws = random.integers(0, volume.shape, (_LUNG_DRAWS, 3))
        if mask is not None and mask.shape == volume.shape:
            in_lung = draws[mask[tuple(draws.T)] > 0]
            draws = in_lung if len(in_lung) else draws
        return draws[0] + 0.5


class _ScanNodule(NamedTuple):
    """A nodule of a scan: the row, and the index among its :meth:`~VolumeSource.sized_nodules`."""

    row: int
    nodule: int


class PatchNodule(NamedTuple):
    """The nodule that a patch of a sequence shows.

    Attributes:
        diameter_mm: Its diameter.
        center: Its centre z, y, x in stored voxels; 0 is the centre of the first voxel of the patch.
    """

    diameter_mm: float
    center: NDArray[np.float64]


@dataclass(frozen=True)
class Sequences(VolumeSource):
    """The scans of one patient and slice thickness in the order of time, with a patch at the same nodule in each.

    In a build with tracks, a sequence is a track. Of a patient without a track at this thickness, it is the latest scan, at its
    largest nodule. Without tracks, or if ``input.follow`` is ``largest``, a sequence is a patient, at the largest nodule of each
    scan, which may be different nodules.

    An example has t scans, the latest last, after zeros where the patient has fewer: ``image`` (t, z, y, x),
    ``spacing`` (t, 3) in mm, ``years`` (t,) since the first of these scans, ``present`` (t,), ``malignant`` (1, 0, or
    -1 if no pathology is known or the pathologies disagree; a track has the class of any of its scans), ``change`` of the diameter in mm from the first to the
    last of these scans, and ``changed``, whether there are at least two scans to compare.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.recipe.input.spacing_mm is None:
            raise TrainingError("patches of sequences need input.spacing_mm", expected="millimetres along z, y, x")

    def __len__(self) -> int:
        return len(self._groups)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Track, or patient, and slice thickness of each sequence."""
        rows = [self.rows.metadata[group[0].row] for group in self._groups]
        tracks = [self._nodule(group[0]).get("track_id") if self.has_tracks else None for group in self._groups]
        return tuple(
            f"{track or row['patient_id']} at {row['slice_thickness_mm']:g} mm"
            for row, track in zip(rows, tracks, strict=True)
        )

    @cached_property
    def patients(self) -> tuple[str | None, ...]:
        """``patient_id`` of each sequence."""
        return tuple(self.rows.metadata[group[0].row]["patient_id"] for group in self._groups)

    @cached_property
    def has_tracks(self) -> bool:
        """Whether sequences follow tracks: the recipe wants them, and the build has them."""
        nodules = (nodule for row in self.rows.metadata for nodule in row["nodules"])
        wanted = self.recipe.input.follow == "tracks"
        return wanted and any(nodule.get("track_id") or nodule.get("track_reason") for nodule in nodules)

    @cached_property
    def _groups(self) -> list[list[_ScanNodule]]:
        """The scans of each sequence with their nodule, in the order of time, at most the latest ``input.scans``."""

        def key(row: int) -> tuple[Any, ...]:
            return self.rows.metadata[row]["patient_id"], self.rows.metadata[row]["slice_thickness_mm"]

        def time(row: int) -> int:
            return int(self.rows.metadata[row]["timepoint"])

        with_nodule = (row for row in range(len(self.rows)) if self.sized_nodules(row))
        ordered = sorted(with_nodule, key=lambda row: (*key(row), time(row)))
        groups: list[list[_ScanNodule]] = []
        for _, rows in groupby(ordered, key):
            groups += self._sequences(list(rows))
        return [group[-self.recipe.input.scans :] for group in groups]

    def _sequences(self, rows: list[int]) -> list[list[_ScanNodule]]:
        """The sequences of one patient and slice thickness, from its rows in the order of time."""
        largest = [_ScanNodule(row, self._largest_nodule_index(row)) for row in rows]
        if not self.has_tracks:
            return [largest]
        tracks: defaultdict[str, list[_ScanNodule]] = defaultdict(list)
        for row in rows:
            for index, nodule in enumerate(self.sized_nodules(row)):
                if nodule["track_id"] is not None:
                    tracks[nodule["track_id"]].append(_ScanNodule(row, index))
        return list(tracks.values()) or [largest[-1:]]

    def nodules(self, index: int) -> list[PatchNodule]:
        """The nodule of each scan of a sequence, in the order of time."""
        nodules = []
        for scan in self._groups[index]:
            center = self._nodule_center(scan)
            diameter = self._nodule(scan)["diameter_mm"]
            nodules.append(PatchNodule(diameter, center - self.first_voxel(center) - 0.5))
        return nodules

    def load(self, index: int, random: np.random.Generator) -> Arrays:  # noqa: ARG002 -- a sequence is not drawn
        """Load a sequence."""
        group, length = self._groups[index], self.recipe.input.scans
        missing = length - len(group)
        image = np.zeros((length, *self.extent), np.int16)
        spacing = np.ones((length, 3), np.float32)
        for position, scan in enumerate(group, missing):
            image[position] = self.cut(scan.row, self.first_voxel(self._nodule_center(scan)))
            spacing[position] = self.spacing(scan.row)
        days = np.array([self.rows.metadata[scan.row]["days_since_first"] for scan in group], np.float32)
        diameters = [nodule.diameter_mm for nodule in self.nodules(index)]
        return {
            "image": image,
            "spacing": spacing,
            "years": np.concatenate([np.zeros(missing, np.float32), (days - days[0]) / np.float32(365.25)]),
            "present": np.arange(length) >= missing,
            "malignant": np.array(self._malignancy(group), np.int32),
            "change": np.array(diameters[-1] - diameters[0], np.float32),
            "changed": np.array(len(group) > 1),
        }

    def _largest_nodule_index(self, row: int) -> int:
        return int(np.argmax([nodule["diameter_mm"] for nodule in self.sized_nodules(row)]))

    def _nodule(self, scan: _ScanNodule) -> dict[str, Any]:
        return self.sized_nodules(scan.row)[scan.nodule]

    def _nodule_center(self, scan: _ScanNodule) -> NDArray[np.float64]:
        center: NDArray[np.float64] = self.nodule_boxes(scan.row)[scan.nodule].reshape(2, 3).mean(0)
        return center

    def _malignancy(self, group: list[_ScanNodule]) -> int:
        nodules = [self._nodule(scan) for scan in group]
        classes = {nodule["pathology"] for nodule in nodules}
        if self.has_tracks:
            classes |= {nodule["track_pathology"] for nodule in nodules}
        classes -= {None}
        malignant = {PATHOLOGY[index].malignant for index in classes}
        return int(malignant.pop()) if len(malignant) == 1 else UNKNOWN_MALIGNANCY
