"""What users of other tools asked their datasets for: a config in the layout that those tools read.

A module a form, beside what several forms share (:mod:`.boxed`, :mod:`.nifti_file`, :mod:`.spheres`). Each form is one function from
rows to files; :func:`export_config` gives it a folder that appears whole or not at all.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.declaration.configs import DET2D_1_25MM, DET3D_1_25MM, DET3D_5MM, DET3D_BMP_1_25MM, LONGITUDINAL
from lung_nodule_ct.declaration.manifest import GENERATOR, to_json
from lung_nodule_ct.errors import ExportError, LungNoduleCTError, OutputError
from lung_nodule_ct.export import monai, nifti, nndetection
from lung_nodule_ct.export.detection_2d import write_coco, write_voc, write_yolo
from lung_nodule_ct.read.rows import iterate_rows
from lung_nodule_ct.system.staging import staged_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from lung_nodule_ct.export.written import Counted
    from lung_nodule_ct.read.build_folder import BuildFolder
    from lung_nodule_ct.read.rows import IndexedRow
    from lung_nodule_ct.system.progress import BuildProgress

MANIFEST: Final = "export.json"
_FORMAT_VERSION = 1
_CACHES = re.compile(r"labels/[^/]+\.cache")  # Ultralytics leaves them where it has read
_BOXED = (DET2D_1_25MM.name, DET3D_BMP_1_25MM.name)
_SCANS = (DET3D_1_25MM.name, DET3D_5MM.name, LONGITUDINAL.name)


@dataclass(frozen=True, slots=True)
class Form:
    """One form of export.

    Attributes:
        name: As the command line has it.
        configs: The configs it applies to.
        write: Writes rows of one of them into a folder.
    """

    name: str
    configs: tuple[str, ...]
    write: Callable[[Iterable[IndexedRow], Path], Counted]


FORMS: Final[Mapping[str, Form]] = {
    form.name: form
    for form in (
        Form("coco", _BOXED, write_coco),
        Form("yolo", _BOXED, write_yolo),
        Form("voc", _BOXED, write_voc),
        Form("monai", _SCANS, monai.write),
        Form("nndetection", _SCANS, nndetection.write),
        Form("nifti", _SCANS, nifti.write),
    )
}


def export_config(
    build: BuildFolder, config: str, to: str, out: Path, progress: BuildProgress | None = None
) -> Counted:
    """Write a config in another tool's layout. Row by row; a row group and the annotations are in memory.

    Args:
        build: What :func:`.built.open_build` opened.
        config: One of its configs.
        to: A name of :data:`FORMS`.
        out: The folder; an earlier export there is replaced.
        progress: Is told how far it is.

    Raises:
        ExportError: There is no such form, or it does not apply to the config.
        BuildFolderError: The build does not hold the config, or is damaged.
        MissingExtraError: A package that the form needs is not installed.
        OutputError: The folder holds something else, or cannot be written.
    """
    if to not in FORMS:
        raise ExportError(f"there is no export to {to!r}", expected=f"one of {', '.join(FORMS)}")
    build.splits(config)
    form = FORMS[to]
    if config not in form.configs:
        others = [other.name for other in FORMS.values() if config in other.configs]
        raise ExportError(
            f"{to} does not apply to {config}",
            expected=f"one of {', '.join(form.configs)}",
            remedy=f"export it to {' or '.join(others)}" if others else "it has neither boxes nor volumes",
        )
    with staged_folder(out, find_foreign=_foreign_file, kind="export") as stage:
        try:
            counted = form.write(iterate_rows(build, [config], progress), stage)
            files = sorted(path.relative_to(stage).as_posix() for path in stage.rglob("*") if path.is_file())
            document = {
                "format_version": _FORMAT_VERSION,
                "generator": GENERATOR,
                "config": config,
                "to": to,
                **counted.to_dict(),
                "files": files,
            }
            (stage / MANIFEST).write_text(to_json(document), encoding="utf-8")
        except LungNoduleCTError:
            raise
        except OSError as error:
            raise OutputError(f"{out} cannot be written: {error}") from error
    return counted


def _foreign_file(folder: Path) -> str | None:
    """A file in a folder that no export of ours wrote, if there is one."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        ours = {*manifest["files"], MANIFEST} if manifest["generator"].startswith("lung_nodule_ct ") else set()
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        ours = set()
    names = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if not path.is_dir())
    return next((name for name in names if name not in ours and not (ours and _CACHES.fullmatch(name))), None)
