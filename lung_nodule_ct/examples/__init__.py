"""From a unit to one example: a row that fits the schema, and what was found on the way. Pure: same unit, same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lung_nodule_ct.examples.crops import build_crop
from lung_nodule_ct.examples.scans import build_scan
from lung_nodule_ct.examples.slices import build_slice
from lung_nodule_ct.examples.stacks import build_stack
from lung_nodule_ct.plan.units import CropUnit, ScanUnit, SliceUnit, StackUnit

if TYPE_CHECKING:
    from lung_nodule_ct.examples.example import Example
    from lung_nodule_ct.plan.units import Unit
    from lung_nodule_ct.sources.source import Opened
    from lung_nodule_ct.system.memory import Scratch


def build_example(unit: Unit, opened: Opened, scratch: Scratch, *, keep_metadata: bool) -> Example:
    """Read what a unit names and make its example.

    Args:
        unit: What to read.
        opened: The archives that are open.
        scratch: Where its voxels go. With a plain :class:`Scratch` they are only valid until the next example is made.
        keep_metadata: Whether metadata of pictures stay although they spell a calendar date.

    Raises:
        MemberError: A member is damaged.
        ArchiveError: An archive cannot be read any more.
    """
    match unit:
        case CropUnit():
            return build_crop(unit, opened, keep_metadata=keep_metadata)
        case SliceUnit():
            return build_slice(unit, opened, keep_metadata=keep_metadata)
        case ScanUnit():
            return build_scan(unit, opened, scratch)
        case StackUnit():
            return build_stack(unit, opened, scratch)
        case _:
            raise TypeError(f"expected a unit of the plan, got {type(unit).__name__}")
