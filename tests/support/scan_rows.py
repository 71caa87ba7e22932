"""Voxels and ITK images of the rows of scans."""

from __future__ import annotations

from typing import Any

import numpy as np
import SimpleITK as sitk


def voxels(row: dict[str, Any], column: str = "volume", dtype: str = "<i2") -> np.ndarray:
    """Return the array of a column that is stored as bytes and shape."""
    return np.frombuffer(row[column]["bytes"], dtype).reshape(row[column]["shape"])


def itk_image(row: dict[str, Any]) -> sitk.Image:
    """Return the volume of a row as an image with spacing, origin and direction."""
    volume = row["volume"] if isinstance(row["volume"], np.ndarray) else voxels(row)
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing(row["spacing"])
    image.SetOrigin(row["origin"])
    image.SetDirection(row["direction"])
    return image


def itk_image_in_lps(row: dict[str, Any]) -> sitk.Image:
    """Return the volume of a row as an image that ITK reoriented to LPS."""
    return sitk.DICOMOrient(itk_image(row), "LPS")
