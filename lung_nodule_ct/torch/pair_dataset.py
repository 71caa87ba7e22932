"""Follow-ups on the grid of the patient's first scan, by transforms that an export has stored."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lung_nodule_ct.declaration.labels import TRAIN
from lung_nodule_ct.errors import OptionError
from lung_nodule_ct.geometry.affine import Affine
from lung_nodule_ct.imaging.scan import Scan
from lung_nodule_ct.system.imports import optional_imports
from lung_nodule_ct.torch.rows import Cut, RowDataset, open_rows, three, volume_of

with optional_imports("imaging", "lung_nodule_ct.torch.registered_pairs"):
    from lung_nodule_ct.imaging.grids import on_grid
    from lung_nodule_ct.imaging.registration import into_fixed_world

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from lung_nodule_ct.declaration.labels import SplitBy
    from lung_nodule_ct.read.build_folder import BuildFolder
    from lung_nodule_ct.read.rows import Rows
    from lung_nodule_ct.torch.rows import Sample

_COLUMNS = {"volume", "nodules", "patient_id", "scan_id", "timepoint", "days_since_first", "slice_thickness_mm"}
_TABLE = "pairs.csv"
_TABLE_COLUMNS = {"fixed_scan_id", "moving_scan_id", "slice_thickness_mm", "transform"}


def registered_pairs(
    build: str | os.PathLike[str] | BuildFolder,
    pairs: str | os.PathLike[str],
    config: str = "longitudinal",
    *,
    split: str = TRAIN,
    size: Sequence[int] | None = None,
    seed: int = 0,
    transform: Callable[[Sample], Any] | None = None,
    split_by: SplitBy | str | None = None,
) -> RegisteredPairs:
    """Return the registered follow-ups as a dataset: two scans of a patient on one grid, that of the earlier scan.

    The transforms are those of an export, which computes them once::

        lung-nodule-ct export build/lung_nodule_ct longitudinal --to nifti-pairs --out pairs

    The voxels are those of the build, and only the part that a sample shows is resampled. Pairs that are not registered have no sample. A
    sample is a dictionary:

    - ``image``: float32, (2, z, y, x), in HU: the earlier scan, and the follow-up by linear interpolation, -1024 outside of it.
    - ``boxes``, ``labels``, ``pathology``, ``left_out``: the nodules of the earlier scan, as in :func:`lung_nodule_ct.torch.patches`.
    - ``moving_boxes``, ``moving_labels``, ``moving_pathology``, ``moving_left_out``: those of the follow-up, moved; their diameters stay.
    - ``affine``: float64, (4, 4), from voxels x, y, z of the image to RAS mm of the earlier scan.
    - ``first_voxel``: a list x, y, z. ``days``: an integer, days between the scans.
    - ``id``, ``moving_id``, ``patient_id``: strings. ``slice_thickness_mm``: a number.

    The transforms fit the lungs as a whole, so that a nodule may be several millimetres off (docs/spacetime.md).

    Args:
        build: A build folder, of Arrow or Parquet. Parquet is decoded once into the cache.
        pairs: The folder of the export, of the same build.
        config: The exported config.
        split: One of its splits; both scans of a pair are in it.
        size: Number of voxels z, y, x of a patch at the largest nodule of the earlier scan, or at its centre if it has none. By default the
            complete grid, of which a sample has about 600 MB.
        seed: With the epoch (``set_epoch``) and the index, it determines the random numbers of ``transform``.
        transform: Is called with each sample, in the worker.
        split_by: ``patient`` for splits without shared patients, from the column ``fold``; by default the splits of the build.

    Raises:
        OptionError: An option is out of range, the config has no dates, the folder is not such an export or one of another build, or no
            registered pair is in the split.
        BuildFolderError: There is no build, or it does not hold the config.
        TrainingError: The split has no rows.
        MissingExtraError: The extra ``torch`` or ``imaging`` is not installed.

    Example:
        >>> import lung_nodule_ct  # build is the folder of a build, and pairs that of its export
        >>> pair = lung_nodule_ct.torch.registered_pairs(build, pairs, size=(8, 32, 32))[0]
        >>> pair["id"], pair["moving_id"], pair["days"], pair["image"].shape
        ('12-1', '12-2', 463, torch.Size([2, 8, 32, 32]))
    """
    rows = open_rows(build, config, split, split_by, _COLUMNS)
    return RegisteredPairs(
        rows, _read_pairs(Path(pairs), rows), None if size is None else three("size", size), seed, transform
    )


@dataclass(frozen=True)
class _Pair:
    """Two rows of a split, and the transform from the world of the first to that of the second."""

    fixed: int
    moving: int
    transform: Affine


class RegisteredPairs(RowDataset):
    """Two scans of a patient on one grid. Returned by :func:`registered_pairs`."""

    def __init__(
        self,
        rows: Rows,
        pairs: tuple[_Pair, ...],
        size: tuple[int, int, int] | None,
        seed: int,
        transform: Callable[[Sample], Any] | None,
    ) -> None:
        super().__init__(rows, seed, transform)
        self.size = size
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def patients(self) -> tuple[str, ...]:
        """The patient of each sample."""
        return tuple(self.rows.metadata[pair.fixed]["patient_id"] or "" for pair in self._pairs)

    def __getitem__(self, index: int) -> Any:
        number = self._position(index)
        pair = self._pairs[number]
        fixed, moving = self.rows.metadata[pair.fixed], self.rows.metadata[pair.moving]
        volume = volume_of(self.rows, pair.fixed)
        grid, follow_up = Scan.from_volume(volume), _moved(self.rows, pair)
        cut = Cut.at_largest(fixed["nodules"], volume.shape, self.size)
        frame, _ = grid.grid
        resampled = torch.from_numpy(on_grid(follow_up, cut.frame(frame), cut.size).array.astype("float32"))
        moved = Scan(grid.array, frame, nodules=follow_up.nodules).nodules
        sample: Sample = {
            "image": torch.stack([cut.image(volume)[0], resampled]),
            **cut.annotations(fixed["nodules"]),
            **{f"moving_{name}": value for name, value in cut.annotations(moved).items()},
            "affine": cut.affine(frame),
            "first_voxel": list(cut.first[::-1]),
            "days": moving["days_since_first"] - fixed["days_since_first"],
            "id": fixed["scan_id"],
            "moving_id": moving["scan_id"],
            "patient_id": fixed["patient_id"],
            "slice_thickness_mm": fixed["slice_thickness_mm"],
        }
        return self._transformed(self._random(number), sample)


def _moved(rows: Rows, pair: _Pair) -> Scan:
    """The follow-up of a pair in the world of the earlier scan. Its voxels are a view."""
    volume = volume_of(rows, pair.moving)
    follow_up = Scan(volume.array, volume.frame, nodules=tuple(rows.metadata[pair.moving]["nodules"]))
    return into_fixed_world(follow_up, pair.transform)


def _read_pairs(folder: Path, rows: Rows) -> tuple[_Pair, ...]:
    """The registered pairs of an export whose scans are both among some rows."""
    table = folder / _TABLE
    if not table.is_file():
        raise OptionError("pairs", f"{folder} has no {_TABLE}", expected="a folder of export --to nifti-pairs")
    with table.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        listed = list(reader)
    missing = _TABLE_COLUMNS - set(reader.fieldnames or ())
    if missing:
        raise OptionError(
            "pairs", f"{table} has no column {', '.join(sorted(missing))}", expected="a table of this version's export"
        )
    known = {_key(row["scan_id"], row["slice_thickness_mm"]): number for number, row in enumerate(rows.metadata)}
    registered = [entry for entry in listed if entry["transform"]]
    found = []
    for entry in registered:
        fixed, moving = (
            known.get(_key(entry[name], entry["slice_thickness_mm"])) for name in ("fixed_scan_id", "moving_scan_id")
        )
        if fixed is not None and moving is not None:
            found.append(_Pair(fixed, moving, _read_transform(folder, entry)))
    if not found:
        raise OptionError(
            "pairs",
            f"{table} has no registered pair whose scans are both in the split",
            expected="an export of this build, and a split that holds follow-ups",
            got=f"{len(listed)} pairs, {len(registered)} of them registered",
        )
    return tuple(found)


def _key(scan_id: str | None, thickness: str | float) -> tuple[str | None, float]:
    return scan_id, round(float(thickness), 3)


def _read_transform(folder: Path, entry: Mapping[str, str]) -> Affine:
    path = folder / entry["transform"]
    try:
        return Affine.from_itk(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise OptionError(
            "pairs",
            f"{path} cannot be read: {error}",
            expected="the file that the export wrote; export the pairs again",
        ) from error
