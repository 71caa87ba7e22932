"""What one reading of a build leaves behind for the checks: a few numbers a row, no voxels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from lung_nodule_ct.read.build_folder import BuildFolder


@dataclass(frozen=True, slots=True)
class VoxelFacts:
    """Of one volume.

    Attributes:
        shape: z, y, x.
        key: Equal for equal voxels.
        lowest: The lowest value.
        highest: The highest value.
        below: Voxels under -1024, what the 12 bits of a scanner cannot say.
        above: Voxels over 3071, likewise.
        padding: The most frequent value under -1024, ``None`` where there is none.
        constant: Slices of one value only.
        repeated: Slices that equal the one before them, those of one value apart.
        step: The largest mean difference of two neighbouring slices over the median one; ``None`` under five slices or
            where the median is 0.
    """

    shape: tuple[int, int, int]
    key: str
    lowest: int
    highest: int
    below: int
    above: int
    padding: int | None
    constant: int
    repeated: int
    step: float | None


@dataclass(frozen=True, slots=True)
class NoduleFacts:
    """Of one nodule of a scan.

    Attributes:
        diameter_mm: As stored.
        pathology: Class index, ``None`` where it is not known.
        voxel_residual: How far the stored voxel centre is from the one that the frame gives for the world centre, in voxels,
            on the worst axis.
        world_residual: Distance of the stored world centre from the one that the frame gives for the voxel centre, in mm.
        box_agrees: Whether the stored box is the one of the sphere.
        has_box: Whether there is a box.
        in_volume: Whether the centre lies in the volume, its voxels' halves at the border included.
        center_in_lung: Whether the voxel of the centre has a lung label; ``None`` without a mask or out of the volume.
        lung_share: The part of the box's voxels that have a lung label; ``None`` without a mask or a box.
    """

    diameter_mm: float
    pathology: int | None
    voxel_residual: float
    world_residual: float
    box_agrees: bool
    has_box: bool
    in_volume: bool
    center_in_lung: bool | None
    lung_share: float | None


@dataclass(frozen=True, slots=True)
class ScanFacts:
    """Of one row of a scan config. What is not listed is a column, as the config declares it.

    Attributes:
        config: The config's name.
        split: The split.
        row: The row's place in the split, from 0.
        identity: Whether the direction matrix is the identity.
        orthonormal: Whether the direction matrix is a rotation, mirrored or not.
        has_mask: Whether there is a lung mask.
        lung_median: Median HU of the voxels with a lung label, ``None`` without any.
        voxels: Its volume in numbers.
        nodules: Its nodules in numbers.
    """

    config: str
    split: str
    row: int
    scan_id: str | None
    patient_id: str | None
    fold: int | None
    timepoint: int | None
    num_timepoints: int | None
    days_since_first: int | None
    slice_thickness_mm: float
    spacing: tuple[float, float, float]
    identity: bool
    orthonormal: bool
    has_mask: bool
    lung_median: float | None
    voxels: VoxelFacts
    nodules: tuple[NoduleFacts, ...]

    @property
    def key(self) -> tuple[str, float]:
        """The same for the same volume in two configs; a row without a scan id is a volume of its own."""
        return self.scan_id or f"{self.config}/{self.split}/{self.row}", self.slice_thickness_mm


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """Of one row of a picture config.

    Attributes:
        config: The config's name.
        split: The split.
        row: The row's place in the split, from 0.
        patient_id: The patient, ``None`` where the archives name none.
        fold: 0 to 4, ``None`` without a patient.
        key: Equal for equal pixels.
        label: Class index, ``None`` where the config has no classes.
        boxes: How many boxes; ``None`` where the config has none.
    """

    config: str
    split: str
    row: int
    patient_id: str | None
    fold: int | None
    key: str
    label: int | None
    boxes: int | None


@dataclass(frozen=True, slots=True)
class StackFacts:
    """Of one row of the stack config.

    Attributes:
        config: The config's name.
        split: The split.
        row: The row's place in the split, from 0.
        voxels: Its volume in numbers.
    """

    config: str
    split: str
    row: int
    voxels: VoxelFacts


@dataclass(frozen=True, slots=True)
class DateFacts:
    """Where dates stand, never which.

    Attributes:
        dates: How many calendar dates there are, by place.
        possible: What could be one (eight digits, 201903), by place, the certain ones apart.
        texts: How many texts of rows were looked at.
        pictures: How many pictures' metadata were.
        files: The files beside the shards that were read.
        unread: Those of which only the name was.
    """

    dates: Mapping[str, int]
    possible: Mapping[str, int]
    texts: int
    pictures: int
    files: tuple[str, ...]
    unread: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """All that the checks have.

    Attributes:
        build: The build.
        report: Its ``findings.json``.
        scans: The rows of the scan configs.
        images: The rows of the picture configs.
        stacks: The rows of the stack config.
        hounsfield: How often each HU value from -32768 stands in the distinct scans, shape (65536,).
        dates: Where dates stand.
    """

    build: BuildFolder
    report: Mapping[str, Any]
    scans: tuple[ScanFacts, ...]
    images: tuple[ImageFacts, ...]
    stacks: tuple[StackFacts, ...]
    hounsfield: NDArray[np.int64]
    dates: DateFacts

    @property
    def distinct_scans(self) -> tuple[ScanFacts, ...]:
        """Every volume once, though ``longitudinal`` holds those of the other configs again."""
        return tuple({scan.key: scan for scan in reversed(self.scans)}.values())[::-1]

    def findings(self, config: str, codes: Sequence[str]) -> int:
        """How many cases of some findings the build reported for a config."""
        own = (finding for finding in self.report.get("findings", ()) if finding["config"] == config)
        return sum(finding["count"] for finding in own if finding["code"] in codes)
