"""Nodule crops with their pathology class.

Whole slices with their 2D boxes.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from lung_nodule_ct.declaration.labels import PATHOLOGY
from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.read.rows import Rows, ids_of, padded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lung_nodule_ct.train.recipes import Recipe


@dataclass(frozen=True)
class Crops:
    """Examples ``image`` (y, x) uint8, resized to the recipe's size; ``label`` 0 to 5; ``weight``: rare classes weigh more.

    Raises:
        TrainingError: All crops are of one class, or the size is no (y, x).
    """

    rows: Rows
    recipe: Recipe

    def __post_init__(self) -> None:
        if len(self.recipe.input.size) != 2:
            raise TrainingError("input.size of crops", expected="y, x", got=self.recipe.input.size)
        if len(set(self.labels)) < 2:
            raise TrainingError(
                "there is nothing to tell apart", expected="crops of two classes or more", got="one class"
            )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ids(self) -> tuple[str, ...]:
        """``image_id``."""
        return ids_of(self.rows, "image_id")

    @property
    def patients(self) -> tuple[str | None, ...]:
        """``patient_id``."""
        return self.rows.patients

    @property
    def labels(self) -> tuple[int, ...]:
        """Class indices."""
        return tuple(row["label"] for row in self.rows.light)

    @cached_property
    def _weights(self) -> NDArray[np.float32]:
        """By class: inverse to its frequency, 1 on the mean over the examples."""
        counts = np.bincount(self.labels, minlength=len(PATHOLOGY))
        return (len(self) / (np.maximum(counts, 1) * (counts > 0).sum())).astype(np.float32)

    def load(self, number: int, random: np.random.Generator) -> dict[str, np.ndarray]:  # noqa: ARG002 -- nothing is drawn
        """One crop."""
        height, width = self.recipe.input.size
        with Image.open(io.BytesIO(self.rows.picture(number))) as image:
            grey = image.convert("L").resize((width, height), Image.Resampling.BILINEAR)
        label = self.rows.light[number]["label"]
        return {"image": np.asarray(grey), "label": np.array(label, np.int32), "weight": np.array(self._weights[label])}


_MULTIPLE = 32


@dataclass(frozen=True)
class Slices:
    """Examples ``image`` (y, x) uint8, black below and right of the slice; ``boxes`` (k, 4) as y0 x0 y1 x1; ``valid`` (k,).

    Raises:
        TrainingError: No slice has a nodule, or a slice is larger than the recipe's size.
    """

    rows: Rows
    recipe: Recipe

    def __post_init__(self) -> None:
        if not any(row["objects"] for row in self.rows.light):
            raise TrainingError("no slice of the split has a nodule", remedy="choose another split or build")
        if any(own > room for own, room in zip(self._largest, self.canvas, strict=True)):
            raise TrainingError("a slice does not fit input.size", expected=self.canvas, got=self._largest)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ids(self) -> tuple[str, ...]:
        """``image_id``."""
        return ids_of(self.rows, "image_id")

    @property
    def patients(self) -> tuple[str | None, ...]:
        """``patient_id``."""
        return self.rows.patients

    @cached_property
    def _largest(self) -> tuple[int, int]:
        return max(row["height"] for row in self.rows.light), max(row["width"] for row in self.rows.light)

    @property
    def canvas(self) -> tuple[int, ...]:
        """The size of the examples, y, x: the recipe's, or what holds the largest slice."""
        return self.recipe.input.size or tuple(-(-length // _MULTIPLE) * _MULTIPLE for length in self._largest)

    def truth(self, number: int) -> NDArray[np.float64]:
        """The published boxes of a slice, shape (n, 4), xmin, ymin, xmax, ymax."""
        return np.array([box["bbox"] for box in self.rows.light[number]["objects"]], np.float64).reshape(-1, 4)

    def picture(self, number: int) -> NDArray[np.uint8]:
        """The slice in grey, (y, x)."""
        with Image.open(io.BytesIO(self.rows.picture(number))) as image:
            return np.asarray(image.convert("L"))

    def load(self, number: int, random: np.random.Generator) -> dict[str, np.ndarray]:  # noqa: ARG002 -- nothing is drawn
        """One slice. Boxes are cut off at its border; those outside are left out."""
        picture = self.picture(number)
        image = np.zeros(self.canvas, np.uint8)
        image[: picture.shape[0], : picture.shape[1]] = picture
        boxes = np.clip(self.truth(number)[:, [1, 0, 3, 2]], 0, (*picture.shape, *picture.shape))
        kept, valid = padded(boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)], self.recipe.input.boxes)
        return {"image": image, "boxes": kept, "valid": valid}
