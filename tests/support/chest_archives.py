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


@cache
def other_chest() -> Phantom:
    """A chest of another shape: mirrored and wider."""
    phantom = chest("9_20200506")
    stretched = np.repeat(phantom.volume[:, ::-1, 24:-24], 2, axis=2)[:, :, 32:-32]
    mask = np.repeat(phantom.lung_mask[:, ::-1, 24:-24], 2, axis=2)[:, :, 32:-32]
    return Phantom(np.ascontiguousarray(stretched), np.ascontiguousarray(mask), phantom.frame)


class ChestArchives(TinyArchives):
    """The archives.

    Attributes:
        nodules: The rows of the 1.25 mm table: name, x, y, z, diameter.
        thick_nodules: The rows of the 5 mm table.
        stacks: The boxes of the stacks.
        validation: The stacks of the validation split.
    """

    def __init__(self) -> None:
        super().__init__()
        for name in self:
            if "2D" in name or "3D" in name:
                self[name] = {}
        rows = [[scan, *nodule.center_world, nodule.diameter_mm] for scan, nodule in SCANS.items()]
        self.nodules, self.thick_nodules = [list(row) for row in rows], [list(row) for row in rows]
        self.stacks: dict[str, tuple[int, ...]] = {}
        self.validation: list[str] = []
        self._slices: dict[str, None] = {}
        for scan in SCANS:
            self.set_scan(scan, chest(scan))
            self.add_slice(scan, SHAPE[0] // 2)
        self._add_stack()
        self.write_tables()

    def set_scan(self, scan: str, phantom: Phantom) -> None:
        """Set a scan at both thicknesses, with its mask."""
        thick = phantom.with_thick_slices(4)
        self[CT0] |= metaimage(scan, phantom.volume, phantom.frame)
        self[THICK0] |= metaimage(scan, thick.volume, thick.frame)
        self[MASKS] |= metaimage(scan, phantom.lung_mask, phantom.frame)

    def set_volume(self, scan: str, volume: np.ndarray, archive: str = CT0) -> None:
        """Replace the voxels of a scan in one archive."""
        phantom = chest(scan) if archive != THICK0 else chest(scan).with_thick_slices(4)
        self[archive] |= metaimage(scan, volume.astype(np.int16), phantom.frame)

    def add_slice(self, scan: str, z: int) -> None:
        """Add a slice with its box to the 2D set, with pixels of about 0.7 mm, as those of the published slices."""
        box = chest(scan).box_in_slice(SCANS[scan], z)
        assert box is not None
        stem = f"{scan}_{z:03}"
        grey = np.kron(LUNG.to_grey(chest(scan).volume[z]), np.ones((3, 3), np.uint8))
        wide = tuple(3 * value + margin for value, margin in zip(box, (0, 0, 2, 2), strict=True))
        self[DET2D][f"JPEGImages/{stem}.jpg"] = encode_picture(grey, "JPEG")
        self[DET2D][f"Annotations/{stem}.xml"] = voc_annotation(wide, filename=f"{stem}.jpg", size=grey.shape[::-1])
        self._slices[stem] = None

    def write_tables(self) -> None:
        """Write tables and lists from their rows."""
        for name, rows in ((NODULES, self.nodules), (THICK_NODULES, self.thick_nodules)):
            self[name]["annotations.csv"] = table(NODULE_COLUMNS, *(",".join(map(str, row)) for row in rows))
        stems = list(self._slices)
        self[DET2D] |= split_files(stems[:-1], stems[-1:], "ImageSets/Main/")
        diameters = dict.fromkeys(self.stacks, SCANS["9_20200506"].diameter_mm)
        if not self[BMP_TABLES] or self.validation:
            self[BMP_TABLES] |= stack_tables(self.stacks, diameters, val=self.validation)

    def _add_stack(self) -> None:
        """The third scan as a stack, with pixels of about 0.7 mm."""
        scan = "9_20200506"
        x, y, z = chest(scan).voxel_of(SCANS[scan])
        grey = np.kron(LUNG.to_grey(chest(scan).volume), np.ones((1, 3, 3), np.uint8))
        self[BMP0] |= {f"imgs/00001/{k}.bmp": encode_picture(grey[k], "BMP") for k in range(len(grey))}
        self.stacks["00001"] = (z - 8, z + 8, 3 * y - 14, 3 * y + 15, 3 * x - 14, 3 * x + 15)
