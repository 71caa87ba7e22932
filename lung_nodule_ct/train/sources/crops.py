"""Nodule crops with their pathology class."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from lung_nodule_ct.declaration.labels import PATHOLOGY
from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.read.rows import Rows, ids_of

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
