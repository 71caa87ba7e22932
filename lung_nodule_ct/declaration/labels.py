"""The six pathology classes, the names of splits, and the two ways to split."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


@dataclass(frozen=True, slots=True)
class PathologyClass:
    """One pathology class.

    Attributes:
        folder: Number of its folder in the classification archive, 1 to 6.
        letter: Letter in the paper, A to F.
        name: The pathology.
        malignant: Whether the paper counts it as malignant.
    """

    folder: int
    letter: str
    name: str
    malignant: bool

    @property
    def index(self) -> int:
        """The class index in the built dataset, 0 to 5."""
        return self.folder - 1


#: In the order of the folders, so that the position of a class is its index.
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
"""The split of images and cases that no published list names. It only exists if it has rows."""

SPLIT_ORDER: Final = (TRAIN, VALIDATION, TEST, UNASSIGNED)
SPLIT_OF_FOLD: Final = (TRAIN, TRAIN, TRAIN, VALIDATION, TEST)
"""The split of each fold, 0 to 4, in a split by patient."""
LIST_SPLITS: Final = {
    "train": TRAIN,
    "val": VALIDATION,
    "validation": VALIDATION,
    "validate": VALIDATION,
    "valid": VALIDATION,
}
"""The split that a published list or table is for, by its name."""


class SplitBy(StrEnum):
    """How examples are split: as published by the authors, or by the fold of the patient, without leakage."""

    PUBLISHED = "published"
    PATIENT = "patient"
