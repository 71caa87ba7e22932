"""Registered pairs: every follow-up on the grid of the patient's first scan, as NIfTI, with its transform as an ITK file.

The fixed scan of a pair is the first one of the patient and slice thickness, so that all follow-ups lie on one grid. A pair that is not
registered is listed with its reason, and nothing of it is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lung_nodule_ct.errors import ExportError
from lung_nodule_ct.export.formats import ExportSummary, has_volumes_in_space, scan_stem
from lung_nodule_ct.export.nifti import NODULE_COLUMNS, SUFFIX, nodule_row, save_nifti, sheared_note, write_table
from lung_nodule_ct.system.imports import require_modules

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from lung_nodule_ct.declaration.schema import Schema
    from lung_nodule_ct.imaging.prepared_scan import PreparedScan
    from lung_nodule_ct.imaging.registration import Registration
    from lung_nodule_ct.imaging.scan import Scan
    from lung_nodule_ct.read.rows import IndexedRow

_MODULES: Final = ("scipy", "skimage", "SimpleITK")
_QUALITY: Final = ("correlation", "overlap", "jacobian", "rotation_deg", "blocks", "agreement", "residual_mm")
_SCANS: Final = (
    *("patient_id", "slice_thickness_mm", "fixed", "moving", "fixed_scan_id", "moving_scan_id"),
    *("fixed_timepoint", "moving_timepoint", "days"),
)
_MASKS: Final = ("fixed_lung_mask_origin", "moving_lung_mask_origin")
_FILES: Final = ("fixed_image", "fixed_lung_mask", "warped_image", "warped_lung_mask", "transform")
_PAIR_COLUMNS: Final = ("pair", *_SCANS, "is_registered", "reason", *_QUALITY, *_MASKS, *_FILES)
_ITK_OR_NIBABEL: Final = "Their pairs have the same grid; SimpleITK cannot read them, nibabel can"


def has_follow_ups(schema: Schema) -> bool:
    """Return whether a row is a volume in space with its patient, timepoint and slice thickness."""
    return has_volumes_in_space(schema) and {"patient_id", "timepoint", "slice_thickness_mm"} <= set(schema.names)


def write_pairs(_schema: Schema, rows: Iterable[IndexedRow], folder: Path) -> ExportSummary:
    """Write the first scan of each patient and slice thickness, its follow-ups on the same grid, and their transforms.

    ``pairs.csv`` has one row per follow-up: the quality of the registration, or the reason why there is none. ``nodules.csv`` has the
    nodules of both scans on the grid of the fixed one. In memory are the first scans of one patient, and one follow-up.

    Raises:
        MissingExtraError: The extra ``imaging`` is not installed.
        ExportError: The rows of a patient are not in the order of time, or no scan has a follow-up.
    """
    require_modules("imaging", "registering scans", *_MODULES)
    from lung_nodule_ct.imaging.registration import register, warp  # noqa: PLC0415 -- an extra

    pairs: list[dict[str, Any]] = []
    nodules: list[dict[str, Any]] = []
    alone: set[str] = set()
    fixed_files: dict[str, dict[str, str]] = {}
    sheared: list[str] = []
    for fixed, moving in _follow_ups(rows):
        if moving is None:
            alone.add(fixed.case)
            continue
        alone.discard(fixed.case)
        registration = register(fixed.prepared, moving.prepared)
        pair = _entry(fixed, moving, registration)
        pairs.append(pair)
        if registration.transform is None:
            continue
        if fixed.case not in fixed_files:
            fixed_files[fixed.case] = _write_scan(folder, "fixed", fixed.case, fixed.scan)
            nodules += [_nodule(fixed.case, nodule) for nodule in fixed.scan.nodules]
            sheared += [] if fixed.scan.grid[0].is_orthonormal else [fixed.case]
        warped = warp(moving.scan, registration.transform, fixed.scan)
        nodules += [_nodule(pair["pair"], nodule) for nodule in warped.nodules]
        pair |= fixed_files[fixed.case] | _write_scan(folder, "warped", pair["pair"], warped)
        pair["transform"] = f"transforms/{pair['pair']}.tfm"
        (folder / "transforms").mkdir(exist_ok=True)
        (folder / pair["transform"]).write_text(registration.transform.to_itk(), encoding="ascii")
    if not pairs:
        raise ExportError(
            f"there is no pair to export: {_alone(len(alone))}",
            expected="scans of two dates of a patient with one slice thickness",
            remedy="export a build of more scans; one that was made with --limit may hold one date of a patient",
        )
    write_table(folder / "pairs.csv", _PAIR_COLUMNS, pairs)
    write_table(folder / "nodules.csv", [*NODULE_COLUMNS, "track_id"], nodules)
    registered = sum(pair["is_registered"] for pair in pairs)
    notes = [*sheared_note(sheared, _ITK_OR_NIBABEL)]
    if registered < len(pairs):
        notes.append(
            f"{len(pairs) - registered:,} of {len(pairs):,} pairs are unregistered and not written; pairs.csv has their reasons"
        )
    if alone:
        notes.append(_alone(len(alone)))
    return ExportSummary(len(fixed_files) + registered, len(nodules), notes=tuple(notes))


def _alone(count: int) -> str:
    scans = "1 scan has no pair: it is" if count == 1 else f"{count:,} scans have no pair: each is"
    return f"{scans} the only one of its patient and slice thickness, or has no patient or date"


@dataclass(frozen=True, eq=False)
class _DatedScan:
    """A scan, its place in time, and the name of its files."""

    case: str
    scan_id: str | None
    patient: str | None
    timepoint: int | None
    thickness: float
    days: int | None
    lung_mask_origin: str | None
    prepared: PreparedScan

    @classmethod
    def of(cls, indexed: IndexedRow) -> _DatedScan:
        """Read the scan of a row. Its voxels stay valid after the next row is read."""
        from lung_nodule_ct.imaging.prepared_scan import prepare_scan  # noqa: PLC0415 -- an extra
        from lung_nodule_ct.imaging.scan import Scan  # noqa: PLC0415

        row: dict[str, Any] = {
            name: value.copy() if isinstance(value, np.ndarray) else value for name, value in indexed.row.items()
        }
        return cls(
            scan_stem(indexed),
            row.get("scan_id"),
            row["patient_id"],
            row["timepoint"],
            float(row["slice_thickness_mm"]),
            row.get("days_since_first"),
            row.get("lung_mask_origin"),
            prepare_scan(Scan.from_row(row)),
        )

    @property
    def scan(self) -> Scan:
        return self.prepared.scan


def _follow_ups(rows: Iterable[IndexedRow]) -> Iterator[tuple[_DatedScan, _DatedScan | None]]:
    """Each scan without an earlier one, alone, and each other one with the first scan of its patient and slice thickness."""
    firsts: dict[float, _DatedScan] = {}
    finished: set[str] = set()
    patient: str | None = None
    for indexed in rows:
        scan = _DatedScan.of(indexed)
        if scan.patient is None or scan.timepoint is None:
            yield scan, None
            continue
        if scan.patient != patient:
            finished |= set() if patient is None else {patient}
            patient, firsts = scan.patient, {}
        first = firsts.setdefault(scan.thickness, scan)
        if scan.patient in finished or scan.timepoint < (first.timepoint or 0):
            raise ExportError(
                f"{indexed} is not in the order of time",
                expected="the scans of a patient one after the other, the earliest first",
                got=f"timepoint {scan.timepoint} of patient {scan.patient}",
                remedy="export longitudinal, which has this order",
            )
        yield (first, None) if first is scan else (first, scan)


def _entry(fixed: _DatedScan, moving: _DatedScan, registration: Registration) -> dict[str, Any]:
    """The row of a pair in the table, without its files."""
    quality = registration.quality
    days = None if fixed.days is None or moving.days is None else moving.days - fixed.days
    return {
        "pair": f"{moving.case}_on_{fixed.case}",
        "patient_id": fixed.patient,
        "slice_thickness_mm": fixed.thickness,
        "fixed": fixed.case,
        "moving": moving.case,
        "fixed_scan_id": fixed.scan_id,
        "moving_scan_id": moving.scan_id,
        "fixed_timepoint": fixed.timepoint,
        "moving_timepoint": moving.timepoint,
        "days": days,
        "is_registered": registration.is_registered,
        "reason": registration.reason,
        **{name: None if quality is None else getattr(quality, name) for name in _QUALITY},
        "fixed_lung_mask_origin": fixed.lung_mask_origin,
        "moving_lung_mask_origin": moving.lung_mask_origin,
    }


def _write_scan(folder: Path, kind: str, name: str, scan: Scan) -> dict[str, str]:
    """Write a scan and its lung mask. Returns the files by column."""
    frame, _ = scan.grid
    files = {f"{kind}_image": f"{kind}_images/{name}{SUFFIX}"}
    save_nifti(folder / files[f"{kind}_image"], np.asarray(scan.array[...]), frame)
    if scan.lung_mask is not None:
        files[f"{kind}_lung_mask"] = f"{kind}_lung_masks/{name}{SUFFIX}"
        save_nifti(folder / files[f"{kind}_lung_mask"], scan.lung_mask, frame)
    return files


def _nodule(case: str, nodule: Mapping[str, Any]) -> dict[str, Any]:
    return {**nodule_row(case, nodule), "track_id": nodule.get("track_id")}
