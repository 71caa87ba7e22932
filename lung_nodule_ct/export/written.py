"""What an export wrote.

The names that exported scans go by.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lung_nodule_ct.read.rows import IndexedRow


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


def case_of(placed: IndexedRow) -> str:
    """A file's name for a scan: its id and thickness, or its place in the build where it has no id; no dots, no dates."""
    thickness = f"{placed.row['slice_thickness_mm']:g}mm".replace(".", "p")
    key = placed.row["scan_id"] or f"{placed.split}{placed.number:05d}"
    return f"{key}_{thickness}"
