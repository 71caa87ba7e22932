"""The facts that one reading of a build keeps for the checks: a few numbers per row, no voxels.

Every row has :class:`ExampleFacts`, whatever its config. A slice stack has :class:`VolumeFacts` and a scan has
:class:`ScanFacts`, which contain more. A config of a kind that the audit does not know is therefore still checked for
dates, patients, splits and equal pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.declaration.configs import Kind
from lung_nodule_ct.declaration.published import CountedConfig, CountedExample, FigureCount, count_figures
from lung_nodule_ct.read.audit_report import RowKey

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from lung_nodule_ct.audit.measures import PictureMeasures, ScanMeasures, StackMeasures
    from lung_nodule_ct.read.build_folder import BuildFolder


@dataclass(frozen=True, slots=True)
class VoxelFacts:
    """Facts of the voxels of one volume.

    Attributes:
        shape: z, y, x.
        lowest: The lowest value.
        highest: The highest value.
        below: Number of voxels below -1024, the lowest value of a 12-bit scanner.
        above: Number of voxels above 3071, its highest value.
        padding: The most frequent value below -1024, ``None`` if there is no such voxel.
        constant: Number of slices in which all voxels are equal.
        repeated: Number of other slices that are equal to the slice before them.
        step: The largest mean difference between neighbouring slices, divided by the median one; ``None`` if there are
            fewer than five slices or the median is 0.
    """

    shape: tuple[int, int, int]
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
    """Facts of one nodule of a scan.

    Attributes:
        center_world: Its centre in LPS mm.
        diameter_mm: Its diameter, as stored; ``None`` if it is unknown.
        pathology: Index of its class, ``None`` if unknown.
        voxel_residual: Distance in voxels, on the worst axis, between the stored voxel centre and the position that the
            frame gives for the world centre.
        world_residual: Distance in mm between the stored world centre and the position that the frame gives for the
            voxel centre.
        box_agrees: Whether the stored box is the box of the sphere.
        has_box: Whether there is a box.
        in_volume: Whether the centre is inside the volume, up to the outer faces of its voxels.
        center_in_lung: Whether the voxel of the centre has a lung label; ``None`` without a mask, or outside the
            volume.
        lung_share: The fraction of the voxels of the box that have a lung label; ``None`` without a mask or a box.
        key_slice_basis: What its key slice was chosen by.
        track_id: Its track.
        track_reason: Why it has none; ``None``, too, if the build has no tracks.
        track_pathology: Index of the class of its track.
    """

    center_world: tuple[float, float, float]
    diameter_mm: float | None
    pathology: int | None
    voxel_residual: float
    world_residual: float
    box_agrees: bool
    has_box: bool
    in_volume: bool
    center_in_lung: bool | None
    lung_share: float | None
    key_slice_basis: str | None = None
    track_id: str | None = None
    track_reason: str | None = None
    track_pathology: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleFacts:
    """Facts of one row of any config.

    Attributes:
        config: Name of the config.
        split: The split.
        row: Number of the row in the split, from 0.
        patient_id: The patient, ``None`` if unknown or if the config has no such column.
        scan_id: The scan, ``None`` likewise.
        fold: The fold of the patient, ``None`` likewise.
        pixels_key: Equal for equal voxels of the first volume or, without one, for equal pixels of the first picture;
            ``None`` without either.
        pathology: Index of the pathology class, ``None`` if the config has no column of pathology classes.
        num_records: Number of entries in the first column of records (boxes, nodules), 0 without such a column.
        key: The values of its columns of identifiers.
        picture: What was measured in its picture, ``None`` if nothing was.
    """

    config: str
    split: str
    row: int
    patient_id: str | None
    scan_id: str | None
    fold: int | None
    pixels_key: str | None
    pathology: int | None
    num_records: int
    key: Mapping[str, Any]
    picture: PictureMeasures | None = None

    @property
    def row_key(self) -> RowKey:
        """The row, as a flag names it."""
        return RowKey(self.config, self.split, self.row, self.key)

    @property
    def scan_key(self) -> str:
        """Equal for rows of one scan, of either thickness. The key of a row without a ``scan_id`` is unique."""
        return self.scan_id or f"{self.config}/{self.split}/{self.row}"

    def __str__(self) -> str:
        return f"{self.config} {self.split} row {self.row}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeFacts(ExampleFacts):
    """Facts of one row with a volume: a scan or a slice stack.

    Attributes:
        voxels: The facts of its voxels.
        boxes: The nodules of a slice stack: diameter as published, and mean side of the box in the plane in pixels; ``None`` where
            one is unknown.
        stack: What was measured in a slice stack, ``None`` if nothing was.
    """

    voxels: VoxelFacts
    boxes: tuple[tuple[float, float] | None, ...] = ()
    stack: StackMeasures | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanFacts(VolumeFacts):
    """Facts of one row of a scan config. Attributes that are not listed are columns of the config.

    Attributes:
        is_identity: Whether the direction matrix is the identity.
        is_orthonormal: Whether the direction matrix is a rotation or a mirrored rotation.
        has_mask: Whether there is a lung mask.
        lung_median: Median HU of the voxels with a lung label, ``None`` if there are none.
        nodules: The facts of its nodules.
        measures: What was measured in its voxels; ``None`` without the extra ``imaging``.
    """

    timepoint: int | None
    num_timepoints: int | None
    days_since_first: int | None
    slice_thickness_mm: float
    spacing: tuple[float, float, float]
    is_identity: bool
    is_orthonormal: bool
    has_mask: bool
    lung_median: float | None
    nodules: tuple[NoduleFacts, ...]
    measures: ScanMeasures | None = None
    lung_mask_origin: str | None = None

    @property
    def volume_key(self) -> tuple[str, float]:
        """Equal for rows of the same volume in two configs: the scan and its slice thickness."""
        return self.scan_key, self.slice_thickness_mm


@dataclass(frozen=True, slots=True)
class DateFacts:
    """How many dates there are and where, but never which.

    Attributes:
        dates: Number of calendar dates by location.
        possible: Number of other texts by location that could contain a date (eight digits, 201903).
        texts: Number of texts that were searched in rows.
        pictures: Number of pictures whose metadata were searched.
        files: The other files of the build that were searched.
        unread: The files of which only the name was searched.
    """

    dates: Mapping[str, int]
    possible: Mapping[str, int]
    texts: int
    pictures: int
    files: tuple[str, ...]
    unread: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """Everything that the checks use.

    Attributes:
        build: The build.
        report: The content of its ``findings.json``.
        examples: The facts of all rows, in the order of the build.
        hounsfield: How often each HU value from -32768 occurs in the distinct scans, shape (65536,).
        dates: The search for dates.
    """

    build: BuildFolder
    report: Mapping[str, Any]
    examples: tuple[ExampleFacts, ...]
    hounsfield: NDArray[np.int64]
    dates: DateFacts

    @cached_property
    def scans(self) -> tuple[ScanFacts, ...]:
        """The rows of the scan configs."""
        return tuple(example for example in self.examples if isinstance(example, ScanFacts))

    @cached_property
    def distinct_scans(self) -> tuple[ScanFacts, ...]:
        """Every volume of the scan configs once, although two configs may contain it."""
        return tuple({scan.volume_key: scan for scan in reversed(self.scans)}.values())[::-1]

    @cached_property
    def volumes(self) -> tuple[VolumeFacts, ...]:
        """Every volume of scans once, then the slice stacks."""
        stacks = [row for row in self.examples if isinstance(row, VolumeFacts) and not isinstance(row, ScanFacts)]
        return (*self.distinct_scans, *stacks)

    @cached_property
    def figures(self) -> tuple[FigureCount, ...]:
        """The published figures, counted in the rows of this build."""
        counted = [
            CountedConfig(self.build.config(name), tuple(map(_counted, self.of(name)))) for name in self.build.configs
        ]
        return tuple(count_figures(counted, annotated="slices with at least one usable box"))

    def of(self, *configs: str) -> list[ExampleFacts]:
        """The rows of some configs."""
        return [example for example in self.examples if example.config in configs]

    def configs(self, kind: Kind) -> list[str]:
        """The names of the configs of a kind."""
        return [name for name in self.build.configs if self.build.config(name).kind == kind]

    def findings(self, configs: Collection[str], codes: Collection[str]) -> int:
        """The number of cases of some findings that the build reported for some configs."""
        entries = (finding for finding in self.report.get("findings", ()) if finding["config"] in configs)
        return sum(finding["count"] for finding in entries if finding["code"] in codes)


def _counted(example: ExampleFacts) -> CountedExample:
    nodules = example.nodules if isinstance(example, ScanFacts) else ()
    diameters = tuple(nodule.diameter_mm for nodule in nodules if nodule.diameter_mm is not None)
    return CountedExample(
        example.split,
        example.patient_id,
        example.scan_key,
        diameters,
        annotated=example.num_records > 0,
        label=example.pathology,
    )
