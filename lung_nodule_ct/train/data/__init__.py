"""What the host hands to the device: one example by its number, decoded or cut, and nothing more. A module a kind of example."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from lung_nodule_ct.declaration.configs import DET2D_1_25MM
from lung_nodule_ct.read.rows import split_rows

if TYPE_CHECKING:
    import numpy as np

    from lung_nodule_ct.read.build_folder import BuildFolder
    from lung_nodule_ct.train.recipes import Recipe

    Example = dict[str, np.ndarray]


class DataSource(Protocol):
    """Examples by number; crosses process borders."""

    @property
    def ids(self) -> tuple[str, ...]:
        """What the examples are called."""

    @property
    def patients(self) -> tuple[str | None, ...]:
        """Whose they are."""

    def __len__(self) -> int: ...

    def load(self, number: int, random: np.random.Generator) -> Example:
        """One training example; what is drawn is drawn from ``random``."""


def open_data_source(build: BuildFolder, recipe: Recipe, split: str) -> DataSource:
    """The examples of a split, as a recipe wants them.

    Raises:
        BuildFolderError: The build does not hold the config.
        TrainingError: The split has no rows, one class only, or no nodule; or its images do not fit the recipe.
    """
    rows = split_rows(build, recipe.config, split, recipe.split_by)
    if recipe.task == "classification":
        from lung_nodule_ct.train.data.images import Crops  # noqa: PLC0415 -- only the one that is used

        return Crops(rows, recipe)
    if recipe.task == "longitudinal":
        from lung_nodule_ct.train.data.sequences import Sequences  # noqa: PLC0415

        return Sequences(rows, recipe)
    if recipe.config == DET2D_1_25MM.name:
        from lung_nodule_ct.train.data.images import Slices  # noqa: PLC0415

        return Slices(rows, recipe)
    from lung_nodule_ct.train.data.patches import Patches  # noqa: PLC0415

    return Patches(rows, recipe)
