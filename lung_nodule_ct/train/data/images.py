"""Data sources of 2D images: nodule crops with a pathology class, and slices with nodule boxes."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
from PIL import Image

from lung_nodule_ct.declaration.labels import PATHOLOGY
from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.train.data import RowSource, pad_boxes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lung_nodule_ct.train.data import Arrays

_CANVAS_MULTIPLE: Final = 32
_BETA: Final = 0.999
"""Of the effective number of crops of a class (Cui et al. 2019)."""


@dataclass(frozen=True)
class Crops(RowSource):
    """Nodule crops.

    An example has ``image`` (y, x) uint8, resized to the recipe's size, ``label`` (0 to 5) and ``weight`` (larger for
    rare classes).

    Raises:
        TrainingError: All crops are of one class, or the recipe's size is not (y, x).
    """

    id_columns: ClassVar[tuple[str, ...]] = ("image_id",)

    def __post_init__(self) -> None:
        if len(self.recipe.input.size) != 2:
            raise TrainingError("crops need an input.size of two axes", expected="y, x", got=self.recipe.input.size)
        if len(set(self.labels)) < 2:
            raise TrainingError(
                "all crops of the split are of one class",
                expected="two classes or more",
                remedy="choose another split or build",
            )

    @cached_property
    def labels(self) -> tuple[int, ...]:
        """The class index of each crop."""
        return tuple(row["label"] for row in self.rows.metadata)

    @cached_property
    def _class_weights(self) -> NDArray[np.float32]:
        """The weight of each class by :attr:`LossOptions.class_weights`, with a mean of 1 over the examples."""
        counts = np.bincount(self.labels, minlength=len(PATHOLOGY))
        kind = self.recipe.loss.class_weights
        if kind == "inverse":
            return (len(self) / (np.maximum(counts, 1) * (counts > 0).sum())).astype(np.float32)
        sizes = (1 - _BETA ** np.maximum(counts, 1)) / (1 - _BETA) if kind == "effective" else np.ones(len(counts))
        return (len(self) / sizes / (counts / sizes).sum()).astype(np.float32)

    def load(self, index: int, random: np.random.Generator) -> Arrays:  # noqa: ARG002 -- a crop is not drawn
        """Load a crop."""
        height, width = self.recipe.input.size
        with Image.open(io.BytesIO(self.rows.picture(index))) as image:
            grey = image.convert("L").resize((width, height), Image.Resampling.BILINEAR)
        label = self.rows.metadata[index]["label"]
        return {
            "image": np.asarray(grey),
            "label": np.array(label, np.int32),
            "weight": np.array(self._class_weights[label]),
        }


@dataclass(frozen=True)
class Slices(RowSource):
    """Slices with nodule boxes.

    An example has ``image`` (y, x) uint8, black below and to the right of the slice, ``boxes`` (k, 4) as y0 x0 y1 x1,
    and ``valid`` (k,), which boxes are real.

    Raises:
        TrainingError: No slice has a nodule, the recipe's size is not (y, x), or a slice is larger.
    """

    id_columns: ClassVar[tuple[str, ...]] = ("image_id",)

    def __post_init__(self) -> None:
        if len(self.canvas) != 2:
            raise TrainingError("slices need an input.size of two axes", expected="y, x", got=self.recipe.input.size)
        if not any(row["objects"] for row in self.rows.metadata):
            raise TrainingError("no slice of the split has a nodule", remedy="choose another split or build")
        if any(length > limit for length, limit in zip(self._largest, self.canvas, strict=True)):
            raise TrainingError("a slice does not fit input.size", expected=self.canvas, got=self._largest)

    @cached_property
    def _largest(self) -> tuple[int, int]:
        return max(row["height"] for row in self.rows.metadata), max(row["width"] for row in self.rows.metadata)

    @cached_property
    def _most_boxes(self) -> int:
        return max(self.recipe.input.boxes, *(len(row["objects"]) for row in self.rows.metadata))

    @property
    def canvas(self) -> tuple[int, ...]:
        """The size of the examples (y, x): the recipe's size, or one that fits the largest slice."""
        multiple = _CANVAS_MULTIPLE
        return self.recipe.input.size or tuple(-(-length // multiple) * multiple for length in self._largest)

    def published_boxes(self, index: int) -> NDArray[np.float64]:
        """The published boxes of a slice, shape (n, 4), xmin, ymin, xmax, ymax."""
        return np.array([box["bbox"] for box in self.rows.metadata[index]["objects"]], np.float64).reshape(-1, 4)

    def picture(self, index: int) -> NDArray[np.uint8]:
        """The grey values of a slice, shape (y, x)."""
        with Image.open(io.BytesIO(self.rows.picture(index))) as image:
            return np.asarray(image.convert("L"))

    def load(self, index: int, random: np.random.Generator) -> Arrays:  # noqa: ARG002 -- a slice is not drawn
        """Load a slice. Boxes are clipped to the slice, and those outside it are left out."""
        picture = self.picture(index)
        image = np.zeros(self.canvas, np.uint8)
        image[: picture.shape[0], : picture.shape[1]] = picture
        boxes = np.clip(self.published_boxes(index)[:, [1, 0, 3, 2]], 0, (*picture.shape, *picture.shape))
        padded, valid = pad_boxes(boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)], self._most_boxes)
        return {"image": image, "boxes": padded, "valid": valid}
