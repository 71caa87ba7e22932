"""Write small synthetic versions of all fourteen archives, next to this file.

    python -m dummy_data.make

The same versions of this script, NumPy, Pillow and openpyxl write the same bytes. The scans are phantoms; patients,
dates and classes are invented. The archives have irregularities on purpose, as the real ones do, so that
a build reports findings:

- names: a scan without a date, an additional top folder, files that macOS adds,
- headers: CRLF, a byte order mark, a rotated and a mirrored direction, zlib-compressed voxels, voxels after the header
  (.mha),
- tables: a byte order mark, no header, an annotation of a scan that does not exist, a scan without annotations,
- masks: label 7 (both lungs), a missing mask, and a mask with another shape,
- slices: an inverted box, a box partly outside the image, split lists that disagree, an image that is in no list, an
  image without XML,
- crops: the same pixels in train and validation,
- stacks: slices numbered 1, 2, ... 10 without leading zeros, case numbers with leading zeros, both spellings of the box
  columns.
"""

from __future__ import annotations

import codecs
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lung_nodule_ct.geometry.frame import IDENTITY
from lung_nodule_ct.testing.archives import (
    BMP0,
    BMP1,
    BMP2,
    BMP_TABLES,
    CLS,
    CT0,
    CT1,
    DET2D,
    MASKS,
    NODULE_COLUMNS,
    NODULES,
    THICK0,
    THICK1,
    THICK2,
    THICK_NODULES,
    Members,
    encode_picture,
    metaimage,
    metaimage_header,
    split_files,
    stack_tables,
    table,
    voc_annotation,
    workbook,
    write_archives,
)
from lung_nodule_ct.testing.phantoms import Phantom, PhantomNodule, make_chest

HERE = Path(__file__).parent
SHAPE = (16, 60, 84)
SPACING = (4.0, 4.0, 1.25)
THICK_SLICES = 4
"""The number of 1.25 mm slices that are averaged to one 5 mm slice."""

QUARTER_TURN = (0, -1, 0, 1, 0, 0, 0, 0, 1)
MIRRORED = (-1, 0, 0, 0, -1, 0, 0, 0, 1)


@dataclass(frozen=True)
class Scan:
    """An invented scan.

    Attributes:
        name: The patient number, and a date for most scans.
        nodules: Positions and diameters in mm.
        direction: The direction matrix with which the 1.25 mm volume is stored, by rows.
    """

    name: str
    nodules: tuple[PhantomNodule, ...] = ()
    direction: tuple[float, ...] = IDENTITY

    @property
    def patient(self) -> str:
        """The patient number, which is also the seed of the phantom."""
        return self.name.partition("_")[0]


SCANS = (
    Scan("3", (PhantomNodule((70, 20, 1), 18),)),
    Scan("12_20180305", (PhantomNodule((-80, -20, 0), 16),)),
    Scan("12_20190611", (PhantomNodule((-80, -20, 0), 20),)),
    Scan("12_20200903", (PhantomNodule((-80, -20, 0), 25),), QUARTER_TURN),
    Scan("27_20210118", (PhantomNodule((85, 30, -2), 22), PhantomNodule((-60, 40, 3), 12)), MIRRORED),
    Scan("27_20211202", (PhantomNodule((85, 30, -2), 26), PhantomNodule((-60, 40, 3), 14))),
    Scan("41_20220520"),
)

Chests = dict[str, Phantom]
Box = tuple[int, ...]


def main() -> None:
    """Write all fourteen archives and print their sizes."""
    for path in write(HERE):
        print(f"{path.stat().st_size:9,} {path.relative_to(HERE)}")


def write(
    folder: Path, shape: tuple[int, int, int] = SHAPE, spacing: tuple[float, float, float] = SPACING
) -> list[Path]:
    """Write all fourteen archives and return their paths.

    Args:
        folder: The folders ``part_a`` and ``part_b`` are created in it.
        shape: Shape (z, y, x) of the 1.25 mm volumes. The number of slices must be 16.
        spacing: Spacing x, y, z of the 1.25 mm volumes in mm. Between slices it must be 1.25 mm.
    """
    chests = {scan.name: make_chest(shape, spacing, scan.nodules, seed=int(scan.patient), noise=2.0) for scan in SCANS}
    archives = thin_scans(chests) | thick_scans(chests) | {CLS: crops(chests), DET2D: slices(chests)}
    nested = {
        name: {f"{name.removesuffix('.zip')}/{member}": data for member, data in members.items()}
        for name, members in archives.items()
    }
    write_archives(folder / "part_a", nested, level=9)
    write_archives(folder / "part_b", stacks(chests), level=9)
    return sorted(folder.glob("part_[ab]/*.zip"))


# --- scans ------------------------------------------------------------------------------------------------------------


def thin_scans(chests: Chests) -> dict[str, Members]:
    """Return the two archives of 1.25 mm volumes, and those of their masks and annotations."""
    stored = {scan.name: chests[scan.name].reoriented(scan.direction) for scan in SCANS}
    archives: dict[str, Members] = {CT0: {}, CT1: {}, MASKS: masks(stored)}
    for index, (name, phantom) in enumerate(stored.items()):
        archives[CT0 if index < 4 else CT1] |= volume(name, phantom)
    rows = [row for scan in SCANS for row in nodule_rows(scan)]
    annotations = table(NODULE_COLUMNS, *rows, "99_20200101,10,20,30,8.5", "")
    return archives | {NODULES: {"annotations.csv": codecs.BOM_UTF8 + annotations}}


def thick_scans(chests: Chests) -> dict[str, Members]:
    """Return the archives of 5 mm volumes, all with the identity direction, and of their annotations without a header."""
    chosen = [scan for scan in SCANS if scan.name not in ("12_20190611", "41_20220520")]
    archives: dict[str, Members] = {THICK0: {}, THICK1: {}, THICK2: {}}
    for index, scan in enumerate(chosen):
        thick = chests[scan.name].with_thick_slices(THICK_SLICES)
        archives[(THICK0, THICK1, THICK2)[index % 3]] |= volume(scan.name, thick)
    rows = [row for scan in chosen for row in nodule_rows(scan)]
    return archives | {THICK_NODULES: {"annotations.csv": "\n".join(rows).encode()}}


def volume(name: str, phantom: Phantom) -> Members:
    """Return the MetaImage files of a volume. Their format depends on the name."""
    data = phantom.volume.astype("<i2").tobytes()

    def header(**fields: str) -> bytes:
        return metaimage_header(name, phantom.volume.shape, phantom.frame, CenterOfRotation="0 0 0", **fields)

    if name == "12_20190611":
        return {f"{name}.mha": header(ElementDataFile="LOCAL") + data}
    if name == "27_20211202":
        packed = zlib.compress(data, 9)
        size = str(len(packed))
        head = header(CompressedData="True", CompressedDataSize=size, ElementDataFile=f"{name}.zraw")
        return {f"{name}.mhd": head, f"{name}.zraw": packed}
    head = header()
    if name == "12_20180305":
        head = head.replace(b"\n", b"\r\n")
    if name == "3":
        head = codecs.BOM_UTF8 + head
    return {f"{name}.mhd": head, f"{name}.raw": data}


def masks(stored: Chests) -> Members:
    """Return the lung masks. One has voxels with label 7 (both lungs), one lacks its last slice, and one is missing."""
    members = {"__MACOSX/._3.mhd": b"\0litter"}
    for name, phantom in stored.items():
        if name == "12_20200903":
            continue
        labels = phantom.lung_mask.copy()
        if name == "27_20210118":
            middle = labels.shape[2] // 2
            labels[8, 24:28, middle - 2 : middle + 2] = 7
        if name == "41_20220520":
            labels = labels[:-1]
        members |= metaimage(name, labels, phantom.frame, CenterOfRotation="0 0 0")
    return members


def nodule_rows(scan: Scan) -> list[str]:
    """Return the rows of a scan in annotations.csv."""
    return [
        ",".join([scan.name, *(f"{value:g}" for value in (*nodule.center_world, nodule.diameter_mm))])
        for nodule in scan.nodules
    ]


# --- pictures ---------------------------------------------------------------------------------------------------------


def grey(hu: NDArray[np.int16]) -> NDArray[np.uint8]:
    """Return 8-bit grey values of the lung window (-1350 to 150 HU).

    Unlike ``Window.to_grey``, this truncates instead of rounding, so that the bytes of the archives do not change.
    """
    return np.clip((hu.astype(np.float64) + 1350) / 1500 * 255, 0, 255).astype(np.uint8)


def crops(chests: Chests) -> Members:
    """Return crops of 24 x 24 pixels around nodules. The nodules of patient 27 have two classes."""
    members: Members = {}
    classes = {"3": (2,), "12": (1,), "27": (3, 5)}
    for scan in SCANS[:6]:
        chest = chests[scan.name]
        for k, (nodule, folder) in enumerate(zip(scan.nodules, classes[scan.patient], strict=False)):
            x, y, z = chest.voxel_of(nodule)
            for offset, split in ((-1, "train"), (0, "train"), (1, "validate")):
                crop = grey(chest.volume[z + offset])[max(0, y - 12) : y + 12, max(0, x - 12) : x + 12]
                name = f"{split}/{folder}/{scan.name}_{z + offset:03d}_{k:02d}.bmp"
                members[name] = encode_picture(crop, "BMP")
    random = np.random.default_rng(4)
    for folder in (4, 6):
        for split, count in (("train", 3), ("validate", 1)):
            for k in range(count):
                crop = random.integers(0, 256, (24, 24), dtype=np.uint8)
                members[f"{split}/{folder}/{1000 + 10 * folder + k}.bmp"] = encode_picture(crop, "BMP")
    counts = Counter(tuple(name.split("/")[:2]) for name in members)
    lines = ["class_dataset: synthetic crops of phantoms", ""]
    for split, title in (("train", "train:"), ("validate", "test:")):
        lines += [title, *(f"  {key[1]}: {count}" for key, count in sorted(counts.items()) if key[0] == split)]
    same = next(data for name, data in members.items() if name.startswith("train/1/"))
    members["validate/1/12_20180305_007_09.bmp"] = same  # not in the counts of READ_ME.txt
    return {"READ_ME.txt": table(*lines), **members}


def slices(chests: Chests) -> Members:
    """Return slices with Pascal VOC boxes, split lists in three folders, and a workbook of all boxes."""
    members: Members = {}
    boxes: dict[str, list[Box]] = {}
    for scan in SCANS[:6]:
        chest = chests[scan.name]
        for k in (-2, 0, 2):
            z = chest.voxel_of(scan.nodules[0])[2] + k
            stem = f"{scan.name}_{z:03d}"
            colour = np.repeat(grey(chest.volume[z])[..., None], 3, axis=2)
            members[f"JPEGImages/{stem}.jpg"] = encode_picture(colour, "JPEG", quality=90)
            boxes[stem] = [box for nodule in scan.nodules if (box := chest.box_in_slice(nodule, z))]
    stems = list(boxes)
    boxes[stems[1]].append((70, 30, 66, 34))
    boxes[stems[4]].append((80, 40, 90, 48))
    unannotated, unlisted = stems[-2], stems[-1]
    annotated = {stem: in_slice for stem, in_slice in boxes.items() if stem != unannotated}
    height, width = chests[SCANS[0].name].volume.shape[1:]
    for stem, in_slice in annotated.items():
        xml = voc_annotation(*in_slice, filename=f"{stem}.jpg", size=(width, height))
        # "diffcult" is misspelled on purpose: the misspelling occurs in many VOC files
        members[f"Annotations/{stem}.xml"] = xml.replace(b"<bndbox>", b"<diffcult>0</diffcult><bndbox>") + b"\n"
    listed = [stem for stem in stems if stem != unlisted]
    train, val = [s for i, s in enumerate(listed) if i % 5], [s for i, s in enumerate(listed) if not i % 5]
    members |= split_files(train, val, "ImageSets/Main/")
    paths = {stem: f"1.25mm_2D_detection/JPEGImages/{stem}.jpg" for stem in listed}
    moved = [*val, train[-1]]  # one image is in train in one folder and in val in another
    members |= split_files([paths[stem] for stem in train[:-1]], [paths[stem] for stem in moved], "images/")
    lines = {s: f"JPEGImages/{s}.jpg " + " ".join(",".join(map(str, box)) for box in boxes[s]) for s in listed}
    members |= split_files([lines[stem] for stem in train], [lines[stem] for stem in val])
    header = ["image", "xmin", "ymin", "xmax", "ymax"]
    rows = [[f"{stem}.jpg", *box] for stem, in_slice in annotated.items() for box in in_slice]
    members["VOC_CT.xlsx"] = workbook([header, *rows])
    return members


# --- stacks -----------------------------------------------------------------------------------------------------------


def stacks(chests: Chests) -> dict[str, Members]:
    """Return three cases of 8-bit slices, a flipped copy of each, and their tables and split lists."""
    archives: dict[str, Members] = {BMP0: {}, BMP1: {}, BMP2: {}}
    boxes: dict[str, Box] = {}
    diameters: dict[str, float] = {}
    for index, (scan, members) in enumerate(zip((SCANS[0], SCANS[1], SCANS[5]), archives.values(), strict=True)):
        chest, nodule = chests[scan.name], scan.nodules[0]
        x, y, z = chest.voxel_of(nodule)
        stack = grey(chest.volume[2:14])
        half = round(nodule.diameter_mm / 2 / chest.frame.spacing[0])
        box = (z - 2 - 3, z - 2 + 3, y - half, y + half, x - half, x + half)
        last = stack.shape[1] - 1
        flipped = (*box[:2], last - box[3], last - box[2], *box[4:])
        for pid, slices_, ends in ((f"{index + 1:05d}", stack, box), (f"{9001 + index:05d}", stack[:, ::-1], flipped)):
            first = 1 if pid == "00002" else 0  # files are numbered from 1, and so is z of the box
            boxes[pid] = (ends[0] + first, ends[1] + first, *ends[2:])
            diameters[pid] = nodule.diameter_mm
            members |= {f"imgs/{pid}/{k + first}.bmp": encode_picture(s, "BMP") for k, s in enumerate(slices_)}
    return archives | {BMP_TABLES: stack_tables(boxes, diameters, val=["00003", "09002"])}


if __name__ == "__main__":
    main()
