"""Names of array types: the dtype for the type checker, axes and units for the reader."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray

#: A CT volume in Hounsfield units, axes (z, y, x).
CTVolume = Annotated[NDArray[np.int16], "z y x", "HU"]
#: A lung mask with the published labels, axes (z, y, x).
MaskVolume = Annotated[NDArray[np.uint8], "z y x", "label"]
#: A stack of 8-bit slices, axes (z, y, x).
GreyVolume = Annotated[NDArray[np.uint8], "z y x", "grey value"]
#: Points in world space, LPS millimetres, axes (point, xyz).
WorldPoints = Annotated[NDArray[np.float64], "n 3", "mm LPS"]
#: Points in voxel space, continuous index at the centre of a voxel, axes (point, xyz).
VoxelPoints = Annotated[NDArray[np.float64], "n 3", "voxel index xyz"]
#: Boxes in one of the forms of :class:`lung_nodule_ct.geometry.boxes.BoxForm`.
Boxes = Annotated[NDArray[np.float64] | NDArray[np.int64], "n 6"]
