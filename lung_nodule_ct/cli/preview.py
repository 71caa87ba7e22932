"""``lung-nodule-ct preview``."""

from __future__ import annotations

import contextlib
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from lung_nodule_ct.cli.options import Json
from lung_nodule_ct.cli.terminal import new_table, print_json, terminal


def preview(
    build: Annotated[Path, typer.Argument(metavar="BUILD", help="Folder of a build in Parquet or Arrow format.")],
    out: Annotated[Path | None, typer.Option("--out", help="The page to write; by default BUILD/preview.html.")] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    max_mb: Annotated[
        float,
        typer.Option("--max-mb", min=1, max=500, help="Maximum size of the page in MB. A larger page shows more."),
    ] = 25,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the draw of the examples.")] = 0,
    patient: Annotated[
        list[str] | None, typer.Option("--patient", help="Show this patient; can be given several times.")
    ] = None,
    scan: Annotated[
        list[str] | None, typer.Option("--scan", help="Show this scan or case, as 80-1; can be given several times.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Show all scans. Pictures are sampled.")] = False,
    serve: Annotated[
        bool,
        typer.Option("--serve", help="Write no page; show full volumes from a server on this machine, until Ctrl+C."),
    ] = False,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port of --serve; by default any free one.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Write an offline HTML page of a build: pictures with boxes, scans in three planes, and patients over time."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from lung_nodule_ct.preview import PreviewOptions, serve_preview, write_preview
    from lung_nodule_ct.preview.selection import Choice
    from lung_nodule_ct.read.build_folder import open_build

    if every and (patient or scan):
        raise typer.BadParameter("name patients and scans, or use --all", param_hint="--all")
    if serve and (out is not None or as_json):
        raise typer.BadParameter("writes no page: leave out --out and --json", param_hint="--serve")
    choice = Choice(tuple(patient or ()), tuple(scan or ()), every)
    folder = open_build(build)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks = {name: bars.add_task(name, total=None, visible=False) for name in folder.configs}

        def on_progress(config: str, done: int, total: int) -> None:
            bars.update(tasks[config], completed=done, total=total, visible=True)

        options = PreviewOptions(max_mb, seed, choice)
        if serve:
            server = serve_preview(folder, options, on_progress, port)
        else:
            written = write_preview(folder, out, options, on_progress)
    if serve:
        terminal().print(f"{server.url} (Ctrl+C to stop)", highlight=False, soft_wrap=True)
        if show:
            webbrowser.open(server.url)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
        return
    if as_json:
        print_json({"page": str(written.path), "bytes": written.num_bytes, "shown": written.shown})
    else:
        table = new_table("config", shown=True, of=True)
        for name, count in written.shown.items():
            table.add_row(name, f"{count:,}", f"{written.totals[name]:,}")
        console = terminal()
        console.print(table, "")
        console.print(f"written to {written.path} ({written.num_bytes / 1e6:.1f} MB)", highlight=False, soft_wrap=True)
    if show:
        webbrowser.open(written.path.resolve().as_uri())
