"""The common part of the datasets: the rows of a split, epochs, transforms, and boxes of nodules as tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch.utils.data import Dataset

from lung_nodule_ct.declaration.labels import SplitBy
from lung_nodule_ct.errors import OptionError
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.read.build_folder import BuildFolder, open_build
from lung_nodule_ct.read.planes import largest_nodule
from lung_nodule_ct.read.rows import Rows, split_rows
from lung_nodule_ct.read.volumes import Volume

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    Sample = dict[str, Any]

NODULE: Final = 0
"""The label of every box in 3D: there is one class."""
UNKNOWN: Final = -1
"""The pathology of a nodule whose pathology is not known."""


def open_rows(
    build: str | os.PathLike[str] | BuildFolder,
    config: str,
    split: str,
    split_by: SplitBy | str | None,
    columns: set[str],
) -> Rows:
    """Return the rows of a split whose config has some columns.

    Raises:
        OptionError: The config lacks a column, or ``split_by`` is unknown.
        BuildFolderError: There is no build, or it does not hold the config.
        TrainingError: The split has no rows.
    """
    folder = build if isinstance(build, BuildFolder) else open_build(build)
    fitting = [name for name in folder.configs if columns <= {column.name for column in folder.columns(name)}]
    folder.config(config)
    if config not in fitting:
        raise OptionError(
            "config",
            f"{config} has no {' and '.join(sorted(columns))}",
            expected=f"one of {', '.join(fitting)}" if fitting else "a build with such a config",
        )
    by = folder.manifest["split_by"] if split_by is None else split_by
    if by not in set(SplitBy):
        raise OptionError("split_by", "it is not a way to split", expected=" or ".join(SplitBy), got=by)
    return split_rows(folder, config, split, SplitBy(by))


class RowDataset(Dataset[Any]):
    """A dataset of the rows of a split. Its copies in workers map the files again, and they share the epoch.

    Args:
        rows: The rows.
        seed: Of what is drawn at random.
        transform: Is called with each sample.
    """

    def __init__(self, rows: Rows, seed: int, transform: Callable[..., Any] | None) -> None:
        if seed < 0:
            raise OptionError("seed", "a seed is not negative", expected="0 or more", got=seed)
        self.rows, self.seed, self.transform = rows, seed, transform
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the epoch, from 0. Workers that are running (``persistent_workers``) see it, too."""
        if epoch < 0:
            raise OptionError("epoch", "epochs count from 0", expected="0 or more", got=epoch)
        self._epoch.fill_(epoch)

    @property
    def patients(self) -> tuple[str, ...]:
        """The patient of each sample; an empty string where the patient is unknown."""
        return tuple(patient or "" for patient in self.rows.patients)

    def _random(self, index: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, int(self._epoch), index))

    def _transformed(self, random: np.random.Generator, *sample: Any) -> Any:
        """Apply the transform. Its random numbers are those of PyTorch, or of MONAI's transforms, and get their own seed."""
        if self.transform is None:
            return sample if len(sample) > 1 else sample[0]
        seed = int(random.integers(2**32))
        if hasattr(self.transform, "set_random_state"):
            self.transform.set_random_state(seed=seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.transform(*sample)

    def _position(self, index: int) -> int:
        """An index from 0, of one that may count from the end."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return index % len(self)

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Cut:
    """A box of voxels of one row.

    Attributes:
        first: Its first voxel, z, y, x. It may be outside the volume.
        size: Number of voxels along z, y, x.
    """

    first: tuple[int, int, int]
    size: tuple[int, int, int]

    @classmethod
    def at_largest(
        cls, nodules: Sequence[Mapping[str, Any]], shape: tuple[int, int, int], size: tuple[int, int, int] | None
    ) -> Cut:
        """A box of a size at the largest nodule, or at the centre of a volume that has none; ``None`` for the complete volume."""
        if size is None:
            return cls((0, 0, 0), shape)
        volume, wanted = np.array(shape), np.array(size)
        inside = [nodule for nodule in nodules if nodule["box_voxel"] is not None]
        chosen = largest_nodule(inside)
        center = volume / 2 if chosen is None else np.array(inside[chosen]["center_voxel"][::-1]) + 0.5
        first = np.floor(np.clip(center, 0, volume - 1) - wanted / 2 + 0.5).astype(np.int64)
        z, y, x = np.where(
            wanted > volume, -((wanted - volume) // 2), np.clip(first, 0, np.maximum(volume - wanted, 0))
        ).tolist()
        return cls((z, y, x), size)

    def image(self, volume: Volume) -> torch.Tensor:
        """The voxels, float32, axes (1, z, y, x), with padding outside the volume."""
        center = [first + (count - 1) / 2 for first, count in zip(self.first, self.size, strict=True)]
        patch = volume.patch(center_voxel=center[::-1], size=self.size[::-1])
        return torch.from_numpy(patch.astype(np.float32))[None]

    def frame(self, frame: Frame) -> Frame:
        """The frame of the box in a volume with a frame."""
        x, y, z = frame.to_world(self.first[::-1]).tolist()
        return Frame((x, y, z), frame.spacing, frame.direction)

    def affine(self, frame: Frame) -> torch.Tensor:
        """The affine from voxels x, y, z of the box to RAS mm, shape (4, 4), float64."""
        return torch.from_numpy(self.frame(frame).affine("RAS"))

    def annotations(self, nodules: Sequence[Mapping[str, Any]]) -> Sample:
        """The nodules whose centre is in the box, as tensors, and the number of those in it that have no box in the sample.

        Boxes are clipped to the cut.
        """
        first, size = np.array(self.first[::-1]), np.array(self.size[::-1])
        boxes: list[NDArray[np.int64]] = []
        pathology: list[int] = []
        left_out = 0
        for nodule in nodules:
            box = None if nodule["box_voxel"] is None else np.array(nodule["box_voxel"], np.int64).reshape(2, 3) - first
            center = np.array(nodule["center_voxel"]) - first + 0.5 if box is None else box.mean(axis=0)
            is_inside = bool(((center >= 0) & (center < size)).all())
            if box is not None and is_inside:
                boxes.append(np.clip(box, 0, size).ravel())
                pathology.append(UNKNOWN if nodule.get("pathology") is None else nodule["pathology"])
            else:
                left_out += (
                    is_inside if box is None else bool((np.clip(box, 0, size)[0] < np.clip(box, 0, size)[1]).all())
                )
        return {
            "boxes": torch.from_numpy(np.array(boxes, np.float32).reshape(-1, 6)),
            "labels": torch.full((len(boxes),), NODULE, dtype=torch.int64),
            "pathology": torch.tensor(pathology, dtype=torch.int64),
            "left_out": left_out,
        }


def volume_of(rows: Rows, row: int) -> Volume:
    """The volume of a row as a view."""
    voxels = rows.voxels(row)
    assert voxels is not None  # noqa: S101 -- the column is not nullable
    return Volume(voxels, Frame.from_row(rows.metadata[row]))


def three(option: str, values: Sequence[int]) -> tuple[int, int, int]:
    """Check a size.

    Raises:
        OptionError: It is not three positive integers.
    """
    numbers = tuple(values) if hasattr(values, "__len__") else (values,)
    if len(numbers) != 3 or any(int(value) != value or value < 1 for value in numbers):
        raise OptionError(option, "it is not a size", expected="three positive integers z, y, x", got=values)
    z, y, x = map(int, values)
    return z, y, x
