"""The voxels of one volume in numbers, a slice at a time: a volume's copy is never made.

The one reading of a build: every row of every config goes by once, and leaves its facts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lung_nodule_ct.audit.date_checks import DateSearch
from lung_nodule_ct.audit.facts import Facts, ImageFacts, NoduleFacts, ScanFacts, StackFacts, VoxelFacts
from lung_nodule_ct.declaration.schema import Picture, Records, Text
from lung_nodule_ct.errors import BuildFolderError
from lung_nodule_ct.formats.pictures import decode_picture, pixels_key
from lung_nodule_ct.geometry.boxes import sphere_box
from lung_nodule_ct.geometry.frame import IDENTITY, Frame
from lung_nodule_ct.read.rows import iterate_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lung_nodule_ct.declaration.schema import Column
    from lung_nodule_ct.read.build_folder import BuildFolder
    from lung_nodule_ct.read.rows import IndexedRow
    from lung_nodule_ct.system.progress import BuildProgress


LOW_HU: Final = -1024
HIGH_HU: Final = 3071
"""What 12 bits hold under the usual rescale intercept of -1024."""

OFFSET: Final = 32768
"""The place of 0 in a histogram of int16 values."""

_BINS = 1 << 16
_THINNED = 4  # neighbouring slices are compared at every fourth pixel of every fourth line
_ENOUGH_SLICES = 5


def measure_voxels(volume: NDArray[Any]) -> tuple[VoxelFacts, NDArray[np.int64]]:
    """Facts of a volume, and its histogram.

    Args:
        volume: int16 or uint8, axes (z, y, x), at least one voxel.

    Returns:
        The facts, and how often each value from -32768 stands in it, shape (65536,).
    """
    counts = np.zeros(_BINS, np.int64)
    constant = repeated = 0
    steps: list[float] = []
    for place, plane in enumerate(volume):
        counts += histogram(plane)
        flat = bool(plane.min() == plane.max())
        constant += flat
        if place:
            before = volume[place - 1]
            repeated += not flat and bool(np.array_equal(plane, before))
            near, far = (each[::_THINNED, ::_THINNED].astype(np.float32) for each in (plane, before))
            steps.append(float(np.abs(near - far).mean()))
    used = np.flatnonzero(counts)
    below = counts[: OFFSET + LOW_HU]
    median = float(np.median(steps)) if len(steps) >= _ENOUGH_SLICES - 1 else 0.0
    z, y, x = volume.shape
    facts = VoxelFacts(
        shape=(z, y, x),
        key=pixels_key(volume),
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
    """How often each value from -32768 stands in some int16 or uint8 values, shape (65536,)."""
    flat = np.ravel(values)
    # counted as they lie in memory, where the negative ones come last; then turned round to begin with those
    counts = np.bincount(flat.view(np.uint16) if flat.dtype == np.int16 else flat, minlength=_BINS)
    return np.roll(counts, OFFSET).astype(np.int64, copy=False)


def lung_median(volume: NDArray[np.int16], mask: NDArray[np.uint8]) -> float | None:
    """The median HU of the voxels with a lung label, ``None`` without any; both axes (z, y, x)."""
    counts = np.zeros(_BINS, np.int64)
    for plane, labels in zip(volume, mask, strict=True):
        if labels.any():
            counts += histogram(plane[labels > 0])
    total = int(counts.sum())
    return float(np.searchsorted(np.cumsum(counts), (total + 1) // 2)) - OFFSET if total else None


def collect_facts(build: BuildFolder, progress: BuildProgress | None = None) -> Facts:
    """Read a build, each row once; at most a row group and the facts are in memory.

    Args:
        build: The build.
        progress: Is told how far it is.

    Raises:
        BuildFolderError: A shard is damaged, a picture does not decode, or a frame is impossible.
    """
    scans: list[ScanFacts] = []
    images: list[ImageFacts] = []
    stacks: list[StackFacts] = []
    hounsfield = np.zeros(1 << 16, np.int64)
    counted: set[tuple[str, float]] = set()
    search = DateSearch()
    for placed in iterate_rows(build, tuple(build.configs), progress):
        row = placed.row
        if "direction" in row:
            voxels, counts = measure_voxels(row["volume"])
            scan = _scan(placed, voxels)
            if scan.key not in counted:
                counted.add(scan.key)
                hounsfield += counts
            scans.append(scan)
        elif "volume" in row:
            voxels, _ = measure_voxels(row["volume"])
            stacks.append(StackFacts(placed.config, placed.split, placed.number, voxels))
        else:
            images.append(_image(build, placed))
        _look_for_dates(search, placed, build.columns(placed.config))
    return Facts(build, build.report, tuple(scans), tuple(images), tuple(stacks), hounsfield, search.files(build))


def _look_for_dates(search: DateSearch, placed: IndexedRow, columns: Sequence[Column]) -> None:
    for column in columns:
        value = placed.row[column.name]
        place = f"{placed.config}, {column.name}"
        if isinstance(column.type, Text) and value is not None:
            search.text(place, value)
        elif isinstance(column.type, Picture):
            search.picture(place, value)
        elif isinstance(column.type, Records):
            names = [field.name for field in column.type.fields if isinstance(field.type, Text)]
            for name in names:
                for record in value:
                    search.text(f"{place}.{name}", record[name])


def _image(build: BuildFolder, placed: IndexedRow) -> ImageFacts:
    row = placed.row
    try:
        key = pixels_key(decode_picture(row["image"]))
    except ValueError as error:
        raise BuildFolderError(f"{build.folder}: {placed} cannot be shown: {error}") from error
    boxes = len(row["objects"]) if "objects" in row else None
    return ImageFacts(
        placed.config, placed.split, placed.number, row["patient_id"], row["fold"], key, row.get("label"), boxes
    )


def _scan(placed: IndexedRow, voxels: VoxelFacts) -> ScanFacts:
    row = placed.row
    frame = placed.frame
    mask = row["lung_mask"]
    return ScanFacts(
        config=placed.config,
        split=placed.split,
        row=placed.number,
        scan_id=row["scan_id"],
        patient_id=row["patient_id"],
        fold=row["fold"],
        timepoint=row["timepoint"],
        num_timepoints=row["num_timepoints"],
        days_since_first=row["days_since_first"],
        slice_thickness_mm=row["slice_thickness_mm"],
        spacing=frame.spacing,
        identity=frame.direction == IDENTITY,
        orthonormal=frame.is_orthonormal,
        has_mask=mask is not None,
        lung_median=None if mask is None else lung_median(row["volume"], mask),
        voxels=voxels,
        nodules=tuple(_nodule(nodule, frame, row["volume"].shape, mask) for nodule in row["nodules"]),
    )


def _nodule(
    nodule: dict[str, Any], frame: Frame, shape: tuple[int, int, int], mask: NDArray[np.uint8] | None
) -> NoduleFacts:
    world, voxel = np.array(nodule["center_world"]), np.array(nodule["center_voxel"])
    box, diameter = nodule["box_voxel"], nodule["diameter_mm"]
    expected = sphere_box(voxel.tolist(), diameter, frame.spacing, shape).clipped if diameter > 0 else None
    in_volume = bool(((voxel >= -0.5) & (voxel <= np.array(shape[::-1]) - 0.5)).all())
    center_in_lung = lung_share = None
    if mask is not None:
        if in_volume:
            x, y, z = np.minimum(np.floor(voxel + 0.5).astype(int), np.array(shape[::-1]) - 1).tolist()
            center_in_lung = bool(mask[z, y, x] > 0)
        if box is not None:
            x0, y0, z0, x1, y1, z1 = box
            lung_share = float((mask[z0:z1, y0:y1, x0:x1] > 0).mean())
    return NoduleFacts(
        diameter_mm=diameter,
        pathology=nodule["pathology"],
        voxel_residual=float(np.abs(frame.to_voxel(world) - voxel).max()),
        world_residual=float(np.linalg.norm(frame.to_world(voxel) - world)),
        box_agrees=box == (None if expected is None else list(expected)),
        has_box=box is not None,
        in_volume=in_volume,
        center_in_lung=center_in_lung,
        lung_share=lung_share,
    )
