"""Draw ``docs/ct.jpg``: a real CT with its nodule, of LIDC-IDRI, from archives in the published layout.

    python docs/make_ct_picture.py ARCHIVES          # needs matplotlib

The picture in the repository shows LIDC-IDRI-0001 (Armato et al., doi:10.7937/K9/TCIA.2015.LO9QL9SX, CC BY 3.0), whose nodule is that of
LUNA16 (Setio et al., doi:10.1016/j.media.2017.06.015, CC BY 4.0).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Circle

import lung_nodule_ct

SCAN = "80-1"
COLOUR = "#ffb000"
WINDOW = {"cmap": "gray", "vmin": -1350, "vmax": 150, "interpolation": "bilinear"}


def main(source: str) -> None:
    """Load the scan, and draw an axial slice, and the nodule with the lung mask."""
    with tempfile.TemporaryDirectory() as cache:
        scans = lung_nodule_ct.load("det3d_1.25mm", source=source, split="train", cache_dir=cache)
        index = scans["scan_id"].index(SCAN)
        view, row = lung_nodule_ct.volumes(scans)[index], scans[index]
        mask = np.frombuffer(row["lung_mask"]["bytes"], "u1").reshape(row["lung_mask"]["shape"])
        draw(view.array, mask, row)


def draw(volume: Any, mask: Any, row: Any) -> None:
    """Write the picture."""
    nodule = row["nodules"][0]
    x, y, z = (round(value) for value in nodule["center_voxel"])
    step = row["spacing"][0]
    radius = nodule["diameter_mm"] / 2 / step
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 4.6), facecolor="white", layout="constrained")
    axes[0].imshow(volume[z], **WINDOW)
    axes[0].set_title("one slice, in Hounsfield units", fontsize=10)
    side = 64
    axes[1].imshow(volume[z], **WINDOW)
    axes[1].contour(mask[z] > 0, levels=[0.5], colors="#56b4e9", linewidths=1)
    axes[1].set(xlim=(x - side, x + side), ylim=(y + side, y - side))
    axes[1].set_title(f"nodule of {nodule['diameter_mm']:.0f} mm, and lung mask", fontsize=10)
    for plane in axes:
        plane.add_patch(Circle((x, y), radius, fill=False, color=COLOUR, lw=1.5))
        plane.set_axis_off()
    figure.savefig(Path(__file__).with_name("ct.jpg"), dpi=100, pil_kwargs={"quality": 85})


if __name__ == "__main__":
    main(sys.argv[1])
