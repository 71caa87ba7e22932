"""``lung-nodule-ct build`` and ``lung-nodule-ct prepare``, which builds into the cache of ``datasets``."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lung_nodule_ct.cli.options import (
    DEFAULT_BUILD,
    Json,
    NumProc,
    Offline,
    Quiet,
    SourceOption,
    chosen_configs,
    complete_config,
)
from lung_nodule_ct.cli.terminal import print_findings, print_json, terminal
from lung_nodule_ct.declaration.computed import KeySlices
from lung_nodule_ct.declaration.labels import SplitBy
from lung_nodule_ct.declaration.manifest import Format, VolumeCodec
from lung_nodule_ct.errors import OptionError
from lung_nodule_ct.system.object_store import ObjectFolder, is_url
from lung_nodule_ct.targets.options import BuildOptions, EngineName

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lung_nodule_ct.targets.shards import Build


def build(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="CONFIG...", help="The configs to build.", autocompletion=complete_config),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Build all configs.")] = False,
    source: SourceOption = None,
    out: Annotated[
        str,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="The folder to write, or its URL (s3://...). If a folder holds a build of the same archives with the same options, the "
            "configs are added to it or renewed in it.",
        ),
    ] = str(DEFAULT_BUILD),
    format_: Annotated[
        Format,
        typer.Option(
            "--format",
            help="Parquet for the Hub, Arrow that load_from_disk maps into memory, or a data_dir for tfds.load (tfrecord) or "
            "tfds.data_source (array_record).",
        ),
    ] = Format.PARQUET,
    engine: Annotated[
        EngineName, typer.Option("--engine", help="This machine, or Apache Beam on any runner.")
    ] = EngineName.LOCAL,
    beam_options: Annotated[
        str,
        typer.Option(
            "--beam-options", help='Options of Apache Beam\'s command line: "--runner=FlinkRunner --parallelism=8".'
        ),
    ] = "",
    volume_codec: Annotated[
        VolumeCodec,
        typer.Option(
            "--volume-codec", help="b2nd: smaller Parquet or Arrow with fast access to patches; reading needs blosc2."
        ),
    ] = VolumeCodec.RAW,
    num_proc: NumProc = 1,
    split_by: Annotated[
        SplitBy, typer.Option("--split-by", help="The published splits, or splits by patient, without leakage.")
    ] = SplitBy.PUBLISHED,
    keep_source_names: Annotated[
        bool,
        typer.Option(
            "--keep-source-names",
            help="Add the column source_name, and keep the metadata of pictures. Both may identify patients.",
        ),
    ] = False,
    make_lung_masks: Annotated[
        bool,
        typer.Option(
            "--make-lung-masks",
            help="Make a lung mask for each scan that has no published one; lung_mask_origin says which is which.",
        ),
    ] = False,
    key_slices: Annotated[
        KeySlices,
        typer.Option(
            "--key-slices",
            help="The key slice of a nodule: that of the annotated centre, or by evidence in the voxels.",
        ),
    ] = KeySlices.CENTRE,
    track: Annotated[
        bool,
        typer.Option("--track", help="In longitudinal, follow the nodules over the scans of each patient: track_id."),
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            metavar="N",
            min=1,
            help="Build only the first N examples of each split, to try things out; in longitudinal, an example is a scan. "
            "Archives from Zenodo are downloaded completely first. Findings, manifest and card say that the build is not complete.",
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at a finding of error grade; nothing is written.")
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace a build at --out, also one of other archives or options, and its files that were changed. Other files are kept.",
        ),
    ] = False,
    offline: Offline = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Build configs: Parquet that load_dataset opens and the Hub shows, Arrow, or a data_dir for TFDS."""
    chosen = chosen_configs(names, every)
    try:
        options = BuildOptions(
            format=format_,
            split_by=split_by,
            keep_source_names=keep_source_names,
            strict=strict,
            num_proc=num_proc,
            volume_codec=volume_codec,
            engine=engine,
            beam_options=beam_options,
            make_lung_masks=make_lung_masks,
            key_slices=key_slices,
            track=track,
            limit=limit,
        )
        options.check(chosen)
        target = ObjectFolder(out) if is_url(out) else Path(out)
    except OptionError as error:
        raise typer.BadParameter(error.message, param_hint=f"--{error.option.replace('_', '-')}") from error
    if format_ is Format.PARQUET and isinstance(target, Path) and "[" in str(target.absolute()):
        from lung_nodule_ct.system.progress import notice

        notice(
            f"load_dataset takes the [ in {target.absolute()} as the start of a pattern and finds no file: rename the folder "
            "before you load it, or choose another --out"
        )
    from lung_nodule_ct.publish.card import write_first_card
    from lung_nodule_ct.sources.resolve import open_source
    from lung_nodule_ct.system.progress import BuildProgress, BuildProgressBar, DownloadProgress, DownloadProgressBar
    from lung_nodule_ct.targets.build import build_folder
    from lung_nodule_ct.targets.build_url import build_at_url

    with nullcontext(DownloadProgress()) if quiet else DownloadProgressBar() as downloads:
        archives = open_source(source, chosen, offline=offline, progress=downloads)
    add_files = write_first_card if format_ is Format.PARQUET else None
    with nullcontext(BuildProgress()) if quiet else BuildProgressBar() as progress:
        if isinstance(target, Path):
            done = build_folder(chosen, archives, target, options, progress, add_files, overwrite=overwrite)
        else:
            done = build_at_url(chosen, archives, target, options, progress, add_files, overwrite=overwrite)
    _print_build(str(target), done, as_json)


def _print_build(out: str, done: Build, as_json: bool) -> None:
    findings = list(dict.fromkeys(finding for own in done.findings.values() for finding in own))
    rows = {name: config.rows for name, config in done.configs.items()}
    if as_json:
        from lung_nodule_ct.declaration.findings import summarize

        print_json(
            {
                "folder": out,
                "configs": rows,
                "kept": list(done.kept),
                "removed": list(done.removed),
                "by_user": list(done.by_user),
                "account": {name: account.to_dict() for name, account in done.accounts.items()},
                "findings": summarize(findings),
            }
        )
        return
    print_findings(findings)
    console = terminal()
    for name in done.findings:
        counts = ", ".join(f"{split} {count:,}" for split, count in rows.get(name, {}).items())
        console.print(f"[bold]{name}[/]: {counts or 'no examples, left out'}", highlight=False)
        console.print(f"  account: {done.accounts[name]}", highlight=False, soft_wrap=True)
        shared = done.configs[name].shared_patients if name in done.configs else {}
        for pair, count in shared.items():
            if count:
                console.print(
                    f"  [yellow]{pair} share {count:,} patients[/]; --split-by patient gives splits without leakage"
                )
    notes = [
        f"{name}: kept from the earlier build, not compared with its manifest; `lung-nodule-ct verify {out}` does that"
        for name in done.kept
    ]
    notes += [
        f"{name}: removed, because the build changed; `lung-nodule-ct {command}` writes it again"
        for name, command in done.removed.items()
    ]
    notes += [f"{name}: kept, although no command wrote it" for name in done.by_user]
    for note in notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    console.print(f"written to {out}", highlight=False, soft_wrap=True)


def prepare(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="CONFIG...", help="The configs to prepare.", autocompletion=complete_config),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Prepare all configs.")] = False,
    source: SourceOption = None,
    num_proc: NumProc = 1,
    cache_dir: Annotated[
        Path | None, typer.Option("--cache-dir", help="A folder to use instead of the cache of datasets.")
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Prepare the cache of Hugging Face datasets, so that load_dataset("lung_nodule_ct", CONFIG) works anywhere."""
    chosen = chosen_configs(names, every)
    from lung_nodule_ct.targets.loading import prepare_builder

    with _without_bars() if quiet else nullcontext():
        builders = [
            prepare_builder(config.name, source=source, num_proc=num_proc, cache_dir=cache_dir) for config in chosen
        ]
    if as_json:
        print_json({builder.config.name: str(builder.cache_dir) for builder in builders})
        return
    print_findings(list(dict.fromkeys(finding for builder in builders for finding in builder.findings or ())))
    for builder in builders:
        state = " (existed already)" if builder.findings is None else ""
        terminal().print(f"[bold]{builder.config.name}[/]: {builder.cache_dir}{state}", highlight=False, soft_wrap=True)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Switch the progress bars of ``datasets`` off, which also decide on those of this package."""
    from datasets.utils import disable_progress_bars, enable_progress_bars, is_progress_bar_enabled

    shown = is_progress_bar_enabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()
