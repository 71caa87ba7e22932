"""The scans of a patient in the order of time."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch

from lung_nodule_ct.declaration.labels import TRAIN
from lung_nodule_ct.errors import OptionError
from lung_nodule_ct.torch.rows import Cut, RowDataset, open_rows, three, volume_of

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from lung_nodule_ct.declaration.labels import SplitBy
    from lung_nodule_ct.read.build_folder import BuildFolder
    from lung_nodule_ct.read.rows import Rows
    from lung_nodule_ct.torch.rows import Sample

_COLUMNS = {"volume", "nodules", "patient_id", "timepoint", "days_since_first", "slice_thickness_mm"}


def sequences(
    build: str | os.PathLike[str] | BuildFolder,
    config: str = "longitudinal",
    *,
    split: str = TRAIN,
    size: Sequence[int] | None = None,
    min_scans: int = 2,
    seed: int = 0,
    transform: Callable[[Sample], Any] | None = None,
    split_by: SplitBy | str | None = None,
) -> Sequences:
    """Return the patients as a dataset: the scans of one slice thickness in the order of time.

    A sample is a dictionary. Its lists have one entry per scan, and the scans are not registered:

    - ``images``: a list of float32 tensors (1, z, y, x) in HU.
    - ``boxes``, ``labels``, ``pathology``, ``left_out``, ``affines``: lists, as in :func:`lung_nodule_ct.torch.patches`.
    - ``days`` and ``timepoints``: int64, (scans,), days since the patient's first scan, and ranks of the dates.
    - ``ids``: a list of strings. ``patient_id``: a string. ``slice_thickness_mm``: a number.

    Args:
        build: A build folder, of Arrow or Parquet. Parquet is decoded once into the cache.
        config: A config whose scans have dates.
        split: One of its splits.
        size: Number of voxels z, y, x of a patch at the largest nodule of each scan, or at the centre of a scan that has none. By default
            the complete volumes, of which one has about 300 MB as float32.
        min_scans: Patients with fewer scans of a thickness are left out.
        seed: With the epoch (``set_epoch``) and the index, it determines the random numbers of ``transform``.
        transform: Is called with each sample, in the worker.
        split_by: ``patient`` for splits without shared patients, from the column ``fold``; by default the splits of the build.

    Raises:
        OptionError: An option is out of range, the config has no dates, or no patient has that many scans.
        BuildFolderError: There is no build, or it does not hold the config.
        TrainingError: The split has no rows.
        MissingExtraError: The extra ``torch`` is not installed.

    Example:
        >>> import lung_nodule_ct  # build is the folder of a build
        >>> patient = lung_nodule_ct.torch.sequences(build, size=(8, 32, 32))[0]
        >>> patient["patient_id"], patient["days"].tolist(), patient["images"][0].shape
        ('12', [0, 463, 913], torch.Size([1, 8, 32, 32]))
    """
    if min_scans < 1:
        raise OptionError("min_scans", "a patient has scans", expected="1 or more", got=min_scans)
    rows = open_rows(build, config, split, split_by, _COLUMNS)
    return Sequences(rows, None if size is None else three("size", size), min_scans, seed, transform)


class Sequences(RowDataset):
    """The scans of patients. Returned by :func:`sequences`."""

    def __init__(
        self,
        rows: Rows,
        size: tuple[int, int, int] | None,
        min_scans: int,
        seed: int,
        transform: Callable[[Sample], Any] | None,
    ) -> None:
        super().__init__(rows, seed, transform)
        self.size = size
        dated = (row for row in range(len(rows)) if None not in _key(rows, row))
        ordered = sorted(dated, key=lambda row: (*_key(rows, row), rows.metadata[row]["timepoint"]))
        groups = (tuple(group) for _, group in groupby(ordered, lambda row: _key(rows, row)))
        self._groups = tuple(group for group in groups if len(group) >= min_scans)
        if not self._groups:
            raise OptionError(
                "min_scans", "no patient of the split has that many scans of one thickness", got=min_scans
            )
        self._ids = rows.ids("scan_id")

    def __len__(self) -> int:
        return len(self._groups)

    @property
    def patients(self) -> tuple[str, ...]:
        """The patient of each sample."""
        return tuple(self.rows.metadata[group[0]]["patient_id"] for group in self._groups)

    def __getitem__(self, index: int) -> Any:
        number = self._position(index)
        group = self._groups[number]
        metadata = [self.rows.metadata[row] for row in group]
        sample: Sample = {
            "patient_id": metadata[0]["patient_id"],
            "slice_thickness_mm": metadata[0]["slice_thickness_mm"],
            "ids": [self._ids[row] for row in group],
            "timepoints": torch.tensor([row["timepoint"] for row in metadata], dtype=torch.int64),
            "days": torch.tensor([row["days_since_first"] for row in metadata], dtype=torch.int64),
            "images": [],
            "affines": [],
        }
        for row in group:
            volume = volume_of(self.rows, row)
            cut = Cut.at_largest(self.rows.metadata[row]["nodules"], volume.shape, self.size)
            sample["images"].append(cut.image(volume))
            if volume.frame is not None:
                sample["affines"].append(cut.affine(volume.frame))
            for name, value in cut.annotations(self.rows.metadata[row]["nodules"]).items():
                sample.setdefault(name, []).append(value)
        return self._transformed(self._random(number), sample)


def _key(rows: Rows, row: int) -> tuple[Any, ...]:
    metadata = rows.metadata[row]
    return metadata["patient_id"], metadata["slice_thickness_mm"]
