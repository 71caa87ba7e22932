"""``lung-nodule-ct export``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lung_nodule_ct.cli.options import Json
from lung_nodule_ct.cli.terminal import print_json, terminal


class FormName(StrEnum):
    """The forms that a config can be exported to."""

    COCO = "coco"
    YOLO = "yolo"
    VOC = "voc"
    MONAI = "monai"
    NNDETECTION = "nndetection"
    NIFTI = "nifti"


def export(
    build: Annotated[Path, typer.Argument(metavar="BUILD", help="The folder of a build, Parquet or Arrow.")],
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="One of its configs.")],
    to: Annotated[
        FormName,
        typer.Option(
            "--to",
            help="Boxes on pictures (det2d, det3d_bmp): coco, yolo, voc. Scans (det3d, longitudinal): nifti, monai, nndetection.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The folder to write. An export that stands there is replaced.")],
    as_json: Json = False,
) -> None:
    """Write a config of a build in the layout of another tool."""
    from lung_nodule_ct.export import export_config
    from lung_nodule_ct.read.build_folder import open_build
    from lung_nodule_ct.system.progress import BuildProgressBar

    opened = open_build(build)
    with BuildProgressBar() as progress:
        counted = export_config(opened, config, to.value, out, progress)
    if as_json:
        print_json({"folder": str(out), "config": config, "to": str(to), **counted.to_dict()})
        return
    console = terminal()
    console.print(f"{counted.images:,} images, {counted.annotations:,} annotations", highlight=False)
    if counted.left_out:
        console.print(f"[yellow]{counted.left_out:,} annotations left out[/]: {to} cannot hold them", highlight=False)
    for note in counted.notes:
        console.print(f"[yellow]![/] {note}", highlight=False)
    console.print(f"written to {out}", highlight=False, soft_wrap=True)
