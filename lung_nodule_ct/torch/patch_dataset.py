"""Patches of volumes, at nodules and elsewhere, for 3D detection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np

from lung_nodule_ct.declaration.labels import TRAIN
from lung_nodule_ct.errors import OptionError
from lung_nodule_ct.torch.rows import Cut, RowDataset, open_rows, three, volume_of

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from lung_nodule_ct.declaration.labels import SplitBy
    from lung_nodule_ct.read.build_folder import BuildFolder
    from lung_nodule_ct.read.rows import Rows
    from lung_nodule_ct.read.volumes import Volume
    from lung_nodule_ct.torch.rows import Sample

Axes = Literal["zyx", "xyz"]
_LUNG_DRAWS: Final = 64


def patches(
    build: str | os.PathLike[str] | BuildFolder,
    config: str = "det3d_1.25mm",
    *,
    split: str = TRAIN,
    size: Sequence[int] = (96, 96, 96),
    positives: float = 0.5,
    per_scan: int = 1,
    axes: Axes = "zyx",
    seed: int = 0,
    transform: Callable[[Sample], Any] | None = None,
    split_by: SplitBy | str | None = None,
) -> Patches:
    """Return patches of the volumes of a split as a dataset, without resampling.

    A sample is a dictionary:

    - ``image``: float32, (1, z, y, x), in HU (grey values of 8-bit stacks). Outside the volume it is air.
    - ``boxes``: float32, (n, 6), the nodules whose centre is in the patch: ``x0 y0 z0 x1 y1 z1`` in voxels of the patch, half-open, clipped.
    - ``labels``: int64, (n,), 0 for nodule. ``pathology``: int64, (n,), the class, or -1 if it is unknown.
    - ``left_out``: the number of annotations in the patch that have no box here: their size is unknown, or their centre is outside.
    - ``affine``: float64, (4, 4), from voxels x, y, z of the patch to RAS mm; not for stacks, whose position is unknown.
    - ``first_voxel``: a list, x, y, z of the first voxel of the patch in the volume.
    - ``id``: scan or case. ``patient_id``: an empty string if the patient is unknown; not for stacks.

    Args:
        build: A build folder, of Arrow or Parquet. Parquet is decoded once into the cache.
        config: A config with volumes and nodules.
        split: One of its splits.
        size: Number of voxels z, y, x.
        positives: The share of patches that are drawn at a nodule, if the scan has one: the complete box is in the patch if it fits.
            The others are drawn anywhere in the lung mask, or in the volume if there is no mask, and may also show a nodule.
        per_scan: Number of patches of each scan in an epoch.
        axes: The axes of ``image``: ``zyx``, or ``xyz``, which is the order of ``boxes`` and ``affine`` and that of MONAI.
        seed: With the epoch (``set_epoch``) and the index, it determines a sample.
        transform: Is called with each sample, in the worker.
        split_by: ``patient`` for splits without shared patients, from the column ``fold``; by default the splits of the build.

    Raises:
        OptionError: An option is out of range, or the config has no volumes with nodules.
        BuildFolderError: There is no build, or it does not hold the config.
        TrainingError: The split has no rows.
        MissingExtraError: The extra ``torch`` is not installed.

    Example:
        >>> import lung_nodule_ct  # build is the folder of a build
        >>> dataset = lung_nodule_ct.torch.patches(build, "det3d_1.25mm", size=(8, 32, 32), positives=1.0)
        >>> len(dataset), dataset[0]["image"].shape, dataset[0]["boxes"].shape
        (7, torch.Size([1, 8, 32, 32]), torch.Size([1, 6]))
    """
    rows = open_rows(build, config, split, split_by, {"volume", "nodules"})
    return Patches(
        rows, three("size", size), positives=positives, per_scan=per_scan, axes=axes, seed=seed, transform=transform
    )


class Patches(RowDataset):
    """Patches of the volumes of a split. Returned by :func:`patches`."""

    def __init__(
        self,
        rows: Rows,
        size: tuple[int, int, int],
        *,
        positives: float,
        per_scan: int,
        axes: Axes,
        seed: int,
        transform: Callable[[Sample], Any] | None,
    ) -> None:
        super().__init__(rows, seed, transform)
        if not 0 <= positives <= 1:
            raise OptionError("positives", "it is not a share", expected="0 to 1", got=positives)
        if per_scan < 1:
            raise OptionError("per_scan", "an epoch has patches of every scan", expected="1 or more", got=per_scan)
        if axes not in get_args(Axes):
            raise OptionError("axes", "it is not an order of axes", expected=" or ".join(get_args(Axes)), got=axes)
        self.size, self.positives, self.per_scan, self.axes = size, positives, per_scan, axes
        self._ids = rows.ids("scan_id", "case_id")

    def __len__(self) -> int:
        return len(self.rows) * self.per_scan

    @property
    def patients(self) -> tuple[str, ...]:
        """The patient of each sample; an empty string where the patient is unknown."""
        return tuple(patient for patient in super().patients for _ in range(self.per_scan))

    def __getitem__(self, index: int) -> Any:
        number = self._position(index)
        row, random = number // self.per_scan, self._random(number)
        metadata, volume = self.rows.metadata[row], volume_of(self.rows, row)
        cut = Cut(self._first_voxel(row, volume, random), self.size)
        image = cut.image(volume)
        sample = {
            "image": image if self.axes == "zyx" else image.permute(0, 3, 2, 1).contiguous(),
            **cut.annotations(metadata["nodules"]),
            "first_voxel": list(cut.first[::-1]),
            "id": self._ids[row],
        }
        if volume.frame is not None:
            sample["affine"] = cut.affine(volume.frame)
        if "patient_id" in metadata:
            sample["patient_id"] = metadata["patient_id"] or ""
        return self._transformed(random, sample)

    def _first_voxel(self, row: int, volume: Volume, random: np.random.Generator) -> tuple[int, int, int]:
        shape, size = np.array(volume.shape), np.array(self.size)
        boxes = map(_box, self.rows.metadata[row]["nodules"])
        nodules = [(low, high) for low, high in boxes if (low < shape).all() and (high > 0).all()]
        if nodules and random.random() < self.positives:
            low, high = nodules[random.integers(len(nodules))]
            middle = (low + high) // 2  # of a nodule that does not fit, only the middle has to be in the patch
            low, high = np.where(high - low > size, [middle, middle + 1], [low, high])
            first, last = high - size, low
        else:
            first = last = self._draw(row, shape, random) - size // 2
        limit = np.maximum(shape - size, 0)
        drawn = random.integers(np.clip(first, 0, limit), np.clip(last, 0, limit), endpoint=True)
        z, y, x = np.where(size > shape, -((size - shape) // 2), drawn).tolist()
        return z, y, x

    def _draw(self, row: int, shape: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
        """Draw a voxel of the lung mask, or any voxel if there is no mask or the draws miss it."""
        draws: NDArray[np.int64] = random.integers(0, shape, (_LUNG_DRAWS, 3))
        mask = self.rows.voxels(row, "lung_mask") if "lung_mask" in self.rows.schema.names else None
        if mask is not None and mask.shape == tuple(shape):
            inside = np.array([bool(mask[z, y, x] > 0) for z, y, x in draws.tolist()])
            draws = draws[inside] if inside.any() else draws
        drawn: NDArray[np.int64] = draws[0]
        return drawn


def _box(nodule: Mapping[str, Any]) -> NDArray[np.int64]:
    """First voxel and the voxel behind the last one of a nodule, each z, y, x; those of its centre if its size is unknown."""
    if nodule["box_voxel"] is not None:
        return np.array(nodule["box_voxel"], np.int64).reshape(2, 3)[:, ::-1]
    center = np.rint(nodule["center_voxel"][::-1]).astype(np.int64)
    return np.stack([center, center + 1])
