"""Scans for the hard benchmark: nodules inserted into blocks of lung or into other CT, and the archives that hold them.

:func:`write_hard_archives` makes patients with one scan each. A scan has no nodule, one or two. Patients are numbered so
that a split by patient has the intended number of them for validation.
"""

from __future__ import annotations

import itertools
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from lung_nodule_ct.declaration.archives import Role
from lung_nodule_ct.declaration.identity import fold_of
from lung_nodule_ct.declaration.labels import SPLIT_OF_FOLD, TRAIN, VALIDATION
from lung_nodule_ct.testing.archives import NODULE_COLUMNS, Members, archives_by_name, metaimage, table, write_archives
from lung_nodule_ct.testing.inserted_nodules import InsertedNodule, draw_nodule, insert_nodule
from lung_nodule_ct.testing.lung_blocks import make_lung_block
from lung_nodule_ct.testing.phantoms import Phantom

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_SHAPE: Final = (48, 96, 96)
_SPACING: Final = (2.0, 1.5, 1.5)
"""Shape and spacing of a scan, z, y, x. It is coarser than a real one, so that a CPU can train on it."""
_NODULES: Final = (0.2, 0.5, 0.3)
"""The share of the scans with no nodule, one and two."""


@dataclass(frozen=True, eq=False)
class ScanWithNodules:
    """A scan with inserted nodules.

    Attributes:
        scan: The volume with the nodules, and its lung mask.
        nodules: The nodules.
    """

    scan: Phantom
    nodules: tuple[InsertedNodule, ...]

    def rows(self, name: str) -> list[str]:
        """The rows of ``annotations.csv``."""
        rows = []
        for nodule in self.nodules:
            x, y, z = self.scan.frame.to_world(nodule.center[::-1]).tolist()
            rows.append(f"{name},{x:.6f},{y:.6f},{z:.6f},{nodule.diameter_mm:.6f}")
        return rows


def insert_nodules(
    scan: Phantom,
    random: np.random.Generator,
    *,
    count: int | None = None,
    contrast: float = 1.0,
    diameter_mm: float | None = None,
) -> ScanWithNodules:
    """Insert nodules into a scan.

    Args:
        scan: The scan, a phantom or real CT with a lung mask.
        random: Source of the nodules.
        count: Their number; drawn by default. It is lower if there is no place for more.
        contrast: Their contrast.
        diameter_mm: Their diameter; drawn from the paper's distribution by default.
    """
    wanted = int(random.choice(len(_NODULES), p=_NODULES)) if count is None else count
    x, y, z = scan.frame.spacing
    volume, nodules = scan.volume, list[InsertedNodule]()
    for _ in range(wanted):
        nodule = draw_nodule(
            volume, scan.lung_mask > 0, (z, y, x), random, others=nodules, contrast=contrast, diameter_mm=diameter_mm
        )
        if nodule is not None:
            volume = insert_nodule(volume, (z, y, x), nodule, random)
            nodules.append(nodule)
    return ScanWithNodules(Phantom(volume, scan.lung_mask, scan.frame), tuple(nodules))


def make_hard_scan(
    random: np.random.Generator, *, contrast: float = 1.0, diameter_mm: float | None = None
) -> ScanWithNodules:
    """Make a block of lung with nodules; see :func:`insert_nodules`."""
    block = make_lung_block(_SHAPE, _SPACING, random)
    return insert_nodules(block, random, contrast=contrast, diameter_mm=diameter_mm)


def write_hard_archives(folder: Path, *, train: int = 320, validation: int = 60, seed: int = 0) -> Path:
    """Write the archives of patients with one scan each.

    Args:
        folder: A new folder.
        train: The number of patients for training in a split by patient.
        validation: The number of patients for validation.
        seed: The same seed gives the same bytes.

    Returns:
        The folder.

    Raises:
        FileExistsError: The folder exists.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     source = write_hard_archives(Path(folder, "source"), train=1, validation=1)
        ...     sorted(path.name for path in source.iterdir())[0]
        '1.25mm_3D_detection_mhd_0.zip'
    """
    scans = (
        (name, make_hard_scan(np.random.default_rng([seed, split == VALIDATION, number])))
        for split, count in ((TRAIN, train), (VALIDATION, validation))
        for number, name in enumerate(itertools.islice(patients_of_split(split), count))
    )
    return write_scans(folder, scans)


def patients_of_split(split: str) -> Iterator[str]:
    """Yield the numbers of patients, from 1000, who belong to a split in a split by patient."""
    return (str(number) for number in itertools.count(1000) if SPLIT_OF_FOLD[fold_of(str(number))] == split)


def write_scans(folder: Path, scans: Iterable[tuple[str, ScanWithNodules]]) -> Path:
    """Write the archives of 1.25 mm scans, their masks and their nodules into a new folder.

    Args:
        folder: The folder.
        scans: Pairs of a name and a scan.

    Raises:
        FileExistsError: The folder exists.
    """
    volumes: Members = {}
    masks: Members = {}
    rows = [NODULE_COLUMNS]
    for name, made in scans:
        volumes |= metaimage(name, made.scan.volume, made.scan.frame)
        masks |= metaimage(name, made.scan.lung_mask, made.scan.frame)
        rows += made.rows(name)
    by_role = {
        Role.CT_1_25MM: volumes,
        Role.LUNG_MASKS: masks,
        Role.NODULES_1_25MM: {"annotations.csv": table(*rows)},
    }
    folder.mkdir(parents=True)
    return write_archives(folder, archives_by_name(by_role), method=zipfile.ZIP_STORED)
