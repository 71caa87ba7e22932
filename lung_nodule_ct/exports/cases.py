"""The names that exported scans go by."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lung_nodule_ct.read.rows import Placed


def case_of(placed: Placed) -> str:
    """A file's name for a scan: its id and thickness, or its place in the build where it has no id; no dots, no dates."""
    thickness = f"{placed.row['slice_thickness_mm']:g}mm".replace(".", "p")
    key = placed.row["scan_id"] or f"{placed.split}{placed.number:05d}"
    return f"{key}_{thickness}"
