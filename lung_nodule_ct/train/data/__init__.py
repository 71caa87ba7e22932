"""Data sources: the training examples of a split by index, as NumPy arrays.

A data source decodes images or cuts patches on the host, and nothing more. The CT window, resampling and augmentation
are applied on the device, in :mod:`lung_nodule_ct.train.preprocessing`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from lung_nodule_ct.read.rows import Rows
    from lung_nodule_ct.train.recipes import Recipe

Arrays = dict[str, np.ndarray]
"""The arrays of one example, or of a batch with a leading batch axis, by name."""


class DataSource(Protocol):
    """The examples of a split by index. It can be pickled, so that processes that load data can have a copy."""

    @property
    def ids(self) -> tuple[str, ...]:
        """The name of each example."""

    @property
    def patients(self) -> tuple[str | None, ...]:
        """The patient of each example, ``None`` where it is unknown."""

    def __len__(self) -> int: ...

    def load(self, index: int, random: np.random.Generator) -> Arrays:
        """Load a training example. Patches are drawn with ``random``."""


@dataclass(frozen=True)
class RowSource:
    """The part of a data source that is the same for all sources with one example per row.

    Attributes:
        rows: The rows of the split.
        recipe: The recipe that the examples are for.
    """

    id_columns: ClassVar[tuple[str, ...]] = ()

    rows: Rows
    recipe: Recipe

    @classmethod
    def open(cls, rows: Rows, recipe: Recipe, split: str, folder: Path | None) -> Self:  # noqa: ARG003
        """The source of the rows of a split. Some need a file in the ``folder`` of the run, too."""
        return cls(rows, recipe)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The first of ``id_columns`` that is not null, of each row."""
        return self.rows.ids(*self.id_columns)

    @cached_property
    def patients(self) -> tuple[str | None, ...]:
        """``patient_id`` of each row."""
        return self.rows.patients


def pad_boxes(boxes: NDArray[Any], count: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Pad boxes with zeros to a fixed number.

    Args:
        boxes: Shape (n, 4) or (n, 6).
        count: The number of boxes to return, at least n.

    Returns:
        The boxes, shape (count, 4) or (count, 6), and which of them are real, shape (count,).
    """
    padded = np.zeros((count, *boxes.shape[1:]), np.float32)
    padded[: len(boxes)] = boxes
    return padded, np.arange(count) < len(boxes)
