"""The paper's four groups of nodule size (Fig. 5 and its text)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class SizeGroup:
    """A range of diameters.

    Attributes:
        name: For people.
        figure: The name of the published count, as in :data:`lung_nodule_ct.spec.published.FIGURES`.
        above_mm: Diameters in it are larger than this.
        up_to_mm: Diameters in it are at most this.
    """

    name: str
    figure: str
    above_mm: float
    up_to_mm: float

    def __post_init__(self) -> None:
        if not self.above_mm < self.up_to_mm:
            raise ValueError(f"{self.name}: expected a range, got {self.above_mm} to {self.up_to_mm}")

    def __contains__(self, diameter_mm: float) -> bool:
        return self.above_mm < diameter_mm <= self.up_to_mm


SIZE_GROUPS: Final = (
    SizeGroup("0 to 10 mm", "nodules of 0 to 10 mm", 0, 10),
    SizeGroup("10 to 20 mm", "nodules of 10 to 20 mm", 10, 20),
    SizeGroup("20 to 30 mm", "nodules of 20 to 30 mm", 20, 30),
    SizeGroup("over 30 mm", "nodules over 30 mm", 30, float("inf")),
)


def size_group(diameter_mm: float) -> SizeGroup | None:
    """The group of a diameter; ``None`` where it is not positive."""
    return next((group for group in SIZE_GROUPS if diameter_mm in group), None)
