"""``lung-nodule-ct``: see what there is, build it, warm the cache.

Exit codes: 0 done, findings or not; 1 an error stopped it; 2 it was called wrongly; 130 it was interrupted.
"""

from __future__ import annotations

import io
import json
import shlex
import sys
from contextlib import redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lung_nodule_ct.errors import LungNoduleCTError, OutputError
from lung_nodule_ct.printable import printable
from lung_nodule_ct.spec.configs import CONFIGS, get_config
from lung_nodule_ct.spec.splits import SplitBy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lung_nodule_ct.findings import Finding
    from lung_nodule_ct.spec.archives import Release
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


class ReleaseName(StrEnum):
    """The versions of the dataset."""

    PUBLISHED = "published"
    PREPRINT = "preprint"


app = typer.Typer(
    help="The lung nodule CT dataset, from the published archives to typed data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON, for a program to read.")]
_NumProc = Annotated[int, typer.Option("--num-proc", min=1, help="Processes that work side by side.")]
_SourceOption = Annotated[
    str | None,
    typer.Option(
        "--source",
        help="Folder with the downloaded zip archives, at any depth. Else $LUNG_NODULE_CT_SOURCE; else Zenodo, through the "
        "cache of downloads.",
    ),
]
_Offline = Annotated[bool, typer.Option("--offline", help="Never ask a server: only what is in the cache.")]
_Url = Annotated[
    str | None,
    typer.Option(
        "--zenodo-url", help="Another InvenioRDM or a mirror. Else $LUNG_NODULE_CT_ZENODO_URL, else zenodo.org."
    ),
]
_Release = Annotated[
    ReleaseName, typer.Option("--release", help="The version that the paper was published with, or the preprint's.")
]


def main() -> None:
    """Run the command line; errors of ours become one line and exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names need not fit the terminal's encoding
    try:
        app()
    except LungNoduleCTError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


@app.command()
def configs(as_json: _Json = False) -> None:
    """List the configs: what each holds, and which archives it reads."""
    from lung_nodule_ct.spec.archives import archives_of

    listed = [
        {
            "name": config.name,
            "summary": config.summary,
            "example": config.example,
            "splits": list(config.splits),
            "columns": list(config.schema.names),
            "reads": [archive.name for archive in archives_of(*config.reads)],
            "context": [archive.name for archive in archives_of(*config.context)],
        }
        for config in CONFIGS.values()
    ]
    if as_json:
        _print_json(listed)
        return
    from rich.padding import Padding

    console = _console()
    for entry in listed:
        lines = [f"{entry['summary']} An example is {entry['example']}."]
        lines += [
            f"[dim]{key}[/] {', '.join(entry[key])}" for key in ("splits", "columns", "reads", "context") if entry[key]
        ]
        console.print(f"[bold]{entry['name']}[/]", highlight=False)
        console.print(Padding("\n".join(lines), (0, 0, 1, 4)), highlight=False)


@app.command()
def inspect(
    source: Annotated[
        str | None,
        typer.Argument(
            help="Folder with the downloaded zip archives, at any depth. Else $LUNG_NODULE_CT_SOURCE; else the cache of "
            "downloads and, by ranges of the archives' directories, Zenodo."
        ),
    ] = None,
    offline: _Offline = False,
    as_json: _Json = False,
) -> None:
    """Show what is in a source: archives, patients, scans, timepoints, findings. Reads no voxels."""
    from lung_nodule_ct.inspection import inspect_source
    from lung_nodule_ct.source.choose import open_source

    inspection = inspect_source(open_source(source, list(CONFIGS.values()), remote=True, offline=offline))
    if as_json:
        _print_json(inspection.document())
        return
    from rich.markup import escape

    console = _console()
    archives = _table("archive", "role", "state", bytes=True, members=True)
    colours = {"found": "green", "missing": "yellow", "unreadable": "red"}
    for archive in inspection.archives:
        numbers = ("" if number is None else f"{number:,}" for number in (archive.size, archive.members))
        archives.add_row(archive.name, archive.role, f"[{colours[archive.state]}]{archive.state}[/]", *numbers)
    console.print(archives, "")
    counted = ("patients", "scans", "timepoints", "nodules", "findings")
    table = _table("config", "examples", **dict.fromkeys(counted, True))
    for config in inspection.configs:
        counts = config.counts()
        if config.plan is None:
            table.add_row(config.name, "[yellow]cannot be built[/]")
            continue
        examples = "\n".join(f"{split} {count:,}" for split, count in counts["examples"].items())
        table.add_row(config.name, examples, *("" if counts[key] is None else f"{counts[key]:,}" for key in counted))
    console.print(table, "")
    if figures := inspection.figures():
        beside = _table("beside the paper", here=True, preprint=True, published=True, agrees=False)
        for figure in figures:
            beside.add_row(*(str(value) if value is not None else "" for value in figure.values()))
        console.print(beside, "")
    problems = [archive.problem for archive in inspection.archives if archive.problem]
    problems += [config.problem for config in inspection.configs if config.problem]
    for problem in dict.fromkeys(problems):
        console.print(f"[yellow]![/] {escape(problem)}")
    findings = (finding for config in inspection.configs if config.plan for finding in config.plan.findings)
    _print_findings(list(dict.fromkeys(findings)))


@app.command()
def build(
    names: Annotated[list[str] | None, typer.Argument(metavar="CONFIG...", help="The configs to build.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Build all six configs.")] = False,
    source: _SourceOption = None,
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
    num_proc: _NumProc = 1,
    split_by: Annotated[
        SplitBy, typer.Option("--split-by", help="The authors' splits, or splits without leaks, by patient.")
    ] = SplitBy.PUBLISHED,
    keep_source_names: Annotated[
        bool, typer.Option("--keep-source-names", help="Add the column source_name. It spells calendar dates.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at a finding of error grade; nothing is written.")
    ] = False,
    offline: _Offline = False,
    as_json: _Json = False,
) -> None:
    """Build configs into a Hub-ready folder of Parquet that load_dataset opens, into Arrow, or for TFDS."""
    chosen = _chosen(names, every)
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

        _print_json({"folder": str(out), "configs": rows, "findings": summarize(findings)})
        return
    _print_findings(findings)
    console = _console()
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


@app.command()
def prepare(
    names: Annotated[list[str] | None, typer.Argument(metavar="CONFIG...", help="The configs to prepare.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Prepare all six configs.")] = False,
    source: _SourceOption = None,
    num_proc: _NumProc = 1,
    cache_dir: Annotated[Path | None, typer.Option("--cache-dir", help="In place of the cache of datasets.")] = None,
    as_json: _Json = False,
) -> None:
    """Warm the cache of Hugging Face datasets, so that load_dataset("lung_nodule_ct", CONFIG) works anywhere."""
    chosen = _chosen(names, every)
    from lung_nodule_ct.targets.huggingface import prepared

    builders = [prepared(config.name, source=source, num_proc=num_proc, cache_dir=cache_dir) for config in chosen]
    if as_json:
        _print_json({builder.config.name: str(builder.cache_dir) for builder in builders})
        return
    _print_findings(list(dict.fromkeys(finding for builder in builders for finding in builder.found or ())))
    for builder in builders:
        state = " (was there before)" if builder.found is None else ""
        _console().print(f"[bold]{builder.config.name}[/]: {builder.cache_dir}{state}", highlight=False, soft_wrap=True)


@app.command()
def download(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="CONFIG...", help="The configs whose archives are needed.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All archives.")] = False,
    manual_dir: Annotated[
        Path | None,
        typer.Option("--manual-dir", help="Folder with archives downloaded by hand: checked, and taken instead."),
    ] = None,
    url: _Url = None,
    release: _Release = ReleaseName.PUBLISHED,
    cache_dir: Annotated[
        Path | None,
        typer.Option("--cache-dir", help="Where to. Else $LUNG_NODULE_CT_CACHE, else the user's cache folder."),
    ] = None,
    lock_file: Annotated[
        Path | None,
        typer.Option("--lock", help="What the records must hold, as `lock` wrote it. Else the package's own."),
    ] = None,
    offline: _Offline = False,
    as_json: _Json = False,
) -> None:
    """Download the archives that configs read: resumed where it broke off, proven by md5, taken from the cache if there."""
    chosen = _chosen(names, every)
    from lung_nodule_ct.progress import DownloadProgress
    from lung_nodule_ct.source.lock import Lock
    from lung_nodule_ct.source.zenodo import Zenodo
    from lung_nodule_ct.spec.archives import archives_of

    lock = Lock.read(lock_file) if lock_file else None
    with DownloadProgress() as listener:
        zenodo = Zenodo(url, cache=cache_dir, release=_release(release), offline=offline, listener=listener, lock=lock)
        paths = zenodo.download(archives_of(*{role for config in chosen for role in config.reads}), manual_dir)
    if as_json:
        _print_json({spec.name: str(path) for spec, path in paths.items()})
        return
    console = _console()
    for folder in dict.fromkeys(path.parent for path in paths.values()):
        table = _table("archive", bytes=True)
        for path in paths.values():
            if path.parent == folder:
                table.add_row(path.name, f"{path.stat().st_size:,}")
        console.print(table)
        console.print(f"in {folder}", highlight=False, soft_wrap=True)


@app.command()
def lock(
    out: Annotated[Path, typer.Option("--out", help="The file to write.")] = Path("archives.lock"),
    url: _Url = None,
    release: Annotated[
        ReleaseName | None, typer.Option("--release", help="Only one of the versions. Else both.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Pin what the records hold (names, sizes, md5, licence, and SHA-256 of what was downloaded), to be committed."""
    from lung_nodule_ct.source.zenodo import pin

    pinned = pin([_release(name) for name in ReleaseName if release in (None, name)], url)
    try:
        out.write_text(pinned.to_json(), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"the lock cannot be written: {error}") from error
    if as_json:
        _print_json(json.loads(pinned.to_json()))
        return
    console = _console()
    for number, record in pinned.records.items():
        hashed = sum(entry["sha256"] is not None for entry in record["files"].values())
        console.print(
            f"[bold]{number}[/]: {len(record['files'])} files, {hashed} with SHA-256, licence {record['licence']}, "
            f"doi {record['doi']}",
            highlight=False,
        )
    console.print(f"written to {out}", highlight=False, soft_wrap=True)


def _release(name: ReleaseName) -> Release:
    from lung_nodule_ct.spec.archives import RELEASES

    return next(release for release in RELEASES if release.name == name)


def _layout(form: Format, configs: int) -> Layout:
    if form is Format.ARROW:
        from lung_nodule_ct.targets.arrow_folder import ArrowFolder

        return ArrowFolder(nested=configs > 1)
    from lung_nodule_ct.targets.hub_folder import HubFolder

    return HubFolder()


def _chosen(names: list[str] | None, every: bool) -> list[Any]:
    if every == bool(names):
        raise typer.BadParameter("name the configs, or give --all", param_hint="CONFIG...")
    try:
        return [get_config(name) for name in dict.fromkeys(names or CONFIGS)]
    except LungNoduleCTError as error:
        raise typer.BadParameter(str(error), param_hint="CONFIG...") from error


def _print_findings(findings: list[Finding]) -> None:
    """The findings, the gravest first and each as it stands in the archives; a few of each code."""
    from rich.markup import escape

    from lung_nodule_ct.findings import summarize

    console = _console()
    colours = {"error": "red", "warning": "yellow", "note": "cyan"}
    for code, entry in summarize(findings).items():
        own = [finding for finding in findings if finding.code == code]
        head = (
            f"[{colours[entry['grade']]}]{entry['grade']}[/] [bold]{code}[/] x {entry['count']:,}: {entry['meaning']}"
        )
        console.print(head, highlight=False)
        for finding in own[:_SHOWN]:
            place = " > ".join(part for part in (finding.archive, finding.member, finding.row) if part)
            text = "; ".join(part for part in (place, finding.detail, finding.action) if part)
            console.print(f"    {escape(printable(text))}", highlight=False, soft_wrap=True)
        if len(own) > _SHOWN:
            console.print(f"    … and {len(own) - _SHOWN:,} more in findings.json", highlight=False)


_SHOWN = 5


def _table(*texts: str, **more: bool) -> Any:
    """A table that fits 80 columns; ``more`` names further columns, those of numbers by ``True``."""
    from rich.table import Column, Table

    columns = [Column(text, no_wrap=True) for text in texts]
    columns += [Column(name, justify="right" if number else "left", no_wrap=True) for name, number in more.items()]
    return Table(*columns, box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold underline")


def _print_json(document: Any) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=(sys.stdout.encoding or "").lower() not in ("utf-8", "utf8")))


def _console() -> Any:
    from rich.console import Console

    return Console()


if __name__ == "__main__":
    main()
