"""The usual mistakes of tables of nodules: where a nodule is if its row was written in another convention."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lung_nodule_ct.geometry.frame import Frame


def other_conventions(world: Sequence[float], frame: Frame, shape: Sequence[int]) -> dict[str, NDArray[np.float64]]:
    """Positions of a nodule in a scan if its coordinates mean something else than LPS millimetres.

    Args:
        world: The three numbers of the row.
        frame: The frame of the scan.
        shape: Shape of the volume: z, y, x.

    Returns:
        Voxel positions x, y, z inside the volume, by what the row or the header would have done.

    Example:
        >>> from lung_nodule_ct import Frame
        >>> frame = Frame(origin=(0.0, 0.0, 0.0), spacing=(1.0, 1.0, 1.0))
        >>> other_conventions((3.0, 7.0, 1.0), frame, (5, 10, 10))["x and y are exchanged"].tolist()
        [7.0, 3.0, 1.0]
    """
    point, size = np.asarray(world, np.float64), np.array(shape[::-1], np.float64)
    here = frame.to_voxel(point)
    far = size - 1 - here
    found = {f"{axes[0]} and {axes[1]} are exchanged": frame.to_voxel(point[list(order)]) for axes, order in _EXCHANGES}
    found |= {f"the signs of {name} are reversed": frame.to_voxel(point * signs) for name, signs in _SIGNS}
    found |= {
        "the numbers are voxels": point,
        "the numbers are voxels in the order z, y, x": point[::-1],
        "the numbers are voxels, with x and y exchanged": point[[1, 0, 2]],
        "the numbers are in centimetres": frame.to_voxel(point * 10),
        "the numbers are in micrometres": frame.to_voxel(point / 1000),
        "x and y of the voxels are exchanged": here[[1, 0, 2]],
    }
    for name, axes in _MIRRORS:
        found[f"the voxels are mirrored along {name}"] = np.where(np.isin(range(3), axes), far, here)
    return {
        name: place
        for name, place in found.items()
        if np.isfinite(place).all() and ((place >= -0.5) & (place <= size - 0.5)).all()
    }


_EXCHANGES = (("xy", (1, 0, 2)), ("xz", (2, 1, 0)), ("yz", (0, 2, 1)))
_SIGNS = (("x and y (RAS)", (-1, -1, 1)), ("x", (-1, 1, 1)), ("y", (1, -1, 1)), ("z", (1, 1, -1)))
_MIRRORS = (("x", (0,)), ("y", (1,)), ("z", (2,)), ("x and y", (0, 1)))
