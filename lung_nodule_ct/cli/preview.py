"""``lung-nodule-ct preview``."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from lung_nodule_ct.cli.options import Json
from lung_nodule_ct.cli.terminal import new_table, print_json, terminal


def preview(
    build: Annotated[Path, typer.Argument(metavar="BUILD", help="A folder that build wrote as Parquet or Arrow.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The page to write; BUILD/preview.html if not given.")
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    max_mb: Annotated[
        float, typer.Option("--max-mb", min=1, max=500, help="What the page may weigh; more shows more.")
    ] = 25,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw of the examples that are shown.")] = 0,
    as_json: Json = False,
) -> None:
    """Write one page to look at a build: slices with boxes, scans to scroll through, patients over time. Works offline."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from lung_nodule_ct.preview import PreviewOptions, write_preview
    from lung_nodule_ct.read.build_folder import open_build

    opened = open_build(build)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks = {name: bars.add_task(name, total=None, visible=False) for name in opened.configs}

        def advance(config: str, done: int, total: int) -> None:
            bars.update(tasks[config], completed=done, total=total, visible=True)

        written = write_preview(opened, out, PreviewOptions(max_mb, seed), advance)
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
