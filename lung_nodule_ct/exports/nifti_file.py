"""One volume as a NIfTI-1 file with the frame that it has.

NIfTI's world is RAS+ millimetres, ours LPS: x and y change their sign. The sform holds the whole affine; the qform, which
can only turn and mirror, holds it where the direction matrix does no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lung_nodule_ct.system.imports import needing

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from lung_nodule_ct.geometry.frame import Frame

SUFFIX: Final = ".nii.gz"
_SCANNER = 1  # NIFTI_XFORM_SCANNER_ANAT
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


def to_ras(world: ArrayLike) -> NDArray[np.float64]:
    """World points in RAS millimetres, of points in LPS; shape (3,) or (n, 3), both x, y, z."""
    points: NDArray[np.float64] = np.asarray(world, np.float64) * _LPS_TO_RAS
    return points


def ras_affine(frame: Frame) -> NDArray[np.float64]:
    """The affine from voxel indices x, y, z to RAS millimetres, shape (4, 4)."""
    affine = np.eye(4)
    corners = to_ras(frame.to_world(np.vstack([np.zeros(3), np.eye(3)])))
    affine[:3, 3] = corners[0]
    affine[:3, :3] = (corners[1:] - corners[0]).T
    return affine


def write_nifti(path: Path, voxels: NDArray[Any], frame: Frame) -> None:
    """Write a volume, slice by slice.

    Args:
        path: Ends in ``.nii.gz``; its folder is made.
        voxels: int16, uint8 or uint16, axes (z, y, x).
        frame: Where it is.

    Raises:
        MissingExtraError: nibabel is not installed.
    """
    with needing("export", "writing NIfTI"):
        import nibabel  # noqa: PLC0415
    affine = ras_affine(frame)
    image = nibabel.Nifti1Image(voxels.T, affine)
    image.set_sform(affine, code=_SCANNER)
    if frame.is_orthonormal:
        image.set_qform(affine, code=_SCANNER)
    else:
        image.set_qform(None, code=0)
    image.header.set_xyzt_units("mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
