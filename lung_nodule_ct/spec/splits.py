"""The names of splits, and the two ways to make them."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

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
