"""What a build can compute from the voxels of scans, where the archives do not have it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class KeySlices(StrEnum):
    """What the key slices of nodules are chosen by."""

    CENTRE = "centre"
    """The annotated centre."""
    EVIDENCE = "evidence"
    """The voxels, where they show the nodule; otherwise the centre."""


@dataclass(frozen=True, slots=True)
class Computed:
    """What is computed from the voxels of the scans of a config.

    Attributes:
        lung_masks: Make a lung mask for each scan without one that can be used.
        key_slices: What the key slices are chosen by.
        tracks: Follow the nodules over the scans of each patient.

    Raises:
        ValueError: ``key_slices`` is not one of its choices.
    """

    lung_masks: bool = False
    key_slices: KeySlices = KeySlices.CENTRE
    tracks: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "key_slices", KeySlices(self.key_slices))

    @property
    def needs_imaging(self) -> bool:
        """Whether the extra ``imaging`` is needed."""
        return self.lung_masks or self.tracks or self.key_slices is KeySlices.EVIDENCE

    def to_json(self) -> dict[str, Any]:
        """The entry in ``build.json``."""
        return {"lung_masks": self.lung_masks, "key_slices": str(self.key_slices), "tracks": self.tracks}
