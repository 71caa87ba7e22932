"""Volumes as the images of other libraries, in memory and with their geometry: MONAI, TorchIO, SimpleITK, nibabel.

World coordinates are RAS millimetres in MONAI, TorchIO and nibabel, and LPS millimetres in SimpleITK and in this package: x and y have the
opposite sign. The axes of arrays are x, y, z in the first three, and z, y, x here and in SimpleITK's arrays. A transposed view has the
other order, so nothing is copied for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lung_nodule_ct.system.imports import optional_imports

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lung_nodule_ct.geometry.frame import Frame

_SCANNER: Final = 1
"""NIFTI_XFORM_SCANNER_ANAT: the world is that of the scanner."""


def to_tensor(array: NDArray[Any]) -> Any:
    """Return an array as a tensor: of the same memory if the array can be written, otherwise a copy.

    PyTorch has no read-only tensors, and a write to the mapped files of a dataset would end the process.

    Raises:
        MissingExtraError: PyTorch is not installed.
    """
    with optional_imports("torch", "a tensor"):
        import torch  # noqa: PLC0415 -- an extra
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def to_monai(array: NDArray[Any], frame: Frame) -> Any:
    """Return voxels, axes (z, y, x), as a ``monai.data.MetaTensor`` of shape (1, x, y, z) with its affine, RAS mm."""
    with optional_imports("monai", "a MetaTensor"):
        from monai.data import MetaTensor  # noqa: PLC0415 -- an extra
        from monai.utils.enums import SpaceKeys  # noqa: PLC0415
    affine = to_tensor(frame.affine("RAS"))
    meta = {"space": SpaceKeys.RAS, "original_affine": affine.clone(), "original_channel_dim": 0}
    meta["spatial_shape"] = np.array(array.T.shape)
    return MetaTensor(to_tensor(array).permute(2, 1, 0)[None], affine=affine, meta=meta)


def to_torchio(array: NDArray[Any], frame: Frame, *, label: bool) -> Any:
    """Return voxels, axes (z, y, x), as a ``torchio.ScalarImage``, or a ``LabelMap``, of shape (1, x, y, z)."""
    with optional_imports("torchio", "an image of TorchIO"):
        import torchio  # noqa: PLC0415 -- an extra
    kind = torchio.LabelMap if label else torchio.ScalarImage
    return kind(tensor=to_tensor(array).permute(2, 1, 0)[None], affine=frame.affine("RAS"))


def to_sitk(array: NDArray[Any], frame: Frame) -> Any:
    """Return voxels, axes (z, y, x), as a ``SimpleITK.Image``. SimpleITK always copies them."""
    with optional_imports("imaging", "an image of SimpleITK"):
        import SimpleITK  # noqa: PLC0415 -- an extra
    sitk: Any = SimpleITK
    image = sitk.GetImageFromArray(array)
    image.SetOrigin(frame.origin)
    image.SetSpacing(frame.spacing)
    image.SetDirection(frame.direction)
    return image


def to_nibabel(array: NDArray[Any], frame: Frame) -> Any:
    """Return voxels, axes (z, y, x), as a ``nibabel.Nifti1Image`` with the axes (x, y, z), without a copy.

    The sform contains the complete affine. The qform can only rotate and mirror, so it is only set if the direction matrix does no more
    than that.
    """
    with optional_imports("export", "an image of nibabel"):
        import nibabel  # noqa: PLC0415 -- an extra
    affine = frame.affine("RAS")
    image = nibabel.Nifti1Image(array.T, affine)
    image.set_sform(affine, code=_SCANNER, update_affine=False)  # the header has float32, the image keeps float64
    if frame.is_orthonormal:
        image.set_qform(affine, code=_SCANNER, update_affine=False)
    else:
        image.set_qform(None, code=0, update_affine=False)
    image.header.set_xyzt_units("mm")
    return image
