"""The one reading of a build: every row of every config is read once and leaves its facts.

Voxels are measured one slice at a time, so that a volume is never copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from lung_nodule_ct.audit.date_checks import DateSearch
from lung_nodule_ct.audit.facts import ExampleFacts, Facts, NoduleFacts, ScanFacts, VolumeFacts, VoxelFacts
from lung_nodule_ct.declaration.configs import Kind
from lung_nodule_ct.declaration.labels import PATHOLOGY_NAMES
from lung_nodule_ct.declaration.schema import Category, Picture, Records, Voxels
from lung_nodule_ct.errors import BuildFolderError
from lung_nodule_ct.formats.pictures import decode_picture, pixels_key
from lung_nodule_ct.geometry.boxes import sphere_box
from lung_nodule_ct.geometry.frame import IDENTITY, Frame
from lung_nodule_ct.read.rows import iterate_rows
from lung_nodule_ct.system.imports import is_installed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lung_nodule_ct.audit.measures import Measurement
    from lung_nodule_ct.declaration.rows import NoduleRecord, ScanRow, StackNoduleRecord
    from lung_nodule_ct.declaration.schema import Column
    from lung_nodule_ct.geometry.frame import CTVolume, MaskVolume
    from lung_nodule_ct.read.build_folder import BuildFolder
    from lung_nodule_ct.read.rows import IndexedRow
    from lung_nodule_ct.system.progress import BuildProgress

LOW_HU: Final = -1024
HIGH_HU: Final = 3071
"""The range of 12 bits with the usual rescale intercept of -1024."""

OFFSET: Final = 32768
"""The index of the value 0 in a histogram of int16 values."""

_BINS = 1 << 16
_STEP = 4  # neighbouring slices are compared at every fourth pixel of every fourth line
_MIN_SLICES = 5
_KEYS = ("scan_id", "image_id", "case_id", "patient_id", "slice_thickness_mm")
"""The columns by which a flag names a row."""


def collect_facts(
    build: BuildFolder, progress: BuildProgress | None = None, *, measures: bool = True, patient: str | None = None
) -> Facts:
    """Read every row of a build once. At most one row group and the facts are in memory.

    Args:
        build: The build.
        progress: Receives the progress.
        measures: Measure voxels, if the extra ``imaging`` is installed.
        patient: Read the rows of this patient only.

    Raises:
        BuildFolderError: A shard is damaged, a picture does not decode, a scan has no valid frame, or no row has the patient.
    """
    examples: list[ExampleFacts] = []
    hounsfield = np.zeros(_BINS, np.int64)
    counted: set[tuple[str, float]] = set()
    search = DateSearch()
    measurement = _measurement(build) if measures else None
    for row in iterate_rows(build, tuple(build.configs), progress, patient=patient):
        columns = build.columns(row.config)
        example, counts = _example(build, row, columns, measurement)
        if isinstance(example, ScanFacts) and example.volume_key not in counted:
            counted.add(example.volume_key)
            hounsfield += counts
        examples.append(example)
        search.add_row(row.config, row.row, columns)
    if patient is not None and not examples:
        raise BuildFolderError(f"{build.folder} has no row of the patient {patient!r}")
    search.add_files(build)
    return Facts(build, build.report, tuple(examples), hounsfield, search.facts())


def measure_voxels(volume: NDArray[Any]) -> tuple[VoxelFacts, NDArray[np.int64]]:
    """Return the facts of a volume, and its histogram.

    Args:
        volume: int16 or uint8, axes (z, y, x), at least one voxel.

    Returns:
        The facts, and how often each value from -32768 occurs, shape (65536,).
    """
    counts = np.zeros(_BINS, np.int64)
    constant = repeated = 0
    steps: list[float] = []
    for index, plane in enumerate(volume):
        counts += histogram(plane)
        is_constant = bool(plane.min() == plane.max())
        constant += is_constant
        if index:
            previous = volume[index - 1]
            repeated += not is_constant and bool(np.array_equal(plane, previous))
            sampled, before = (each[::_STEP, ::_STEP].astype(np.float32) for each in (plane, previous))
            steps.append(float(np.abs(sampled - before).mean()))
    used = np.flatnonzero(counts)
    below = counts[: OFFSET + LOW_HU]
    median = float(np.median(steps)) if len(steps) >= _MIN_SLICES - 1 else 0.0
    z, y, x = volume.shape
    facts = VoxelFacts(
        shape=(z, y, x),
        lowest=int(used[0]) - OFFSET,
        highest=int(used[-1]) - OFFSET,
        below=int(below.sum()),
        above=int(counts[OFFSET + HIGH_HU + 1 :].sum()),
        padding=int(below.argmax()) - OFFSET if below.any() else None,
        constant=constant,
        repeated=repeated,
        step=max(steps) / median if median else None,
    )
    return facts, counts


def histogram(values: NDArray[Any]) -> NDArray[np.int64]:
    """Return how often each value from -32768 occurs in int16 or uint8 values, shape (65536,)."""
    flat = np.ravel(values)
    # counted by bit pattern, in which negative values come last; then rotated so that they come first
    counts = np.bincount(flat.view(np.uint16) if flat.dtype == np.int16 else flat, minlength=_BINS)
    return np.roll(counts, OFFSET).astype(np.int64, copy=False)


def lung_median(volume: CTVolume, mask: MaskVolume) -> float | None:
    """Return the median HU of the voxels with a lung label, ``None`` if there are none."""
    counts = np.zeros(_BINS, np.int64)
    for plane, labels in zip(volume, mask, strict=True):
        if labels.any():
            counts += histogram(plane[labels > 0])
    total = int(counts.sum())
    return float(np.searchsorted(np.cumsum(counts), (total + 1) // 2)) - OFFSET if total else None


def _measurement(build: BuildFolder) -> Measurement | None:
    """What measures voxels, ``None`` without the extra ``imaging``."""
    if not is_installed("scipy"):
        return None
    from lung_nodule_ct.audit.measures import Measurement  # noqa: PLC0415 -- an extra

    return Measurement(build)


def _example(
    build: BuildFolder, row: IndexedRow, columns: Sequence[Column], measurement: Measurement | None
) -> tuple[ExampleFacts, NDArray[np.int64]]:
    """The facts of a row, and the histogram of its volume, which is empty for other rows."""
    pixels, key = _pixels(build, row, columns)
    config = build.config(row.config)
    common: dict[str, Any] = {
        "config": row.config,
        "split": row.split,
        "row": row.number,
        "patient_id": row.row.get("patient_id"),
        "scan_id": row.row.get("scan_id"),
        "fold": row.row.get("fold"),
        "pixels_key": key,
        "pathology": next((row.row[column.name] for column in columns if _is_pathology(column)), None),
        "num_records": next((len(row.row[column.name]) for column in columns if isinstance(column.type, Records)), 0),
        "key": {name: row.row[name] for name in _KEYS if row.row.get(name) is not None},
    }
    if pixels is not None and config.schema.has_voxels and config.kind in (Kind.SCAN, Kind.STACK):
        voxels, counts = measure_voxels(pixels)
        if config.kind == Kind.SCAN and config.schema.has_frame:
            scan = cast("ScanRow", row.row)
            measures = None if measurement is None else measurement.scan(scan, row.frame, counts, str(key))
            return _scan(scan, row.frame, {**common, "voxels": voxels, "measures": measures}), counts
        stack = None if measurement is None else measurement.stack(pixels, row.row.get("nodules", ()))
        boxes = tuple(map(_stack_box, row.row.get("nodules", ())))
        return VolumeFacts(**common, voxels=voxels, boxes=boxes, stack=stack), counts
    if pixels is not None and measurement is not None:
        common["picture"] = measurement.picture(pixels, row.row.get("objects", ()))
    return ExampleFacts(**common), np.zeros(0, np.int64)


def _pixels(
    build: BuildFolder, row: IndexedRow, columns: Sequence[Column]
) -> tuple[NDArray[Any], str] | tuple[None, None]:
    """The voxels of the first volume of a row or, without a column of volumes, the pixels of its first picture; and their key."""
    column = next((column for kind in (Voxels, Picture) for column in columns if isinstance(column.type, kind)), None)
    value = None if column is None else row.row[column.name]
    if column is None or value is None:
        return None, None
    if isinstance(column.type, Voxels):
        voxels = cast("NDArray[Any]", value)
        return voxels, pixels_key(voxels)
    try:
        picture = decode_picture(value)
    except ValueError as error:
        raise BuildFolderError(f"{build.folder}: {row}: {column.name} cannot be decoded: {error}") from error
    return picture.pixels, picture.key


def _is_pathology(column: Column) -> bool:
    return isinstance(column.type, Category) and column.type.names == PATHOLOGY_NAMES


def _scan(row: ScanRow, frame: Frame, common: dict[str, Any]) -> ScanFacts:
    volume, mask = row["volume"], row.get("lung_mask")
    return ScanFacts(
        **common,
        timepoint=row["timepoint"],
        num_timepoints=row["num_timepoints"],
        days_since_first=row["days_since_first"],
        slice_thickness_mm=row["slice_thickness_mm"],
        spacing=frame.spacing,
        is_identity=frame.direction == IDENTITY,
        is_orthonormal=frame.is_orthonormal,
        has_mask=mask is not None,
        lung_mask_origin=row.get("lung_mask_origin"),
        lung_median=None if mask is None else lung_median(volume, mask),
        nodules=tuple(_nodule(nodule, frame, volume.shape, mask) for nodule in row.get("nodules", ())),
    )


def _stack_box(nodule: StackNoduleRecord) -> tuple[float, float] | None:
    box, diameter = nodule["box_voxel"], nodule["diameter"]
    if box is None or not diameter:
        return None
    x0, y0, _, x1, y1, _ = box
    return float(diameter), (x1 - x0 + y1 - y0) / 2


def _nodule(nodule: NoduleRecord, frame: Frame, shape: tuple[int, ...], mask: MaskVolume | None) -> NoduleFacts:
    world, voxel = np.array(nodule["center_world"]), np.array(nodule["center_voxel"])
    box, diameter = nodule["box_voxel"], nodule["diameter_mm"]
    expected = sphere_box(voxel.tolist(), diameter, frame.spacing, shape).clipped if diameter and diameter > 0 else None
    in_volume = bool(((voxel >= -0.5) & (voxel <= np.array(shape[::-1]) - 0.5)).all())
    center_in_lung = lung_share = None
    if mask is not None:
        if in_volume:
            x, y, z = np.minimum(np.floor(voxel + 0.5).astype(int), np.array(shape[::-1]) - 1).tolist()
            center_in_lung = bool(mask[z, y, x] > 0)
        if box is not None:
            x0, y0, z0, x1, y1, z1 = box
            lung_share = float((mask[z0:z1, y0:y1, x0:x1] > 0).mean())
    x_mm, y_mm, z_mm = world.tolist()
    return NoduleFacts(
        center_world=(x_mm, y_mm, z_mm),
        diameter_mm=diameter,
        pathology=nodule["pathology"],
        voxel_residual=float(np.abs(frame.to_voxel(world) - voxel).max()),
        world_residual=float(np.linalg.norm(frame.to_world(voxel) - world)),
        box_agrees=box == (None if expected is None else list(expected)),
        has_box=box is not None,
        in_volume=in_volume,
        center_in_lung=center_in_lung,
        lung_share=lung_share,
        key_slice_basis=nodule.get("key_slice_basis"),
        track_id=nodule.get("track_id"),
        track_reason=nodule.get("track_reason"),
        track_pathology=nodule.get("track_pathology"),
    )
