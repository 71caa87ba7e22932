"""What an export wrote."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Counted:
    """What an export wrote.

    Attributes:
        images: Pictures or volumes.
        annotations: Boxes, spheres or instances.
        left_out: Those that the form cannot hold.
        notes: What a user of the form must know, a sentence each.
    """

    images: int
    annotations: int
    left_out: int = 0
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**asdict(self), "notes": list(self.notes)}
