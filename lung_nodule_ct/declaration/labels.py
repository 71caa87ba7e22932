"""The six pathology classes, as the folders of the classification archive number them.

The names of splits, and the two ways to make them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


@dataclass(frozen=True, slots=True)
class PathologyClass:
    """One pathology class.

    Attributes:
        folder: The folder's number in the archive, 1 to 6.
        letter: The paper's letter, A to F.
        name: The pathology.
        malignant: Whether it counts as malignant.
    """

    folder: int
    letter: str
    name: str
    malignant: bool

    @property
    def index(self) -> int:
        """The class index in the built dataset, 0 to 5."""
        return self.folder - 1


#: In the folders' order, so that a class's place is its index.
PATHOLOGY: Final = (
    PathologyClass(1, "A", "invasive adenocarcinoma", malignant=True),
    PathologyClass(2, "B", "minimally invasive adenocarcinoma", malignant=True),
    PathologyClass(3, "C", "adenocarcinoma in situ", malignant=True),
    PathologyClass(4, "D", "malignant other", malignant=True),
    PathologyClass(5, "E", "inflammation", malignant=False),
    PathologyClass(6, "F", "benign other", malignant=False),
)

PATHOLOGY_NAMES: Final = tuple(entry.name for entry in PATHOLOGY)

TRAIN: Final = "train"
VALIDATION: Final = "validation"
TEST: Final = "test"
UNASSIGNED: Final = "unassigned"
"""The split of what no published list names; it exists only where it has rows."""

SPLIT_ORDER: Final = (TRAIN, VALIDATION, TEST, UNASSIGNED)
SPLIT_OF_FOLD: Final = (TRAIN, TRAIN, TRAIN, VALIDATION, TEST)
"""Where each fold goes in a split by patient."""


class SplitBy(StrEnum):
    """How examples are split: as the authors published it, or free of leaks by the patient's fold."""

    PUBLISHED = "published"
    PATIENT = "patient"
