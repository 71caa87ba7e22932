"""What all export formats share: which configs a format applies to, the names of files, and what an export wrote."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from lung_nodule_ct.declaration.schema import Picture, Records, Voxels
from lung_nodule_ct.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from lung_nodule_ct.declaration.schema import Schema
    from lung_nodule_ct.read.rows import IndexedRow

_MAX_NAMES: Final = 5
_FILE_NAME: Final = re.compile(r"\w(?:[\w. +=()-]*[\w)])?")


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What an export wrote.

    Attributes:
        images: Number of pictures or volumes.
        annotations: Number of boxes, spheres or instances.
        left_out: Number of annotations that the format cannot hold.
        notes: What a user of the export must know, one sentence each.
    """

    images: int
    annotations: int
    left_out: int = 0
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        return {**asdict(self), "notes": list(self.notes)}


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """One export format.

    Attributes:
        name: Name on the command line.
        applies_to: Whether the format can hold rows of a schema.
        requires: What such a schema has, as a noun phrase for messages.
        write: Writes the rows of one config, whose schema is the first argument, into a folder.
    """

    name: str
    applies_to: Callable[[Schema], bool]
    requires: str
    write: Callable[[Schema, Iterable[IndexedRow], Path], ExportSummary]


def has_boxes_in_pictures(schema: Schema) -> bool:
    """Return whether a row is a picture with 2D boxes, or an 8-bit volume with boxes and without a frame."""
    if column_names(schema, Picture):
        return has_records(schema, "bbox")
    volumes = column_names(schema, Voxels)
    if not volumes or schema.has_frame:
        return False
    return schema.column(volumes[0]).type == Voxels("uint8") and has_records(schema, "box_voxel")


def has_volumes_in_space(schema: Schema) -> bool:
    """Return whether a row is a volume with origin, spacing and direction."""
    return schema.has_voxels and schema.has_frame


def has_spheres_in_space(schema: Schema) -> bool:
    """Return whether a row is a volume in space with the world centres and diameters of nodules."""
    return has_volumes_in_space(schema) and has_records(schema, "center_world", "diameter_mm")


def has_masks_in_space(schema: Schema) -> bool:
    """Return whether a row is a volume in space with another volume on its grid, as a lung mask."""
    return has_volumes_in_space(schema) and len(column_names(schema, Voxels)) > 1


def column_names(schema: Schema, type_: type[Picture | Voxels]) -> list[str]:
    """Return the names of the columns of a type, in their order."""
    return [column.name for column in schema.columns if isinstance(column.type, type_)]


def has_records(schema: Schema, *fields: str) -> bool:
    """Return whether a column holds records that have some fields."""
    return _record_column(schema, fields) is not None


def records_of(schema: Schema, row: Mapping[str, Any], *fields: str) -> list[dict[str, Any]]:
    """Return the records of a row that have some fields, whatever the name of their column; empty if there are none."""
    column = _record_column(schema, fields)
    records: list[dict[str, Any]] = [] if column is None else row[column]
    return records


def _record_column(schema: Schema, fields: Sequence[str]) -> str | None:
    for column in schema.columns:
        if isinstance(column.type, Records) and set(fields) <= {field.name for field in column.type.fields}:
            return column.name
    return None


def picture_stem(indexed: IndexedRow) -> str:
    """Return the stem of the file of a picture or stack: its id, or its position in the build if it has none."""
    row = indexed.row
    return _file_name(indexed, row.get("image_id") or row.get("case_id") or f"{indexed.split}{indexed.number:05d}")


def scan_stem(indexed: IndexedRow) -> str:
    """Return the stem of the file of a scan: id and slice thickness, without dots and dates.

    A scan without an id is named by its position in the build.
    """
    row = indexed.row
    stem = _file_name(indexed, row.get("scan_id") or f"{indexed.split}{indexed.number:05d}")
    thickness = row.get("slice_thickness_mm")
    return stem if thickness is None else f"{stem}_{thickness:g}mm".replace(".", "p")


def _file_name(indexed: IndexedRow, name: str) -> str:
    """Return an id that is the name of a file on every system, and not a path.

    Raises:
        ExportError: It is another text, as in a build that someone has changed.
    """
    for text in (indexed.split, name):
        if _FILE_NAME.fullmatch(text) is None:
            raise ExportError(
                f"{indexed} has an id or a split that cannot be the name of a file",
                expected="letters, digits, and -, _, . or blanks between them",
                got=repr(text[:80]),
                remedy="build it again from the archives, where such ids do not occur",
            )
    return name


def shortened_list(cases: Sequence[str]) -> str:
    """Return the names of some cases for a note: the first ones, and a sign if there are more."""
    return ", ".join(cases[:_MAX_NAMES]) + (", …" if len(cases) > _MAX_NAMES else "")


def patient_splits(folds: Mapping[int, Sequence[str]]) -> list[dict[str, list[str]]]:
    """Return a split into ``train`` and ``val`` for each fold that has cases; none if all cases have the same fold.

    Args:
        folds: The cases of each fold. A fold has complete patients.
    """
    splits = [
        {"train": sorted(case for other in folds if other != fold for case in folds[other]), "val": sorted(folds[fold])}
        for fold in sorted(folds)
    ]
    return splits if len(splits) > 1 else []
