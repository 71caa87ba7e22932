"""Made-up patients with known truth: lesions of six textures, sizes by the paper's distribution, malignant ones that grow.

:func:`write_synthetic_archives` writes them as archives in the published layout, so that a build of them is what learning can be tested on
before the real archives are there. Not anatomy: what learns here works, and no score of here says how well.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from lung_nodule_ct.declaration.archives import Role, archives_of
from lung_nodule_ct.declaration.labels import PATHOLOGY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    Members = dict[str, bytes]

_DATES: Final = ("20180102", "20190304")
_EXTENT: Final = np.array([48.0, 96.0, 96.0])
"""Of a volume, z, y, x in mm."""
_THIN: Final = (2.0, 2.0, 2.0)
_THICK: Final = (5.0, 2.0, 2.0)
"""Distance of voxels z, y, x in mm; thin ones stand for 1.25 mm, to keep them small."""
_SIZES: Final = ((4, 10, 0.4033), (10, 20, 0.3978), (20, 30, 0.1437), (30, 36, 0.0552))
"""Low and high diameter in mm, and the share of the nodules (the paper's; nothing below 4 mm or above 36 mm is made)."""


@dataclass(frozen=True)
class _Scan:
    """A scan with one lesion.

    Attributes:
        name: Patient and date.
        split: The folder that its crops lie in.
        kind: Index of its class, which is its texture.
        diameter: In mm.
        center: z, y, x in mm from the middle of the first voxel.
    """

    name: str
    split: str
    kind: int
    diameter: float
    center: tuple[float, ...]


def write_synthetic_archives(folder: Path, patients: int, *, stacks: bool = False, seed: int = 0) -> Path:
    """Write the archives of so many patients with two scans each into a new folder; every fifth is for validation.

    Args:
        folder: Where to.
        patients: How many.
        stacks: Write the archives of 8-bit stacks as well, which take as long as all others.
        seed: The same seed gives the same bytes.
    """
    random = np.random.default_rng(seed)
    scans = _scans(patients, random)
    folder.mkdir(parents=True)
    for members in (
        _crops(scans, random),
        _slices(scans, random),
        _volumes(scans, random, _THIN, Role.CT_1_25MM, Role.NODULES_1_25MM),
        _volumes(scans, random, _THICK, Role.CT_5MM, Role.NODULES_5MM),
        _stacks(scans, random) if stacks else {},
    ):
        for role, held in members.items():
            first, *others = archives_of(role)
            _pack(folder / first.name, held)
            for empty in others:
                _pack(folder / empty.name, {})
    for masks in archives_of(Role.LUNG_MASKS):
        _pack(folder / masks.name, {})
    return folder


def _scans(patients: int, random: np.random.Generator) -> list[_Scan]:
    shares = np.array([share for *_, share in _SIZES])
    scans = []
    for number in range(100, 100 + patients):
        kind = number % len(PATHOLOGY)  # every split gets its share of all
        low, high, _ = _SIZES[random.choice(len(_SIZES), p=shares / shares.sum())]
        first, center = random.uniform(low, high), random.uniform(0.35, 0.65, 3) * _EXTENT
        growth = random.uniform(1.3, 1.6) if PATHOLOGY[kind].malignant else random.uniform(0.9, 1.05)
        split = "train" if number % 5 else "validate"
        scans += [
            _Scan(f"{number}_{date}", split, kind, diameter, tuple(center.tolist()))
            for date, diameter in zip(_DATES, (first, first * growth), strict=True)
        ]
    return scans


def _crops(scans: Sequence[_Scan], random: np.random.Generator) -> dict[Role, Members]:
    members = {}
    for scan in scans:
        for number in range(2):
            picture = _picture(scan.kind, 32, random.uniform(14, 18, 2), max(scan.diameter * 0.3, 5), random)
            members[f"class_dataset/{scan.split}/{scan.kind + 1}/{scan.name}_{number:03}_01.bmp"] = _encoded(
                picture, "BMP"
            )
    return {Role.CLASSIFICATION: members}


def _slices(scans: Sequence[_Scan], random: np.random.Generator) -> dict[Role, Members]:
    members, lists = {}, {"train": "", "validate": ""}
    for scan in scans:
        (y, x), reach = random.uniform(24, 72, 2), max(scan.diameter * 0.375, 5)
        name = f"{scan.name}_001"
        corners = {"xmin": x - reach, "ymin": y - reach, "xmax": x + reach + 1, "ymax": y + reach + 1}
        box = "".join(f"<{corner}>{round(value)}</{corner}>" for corner, value in corners.items())
        size = "<size><width>96</width><height>96</height><depth>3</depth></size>"
        members[f"JPEGImages/{name}.jpg"] = _encoded(_picture(scan.kind, 96, np.array([y, x]), reach, random), "JPEG")
        members[f"Annotations/{name}.xml"] = (
            f"<annotation><filename>{name}.jpg</filename>{size}<object><name>nodule</name><bndbox>{box}</bndbox></object>"
            "</annotation>"
        ).encode()
        lists[scan.split] += f"{name}\n"
    members["ImageSets/Main/train.txt"] = lists["train"].encode()
    members["ImageSets/Main/val.txt"] = lists["validate"].encode()
    return {Role.DETECTION_2D: members}


def _volumes(
    scans: Sequence[_Scan], random: np.random.Generator, spacing: tuple[float, ...], volumes: Role, nodules: Role
) -> dict[Role, Members]:
    members, rows = {}, ["seriesuid,coordX,coordY,coordZ,diameter_mm"]
    for scan in scans:
        density = _density(scan, spacing, random)
        header = {
            "ObjectType": "Image",
            "NDims": "3",
            "BinaryData": "True",
            "BinaryDataByteOrderMSB": "False",
            "TransformMatrix": "1 0 0 0 1 0 0 0 1",
            "Offset": "0 0 0",
            "ElementSpacing": " ".join(map(str, spacing[::-1])),
            "DimSize": " ".join(map(str, density.shape[::-1])),
            "ElementType": "MET_SHORT",
            "ElementDataFile": f"{scan.name}.raw",
        }
        members[f"{scan.name}.mhd"] = "".join(f"{key} = {value}\n" for key, value in header.items()).encode()
        members[f"{scan.name}.raw"] = (density * 1000 - 950).astype("<i2").tobytes()
        z, y, x = scan.center
        rows.append(f"{scan.name},{x},{y},{z},{scan.diameter}")
    return {volumes: members, nodules: {"annotations.csv": "\n".join(rows).encode()}}


def _stacks(scans: Sequence[_Scan], random: np.random.Generator) -> dict[Role, Members]:
    pictures, boxes, lists = {}, ["pid,zmin,zmax,ymin,ymax,xmin,xmax,diameter"], {"train": "", "validate": ""}
    for number, scan in enumerate(scans, 1):
        density, case = _density(scan, _THIN, random), f"{number:05}"
        for level, plane in enumerate(density):
            pictures[f"imgs/{case}/{level}.bmp"] = _encoded(plane, "BMP")
        middle, radius = np.array(scan.center) / _THIN, scan.diameter / 2 / np.array(_THIN)
        ends = np.clip(np.round([middle - radius, middle + radius]), 0, np.array(density.shape) - 1).astype(int)
        boxes.append(f"{case},{','.join(f'{low},{high}' for low, high in ends.T)},{scan.diameter}")
        lists[scan.split] += f"{case}\n"
    tables = {
        "image_annotation_augment_diameter.csv": "\n".join(boxes).encode(),
        "train.txt": lists["train"].encode(),
        "val.txt": lists["validate"].encode(),
    }
    return {Role.BMP_SLICES: pictures, Role.BMP_TABLES: tables}


def _density(scan: _Scan, spacing: tuple[float, ...], random: np.random.Generator) -> np.ndarray:
    """A scan's volume, 0 to 1, axes (z, y, x)."""
    shape = tuple(np.rint(_EXTENT / spacing).astype(int))
    return _drawn(scan.kind, shape, np.array(scan.center), scan.diameter / 2, np.array(spacing), random)


def _picture(kind: int, side: int, center: np.ndarray, radius: float, random: np.random.Generator) -> np.ndarray:
    """A square picture, 0 to 1; the centre as y, x, in pixels as the radius."""
    return _drawn(kind, (side, side), center, radius, np.ones(2), random)


def _drawn(
    kind: int,
    shape: tuple[int, ...],
    center: np.ndarray,
    radius: float,
    spacing: np.ndarray,
    random: np.random.Generator,
) -> np.ndarray:
    """Noise with a lesion in it, 0 to 1; centre and radius in what ``spacing`` is in, all in array order."""
    axes = np.meshgrid(*(np.arange(n) * step for n, step in zip(shape, spacing, strict=True)), indexing="ij")
    distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(axes, center, strict=True))) / radius
    tissue: np.ndarray = np.clip(0.12 + random.normal(0, 0.04, shape) + _lesion(kind, distance, random), 0, 1)
    return tissue


def _lesion(kind: int, distance: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Density 0 to 1 of a lesion of one of six textures, by the distance from its centre in radii; any shape."""
    inside = np.clip((1.05 - distance) * 8, 0, 1)
    core = np.clip((0.55 - distance) * 8, 0, 1)
    textures = (
        inside * 0.85,  # solid
        inside * 0.35 + core * 0.5,  # part-solid
        inside * 0.35,  # ground glass
        (inside - core) * 0.85,  # with a cavity
        inside * (random.random(distance.shape) < 0.5) * 0.8,  # speckled
        inside * 0.55 + np.clip((0.35 - distance) * 8, 0, 1) * 0.45,  # with a calcified core
    )
    return textures[kind]


def _encoded(density: np.ndarray, form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray((density * 255).astype(np.uint8)).save(buffer, form)
    return buffer.getvalue()


def _pack(path: Path, members: Members) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(
                zipfile.ZipInfo(name), data
            )  # without the time, so that the same seed gives the same bytes
