"""``lung-nodule-ct export``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lung_nodule_ct.cli.options import Json, complete_config
from lung_nodule_ct.cli.terminal import print_json, terminal


class FormatName(StrEnum):
    """The names of the export formats."""

    COCO = "coco"
    YOLO = "yolo"
    VOC = "voc"
    MONAI = "monai"
    NNDETECTION = "nndetection"
    LUNA16 = "luna16"
    NNUNET = "nnunet"
    NNUNET_LUNGS = "nnunet-lungs"
    SLICER = "slicer"
    DICOM_SEG = "dicom-seg"
    NIFTI = "nifti"
    HUB_NIFTI = "hub-nifti"
    NIFTI_PAIRS = "nifti-pairs"


def export(
    build: Annotated[Path, typer.Argument(metavar="BUILD", help="Folder of a build in Parquet or Arrow format.")],
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="One of its configs.", autocompletion=complete_config)
    ],
    to: Annotated[
        FormatName,
        typer.Option(
            "--to",
            help="The format. Boxes in pictures or 8-bit stacks: coco, yolo, voc. Scans: nifti, monai, nndetection, luna16, slicer, "
            "nnunet (spheres for nodules), nnunet-lungs and dicom-seg (lung masks), hub-nifti (for the volume view of the Hub). "
            "Follow-ups registered on the first scan of the patient: nifti-pairs.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The output folder. An earlier export in it is replaced.")],
    as_json: Json = False,
) -> None:
    """Write a config of a build in the file layout of another tool."""
    from lung_nodule_ct.export import export_config
    from lung_nodule_ct.read.build_folder import open_build
    from lung_nodule_ct.system.progress import BuildProgressBar

    folder = open_build(build)
    with BuildProgressBar() as progress:
        summary = export_config(folder, config, to.value, out, progress)
    if as_json:
        print_json({"folder": str(out), "config": config, "to": str(to), **summary.to_dict()})
        return
    console = terminal()
    console.print(f"{summary.images:,} images, {summary.annotations:,} annotations", highlight=False)
    if summary.left_out:
        console.print(f"[yellow]{summary.left_out:,} annotations left out[/]: {to} cannot hold them", highlight=False)
    for note in summary.notes:
        console.print(f"[yellow]![/] {note}", highlight=False)
    console.print(f"written to {out}", highlight=False, soft_wrap=True)
