"""Tiny archives in the published layout, to be bent by a test: ``tiny = TinySource(); tiny[CT0]["…"] = b"…"; tiny.write(folder)``."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from openpyxl import Workbook
from PIL import Image

CLS = "class_dataset.zip"
DET2D = "1.25mm_2D_detection.zip"
CT0, CT1, MASKS, NODULES = (f"1.25mm_3D_detection_mhd_{n}.zip" for n in range(4))
THICK0, THICK1, THICK2, THICK_NODULES = (f"5mm_3D_detection_mhd{n}.zip" for n in range(4))
BMP0, BMP1, BMP2 = (f"1.25mm_3D_detection_bmp_imgs{n}.zip" for n in range(3))
BMP_TABLES = "1.25mm_3D_detection_bmp3.zip"

SHAPE = (6, 10, 12)
SPACING = (0.8, 0.7, 1.25)
ORIGIN = (-10.0, -20.0, 30.0)


def ct(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """A volume of noise in Hounsfield units."""
    return np.random.default_rng(seed).integers(-1000, 1000, shape, dtype=np.int16)


def header(
    stem: str,
    shape: Sequence[int] = SHAPE,
    *,
    spacing: Sequence[float] = SPACING,
    origin: Sequence[float] = ORIGIN,
    axes: Sequence[float] = (1, 0, 0, 0, 1, 0, 0, 0, 1),
    **fields: str | None,
) -> bytes:
    """A MetaImage header. ``fields`` replace or add keys; ``None`` takes one away."""
    lines: dict[str, str | None] = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": " ".join(map(repr, map(float, axes))),
        "Offset": " ".join(map(repr, map(float, origin))),
        "ElementSpacing": " ".join(map(repr, map(float, spacing))),
        "DimSize": " ".join(map(str, reversed(shape))),
        "ElementType": "MET_SHORT",
        "ElementDataFile": f"{stem}.raw",
    }
    last = fields.pop("ElementDataFile", lines.pop("ElementDataFile"))
    lines.update(fields)
    lines["ElementDataFile"] = last
    return "".join(f"{key} = {value}\n" for key, value in lines.items() if value is not None).encode()


def mhd(stem: str, volume: np.ndarray | None = None, **fields: object) -> dict[str, bytes]:
    """Header and raw data of a volume."""
    volume = ct() if volume is None else volume
    return {
        f"{stem}.mhd": header(stem, volume.shape, **fields),  # type: ignore[arg-type]
        f"{stem}.raw": volume.astype("<i2").tobytes(),
    }


def picture(seed: int = 0, size: tuple[int, int] = (20, 16), kind: str = "BMP") -> bytes:
    """An encoded grey picture of noise; ``size`` is width, height."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0]), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def voc(*boxes: Sequence[object], name: str = "nodule", filename: str = "", size: tuple[int, int] = (20, 16)) -> bytes:
    """A Pascal VOC annotation."""
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{b[0]}</xmin><ymin>{b[1]}</ymin><xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>"
        for b in boxes
    )
    head = f"<filename>{filename}</filename><size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation>{head}{objects}</annotation>".encode()


def workbook(rows: Sequence[Sequence[object]]) -> bytes:
    """An .xlsx of one sheet."""
    book = Workbook()
    assert book.active is not None
    for row in rows:
        book.active.append(list(row))
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


class TinySource(dict[str, dict[str, bytes]]):
    """All fourteen archives with next to nothing in them: patient 7 on two dates, patient 9 without a date."""

    def __init__(self) -> None:
        names = [
            CLS,
            DET2D,
            CT0,
            CT1,
            MASKS,
            NODULES,
            THICK0,
            THICK1,
            THICK2,
            THICK_NODULES,
            BMP0,
            BMP1,
            BMP2,
            BMP_TABLES,
        ]
        super().__init__({name: {} for name in names})
        mask = np.zeros(SHAPE, np.int16)
        mask[1:4, 2:6, 2:6], mask[1:4, 2:6, 7:10] = 3, 4
        self[CT0] |= {**mhd("7_20180102", ct(1)), **mhd("9", ct(2))}
        self[CT1] |= mhd("7_20190304", ct(3))
        self[MASKS] |= {**mhd("7_20180102", mask), **mhd("7_20190304", mask), **mhd("9", mask)}
        world = "-6.0,-17.0,33.0"
        self[NODULES]["annotations.csv"] = (
            f"seriesuid,coordX,coordY,coordZ,diameter_mm\n7_20180102,{world},3\n7_20190304,{world},4\n9,{world},3.5\n".encode()
        )
        self[THICK0] |= mhd("7_20180102", ct(4, (2, 10, 12)), spacing=(0.8, 0.7, 5.0))
        self[THICK1] |= mhd("7_20190304", ct(5, (2, 10, 12)), spacing=(0.8, 0.7, 5.0))
        self[THICK2] |= mhd("9", ct(6, (2, 10, 12)), spacing=(0.8, 0.7, 5.0))
        self[THICK_NODULES]["annotations.csv"] = f"7_20180102,{world},9\n7_20190304,{world},9\n9,{world},9\n".encode()
        self[CLS] |= {
            "class_dataset/train/1/7_20180102_003_01.bmp": picture(1),
            "class_dataset/train/5/9_001_02.bmp": picture(2),
            "class_dataset/validate/1/7_20190304_003_03.bmp": picture(3),
        }
        stems = ("7_20180102_002", "7_20190304_003", "9_004")
        for seed, stem in enumerate(stems):
            self[DET2D][f"JPEGImages/{stem}.jpg"] = picture(seed, kind="JPEG")
            self[DET2D][f"Annotations/{stem}.xml"] = voc((2, 3, 9, 11), filename=f"{stem}.jpg")
        self[DET2D]["ImageSets/Main/train.txt"] = b"7_20180102_002\n9_004\n"
        self[DET2D]["ImageSets/Main/val.txt"] = b"7_20190304_003\n"
        self[DET2D]["VOC_CT.xlsx"] = workbook(
            [["image", "xmin", "ymin", "xmax", "ymax"], *([f"{s}.jpg", 2, 3, 9, 11] for s in stems)]
        )
        for archive, pid in ((BMP0, "00001"), (BMP1, "00002"), (BMP2, "09001")):
            self[archive] |= {f"imgs/{pid}/{k}.bmp": picture(int(pid) + k) for k in range(11)}
        rows = {"00001": "2,4,3,8,5,9", "00002": "1,3,2,6,4,4", "09001": "0,10,0,15,0,19"}
        self[BMP_TABLES] |= {
            "image_annotation_augment_diameter.csv": table(
                "pid,zmin,zmax,ymin,ymax,xmin,xmax,diameter", *(f"{pid},{box},7.5" for pid, box in rows.items())
            ),
            "train_anno.csv": table(
                "pid,z_min,z_max,y_min,y_max,x_min,x_max", *(f"{p},{rows[p]}" for p in ("00001", "09001"))
            ),
            "val_anno.csv": table("pid,z_min,z_max,y_min,y_max,x_min,x_max", f"00002,{rows['00002']}"),
            "train.txt": b"00001\n09001\n",
            "val.txt": b"00002\n",
        }

    def write(self, folder: Path, *, method: int = zipfile.ZIP_DEFLATED) -> Path:
        """Write the archives into ``folder`` and return it."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, members in self.items():
            (folder / name).write_bytes(packed(members, method))
        return folder


def packed(members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive in memory."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def table(*lines: str) -> bytes:
    """Lines of a text file."""
    return ("\n".join(lines) + "\n").encode()


def flagged(data: bytes, offset_local: int, offset_central: int, value: bytes) -> bytes:
    """Change a field of the first member, in its local header and in the directory."""
    changed = bytearray(data)
    central = data.index(b"PK\1\2")
    changed[offset_local : offset_local + len(value)] = value
    changed[central + offset_central : central + offset_central + len(value)] = value
    return bytes(changed)
