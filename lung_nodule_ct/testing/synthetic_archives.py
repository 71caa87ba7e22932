"""Complete sets of archives in the published layout: :class:`TinyArchives`, and patients whose lesions a model can learn.

:func:`write_synthetic_archives` makes the patients. Their lesions have one texture per pathology class, diameters
distributed as the paper reports them, and malignant ones grow from the first scan to the second. They are not anatomy: a
model that learns here works, and its score does not predict the score on real scans.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from lung_nodule_ct.declaration.archives import ARCHIVES, Role
from lung_nodule_ct.declaration.labels import PATHOLOGY
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.testing.archives import (
    BMP0,
    BMP1,
    BMP2,
    BMP_TABLES,
    BOX_COLUMNS,
    CLS,
    CT0,
    CT1,
    DET2D,
    MASKS,
    NODULE_COLUMNS,
    NODULES,
    SHAPE,
    THICK0,
    THICK1,
    THICK2,
    THICK_FRAME,
    THICK_NODULES,
    THICK_SHAPE,
    Members,
    archives_by_name,
    encode_picture,
    metaimage,
    noise_picture,
    noise_volume,
    split_files,
    stack_tables,
    table,
    voc_annotation,
    workbook,
    write_archives,
)
from lung_nodule_ct.testing.inserted_nodules import draw_diameter
from lung_nodule_ct.testing.lung_blocks import tube_coverage
from lung_nodule_ct.testing.phantoms import LEFT_LUNG, RIGHT_LUNG, TEXTURES, make_lesion

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_DATES: Final = ("20180102", "20190304")
_EXTENT: Final = (96.0, 96.0, 48.0)
"""Size of a volume, x, y, z in mm."""
_THIN: Final = (2.0, 2.0, 2.0)
_THICK: Final = (2.0, 2.0, 5.0)
"""Spacing x, y, z in mm of the 1.25 mm and the 5 mm volumes. They are coarser than the real ones, to be small."""
_SLICE_SIZE: Final = 96
_CROP_SIZE: Final = 32
"""Side of a slice and of a crop in pixels."""
_VESSEL_RADII_MM: Final = (3.0, 6.0)
_VESSEL_DENSITY: Final = 1.35
"""400 HU, as blood with contrast medium. Lesions are less dense."""
_VESSEL_TRIES: Final = 200


class TinyArchives(dict[str, Members]):
    """All fourteen archives with very little in them: patient 7 with two dates and patient 9 without a date.

    A dictionary of dictionaries, from the file name of an archive and the name of a member to its bytes. Change what a test
    is about, then :meth:`write` the archives.

    Example:
        >>> from lung_nodule_ct.testing.archives import CT0, MASKS
        >>> archives = TinyArchives()
        >>> sorted(archives[CT0])
        ['7_20180102.mhd', '7_20180102.raw', '9.mhd', '9.raw']
        >>> archives[CT0] |= metaimage("11_20200101", noise_volume(5))  # one more patient
        >>> del archives[MASKS]["9.mhd"], archives[MASKS]["9.raw"]  # and a scan without a mask
    """

    def __init__(self) -> None:
        super().__init__({spec.name: {} for spec in ARCHIVES})
        self._add_volumes()
        self._add_pictures()
        self._add_stacks()

    def __repr__(self) -> str:
        return f"<TinyArchives: {sum(map(len, self.values()))} members in {len(self)} archives>"

    def _add_volumes(self) -> None:
        mask = np.zeros(SHAPE, np.int16)
        mask[1:4, 2:6, 2:6], mask[1:4, 2:6, 7:10] = LEFT_LUNG, RIGHT_LUNG
        center = "-6.0,-17.0,33.0"
        rows: list[str] = []
        thick_rows: list[str] = []
        for scan, seed, thin, thick, diameter in (
            ("7_20180102", 1, CT0, THICK0, "3"),
            ("7_20190304", 3, CT1, THICK1, "4"),
            ("9", 2, CT0, THICK2, "3.5"),
        ):
            self[thin] |= metaimage(scan, noise_volume(seed))
            self[MASKS] |= metaimage(scan, mask)
            self[thick] |= metaimage(scan, noise_volume(4 + len(rows), THICK_SHAPE), THICK_FRAME)
            rows.append(f"{scan},{center},{diameter}")
            thick_rows.append(f"{scan},{center},9")
        self[NODULES]["annotations.csv"] = table(NODULE_COLUMNS, *rows)
        self[THICK_NODULES]["annotations.csv"] = table(*thick_rows)

    def _add_pictures(self) -> None:
        self[CLS] |= {
            "class_dataset/train/1/7_20180102_003_01.bmp": noise_picture(1),
            "class_dataset/train/5/9_001_02.bmp": noise_picture(2),
            "class_dataset/validate/1/7_20190304_003_03.bmp": noise_picture(3),
        }
        stems = ("7_20180102_002", "7_20190304_003", "9_004")
        box = (2, 3, 9, 11)
        for seed, stem in enumerate(stems):
            self[DET2D][f"JPEGImages/{stem}.jpg"] = noise_picture(seed, kind="JPEG")
            self[DET2D][f"Annotations/{stem}.xml"] = voc_annotation(box, filename=f"{stem}.jpg")
        self[DET2D] |= split_files((stems[0], stems[2]), (stems[1],), "ImageSets/Main/")
        header = ["image", "xmin", "ymin", "xmax", "ymax"]
        self[DET2D]["VOC_CT.xlsx"] = workbook([header, *([f"{stem}.jpg", *box] for stem in stems)])

    def _add_stacks(self) -> None:
        boxes = {"00001": (2, 4, 3, 8, 5, 9), "00002": (1, 3, 2, 6, 4, 4), "09001": (0, 10, 0, 15, 0, 19)}
        for archive, pid in zip((BMP0, BMP1, BMP2), boxes, strict=True):
            self[archive] |= {f"imgs/{pid}/{k}.bmp": noise_picture(int(pid) + k) for k in range(11)}
        self[BMP_TABLES] |= stack_tables(boxes, dict.fromkeys(boxes, 7.5), val=["00002"])

    def write(self, folder: Path, *, method: int = zipfile.ZIP_DEFLATED) -> Path:
        """Write the archives into a folder, which is made if it does not exist, and return the folder.

        Args:
            folder: The folder.
            method: The compression method, as in :func:`~lung_nodule_ct.testing.archives.zip_archive`.
        """
        return write_archives(folder, self, method=method)


@dataclass(frozen=True)
class _Scan:
    """A scan with one lesion.

    Attributes:
        name: Patient and date.
        split: The folder of its crops, ``train`` or ``validate``.
        label: Index of its pathology class, and of the texture of its lesion.
        diameter: Of the lesion in mm.
        center: Of the lesion: x, y, z in mm from the centre of the first voxel.
    """

    name: str
    split: str
    label: int
    diameter: float
    center: tuple[float, float, float]


def write_synthetic_archives(
    folder: Path, patients: int, *, stacks: bool = False, vessels: int = 0, seed: int = 0
) -> Path:
    """Write the archives of synthetic patients with two scans each. Every fifth patient is for validation.

    Args:
        folder: A new folder.
        patients: The number of patients.
        stacks: Whether to write the archives of 8-bit stacks too, which take as long as all others.
        vessels: The number of short pieces of vessels in each volume. They are as large and compact as a lesion, so that a
            detector has to distinguish them by their density and shape. Everything else is the same without them.
        seed: The same seed gives the same bytes.

    Returns:
        The folder.

    Raises:
        FileExistsError: The folder exists.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     source = write_synthetic_archives(Path(folder, "source"), patients=2)
        ...     sorted(path.name for path in source.iterdir())[:3]
        ['1.25mm_2D_detection.zip', '1.25mm_3D_detection_mhd_0.zip', '1.25mm_3D_detection_mhd_1.zip']
    """
    random = np.random.default_rng(seed)
    scans = _draw_scans(patients, random)
    pieces = [_draw_vessels(scan, vessels, np.random.default_rng([seed, n])) for n, scan in enumerate(scans)]
    by_role = (
        _crops(scans, random)
        | _slices(scans, random)
        | _volumes(scans, random, _THIN, Role.CT_1_25MM, Role.NODULES_1_25MM, pieces)
        | _volumes(scans, random, _THICK, Role.CT_5MM, Role.NODULES_5MM, pieces)
        | (_stacks(scans, random) if stacks else {})
        | {Role.LUNG_MASKS: {}}
    )
    folder.mkdir(parents=True)
    return write_archives(folder, archives_by_name(by_role), method=zipfile.ZIP_STORED)


def _draw_scans(patients: int, random: np.random.Generator) -> list[_Scan]:
    scans = []
    for number in range(100, 100 + patients):
        label = number % len(PATHOLOGY)  # so that every split has all classes
        first = draw_diameter(random)
        z, y, x = (random.uniform(0.35, 0.65, 3) * _EXTENT[::-1]).tolist()
        growth = random.uniform(1.3, 1.6) if PATHOLOGY[label].malignant else random.uniform(0.9, 1.05)
        split = "train" if number % 5 else "validate"
        scans += [
            _Scan(f"{number}_{date}", split, label, diameter, (x, y, z))
            for date, diameter in zip(_DATES, (first, first * growth), strict=True)
        ]
    return scans


def _draw_vessels(scan: _Scan, count: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Straight pieces of vessels about along an axis that do not touch the lesion, as segments of a tube, shape (n, 7)."""
    extent, lesion = np.array(_EXTENT[::-1]), np.array(scan.center[::-1])
    pieces: list[NDArray[np.float64]] = []
    for _ in range(_VESSEL_TRIES):
        if len(pieces) == count:
            break
        radius = random.uniform(*_VESSEL_RADII_MM)
        half = radius * random.uniform(1, 2)
        along = np.eye(3)[random.integers(3)] + random.normal(0, 0.1, 3)
        along /= np.linalg.norm(along)
        middle = random.uniform(0, extent)
        nearest = middle + np.clip((lesion - middle) @ along, -half, half) * along
        if np.linalg.norm(lesion - nearest) > scan.diameter / 2 + radius + 5:
            pieces.append(np.concatenate([middle - half * along, middle + half * along, [radius]]))
    return np.array(pieces).reshape(-1, 7)


def _crops(scans: Sequence[_Scan], random: np.random.Generator) -> dict[Role, Members]:
    members = {}
    for scan in scans:
        for number in range(2):
            (y, x), radius = random.uniform(14, 18, 2), max(scan.diameter * 0.3, 5)
            name = f"class_dataset/{scan.split}/{scan.label + 1}/{scan.name}_{number:03}_01.bmp"
            members[name] = encode_picture(_picture(scan, _CROP_SIZE, (x, y), radius, random), "BMP")
    return {Role.CLASSIFICATION: members}


def _slices(scans: Sequence[_Scan], random: np.random.Generator) -> dict[Role, Members]:
    by_stem = {f"{scan.name}_001": scan for scan in scans}
    members: Members = {}
    for stem, scan in by_stem.items():
        (y, x), radius = random.uniform(24, 72, 2), max(scan.diameter * 0.375, 5)
        box = [round(end) for end in (x - radius, y - radius, x + radius + 1, y + radius + 1)]
        size = (_SLICE_SIZE, _SLICE_SIZE)
        picture = _picture(scan, _SLICE_SIZE, (x, y), radius, random)
        members[f"JPEGImages/{stem}.jpg"] = encode_picture(picture, "JPEG")
        members[f"Annotations/{stem}.xml"] = voc_annotation(box, filename=f"{stem}.jpg", size=size)
    return {Role.DETECTION_2D: members | _split_files(by_stem, "ImageSets/Main/")}


def _split_files(scans: Mapping[str, _Scan], folder: str = "") -> Members:
    train, val = ([name for name, scan in scans.items() if scan.split == split] for split in ("train", "validate"))
    return split_files(train, val, folder)


def _volumes(
    scans: Sequence[_Scan],
    random: np.random.Generator,
    spacing: tuple[float, float, float],
    volumes: Role,
    nodules: Role,
    vessels: Sequence[NDArray[np.float64]],
) -> dict[Role, Members]:
    members: Members = {}
    rows = [NODULE_COLUMNS]
    for scan, pieces in zip(scans, vessels, strict=True):
        density = _density(scan, spacing, random)
        density = np.maximum(density, tube_coverage(density.shape, spacing[::-1], pieces) * _VESSEL_DENSITY)
        written = " ".join(map(str, spacing))  # as 2.0, so that a seed gives the bytes that it has always given
        fields = {"CompressedData": None, "ElementSpacing": written}
        members |= metaimage(scan.name, (density * 1000 - 950).astype(np.int16), Frame(), **fields)
        x, y, z = scan.center
        rows.append(f"{scan.name},{x},{y},{z},{scan.diameter}")
    return {volumes: members, nodules: {"annotations.csv": "\n".join(rows).encode()}}


def _stacks(scans: Sequence[_Scan], random: np.random.Generator) -> dict[Role, Members]:
    by_pid = {f"{number:05}": scan for number, scan in enumerate(scans, 1)}
    pictures: Members = {}
    boxes = [BOX_COLUMNS]
    for pid, scan in by_pid.items():
        density = _density(scan, _THIN, random)
        for level, plane in enumerate(density):
            pictures[f"imgs/{pid}/{level}.bmp"] = encode_picture(_grey(plane), "BMP")
        middle, radius = np.array(scan.center) / _THIN, scan.diameter / 2 / np.array(_THIN)
        ends = np.clip(np.round([middle - radius, middle + radius]), 0, np.array(density.shape[::-1]) - 1).astype(int)
        boxes.append(f"{pid},{','.join(f'{low},{high}' for low, high in ends.T[::-1])},{scan.diameter}")
    tables = {"image_annotation_augment_diameter.csv": "\n".join(boxes).encode(), **_split_files(by_pid)}
    return {Role.BMP_SLICES: pictures, Role.BMP_TABLES: tables}


def _density(scan: _Scan, spacing: tuple[float, float, float], random: np.random.Generator) -> NDArray[np.float64]:
    """The volume of a scan as densities from 0 to 1, axes (z, y, x)."""
    shape = [round(extent / step) for extent, step in zip(reversed(_EXTENT), reversed(spacing), strict=True)]
    return make_lesion(TEXTURES[scan.label], shape, spacing, scan.center, scan.diameter, random)


def _picture(
    scan: _Scan, side: int, center: Sequence[float], radius: float, random: np.random.Generator
) -> NDArray[np.uint8]:
    """A square picture of the lesion; centre x, y and radius in pixels."""
    density = make_lesion(TEXTURES[scan.label], (side, side), (1.0, 1.0), center, 2 * radius, random)
    return _grey(density)


def _grey(density: NDArray[np.float64]) -> NDArray[np.uint8]:
    return (density * 255).astype(np.uint8)
