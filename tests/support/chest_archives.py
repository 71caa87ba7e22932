"""Archives of phantom chests in the published layout: two patients, three scans at both thicknesses, masks, slices and stacks."""

from __future__ import annotations

from functools import cache

import numpy as np

from lung_nodule_ct.geometry.display import LUNG
from lung_nodule_ct.testing.archives import (
    BMP0,
    BMP_TABLES,
    CT0,
    DET2D,
    MASKS,
    NODULE_COLUMNS,
    NODULES,
    THICK0,
    THICK_NODULES,
    encode_picture,
    metaimage,
    split_files,
    stack_tables,
    table,
    voc_annotation,
)
from lung_nodule_ct.testing.phantoms import Phantom, PhantomNodule, make_chest
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

SHAPE = (32, 128, 160)
SPACING = (2.2, 2.2, 1.25)
SCANS: dict[str, PhantomNodule] = {
    "7_20180102": PhantomNodule((74.0, -4.0, 0.0), 18.0),
    "7_20190304": PhantomNodule((74.0, -4.0, 2.0), 22.0),
    "9_20200506": PhantomNodule((-66.0, 18.0, 0.0), 20.0),
}


@cache
def chest(scan: str) -> Phantom:
    """The phantom of a scan."""
    return make_chest(SHAPE, SPACING, [SCANS[scan]], seed=list(SCANS).index(scan))


class ChestArchives(TinyArchives):
    """The archives. ``nodules`` and ``thick_nodules`` are the rows of the two tables: name, x, y, z, diameter."""

    def __init__(self) -> None:
        super().__init__()
        for name in (
            CT0,
            MASKS,
            THICK0,
            DET2D,
            BMP0,
            BMP_TABLES,
            *(name for name in self if "mhd_1" in name or "mhd1" in name or "mhd2" in name or "imgs" in name),
        ):
            self[name] = {}
        rows = [[scan, *nodule.center_world, nodule.diameter_mm] for scan, nodule in SCANS.items()]
        self.nodules, self.thick_nodules = [list(row) for row in rows], [list(row) for row in rows]
        for scan in SCANS:
            phantom = chest(scan)
            thick = phantom.with_thick_slices(4)
            self[CT0] |= metaimage(scan, phantom.volume, phantom.frame)
            self[THICK0] |= metaimage(scan, thick.volume, thick.frame)
            self[MASKS] |= metaimage(scan, phantom.lung_mask, phantom.frame)
        self._add_slices()
        self._add_stack()
        self.write_tables()

    def write_tables(self) -> None:
        """Write the two tables of nodules from their rows."""
        for name, rows in ((NODULES, self.nodules), (THICK_NODULES, self.thick_nodules)):
            self[name]["annotations.csv"] = table(NODULE_COLUMNS, *(",".join(map(str, row)) for row in rows))

    def set_volume(self, scan: str, volume: np.ndarray, archive: str = CT0) -> None:
        """Replace the voxels of a scan."""
        phantom = chest(scan) if archive != THICK0 else chest(scan).with_thick_slices(4)
        self[archive] |= metaimage(scan, volume.astype(np.int16), phantom.frame)

    def _add_slices(self) -> None:
        stems = []
        for scan, nodule in SCANS.items():
            z = SHAPE[0] // 2
            box = chest(scan).box_in_slice(nodule, z)
            assert box is not None
            stem = f"{scan}_{z:03}"
            grey = np.kron(
                LUNG.to_grey(chest(scan).volume[z]), np.ones((3, 3), np.uint8)
            )  # about 0.7 mm, as the published
            wide = tuple(3 * value + margin for value, margin in zip(box, (0, 0, 2, 2), strict=True))
            self[DET2D][f"JPEGImages/{stem}.jpg"] = encode_picture(grey, "JPEG")
            self[DET2D][f"Annotations/{stem}.xml"] = voc_annotation(wide, filename=f"{stem}.jpg", size=grey.shape[::-1])
            stems.append(stem)
        self[DET2D] |= split_files(stems[:2], stems[2:], "ImageSets/Main/")

    def _add_stack(self) -> None:
        scan, nodule = "9_20200506", SCANS["9_20200506"]
        x, y, z = chest(scan).voxel_of(nodule)
        grey = LUNG.to_grey(chest(scan).volume)
        self[BMP0] |= {f"imgs/00001/{k}.bmp": encode_picture(grey[k], "BMP") for k in range(len(grey))}
        box = (z - 8, z + 8, y - 5, y + 5, x - 5, x + 5)
        self[BMP_TABLES] |= stack_tables({"00001": box}, {"00001": nodule.diameter_mm}, val=[])
