"""Archives of generated CT in the published layout, as large as one likes."""

from __future__ import annotations

import io
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from benchmarks.phantom import Nodule, make_chest

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPE = (160, 512, 512)
SPACING = (0.7, 0.7, 1.25)


@dataclass(frozen=True)
class Packed:
    """Elements, deflated once, to stand in an archive under as many names as one likes."""

    data: bytes
    size: int
    crc: int

    @classmethod
    def of(cls, array: NDArray[np.int16]) -> Packed:
        """Deflate the elements as ``zip`` does by default."""
        raw = array.astype("<i2").tobytes()
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return cls(deflater.compress(raw) + deflater.flush(), len(raw), zlib.crc32(raw))

    def add_to(self, archive: zipfile.ZipFile, name: str) -> None:
        """Write a member; zipfile, which would deflate anew, is told that it is stored, and its entry is mended."""
        entry = zipfile.ZipInfo(name)
        with archive.open(entry, "w") as member:
            member.write(self.data)
        entry.compress_type, entry.file_size, entry.CRC = zipfile.ZIP_DEFLATED, self.size, self.crc
        file = archive.fp
        assert file is not None
        file.seek(entry.header_offset)
        file.write(entry.FileHeader(zip64=False))
        file.seek(archive.start_dir)


def write_source(folder: Path, volumes: int, shape: tuple[int, int, int] = SHAPE, distinct: int | None = None) -> Path:
    """The archives that ``det3d_1.25mm`` reads, with ``volumes`` scans, each of another patient.

    Every volume is the same chest moved along z, under noise of its own, so that none deflates to another's bytes; with
    ``distinct`` only so many of them are made, and stand under all names in turn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    nodule = Nodule((70.0, 20.0, 0.0), 14.0)
    base, mask = make_chest(shape, SPACING, (nodule,), noise=0)
    rng = np.random.default_rng(1)
    noise = np.rint(rng.standard_normal((shape[1] * 2, shape[2] * 2)) * 10).astype(np.int16)
    z, y, x = shape
    origin = " ".join(f"{-(count - 1) / 2 * step:g}" for count, step in zip((x, y, z), SPACING, strict=True))
    head = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
        f"TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = {origin}\nElementSpacing = {SPACING[0]} {SPACING[1]} {SPACING[2]}\n"
        f"DimSize = {x} {y} {z}\nElementType = MET_SHORT\nElementDataFile = "
    )
    made: list[Packed] = []
    labels = Packed.of(mask)
    with (
        zipfile.ZipFile(folder / "1.25mm_3D_detection_mhd_0.zip", "w", zipfile.ZIP_DEFLATED) as scans,
        zipfile.ZipFile(folder / "1.25mm_3D_detection_mhd_2.zip", "w", zipfile.ZIP_DEFLATED) as masks,
    ):
        for number in range(1, volumes + 1):
            name = f"{number}_20200101"
            if distinct is None or number <= distinct:
                volume = np.roll(base, number, axis=0)
                for index in range(z):
                    dy, dx = rng.integers(0, shape[1]), rng.integers(0, shape[2])
                    volume[index] += noise[dy : dy + y, dx : dx + x]
                made.append(Packed.of(volume))
            for archive, packed in ((scans, made[(number - 1) % len(made)]), (masks, labels)):
                archive.writestr(f"{name}.mhd", f"{head}{name}.raw\n")
                packed.add_to(archive, f"{name}.raw")
            if distinct is None:
                made.clear()
    with zipfile.ZipFile(folder / "1.25mm_3D_detection_mhd_1.zip", "w"):
        pass
    rows = "".join(f"{number}_20200101,70,20,0,14\n" for number in range(1, volumes + 1))
    with zipfile.ZipFile(folder / "1.25mm_3D_detection_mhd_3.zip", "w") as tables:
        tables.writestr("annotations.csv", "seriesuid,coordX,coordY,coordZ,diameter_mm\n" + rows)
    return folder


def write_patients(folder: Path, patients: int, shape: tuple[int, int, int] = (64, 320, 320)) -> Path:
    """The archives that all training recipes read: of each patient two 1.25 mm scans, 40 crops, and 20 slices of 512 pixels a side."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
    from tiny import CLS, CT0, CT1, DET2D, NODULES, TinySource, mhd, table, voc  # type: ignore[import-not-found]

    rng = np.random.default_rng(2)
    chest, _ = make_chest(shape, SPACING, (Nodule((40.0, 10.0, 0.0), 14.0),), noise=0)
    source = TinySource()
    for name in (CLS, DET2D, CT0, CT1):
        source[name] = {}
    origin = [-(count - 1) / 2 * step for count, step in zip(shape[::-1], SPACING, strict=True)]
    rows, lists = [], {"train": "", "val": ""}
    for number in range(100, 100 + patients):
        part, listed = ("validate", "val") if number % 5 == 0 else ("train", "train")
        for place, date in enumerate(("20180102", "20190304")):
            name = f"{number}_{date}"
            volume = chest + np.rint(rng.standard_normal(shape, np.float32) * 10).astype(np.int16)
            source[(CT0, CT1)[place]] |= mhd(name, volume, spacing=SPACING, origin=origin)
            rows.append(f"{name},40,10,0,14")
            slices = np.clip((volume.astype(np.float32) + 1350) / 1500 * 255, 0, 255).astype(np.uint8)
            for index in range(20):
                crop = slices[shape[0] // 2 - index, 130:194, 180:244]
                source[CLS][f"class_dataset/{part}/{number % 6 + 1}/{name}_{index:03}_01.bmp"] = _encoded(
                    crop, 64, "BMP"
                )
            for index in range(10):
                stem = f"{name}_{index:03}"
                source[DET2D][f"JPEGImages/{stem}.jpg"] = _encoded(slices[shape[0] // 2 + index], 512, "JPEG")
                source[DET2D][f"Annotations/{stem}.xml"] = voc(
                    (300, 250, 340, 290), filename=f"{stem}.jpg", size=(512, 512)
                )
                lists[listed] += f"{stem}\n"
    for name, text in lists.items():
        source[DET2D][f"ImageSets/Main/{name}.txt"] = text.encode()
    source[NODULES]["annotations.csv"] = table("seriesuid,coordX,coordY,coordZ,diameter_mm", *rows)
    written: Path = source.write(folder)
    return written


def _encoded(pixels: np.ndarray, side: int, form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((side, side)).save(buffer, form)
    return buffer.getvalue()
