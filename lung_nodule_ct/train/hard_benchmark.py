"""The hard benchmark: inserted nodules among vessels and walls, in phantoms or in the CT of a build, one patient left out.

It ranks recipes. Its score is not the CPM of real nodules, and every score is printed with that statement and with its domain.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lung_nodule_ct.declaration.labels import TRAIN, VALIDATION, SplitBy
from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.read.rows import split_rows
from lung_nodule_ct.system.progress import notice
from lung_nodule_ct.testing.hard_archives import (
    ScanWithNodules,
    insert_nodules,
    patients_of_split,
    write_hard_archives,
    write_scans,
)
from lung_nodule_ct.testing.phantoms import Phantom

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from lung_nodule_ct.read.build_folder import BuildFolder
    from lung_nodule_ct.read.rows import Rows

CONFIG: Final = "det3d_1.25mm"
_TRAIN, _VALIDATION = 320, 60
"""The number of phantoms."""
_CT_TRAIN, _CT_VALIDATION = 80, 40
"""The number of crops of CT. They are from few scans, so that more of them would differ little."""
_CROP: Final = (48, 128, 128)
"""The largest crop of CT, z, y, x in voxels."""
_MIN_LUNG: Final = 0.25
"""The smallest share of a crop that is lung."""
_TRIES: Final = 60
_UNKNOWN_DIAMETER_MM: Final = 30.0
"""The room that is left around an annotated nodule whose diameter is not known."""


@dataclass(frozen=True)
class HardBenchmark:
    """What the nodules are inserted into.

    Attributes:
        seed: The same seed gives the same scans.
        ct: A build with real CT and lung masks; ``None`` for phantoms.
        leave_out: The patient of ``ct`` who is for validation. By default it is one by the seed, so that other seeds leave
            out other patients.

    Raises:
        TrainingError: A patient is named without CT, or is not in it, or the CT has fewer than two patients.
    """

    seed: int = 0
    ct: BuildFolder | None = None
    leave_out: str | None = None

    def __post_init__(self) -> None:
        if self.ct is None:
            if self.leave_out is not None:
                raise TrainingError("phantoms have no patient to leave out", remedy="name the CT, with --real-ct BUILD")
            return
        named = sorted(self._named_patients())  # before the build is decoded
        if self.leave_out is not None and self.leave_out not in named:
            raise TrainingError(
                f"{self.ct.folder} has no patient {self.leave_out!r} with a lung mask",
                expected=f"one of {', '.join(named)}",
            )
        patients = _patients(self._rows)
        if len(patients) < 2:
            raise TrainingError(
                f"{self.ct.folder} has too few patients to leave one out",
                expected=f"two patients with a scan of {CONFIG}, a lung mask and known spacing",
                got=len(patients),
            )
        if self.leave_out is not None and self.leave_out not in patients:
            raise TrainingError(
                f"{self.ct.folder} has no patient {self.leave_out!r} with a lung mask",
                expected=f"one of {', '.join(patients)}",
            )

    @property
    def left_out(self) -> str:
        """The patient who is for validation."""
        patients = _patients(self._rows)
        return self.leave_out or patients[self.seed % len(patients)]

    def domain(self) -> dict[str, Any]:
        """What a run and its scores state about the scans."""
        if self.ct is None:
            return {"domain": "phantom", "seed": self.seed}
        source = hashlib.sha256(json.dumps(self.ct.manifest["source"], sort_keys=True).encode()).hexdigest()
        return {"domain": "CT", "seed": self.seed, "source": source, "left_out": self.left_out}

    def write(self, folder: Path) -> Path:
        """Write the archives of its scans into a new folder, and return the folder."""
        if self.ct is None:
            return write_hard_archives(folder, train=_TRAIN, validation=_VALIDATION, seed=self.seed)
        return write_scans(folder, self._crops())

    def _named_patients(self) -> set[str]:
        assert self.ct is not None  # noqa: S101 -- it is called for CT only
        rows = (row for split in self.ct.splits(CONFIG) for row in self.ct.rows(CONFIG, split, ("patient_id",)))
        return {row["patient_id"] for row in rows} - {None}

    @cached_property
    def _rows(self) -> tuple[Rows, ...]:
        assert self.ct is not None  # noqa: S101 -- it is called for CT only
        split_by = SplitBy(self.ct.manifest["split_by"])
        return tuple(split_rows(self.ct, CONFIG, split, split_by) for split in self.ct.splits(CONFIG))

    def _crops(self) -> Iterator[tuple[str, ScanWithNodules]]:
        """The names of the crops, and the crops with inserted nodules, in turn from each scan of a split."""
        scans = [(rows, row) for rows in self._rows for row in range(len(rows)) if _is_usable(rows, row)]
        unusable = sum(map(len, self._rows)) - len(scans)
        if unusable:
            notice(f"{unusable} scans are left out: no lung mask, no patient, or no spacing")
        for split, count in ((TRAIN, _CT_TRAIN), (VALIDATION, _CT_VALIDATION)):
            is_validation = split == VALIDATION
            of_split = [
                (rows, row)
                for rows, row in scans
                if (rows.metadata[row]["patient_id"] == self.left_out) is is_validation
            ]
            names, made = patients_of_split(split), 0
            for number in range(count):
                random = np.random.default_rng([self.seed, is_validation, number])
                crop = _crop(*of_split[number % len(of_split)], random)
                if crop is not None:
                    made += 1
                    yield next(names), insert_nodules(crop, random)
            if not made:
                raise TrainingError(
                    f"no part of the CT for {split} has enough lung and no annotated nodule",
                    expected=f"crops of up to {' x '.join(map(str, _CROP))} voxels, of which {_MIN_LUNG:.0%} are lung",
                    remedy="leave out another patient, or use a build with more scans",
                )
            if made < count:
                notice(
                    f"{split}: {made} crops instead of {count}; the others have too little lung or an annotated nodule"
                )


def benchmark_statement(domain: Mapping[str, Any]) -> str:
    """The sentence that is printed with every score of the benchmark."""
    if domain["domain"] == "phantom":
        where = "phantoms of lung"
    else:
        where = f"real CT (source {domain['source'][:12]}, patient {domain['left_out']} left out)"
    return (
        f"Domain: nodules inserted into {where}, seed {domain['seed']}. "
        "The score ranks recipes; it is not the CPM of real nodules. Intervals are over scans."
    )


def _patients(parts: tuple[Rows, ...]) -> list[str]:
    """The patients with a usable scan, in order."""
    return sorted(
        {rows.metadata[row]["patient_id"] for rows in parts for row in range(len(rows)) if _is_usable(rows, row)}
    )


def _is_usable(rows: Rows, row: int) -> bool:
    metadata = rows.metadata[row]
    if metadata["patient_id"] is None or _frame(metadata) is None:
        return False
    mask, volume = rows.voxels(row, "lung_mask"), rows.voxels(row)
    return mask is not None and volume is not None and mask.shape == volume.shape


def _frame(metadata: Mapping[str, Any]) -> Frame | None:
    """The frame of a scan, ``None`` if its columns are not a frame."""
    try:
        return Frame.from_row(metadata)
    except (TypeError, ValueError):
        return None


def _crop(rows: Rows, row: int, random: np.random.Generator) -> Phantom | None:
    """A crop of a scan with enough lung and no annotated nodule, or ``None`` if there was none in many draws."""
    volume, mask = rows.voxels(row), rows.voxels(row, "lung_mask")
    frame = _frame(rows.metadata[row])
    assert volume is not None and mask is not None and frame is not None  # noqa: S101, PT018 -- see _is_usable
    shape = np.array(volume.shape)
    size = np.minimum(shape, _CROP)
    for _ in range(_TRIES):
        low = random.integers(0, shape - size + 1)
        window = tuple(slice(a, a + n) for a, n in zip(low.tolist(), size.tolist(), strict=True))
        if (mask[window] > 0).mean() < _MIN_LUNG or _has_nodule(rows.metadata[row], frame, low, low + size):
            continue
        x, y, z = frame.to_world(low[::-1]).tolist()
        lungs = np.where(mask[window] > 0, mask[window], 0).astype(np.int16)
        return Phantom(np.array(volume[window], np.int16), lungs, Frame((x, y, z), frame.spacing, frame.direction))
    return None


def _has_nodule(metadata: Mapping[str, Any], frame: Frame, low: NDArray[Any], high: NDArray[Any]) -> bool:
    """Whether a published nodule reaches into a part of a scan."""
    spacing = np.array(frame.spacing[::-1])
    for nodule in metadata["nodules"]:
        diameter = nodule["diameter_mm"] or _UNKNOWN_DIAMETER_MM
        center, reach = np.array(nodule["center_voxel"][::-1]), diameter / 2 / spacing
        if ((center + reach >= low) & (center - reach <= high)).all():
            return True
    return False
