"""``lung-nodule-ct build``."""

from __future__ import annotations

import shlex
import sys
from contextlib import redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lung_nodule_ct.cli.options import Json, NumProc, Offline, SourceOption, chosen_configs
from lung_nodule_ct.cli.terminal import print_findings, print_json, terminal
from lung_nodule_ct.spec.splits import SplitBy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lung_nodule_ct.findings import Finding
    from lung_nodule_ct.targets.build import Engine, Layout


class Format(StrEnum):
    """What ``build`` writes."""

    PARQUET = "parquet"
    ARROW = "arrow"
    TFRECORD = "tfrecord"
    ARRAY_RECORD = "array_record"


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
    num_proc: NumProc = 1,
    split_by: Annotated[
        SplitBy, typer.Option("--split-by", help="The authors' splits, or splits without leaks, by patient.")
    ] = SplitBy.PUBLISHED,
    keep_source_names: Annotated[
        bool, typer.Option("--keep-source-names", help="Add the column source_name. It spells calendar dates.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at a finding of error grade; nothing is written.")
    ] = False,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Build configs into a Hub-ready folder of Parquet that load_dataset opens, into Arrow, or for TFDS."""
    chosen = chosen_configs(names, every)
    from lung_nodule_ct.progress import BuildProgress, DownloadProgress
    from lung_nodule_ct.source.choose import open_source
    from lung_nodule_ct.targets.build import BuildOptions, build_folder

    if beam_options and engine is not EngineName.BEAM:
        raise typer.BadParameter("only with --engine beam", param_hint="--beam-options")
    for_tfds = form in (Format.TFRECORD, Format.ARRAY_RECORD)
    if for_tfds and (split_by is not SplitBy.PUBLISHED or keep_source_names):
        raise typer.BadParameter("TFDS folders have the published splits and no source names; select by `fold`")
    if num_proc > 1 and (for_tfds or engine is EngineName.BEAM):
        raise typer.BadParameter("only for Parquet and Arrow on this machine", param_hint="--num-proc")
    with DownloadProgress() as listener:
        archives = open_source(source, chosen, offline=offline, listener=listener)
    if for_tfds:
        from lung_nodule_ct.targets.tfds_folder import build_tfds

        options_of_beam = shlex.split(beam_options) if engine is EngineName.BEAM else None
        with BuildProgress() as progress, redirect_stdout(sys.stderr):  # TFDS talks where our answer goes
            tfds = build_tfds(
                chosen, archives, out, str(form), strict=strict, beam_options=options_of_beam, listener=progress
            )
        _print_build(out, tfds.rows, tfds.findings, tfds.shared_patients, as_json)
        return
    writers: Engine | None = None
    if engine is EngineName.BEAM:
        from lung_nodule_ct.targets.beam_engine import BeamEngine

        writers = BeamEngine(shlex.split(beam_options))
    options = BuildOptions(split_by, keep_source_names, strict, num_proc)
    with BuildProgress() as progress:
        done = build_folder(chosen, archives, out, _layout(form, len(chosen)), options, progress, writers)
    rows = {name: config.rows for name, config in done.configs.items()}
    shared = {name: config.shared_patients for name, config in done.configs.items()}
    _print_build(out, rows, done.findings, shared, as_json)


def _print_build(
    out: Path,
    rows: Mapping[str, Mapping[str, int]],
    found: Mapping[str, tuple[Finding, ...]],
    shared: Mapping[str, Mapping[str, int]],
    as_json: bool,
) -> None:
    findings = list(dict.fromkeys(finding for own in found.values() for finding in own))
    if as_json:
        from lung_nodule_ct.findings import summarize

        print_json({"folder": str(out), "configs": rows, "findings": summarize(findings)})
        return
    print_findings(findings)
    console = terminal()
    for name in found:
        shown = (
            ", ".join(f"{split} {count:,}" for split, count in rows.get(name, {}).items()) or "no examples, left out"
        )
        console.print(f"[bold]{name}[/]: {shown}", highlight=False)
        for pair, count in shared.get(name, {}).items():
            if count:
                console.print(
                    f"  [yellow]{pair} share {count:,} patients[/]; --split-by patient gives splits without leaks"
                )
    console.print(f"written to {out}", highlight=False, soft_wrap=True)


def _layout(form: Format, configs: int) -> Layout:
    if form is Format.ARROW:
        from lung_nodule_ct.targets.arrow_folder import ArrowFolder

        return ArrowFolder(nested=configs > 1)
    from lung_nodule_ct.targets.hub_folder import HubFolder

    return HubFolder()
