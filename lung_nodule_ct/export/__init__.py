"""Configs of a build in the file layouts of other tools.

Each format is one function that writes rows into a folder; :data:`FORMATS` lists them with the schemas that they can
hold. :func:`export_config` passes each function a temporary folder, which replaces the output only when it is complete.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.declaration.manifest import GENERATOR, to_json
from lung_nodule_ct.errors import ExportError, LungNoduleCTError, OutputError
from lung_nodule_ct.export import nifti, nndetection, nnunet
from lung_nodule_ct.export.dicom_seg import write_dicom_seg
from lung_nodule_ct.export.formats import (
    ExportFormat,
    has_boxes_in_pictures,
    has_masks_in_space,
    has_spheres_in_space,
    has_volumes_in_space,
)
from lung_nodule_ct.export.hub_nifti import write_hub_nifti
from lung_nodule_ct.export.luna16 import write_luna16
from lung_nodule_ct.export.pairs import has_follow_ups, write_pairs
from lung_nodule_ct.export.pictures import write_coco, write_voc, write_yolo
from lung_nodule_ct.export.slicer import write_slicer
from lung_nodule_ct.read.rows import iterate_rows
from lung_nodule_ct.system.staging import staged_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lung_nodule_ct.export.formats import ExportSummary
    from lung_nodule_ct.read.build_folder import BuildFolder
    from lung_nodule_ct.system.progress import BuildProgress

EXPORT_MANIFEST: Final = "export.json"
_FORMAT_VERSION = 1
_CACHES = re.compile(r"labels/[^/]+\.cache")  # written by Ultralytics when it reads the labels

_PICTURES = "2D boxes in pictures or in 8-bit slices"
_VOLUMES = "volumes with origin, spacing and direction"
_FOLLOW_UPS = f"{_VOLUMES}, and the patient and timepoint of each scan"
_MASKS = f"{_VOLUMES}, and a mask"
_SPHERES = f"{_VOLUMES}, and nodules with world centres and diameters"

FORMATS: Final[Mapping[str, ExportFormat]] = {
    format_.name: format_
    for format_ in (
        ExportFormat("coco", has_boxes_in_pictures, _PICTURES, write_coco),
        ExportFormat("yolo", has_boxes_in_pictures, _PICTURES, write_yolo),
        ExportFormat("voc", has_boxes_in_pictures, _PICTURES, write_voc),
        ExportFormat("monai", has_spheres_in_space, _SPHERES, nifti.write_monai),
        ExportFormat("nndetection", has_spheres_in_space, _SPHERES, nndetection.write_nndetection),
        ExportFormat("luna16", has_spheres_in_space, _SPHERES, write_luna16),
        ExportFormat("nnunet", has_spheres_in_space, _SPHERES, nnunet.write_nnunet),
        ExportFormat("nnunet-lungs", has_masks_in_space, _MASKS, nnunet.write_nnunet_lungs),
        ExportFormat("slicer", has_spheres_in_space, _SPHERES, write_slicer),
        ExportFormat("dicom-seg", has_masks_in_space, _MASKS, write_dicom_seg),
        ExportFormat("nifti", has_volumes_in_space, _VOLUMES, nifti.write_nifti),
        ExportFormat("hub-nifti", has_volumes_in_space, _VOLUMES, write_hub_nifti),
        ExportFormat("nifti-pairs", has_follow_ups, _FOLLOW_UPS, write_pairs),
    )
}


def export_config(
    build: BuildFolder, config: str, to: str, out: Path, progress: BuildProgress | None = None
) -> ExportSummary:
    """Write a config in the layout of another tool. One row group and all annotations are in memory at a time.

    Args:
        build: The build, from :func:`lung_nodule_ct.read.build_folder.open_build`.
        config: The name of one of its configs.
        to: The name of a format in :data:`FORMATS`.
        out: The output folder. An earlier export in it is replaced.
        progress: Receives the progress.

    Raises:
        ExportError: The format is unknown, or it cannot hold the config.
        BuildFolderError: The build does not contain the config, or is damaged.
        MissingExtraError: A package that the format needs is not installed.
        OutputError: The folder contains other files, or cannot be written.
    """
    if to not in FORMATS:
        raise ExportError(f"there is no export to {to!r}", expected=f"one of {', '.join(FORMATS)}")
    schema = build.config(config).schema
    format_ = FORMATS[to]
    if not format_.applies_to(schema):
        configs = [name for name in build.configs if format_.applies_to(build.config(name).schema)]
        others = [other.name for other in FORMATS.values() if other.applies_to(schema)]
        raise ExportError(
            f"{to} cannot hold {config}",
            expected=f"a config with {format_.requires}; in this build: {', '.join(configs) or 'none'}",
            remedy=f"export {config} to {' or '.join(others)}" if others else "choose another config",
        )
    with staged_folder(out, find_foreign=_foreign_file, kind="export") as stage:
        try:
            summary = format_.write(schema, iterate_rows(build, [config], progress), stage)
            if build.limit_note:
                summary = replace(summary, notes=(*summary.notes, build.limit_note))
            files = sorted(path.relative_to(stage).as_posix() for path in stage.rglob("*") if path.is_file())
            document = {
                "format_version": _FORMAT_VERSION,
                "generator": GENERATOR,
                "config": config,
                "to": to,
                **summary.to_dict(),
                "files": files,
            }
            (stage / EXPORT_MANIFEST).write_text(to_json(document), encoding="utf-8")
        except LungNoduleCTError:
            raise
        except OSError as error:
            raise OutputError(f"{out} cannot be written: {error}") from error
    return summary


def _foreign_file(folder: Path) -> str | None:
    """Return a file that no export wrote, ``None`` if there is none."""
    try:
        manifest = json.loads((folder / EXPORT_MANIFEST).read_text("utf-8"))
        ours = {*manifest["files"], EXPORT_MANIFEST} if manifest["generator"].startswith("lung_nodule_ct ") else set()
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        ours = set()
    names = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if not path.is_dir())
    return next((name for name in names if name not in ours and not (ours and _CACHES.fullmatch(name))), None)
