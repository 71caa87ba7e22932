"""``lung-nodule-ct build``."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lung_nodule_ct.cli.options import Json, NumProc, Offline, SourceOption, chosen_configs
from lung_nodule_ct.cli.terminal import print_findings, print_json, terminal
from lung_nodule_ct.declaration.labels import SplitBy
from lung_nodule_ct.system.imports import needing

if TYPE_CHECKING:
    from lung_nodule_ct.targets.build import Build, Layout
    from lung_nodule_ct.targets.engine import Engine


class Format(StrEnum):
    """What ``build`` writes."""

    PARQUET = "parquet"
    ARROW = "arrow"
    TFRECORD = "tfrecord"
    ARRAY_RECORD = "array_record"


class VolumeCodecName(StrEnum):
    """How voxels stand in Parquet."""

    RAW = "raw"
    B2ND = "b2nd"


class EngineName(StrEnum):
    """Who writes the shards."""

    LOCAL = "local"
    BEAM = "beam"


def build(
    names: Annotated[list[str] | None, typer.Argument(metavar="CONFIG...", help="The configs to build.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Build all six configs.")] = False,
    source: SourceOption = None,
    out: Annotated[
        Path, typer.Option("--out", help="The folder to write. A build of ours that stands there is replaced.")
    ] = Path("build/lung_nodule_ct"),
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="Parquet for the Hub, Arrow that load_from_disk maps into memory, or a data_dir for tfds.load (tfrecord) or "
            "tfds.data_source (array_record).",
        ),
    ] = Format.PARQUET,
    engine: Annotated[
        EngineName, typer.Option("--engine", help="This machine, or Apache Beam on whatever runner.")
    ] = EngineName.LOCAL,
    beam_options: Annotated[
        str,
        typer.Option("--beam-options", help='As on Beam\'s own command line: "--runner=FlinkRunner --parallelism=8".'),
    ] = "",
    volume_codec: Annotated[
        VolumeCodecName,
        typer.Option(
            "--volume-codec", help="b2nd: smaller Parquet, and patches read fast from it; to read it takes blosc2."
        ),
    ] = VolumeCodecName.RAW,
    num_proc: NumProc = 1,
    split_by: Annotated[
        SplitBy, typer.Option("--split-by", help="The authors' splits, or splits without leaks, by patient.")
    ] = SplitBy.PUBLISHED,
    keep_source_names: Annotated[
        bool,
        typer.Option(
            "--keep-source-names",
            help="Add the column source_name, and keep pictures' metadata. They spell calendar dates.",
        ),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at a finding of error grade; nothing is written.")
    ] = False,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Build configs into a Hub-ready folder of Parquet that load_dataset opens, into Arrow, or for TFDS."""
    chosen = chosen_configs(names, every)
    from lung_nodule_ct.publish.card import write_first_card
    from lung_nodule_ct.sources.resolve import open_source
    from lung_nodule_ct.system.progress import BuildProgressBar, DownloadProgressBar
    from lung_nodule_ct.targets.build import BuildOptions, build_folder

    if beam_options and engine is not EngineName.BEAM:
        raise typer.BadParameter("only with --engine beam", param_hint="--beam-options")
    if keep_source_names and form in (Format.TFRECORD, Format.ARRAY_RECORD):
        raise typer.BadParameter("TFDS reads the columns that the builder declares", param_hint="--keep-source-names")
    if num_proc > 1 and engine is EngineName.BEAM:
        raise typer.BadParameter("Beam has its own: --beam-options", param_hint="--num-proc")
    with DownloadProgressBar() as progress:
        archives = open_source(source, chosen, offline=offline, progress=progress)
    if volume_codec is VolumeCodecName.B2ND and form is not Format.PARQUET:
        raise typer.BadParameter("only for Parquet", param_hint="--volume-codec")
    layout = _layout(form, len(chosen), volume_codec)
    writers = _engine(engine, shlex.split(beam_options))
    options = BuildOptions(split_by, keep_source_names, strict, num_proc)
    with BuildProgressBar() as progress:
        add_card = write_first_card if form is Format.PARQUET else None
        done = build_folder(chosen, archives, out, layout, options, progress, writers, add_card)
    _print_build(out, done, as_json)


def _print_build(out: Path, done: Build, as_json: bool) -> None:
    findings = list(dict.fromkeys(finding for own in done.findings.values() for finding in own))
    rows = {name: config.rows for name, config in done.configs.items()}
    if as_json:
        from lung_nodule_ct.declaration.findings import summarize

        print_json({"folder": str(out), "configs": rows, "findings": summarize(findings)})
        return
    print_findings(findings)
    console = terminal()
    for name in done.findings:
        shown = ", ".join(f"{split} {count:,}" for split, count in rows.get(name, {}).items())
        console.print(f"[bold]{name}[/]: {shown or 'no examples, left out'}", highlight=False)
        shared = done.configs[name].shared_patients if name in done.configs else {}
        for pair, count in shared.items():
            if count:
                console.print(
                    f"  [yellow]{pair} share {count:,} patients[/]; --split-by patient gives splits without leaks"
                )
    console.print(f"written to {out}", highlight=False, soft_wrap=True)


def _layout(form: Format, configs: int, volume_codec: VolumeCodecName) -> Layout:
    if form is Format.ARROW:
        from lung_nodule_ct.targets.arrow import ArrowLayout

        return ArrowLayout(nested=configs > 1)
    if form is Format.PARQUET:
        from lung_nodule_ct.targets.parquet import ParquetLayout

        return ParquetLayout("b2nd" if volume_codec is VolumeCodecName.B2ND else "raw")
    with needing("tfds", f"--format {form}"):
        from lung_nodule_ct.targets.tfds.folder import TfdsLayout

    return TfdsLayout("tfrecord" if form is Format.TFRECORD else "array_record")


def _engine(name: EngineName, options: list[str]) -> Engine | None:
    if name is EngineName.LOCAL:
        return None
    with needing("beam", "--engine beam"):
        from lung_nodule_ct.targets.beam import BeamEngine

    return BeamEngine(options)
