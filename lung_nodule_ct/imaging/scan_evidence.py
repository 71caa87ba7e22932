"""The evidence of a nodule in one scan, for users of :func:`lung_nodule_ct.load` and :func:`lung_nodule_ct.volumes`."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from lung_nodule_ct.system.imports import optional_imports

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lung_nodule_ct.imaging.evidence import EvidenceFinder
    from lung_nodule_ct.imaging.judgement import NoduleEvidence
    from lung_nodule_ct.read.volumes import Volume


def evidence(scan: Volume, nodule: Mapping[str, Any]) -> NoduleEvidence:
    """Judge whether there is a nodule of its size at the place of an annotation.

    Rays from the centre are compared with 300 random places in and around the lungs of the same scan; docs/audit.md describes the
    method and its figures. Needs the extra ``imaging``.

    Args:
        scan: The scan, as :func:`lung_nodule_ct.volumes` yields it: HU, axes (z, y, x), with its frame.
        nodule: An entry of the column ``nodules``: ``center_world`` in LPS mm and ``diameter_mm``.

    Returns:
        The verdict with its numbers: ``verdict``, ``measured``, ``bound``, ``hint``, and ``place`` with score and p-value.

    Raises:
        ValueError: The scan has no frame.
        MissingExtraError: The extra ``imaging`` is not installed.

    Example:
        >>> from lung_nodule_ct import Frame
        >>> from lung_nodule_ct.read.volumes import Volume
        >>> frame = Frame(origin=(0.0, 0.0, 0.0), spacing=(2.0, 2.0, 2.0))
        >>> z, y, x = np.indices((40, 120, 150))
        >>> voxels = np.where((abs(x - 75) < 60) & (abs(y - 60) < 45) & (abs(x - 75) > 8), -850, 40).astype(np.int16)
        >>> voxels[(x - 40) ** 2 + (y - 60) ** 2 + (z - 20) ** 2 < 6**2] = 40
        >>> nodule = {"center_world": (80.0, 120.0, 40.0), "diameter_mm": 24.0}
        >>> str(evidence(Volume(voxels, frame), nodule).verdict)
        'present'
    """
    with optional_imports("imaging", "evidence"):
        from lung_nodule_ct.imaging.judgement import judge_sphere  # noqa: PLC0415 -- an extra
    if scan.frame is None:
        raise ValueError("the scan has no frame: a nodule is judged by its world coordinates")
    return judge_sphere(_finder(scan), scan.frame, scan.shape, nodule["center_world"], nodule["diameter_mm"])


@lru_cache(maxsize=1)
def _finder(scan: Volume) -> EvidenceFinder | None:
    """The finder of a scan; the last one is kept, since a scan often has several nodules."""
    from lung_nodule_ct.imaging.evidence import finder_of  # noqa: PLC0415 -- an extra
    from lung_nodule_ct.imaging.lungs import find_lungs  # noqa: PLC0415 -- an extra

    assert scan.frame is not None  # noqa: S101 -- the caller refuses others
    volume = np.asarray(scan.array[...])
    return finder_of(volume, find_lungs(volume, scan.frame.spacing), scan.frame.spacing)
