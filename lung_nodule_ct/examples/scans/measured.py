"""What an example of a scan has in addition to what is published: key slices, and lung masks where the archives have none.

The slice of a nodule's centre follows from the geometry. The rest is measured in the voxels by :mod:`lung_nodule_ct.imaging`, which is
imported when it is asked for, because it needs the extra ``imaging``; :func:`.computed.with_computed` checks that it is there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lung_nodule_ct.declaration.findings import Code, Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lung_nodule_ct.errors import Place
    from lung_nodule_ct.examples.scans.listing import Nodule
    from lung_nodule_ct.geometry.frame import CTVolume, Frame, MaskVolume

KeySlice = tuple[int | None, str | None]
"""Index z and basis, both ``None`` for a nodule outside the volume."""


def centre_slices(nodules: Sequence[Nodule], volume: CTVolume, frame: Frame) -> list[KeySlice]:
    """The slices of the centres of nodules. A centre halfway between two slices has the upper one."""
    found: list[KeySlice] = []
    for nodule in nodules:
        z = math.floor(float(frame.to_voxel(nodule.center_world)[2]) + 0.5)
        found.append((z, "centre") if 0 <= z < len(volume) else (None, None))
    return found


def measured_slices(nodules: Sequence[Nodule], volume: CTVolume, frame: Frame) -> list[KeySlice]:
    """The slices in which nodules show most; where the voxels show none, those of the centres."""
    from lung_nodule_ct.imaging.key_slices import key_slice  # noqa: PLC0415 -- needs an extra
    from lung_nodule_ct.imaging.scan import Scan  # noqa: PLC0415

    scan = Scan(volume, frame)
    found: list[KeySlice] = []
    for nodule in nodules:
        key = key_slice(scan, {"center_world": nodule.center_world, "diameter_mm": nodule.diameter_mm})
        found.append((key.index, None if key.basis is None else str(key.basis)))
    return found


def make_lung_mask(volume: CTVolume, frame: Frame, place: Place) -> tuple[MaskVolume | None, Finding]:
    """Make a lung mask with the published labels; ``None`` if no lung is found. The finding says which."""
    from lung_nodule_ct.imaging.segmentation import segment_lungs  # noqa: PLC0415 -- needs an extra

    mask = segment_lungs(volume, frame)
    if not mask.any():
        return None, Finding(Code.LUNG_MASK_NOT_MADE, "lung_mask is null", place)
    return mask, Finding(Code.LUNG_MASK_MADE, "lung_mask_origin is `made`", place)
