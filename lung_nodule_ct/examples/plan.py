"""From a declaration and its archives to an ordered list of small units, and the findings made on the way.

Reads directories and tables, no images and no voxels.

From a unit to one example: a row that fits the schema, and what was found on the way. Pure: same unit, same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from lung_nodule_ct.declaration.configs import (
    CLS_1_25MM,
    DET2D_1_25MM,
    DET3D_1_25MM,
    DET3D_5MM,
    DET3D_BMP_1_25MM,
    LONGITUDINAL,
    Config,
)
from lung_nodule_ct.declaration.findings import Code, Finding
from lung_nodule_ct.declaration.labels import SPLIT_OF_FOLD, SPLIT_ORDER, SplitBy
from lung_nodule_ct.examples.crops import build_crop, plan_crops
from lung_nodule_ct.examples.family import CropUnit, ScanUnit, SliceUnit, StackUnit
from lung_nodule_ct.examples.scans_example import build_scan
from lung_nodule_ct.examples.scans_plan import plan_scans
from lung_nodule_ct.examples.slices_example import build_slice
from lung_nodule_ct.examples.slices_plan import plan_slices
from lung_nodule_ct.examples.stacks import build_stack, plan_stacks

if TYPE_CHECKING:
    from lung_nodule_ct.examples.family import Example, Unit
    from lung_nodule_ct.sources.source import ArchivePool, Source
    from lung_nodule_ct.system.memory import BufferPool


Planner = Callable[["Source"], tuple[Sequence["Unit"], list[Finding]]]

_PLANNERS: dict[str, Planner] = {
    CLS_1_25MM.name: plan_crops,
    DET2D_1_25MM.name: plan_slices,
    DET3D_1_25MM.name: partial(plan_scans, DET3D_1_25MM),
    DET3D_5MM.name: partial(plan_scans, DET3D_5MM),
    LONGITUDINAL.name: partial(plan_scans, LONGITUDINAL),
    DET3D_BMP_1_25MM.name: plan_stacks,
}


@dataclass(frozen=True)
class Plan:
    """What a build of one config will do.

    Attributes:
        config: The declaration.
        units: The examples to be, in the order in which they are written; no identity stands twice.
        findings: What was wrong with the archives as far as directories and tables tell.
    """

    config: Config
    units: tuple[Unit, ...]
    findings: tuple[Finding, ...]

    @property
    def splits(self) -> dict[str, tuple[Unit, ...]]:
        """The units by split; a split without units is left out."""
        present = {unit.split for unit in self.units}
        return {
            split: tuple(unit for unit in self.units if unit.split == split)
            for split in SPLIT_ORDER
            if split in present
        }


def make_plan(config: Config, source: Source, split_by: SplitBy | str = SplitBy.PUBLISHED) -> Plan:
    """Plan the build of one config.

    Raises:
        ArchiveNotFoundError: An archive that the config reads is missing.
        ArchiveError: An archive is no zip archive, or breaks a limit.
        MemberError: A table is damaged or missing, or a member must not be read.
    """
    units, findings = _PLANNERS[config.name](source)
    if SplitBy(split_by) is SplitBy.PATIENT:
        units, findings = _split_by_patient(units, findings)
    odd = [finding for role in config.reads for archive in source.archives(role) for finding in archive.findings]
    return Plan(config, tuple(units), (*odd, *findings))


def _split_by_patient(units: Sequence[Unit], findings: list[Finding]) -> tuple[list[Unit], list[Finding]]:
    placed = [replace(unit, split=SPLIT_OF_FOLD[unit.fold]) for unit in units if unit.fold is not None]
    left = [unit for unit in units if unit.fold is None]
    if not left:
        return placed, findings
    archive = left[0].members[0].archive
    return placed, [*findings, Finding(Code.NO_FOLD, "left out", archive, detail="split by patient", count=len(left))]


def build_example(unit: Unit, archives: ArchivePool, buffers: BufferPool, *, keep_metadata: bool) -> Example:
    """Read what a unit names and make its example.

    Args:
        unit: What to read.
        archives: The open archives.
        buffers: Where its voxels go. With a plain :class:`BufferPool` they are only valid until the next example is made.
        keep_metadata: Whether metadata of pictures stay although they spell a calendar date.

    Raises:
        MemberError: A member is damaged.
        ArchiveError: An archive cannot be read any more.
    """
    match unit:
        case CropUnit():
            return build_crop(unit, archives, keep_metadata=keep_metadata)
        case SliceUnit():
            return build_slice(unit, archives, keep_metadata=keep_metadata)
        case ScanUnit():
            return build_scan(unit, archives, buffers)
        case StackUnit():
            return build_stack(unit, archives, buffers)
        case _:
            raise TypeError(f"expected a unit of the plan, got {type(unit).__name__}")
