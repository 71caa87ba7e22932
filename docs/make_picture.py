"""Draw ``docs/overview.png``: an example of every config, from phantoms like the embedded ones at a finer resolution.

python -m docs.make_picture          # needs matplotlib
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, Rectangle

import lung_nodule_ct
from dummy_data import make

BOX, TEXT = "#ffb000", "#1f2933"  # amber on grey: also distinct for readers with colour blindness


def main() -> None:
    """Generate, build, draw."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "source")
        make.write(source, shape=(16, 200, 280), spacing=(1.2, 1.2, 1.25))

        def load(config: str, split: str = "train") -> Any:
            return lung_nodule_ct.load(
                config, source=source, split=split, keep_source_names=True, cache_dir=Path(scratch, "cache")
            )

        figure = plt.figure(figsize=(11, 7.4), facecolor="white", layout="constrained")
        rows = figure.subfigures(3, 1, height_ratios=[1, 1.15, 1.15])
        top = rows[0].subfigures(1, 3, width_ratios=[1.5, 1, 1])
        crops(top[0], load("cls_1.25mm"))
        slices(top[1], load("det2d_1.25mm"))
        stacks(top[2], load("det3d_bmp_1.25mm"))
        planes(rows[1], load("det3d_1.25mm"), load("det3d_5mm"))
        times(rows[2], load("longitudinal"))
        figure.savefig(Path(__file__).with_name("overview.png"), dpi=110)


def heading(figure: Any, config: str, text: str) -> None:
    """The config's name and what is seen."""
    figure.suptitle(f"{config}  ·  {text}", fontsize=10, color=TEXT, x=0.01, ha="left")


def show(axes: Axes, picture: Any, aspect: float = 1.0, *, window: tuple[float, float] = (-1350, 150)) -> None:
    """A grey picture without a frame."""
    axes.imshow(picture, cmap="gray", vmin=window[0], vmax=window[1], aspect=aspect, interpolation="nearest")
    axes.set_axis_off()


def crops(figure: Any, dataset: Any) -> None:
    """One crop per class."""
    heading(figure, "cls_1.25mm", "crops with a pathology class")
    names = dataset.features["label"].names
    named = [row for row in dataset if row["patient_id"]]
    chosen = [row for _, row in sorted({row["label"]: row for row in named}.items())][:4]
    for axes, row in zip(figure.subplots(1, len(chosen)), chosen, strict=True):
        show(axes, np.asarray(row["image"]), window=(0, 255))
        axes.set_title(names[row["label"]].replace(" adeno", "\nadeno"), fontsize=7, color=TEXT)


def slices(figure: Any, dataset: Any) -> None:
    """A slice with its boxes."""
    heading(figure, "det2d_1.25mm", "2D boxes")
    axes = figure.subplots()
    row = max(dataset, key=lambda row: len(row["objects"]))
    show(axes, np.asarray(row["image"]))
    axes.images[0].set_clim(0, 255)
    for entry in row["objects"]:
        x0, y0, x1, y1 = entry["bbox"]
        axes.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0 + 1, y1 - y0 + 1, fill=False, color=BOX, lw=1.5))


def stacks(figure: Any, dataset: Any) -> None:
    """The middle slice of a flipped copy."""
    heading(figure, "det3d_bmp_1.25mm", "8-bit stacks")
    axes = figure.subplots()
    view = lung_nodule_ct.volumes(dataset)[len(dataset) - 1]
    x0, y0, z0, x1, y1, z1 = dataset[len(dataset) - 1]["nodules"][0]["box_voxel"]
    show(axes, view.slice((z0 + z1) // 2), window=(0, 255))
    axes.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, color=BOX, lw=1.5))


def planes(figure: Any, thin: Any, thick: Any) -> None:
    """Three planes through a nodule, the lung mask, and the 5 mm scan of the same day."""
    heading(figure, "det3d_1.25mm and det3d_5mm", "volumes with nodules in world and voxel coordinates, lung masks")
    index = thin["source_name"].index("27_20211202")
    row, view = thin[index], lung_nodule_ct.volumes(thin)[index]
    mask = lung_nodule_ct.volumes(thin, "lung_mask")[index]
    nodule = row["nodules"][0]
    x, y, z = (round(c) for c in nodule["center_voxel"])
    axes = figure.subplots(1, 4)
    show(axes[0], view.slice(z))
    axes[0].add_patch(Circle((x, y), nodule["diameter_mm"] / 2 / row["spacing"][0], fill=False, color=BOX, lw=1.5))
    axes[0].set_title("axial slice", fontsize=8, color=TEXT)
    size = (56, 40, 1)
    show(axes[1], view.patch(center_world=nodule["center_world"], size=size)[0])
    x0, y0, _, x1, y1, _ = nodule["box_voxel"]
    corner = (x0 - 0.5 - (x - size[0] // 2 + 1), y0 - 0.5 - (y - size[1] // 2 + 1))
    axes[1].add_patch(Rectangle(corner, x1 - x0, y1 - y0, fill=False, color=BOX, lw=1.5))
    axes[1].set_title("patch around a nodule, with its voxel box", fontsize=8, color=TEXT)
    show(axes[2], view.slice(z))
    axes[2].imshow(np.ma.masked_equal(mask.slice(z), 0), cmap="viridis", alpha=0.55, interpolation="nearest")
    axes[2].set_title("lung mask, labels 3 and 4", fontsize=8, color=TEXT)
    other = thick["source_name"].index("27_20211202")
    low = lung_nodule_ct.volumes(thick)[other]
    show(axes[3], low.slice(round(thick[other]["nodules"][0]["center_voxel"][2])))
    axes[3].set_title("5 mm slice of the same day", fontsize=8, color=TEXT)


def times(figure: Any, dataset: Any) -> None:
    """A patient's scans in the order of time, at the same world position."""
    heading(
        figure, "longitudinal", "a patient's scans in time, each at its nodule; days since the first scan, no dates"
    )
    sequence = max(lung_nodule_ct.patient_sequences(dataset), key=len)
    views = lung_nodule_ct.volumes(dataset)
    keys = [
        (row["scan_id"], row["slice_thickness_mm"]) for row in dataset.select_columns(["scan_id", "slice_thickness_mm"])
    ]
    axes = figure.subplots(1, len(sequence))
    for timepoint, (panel, scan, days) in enumerate(zip(axes, sequence, sequence.days_since_first, strict=True)):
        nodule = scan["nodules"][0]
        view = views[keys.index((scan["scan_id"], sequence.slice_thickness_mm))]
        patch = view.patch(center_world=nodule["center_world"], size=(96, 64, 1))[0]
        show(panel, patch)
        radius = nodule["diameter_mm"] / 2 / scan["spacing"][0]
        panel.add_patch(Circle((47.5, 31.5), radius, fill=False, color=BOX, lw=1.5))
        turned = "" if scan["direction"][0] == 1 else " (stored turned by a right angle)"
        panel.set_title(
            f"timepoint {timepoint}, day {days:,}: {nodule['diameter_mm']:g} mm{turned}", fontsize=8, color=TEXT
        )


if __name__ == "__main__":
    main()
