"""2D images: slices with boxes as torchvision's detectors take them, and nodule crops with class weights."""

from __future__ import annotations

import io
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from PIL import Image

from lung_nodule_ct.declaration.labels import TRAIN
from lung_nodule_ct.declaration.schema import Category
from lung_nodule_ct.errors import OptionError
from lung_nodule_ct.torch.rows import RowDataset, open_rows

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from lung_nodule_ct.declaration.labels import SplitBy
    from lung_nodule_ct.read.build_folder import BuildFolder
    from lung_nodule_ct.read.rows import Rows
    from lung_nodule_ct.torch.rows import Sample

_FOREGROUND: Final = 1
"""The first class of torchvision's detectors; 0 is background."""


def detection2d(
    build: str | os.PathLike[str] | BuildFolder,
    config: str = "det2d_1.25mm",
    *,
    split: str = TRAIN,
    seed: int = 0,
    transform: Callable[[torch.Tensor, Sample], Any] | None = None,
    split_by: SplitBy | str | None = None,
) -> Detection2D:
    """Return slices with boxes as a dataset of pairs ``(image, target)``, as torchvision's detectors take them.

    ``image`` is float32, (3, y, x), from 0 to 1. ``target`` is a dictionary:

    - ``boxes``: float32, (n, 4), xmin, ymin, xmax, ymax as published, clipped to the image.
    - ``labels``: int64, (n,), 1 for nodule, because 0 is the background. ``area``: float32, (n,). ``iscrowd``: int64, (n,), 0.
    - ``image_id``: the position in the dataset. ``id`` and ``patient_id``: strings; an empty string if the patient is unknown.
    - ``left_out``: the number of published boxes without an area in the image, with which the detectors would stop.

    Args:
        build: A build folder, of Arrow or Parquet. Parquet is decoded once into the cache.
        config: A config with pictures and boxes.
        split: One of its splits.
        seed: With the epoch (``set_epoch``) and the index, it determines the random numbers of ``transform``.
        transform: Is called with image and target, in the worker.
        split_by: ``patient`` for splits without shared patients, from the column ``fold``; by default the splits of the build.

    Raises:
        OptionError: An option is out of range, or the config has no pictures with boxes.
        BuildFolderError: There is no build, or it does not hold the config.
        TrainingError: The split has no rows.
        MissingExtraError: The extra ``torch`` is not installed.

    Example:
        >>> import lung_nodule_ct  # build is the folder of a build
        >>> image, target = lung_nodule_ct.torch.detection2d(build)[0]
        >>> image.shape, target["boxes"].tolist(), target["labels"].tolist()
        (torch.Size([3, 60, 84]), [[57.0, 32.0, 61.0, 36.0]], [1])
    """
    return Detection2D(open_rows(build, config, split, split_by, {"image", "objects"}), seed, transform)


class Detection2D(RowDataset):
    """Slices with boxes. Returned by :func:`detection2d`."""

    def __getitem__(self, index: int) -> Any:
        row = self._position(index)
        metadata = self.rows.metadata[row]
        image = torch.from_numpy(_pixels(self.rows, row, "RGB")).permute(2, 0, 1).contiguous()
        height, width = image.shape[1:]
        published = np.array([entry["bbox"] for entry in metadata["objects"]], np.float32).reshape(-1, 4)
        boxes = np.clip(published, 0, np.array([width, height, width, height], np.float32))
        boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)]
        target = {
            "boxes": torch.from_numpy(boxes),
            "labels": torch.full((len(boxes),), _FOREGROUND, dtype=torch.int64),
            "area": torch.from_numpy((boxes[:, 2:] - boxes[:, :2]).prod(1)),
            "iscrowd": torch.zeros(len(boxes), dtype=torch.int64),
            "image_id": row,
            "id": metadata["image_id"],
            "patient_id": metadata.get("patient_id") or "",
            "left_out": len(published) - len(boxes),
        }
        return self._transformed(self._random(row), image, target)


def crops(
    build: str | os.PathLike[str] | BuildFolder,
    config: str = "cls_1.25mm",
    *,
    split: str = TRAIN,
    size: Sequence[int] | None = (64, 64),
    seed: int = 0,
    transform: Callable[[Sample], Any] | None = None,
    split_by: SplitBy | str | None = None,
) -> Crops:
    """Return nodule crops with their pathology class as a dataset. Its ``class_weights`` are for the loss.

    A sample is a dictionary: ``image`` (float32, (1, y, x), from 0 to 1), ``label`` (0 to 5), ``malignant`` (0 or 1), ``id``, and
    ``patient_id``, an empty string if the patient is unknown.

    Args:
        build: A build folder, of Arrow or Parquet. Parquet is decoded once into the cache.
        config: A config with pictures and classes.
        split: One of its splits.
        size: Size y, x to which every crop is resized; ``None`` for the published sizes, which differ.
        seed: With the epoch (``set_epoch``) and the index, it determines the random numbers of ``transform``.
        transform: Is called with each sample, in the worker.
        split_by: ``patient`` for splits without shared patients, from the column ``fold``; by default the splits of the build.

    Raises:
        OptionError: An option is out of range, or the config has no pictures with classes.
        BuildFolderError: There is no build, or it does not hold the config.
        TrainingError: The split has no rows.
        MissingExtraError: The extra ``torch`` is not installed.

    Example:
        >>> import lung_nodule_ct  # build is the folder of a build
        >>> dataset = lung_nodule_ct.torch.crops(build, size=(32, 32))
        >>> dataset[0]["image"].shape, dataset.class_weights.shape
        (torch.Size([1, 32, 32]), torch.Size([6]))
    """
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise OptionError("size", "it is not a size", expected="two positive integers y, x, or None", got=size)
    rows = open_rows(build, config, split, split_by, {"image", "label"})
    return Crops(rows, None if size is None else (size[0], size[1]), seed, transform)


class Crops(RowDataset):
    """Nodule crops. Returned by :func:`crops`."""

    def __init__(
        self, rows: Rows, size: tuple[int, int] | None, seed: int, transform: Callable[[Sample], Any] | None
    ) -> None:
        super().__init__(rows, seed, transform)
        self.size = size

    @property
    def labels(self) -> tuple[int, ...]:
        """The class of each crop."""
        return tuple(row["label"] for row in self.rows.metadata)

    @cached_property
    def class_weights(self) -> torch.Tensor:
        """Float32, one per class, inverse to its frequency, with a mean of 1 over the crops; 0 for classes without a crop."""
        column = self.rows.schema.column("label").type
        classes = len(column.names) if isinstance(column, Category) else max(self.labels) + 1
        counts = np.bincount(self.labels, minlength=classes)
        weights = len(self) / (np.maximum(counts, 1) * (counts > 0).sum()) * (counts > 0)
        return torch.from_numpy(weights.astype(np.float32))

    def __getitem__(self, index: int) -> Any:
        row = self._position(index)
        metadata = self.rows.metadata[row]
        sample = {
            "image": torch.from_numpy(_pixels(self.rows, row, "L", self.size))[None],
            "label": metadata["label"],
            "malignant": int(metadata["malignant"]),
            "id": metadata["image_id"],
            "patient_id": metadata.get("patient_id") or "",
        }
        return self._transformed(self._random(row), sample)


def _pixels(rows: Rows, row: int, mode: str, size: tuple[int, int] | None = None) -> np.ndarray[Any, Any]:
    """The picture of a row, from 0 to 1."""
    with Image.open(io.BytesIO(rows.picture(row))) as stored:
        image = stored.convert(mode)
    if size is not None and image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32) / 255
