"""Make the archives beside this script: all roles of the published layout, tiny, and as odd as the real ones.

    python -m dummy_data.make

The same script on the same NumPy and Pillow gives the same bytes. The chests are phantoms (``benchmarks/phantom.py``), the
patients, dates and classes are made up. Quirks that are in here on purpose, so that a first build has something to report:

- names: an undated scan, an extra top folder, macOS litter,
- headers: CRLF, a byte order mark, a rotated and a mirrored direction, zlib-compressed data, data behind the header (.mha),
- tables: a byte order mark, no header, an annotation of a scan that is not there, a scan without one,
- masks: a label 7, a missing mask, and one of another shape,
- slices: an inverted box, one partly outside, split lists that disagree, an image that no list names, one without XML,
- crops: the same pixels in train and validation,
- stacks: slices numbered 1, 2, ... 10 without zeros, case numbers with leading zeros, both spellings of the box columns.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from openpyxl import Workbook
from PIL import Image

from benchmarks.phantom import Nodule, make_chest

HERE = Path(__file__).parent
SHAPE = (16, 60, 84)
SPACING = (4.0, 4.0, 1.25)
IDENTITY = np.eye(3)
QUARTER_TURN = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
MIRRORED = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Scan:
    """A made-up scan: its name, its nodules, and the direction in which it is stored."""

    name: str
    nodules: tuple[Nodule, ...]
    direction: NDArray[np.float64]
    seed: int


def nodule(x: float, y: float, z: float, diameter: float) -> Nodule:
    """A nodule in one of the lungs."""
    return Nodule((x, y, z), diameter)


SCANS = (
    Scan("3", (nodule(70, 20, 1, 18),), IDENTITY, 3),
    Scan("12_20180305", (nodule(-80, -20, 0, 16),), IDENTITY, 12),
    Scan("12_20190611", (nodule(-80, -20, 0, 20),), IDENTITY, 12),
    Scan("12_20200903", (nodule(-80, -20, 0, 25),), QUARTER_TURN, 12),
    Scan("27_20210118", (nodule(85, 30, -2, 22), nodule(-60, 40, 3, 12)), MIRRORED, 27),
    Scan("27_20211202", (nodule(85, 30, -2, 26), nodule(-60, 40, 3, 14)), IDENTITY, 27),
    Scan("41_20220520", (), IDENTITY, 41),
)


def main() -> None:
    """Write all fourteen archives."""
    chests = {scan.name: make_chest(SHAPE, SPACING, scan.nodules, seed=scan.seed, noise=2.0) for scan in SCANS}
    thin = {scan.name: stored(scan, *chests[scan.name], SPACING) for scan in SCANS}
    first, second = SCANS[:4], SCANS[4:]
    for number, scans in enumerate((first, second)):
        members = [entry for scan in scans for entry in volume_members(scan.name, *thin[scan.name][::2])]
        pack(f"part_a/1.25mm_3D_detection_mhd_{number}.zip", f"1.25mm_3D_detection_mhd_{number}", members)
    pack("part_a/1.25mm_3D_detection_mhd_2.zip", "1.25mm_3D_detection_mhd_2", mask_members(thin))
    rows = [row for scan in SCANS for row in annotation_rows(scan)] + ["99_20200101,10,20,30,8.5"]
    table = "\ufeff" + "\n".join(["seriesuid,coordX,coordY,coordZ,diameter_mm", *rows]) + "\n\n"
    pack("part_a/1.25mm_3D_detection_mhd_3.zip", "1.25mm_3D_detection_mhd_3", [("annotations.csv", table.encode())])
    five_millimetres(chests)
    pack("part_a/class_dataset.zip", "class_dataset", crop_members(chests))
    pack("part_a/1.25mm_2D_detection.zip", "1.25mm_2D_detection", slice_members(chests))
    stacks(chests)


def pack(name: str, folder: str, members: list[tuple[str, bytes]]) -> None:
    """One archive, its members under ``folder`` and without a clock in them."""
    path = HERE / name
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for member, data in members:
            archive.writestr(zipfile.ZipInfo(f"{folder}/{member}" if folder else member), data, zipfile.ZIP_DEFLATED, 9)
    print(f"{path.stat().st_size:9,} {name}")


def stored(
    scan: Scan, volume: NDArray[np.int16], mask: NDArray[np.int16], spacing: tuple[float, float, float]
) -> tuple[NDArray[np.int16], NDArray[np.int16], str]:
    """Volume and mask as they lie in the scan's direction, and the geometry lines of their headers."""
    z, y, x = volume.shape
    corner = -np.array([(x - 1) / 2, (y - 1) / 2, (z - 1) / 2]) * spacing
    steps = np.array(spacing)
    if scan.direction is QUARTER_TURN:  # the stored x axis runs along the patient's y, the stored y against its x
        volume, mask = (np.ascontiguousarray(a[:, :, ::-1].transpose(0, 2, 1)) for a in (volume, mask))
        corner[0], steps = -corner[0], steps[[1, 0, 2]]
    elif scan.direction is MIRRORED:
        volume, mask = (np.ascontiguousarray(a[:, ::-1, ::-1]) for a in (volume, mask))
        corner[:2] = -corner[:2]
    axes = " ".join(f"{value:g}" for value in scan.direction.T.ravel())  # MetaImage writes axis by axis
    lines = [
        f"TransformMatrix = {axes}",
        f"Offset = {corner[0]:g} {corner[1]:g} {corner[2]:g}",
        "CenterOfRotation = 0 0 0",
    ]
    lines.append(f"ElementSpacing = {steps[0]:g} {steps[1]:g} {steps[2]:g}")
    return volume, mask, "\n".join(lines)


def volume_members(name: str, volume: NDArray[np.int16], geometry: str) -> list[tuple[str, bytes]]:
    """Header and data of a volume, each scan's in a way of its own."""
    data = volume.astype("<i2").tobytes()
    z, y, x = volume.shape
    head = f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n{geometry}\nDimSize = {x} {y} {z}\nElementType = MET_SHORT\n"
    if name == "12_20190611":
        return [(f"{name}.mha", f"{head}CompressedData = False\nElementDataFile = LOCAL\n".encode() + data)]
    if name == "27_20211202":
        packed = zlib.compress(data, 9)
        head += f"CompressedData = True\nCompressedDataSize = {len(packed)}\nElementDataFile = {name}.zraw\n"
        return [(f"{name}.mhd", head.encode()), (f"{name}.zraw", packed)]
    head += f"CompressedData = False\nElementDataFile = {name}.raw\n"
    if name == "12_20180305":
        head = head.replace("\n", "\r\n")
    if name == "3":
        head = f"\ufeff{head}"
    return [(f"{name}.mhd", head.encode()), (f"{name}.raw", data)]


def mask_members(thin: dict[str, tuple[NDArray[np.int16], NDArray[np.int16], str]]) -> list[tuple[str, bytes]]:
    """The lung masks, one with overlap, one missing, one cut."""
    members = [("__MACOSX/._3.mhd", b"\0litter")]
    for name, (_, mask, geometry) in thin.items():
        if name == "12_20200903":
            continue
        labels = mask.copy()
        if name == "27_20210118":
            middle = labels.shape[2] // 2
            labels[8, 24:28, middle - 2 : middle + 2] = 7
        if name == "41_20220520":
            labels = labels[:-1]
        members += volume_members(f"mask of {name}", labels, geometry)
    return [(member.replace("mask of ", ""), data.replace(b"mask of ", b"")) for member, data in members]


def annotation_rows(scan: Scan) -> list[str]:
    """Rows of annotations.csv."""
    return [",".join([scan.name, *(f"{end:g}" for end in n.center), f"{n.diameter:g}"]) for n in scan.nodules]


def five_millimetres(chests: dict[str, tuple[NDArray[np.int16], NDArray[np.int16]]]) -> None:
    """The 5 mm set: four slices averaged into one. Its table has no header."""
    spacing = (SPACING[0], SPACING[1], 5.0)
    chosen = [scan for scan in SCANS if scan.name not in ("12_20190611", "41_20220520")]
    members: list[list[tuple[str, bytes]]] = [[], [], []]
    for index, scan in enumerate(chosen):
        volume, mask = chests[scan.name]
        averaged = np.rint(volume.reshape(4, 4, *volume.shape[1:]).mean(axis=1)).astype(np.int16)
        flat = Scan(scan.name, scan.nodules, IDENTITY, scan.seed)
        data, _, geometry = stored(flat, averaged, mask[::4], spacing)
        members[index % 3] += volume_members(f"{scan.name}", data, geometry)
    for number, own in enumerate(members):
        pack(f"part_a/5mm_3D_detection_mhd{number}.zip", f"5mm_3D_detection_mhd{number}", own)
    rows = [row for scan in chosen for row in annotation_rows(scan)]
    pack("part_a/5mm_3D_detection_mhd3.zip", "5mm_3D_detection_mhd3", [("annotations.csv", "\n".join(rows).encode())])


def grey(slice_hu: NDArray[np.int16]) -> NDArray[np.uint8]:
    """A slice through the lung window (-1350 to 150 HU)."""
    return np.clip((slice_hu.astype(np.float64) + 1350) / 1500 * 255, 0, 255).astype(np.uint8)


def encode(pixels: NDArray[np.uint8], kind: str) -> bytes:
    """Pixels as BMP or JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return buffer.getvalue()


def pixel_of(n: Nodule) -> tuple[int, int, int]:
    """The voxel x, y, z of a nodule's centre in an unturned volume."""
    size = SHAPE[::-1]
    x, y, z = (round(c / step + (count - 1) / 2) for c, step, count in zip(n.center, SPACING, size, strict=True))
    return x, y, z


def crop_members(chests: dict[str, tuple[NDArray[np.int16], NDArray[np.int16]]]) -> list[tuple[str, bytes]]:
    """Crops of 24 x 24 pixels around nodules. Patient 12 has one class, patient 27 two."""
    members: list[tuple[str, bytes]] = []
    folders = {"3": (2,), "12": (1,), "27": (3, 5)}
    counts: dict[str, dict[int, int]] = {"train": {}, "validate": {}}
    for scan in SCANS[:6]:
        patient = scan.name.split("_")[0]
        for k, (n, folder) in enumerate(zip(scan.nodules, folders[patient], strict=False)):
            x, y, z = pixel_of(n)
            for offset in (-1, 0, 1):
                split = "validate" if offset == 1 else "train"
                crop = grey(chests[scan.name][0][z + offset])[max(0, y - 12) : y + 12, max(0, x - 12) : x + 12]
                members.append((f"{split}/{folder}/{scan.name}_{z + offset:03d}_{k:02d}.bmp", encode(crop, "BMP")))
                counts[split][folder] = counts[split].get(folder, 0) + 1
    rng = np.random.default_rng(4)
    for folder in (4, 6):
        for split, number in (("train", 3), ("validate", 1)):
            for k in range(number):
                crop = rng.integers(0, 256, (24, 24), dtype=np.uint8)
                members.append((f"{split}/{folder}/{1000 + 10 * folder + k}.bmp", encode(crop, "BMP")))
                counts[split][folder] = counts[split].get(folder, 0) + 1
    same = next(data for name, data in members if name.startswith("train/1/"))
    members.append(("validate/1/12_20180305_007_09.bmp", same))
    lines = ["class_dataset: made-up crops of phantoms", ""]
    for split, title in (("train", "train:"), ("validate", "test:")):  # one crop of class 1 is not counted
        lines += [title, *(f"  {folder}: {count}" for folder, count in sorted(counts[split].items()))]
    return [("READ_ME.txt", ("\n".join(lines) + "\n").encode()), *members]


def slice_members(chests: dict[str, tuple[NDArray[np.int16], NDArray[np.int16]]]) -> list[tuple[str, bytes]]:
    """Slices with Pascal VOC boxes, three places of split lists, and the workbook."""
    members: list[tuple[str, bytes]] = []
    boxes: dict[str, list[tuple[int, int, int, int]]] = {}
    for scan in SCANS[:6]:
        for k in (-2, 0, 2):
            z = pixel_of(scan.nodules[0])[2] + k
            stem = f"{scan.name}_{z:03d}"
            picture = grey(chests[scan.name][0][z])
            colour = np.repeat(picture[..., None], 3, axis=2)
            members.append((f"JPEGImages/{stem}.jpg", encode(colour, "JPEG")))
            own = []
            for n in scan.nodules:
                radius = np.sqrt(max(0.0, (n.diameter / 2) ** 2 - ((z - 7.5) * 1.25 - n.center[2]) ** 2)) / SPACING[0]
                if radius > 1:
                    x, y, _ = pixel_of(n)
                    own.append((round(x - radius), round(y - radius), round(x + radius), round(y + radius)))
            boxes[stem] = own
    stems = list(boxes)
    boxes[stems[1]].append((70, 30, 66, 34))
    boxes[stems[4]].append((80, 40, 90, 48))
    members += [(f"Annotations/{stem}.xml", voc(stem, own)) for stem, own in boxes.items() if stem != stems[-2]]
    listed = stems[:-1]
    train, val = [s for i, s in enumerate(listed) if i % 5], [s for i, s in enumerate(listed) if not i % 5]
    members += [("ImageSets/Main/train.txt", lines_of(train)), ("ImageSets/Main/val.txt", lines_of(val))]
    for name, own in (("train", train[:-1]), ("val", [*val, train[-1]])):  # one image is placed otherwise
        members.append((f"images/{name}.txt", lines_of([f"1.25mm_2D_detection/JPEGImages/{s}.jpg" for s in own])))
    for name, own in (("train", train), ("val", val)):
        lines = [f"JPEGImages/{s}.jpg " + " ".join(",".join(map(str, b)) for b in boxes[s]) for s in own]
        members.append((f"{name}.txt", lines_of(lines)))
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["image", "xmin", "ymin", "xmax", "ymax"])
    for stem, own in boxes.items():
        for box in own if stem != stems[-2] else []:
            sheet.append([f"{stem}.jpg", *box])
    buffer = io.BytesIO()
    book.save(buffer)
    members.append(("VOC_CT.xlsx", without_clock(buffer.getvalue())))
    return members


def lines_of(lines: list[str]) -> bytes:
    """A text file."""
    return ("\n".join(lines) + "\n").encode()


def voc(stem: str, boxes: list[tuple[int, int, int, int]]) -> bytes:
    """A Pascal VOC annotation, with the misspelling that the field knows."""
    objects = "".join(
        f"<object><name>nodule</name><diffcult>0</diffcult><bndbox><xmin>{b[0]}</xmin><ymin>{b[1]}</ymin>"
        f"<xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>"
        for b in boxes
    )
    size = f"<size><width>{SHAPE[2]}</width><height>{SHAPE[1]}</height><depth>3</depth></size>"
    return f"<annotation><filename>{stem}.jpg</filename>{size}{objects}</annotation>\n".encode()


def without_clock(book: bytes) -> bytes:
    """A workbook without the time at which it was made."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(book)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            if name != "docProps/core.xml":
                data = old.read(name)
                if name in ("[Content_Types].xml", "_rels/.rels"):
                    data = strip_core(data)
                new.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def strip_core(data: bytes) -> bytes:
    """Take the mention of docProps/core.xml out of a part of a workbook."""
    text = data.decode()
    start = text.find("docProps/core.xml")
    begin, end = text.rfind("<", 0, start), text.find(">", start) + 1
    return (text[:begin] + text[end:]).encode() if start >= 0 else data


def stacks(chests: dict[str, tuple[NDArray[np.int16], NDArray[np.int16]]]) -> None:
    """Six cases of 8-bit slices, the last three flipped or turned copies, their tables and lists."""
    members: list[list[tuple[str, bytes]]] = [[], [], []]
    rows: dict[str, list[tuple[int, ...]]] = {}
    diameters: dict[str, float] = {}
    for index, scan in enumerate((SCANS[0], SCANS[1], SCANS[5])):
        n = scan.nodules[0]
        x, y, z = pixel_of(n)
        stack = np.stack([grey(s) for s in chests[scan.name][0][2:14]])
        half = round(n.diameter / 2 / SPACING[0])
        box = (z - 2 - 3, z - 2 + 3, y - half, y + half, x - half, x + half)
        flipped = (box[0], box[1], SHAPE[1] - 1 - box[3], SHAPE[1] - 1 - box[2], box[4], box[5])
        for pid, slices, own in ((f"{index + 1:05d}", stack, box), (f"{9001 + index:05d}", stack[:, ::-1], flipped)):
            first = 1 if pid == "00002" else 0  # numbered from 1: the z of its box is the number in the file's name
            rows[pid] = [(own[0] + first, own[1] + first, *own[2:])]
            diameters[pid] = n.diameter
            members[index] += [(f"imgs/{pid}/{k + first}.bmp", encode(s, "BMP")) for k, s in enumerate(slices)]
    for number, own in enumerate(members):
        pack(f"part_b/1.25mm_3D_detection_bmp_imgs{number}.zip", "", own)
    main = ["pid,zmin,zmax,ymin,ymax,xmin,xmax,diameter"]
    main += [",".join(map(str, (pid, *box, diameters[pid]))) for pid, own in rows.items() for box in own]
    val = ["00003", "09002"]
    spelled = "pid,z_min,z_max,y_min,y_max,x_min,x_max"
    by_split = {
        "train": [",".join(map(str, (pid, *box))) for pid, own in rows.items() for box in own if pid not in val],
        "val": [",".join(map(str, (pid, *box))) for pid, own in rows.items() for box in own if pid in val],
    }
    tables = [
        ("image_annotation_augment_diameter.csv", lines_of(main)),
        ("train_anno.csv", lines_of([spelled, *by_split["train"]])),
        ("val_anno.csv", lines_of([spelled, *by_split["val"]])),
        ("train.txt", lines_of([pid for pid in rows if pid not in val])),
        ("val.txt", lines_of(val)),
    ]
    pack("part_b/1.25mm_3D_detection_bmp3.zip", "", tables)


if __name__ == "__main__":
    main()
