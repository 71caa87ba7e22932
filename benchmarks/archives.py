"""Write archives of synthetic CT scans in the published layout, with any number of scans."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from lung_nodule_ct.geometry.display import LUNG
from lung_nodule_ct.testing.archives import (
    CLS,
    CT0,
    CT1,
    DET2D,
    MASKS,
    NODULE_COLUMNS,
    NODULES,
    encode_picture,
    metaimage,
    metaimage_header,
    split_files,
    table,
    voc_annotation,
    write_archives,
)
from lung_nodule_ct.testing.phantoms import PhantomNodule, make_chest
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPE = (160, 512, 512)
SPACING = (0.7, 0.7, 1.25)


@dataclass(frozen=True)
class DeflatedData:
    """Voxels that are compressed once and can be written to an archive under several names."""

    data: bytes
    size: int
    crc: int

    @classmethod
    def of(cls, array: NDArray[np.int16]) -> DeflatedData:
        """Deflate an array as int16, with the default options of ``zip``."""
        raw = array.astype("<i2").tobytes()
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return cls(deflater.compress(raw) + deflater.flush(), len(raw), zlib.crc32(raw))

    def add_to(self, archive: zipfile.ZipFile, name: str) -> None:
        """Write a member.

        :mod:`zipfile` cannot write compressed data. Therefore the member is written as stored, and then its header and
        entry are changed to deflated.
        """
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
    """Write the archives that ``det3d_1.25mm`` reads, with one scan per patient.

    All volumes show the same chest, shifted along z and with different noise, so that their compressed bytes differ.

    Args:
        folder: It is created if it does not exist.
        volumes: The number of scans.
        shape: Shape of a volume (z, y, x).
        distinct: The number of different volumes, which are repeated in turn. By default, all are different.
    """
    nodule = PhantomNodule((70.0, 20.0, 0.0), 14.0)
    chest = make_chest(shape, SPACING, (nodule,), noise=0)
    rng = np.random.default_rng(1)
    noise = np.rint(rng.standard_normal((shape[1] * 2, shape[2] * 2)) * 10).astype(np.int16)
    names = [f"{number}_20200101" for number in range(1, volumes + 1)]
    rows = [f"{name},70,20,0,14" for name in names]
    write_archives(folder, {CT1: {}, NODULES: {"annotations.csv": table(NODULE_COLUMNS, *rows)}})
    deflated: list[DeflatedData] = []
    mask = DeflatedData.of(chest.lung_mask)
    with (
        zipfile.ZipFile(folder / CT0, "w", zipfile.ZIP_DEFLATED) as scans,
        zipfile.ZipFile(folder / MASKS, "w", zipfile.ZIP_DEFLATED) as masks,
    ):
        for number, name in enumerate(names):
            if distinct is None or number < distinct:
                volume = np.roll(chest.volume, number + 1, axis=0)
                for z in range(shape[0]):
                    dy, dx = rng.integers(0, shape[1]), rng.integers(0, shape[2])
                    volume[z] += noise[dy : dy + shape[1], dx : dx + shape[2]]
                deflated.append(DeflatedData.of(volume))
            for archive, data in ((scans, deflated[number % len(deflated)]), (masks, mask)):
                archive.writestr(f"{name}.mhd", metaimage_header(name, shape, chest.frame))
                data.add_to(archive, f"{name}.raw")
            if distinct is None:
                deflated.clear()
    return folder


def write_patients(folder: Path, patients: int, shape: tuple[int, int, int] = (64, 320, 320)) -> Path:
    """Write the archives that all training recipes read.

    Every patient has two 1.25 mm scans, 40 crops, and 20 slices of 512 x 512 pixels.
    """
    rng = np.random.default_rng(2)
    chest = make_chest(shape, SPACING, (PhantomNodule((40.0, 10.0, 0.0), 14.0),), noise=0)
    archives = TinyArchives()
    for name in (CLS, DET2D, CT0, CT1):
        archives[name] = {}
    rows: list[str] = []
    lists: dict[str, list[str]] = {"train": [], "validate": []}
    for number in range(100, 100 + patients):
        split = "train" if number % 5 else "validate"
        for archive, date in ((CT0, "20180102"), (CT1, "20190304")):
            name = f"{number}_{date}"
            volume = chest.volume + np.rint(rng.standard_normal(shape, np.float32) * 10).astype(np.int16)
            archives[archive] |= metaimage(name, volume, chest.frame)
            rows.append(f"{name},40,10,0,14")
            middle, grey = shape[0] // 2, LUNG.to_grey(volume)
            for index in range(20):
                crop = grey[middle - index, 130:194, 180:244]
                member = f"class_dataset/{split}/{number % 6 + 1}/{name}_{index:03}_01.bmp"
                archives[CLS][member] = encode_picture(crop, "BMP")
            for index in range(10):
                stem = f"{name}_{index:03}"
                picture = np.asarray(Image.fromarray(grey[middle + index]).resize((512, 512)))
                xml = voc_annotation((300, 250, 340, 290), filename=f"{stem}.jpg", size=(512, 512))
                archives[DET2D][f"JPEGImages/{stem}.jpg"] = encode_picture(picture, "JPEG")
                archives[DET2D][f"Annotations/{stem}.xml"] = xml
                lists[split].append(stem)
    archives[DET2D] |= split_files(lists["train"], lists["validate"], "ImageSets/Main/")
    archives[NODULES]["annotations.csv"] = table(NODULE_COLUMNS, *rows)
    return archives.write(folder)
