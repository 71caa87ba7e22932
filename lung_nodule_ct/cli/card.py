"""``lung-nodule-ct card``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lung_nodule_ct.cli.options import Json
from lung_nodule_ct.cli.terminal import new_table, print_json, terminal


def card(
    build: Annotated[Path, typer.Argument(metavar="BUILD", help="The folder of a finished Parquet build.")],
    examples: Annotated[
        int, typer.Option("--examples", min=1, help="Largest number of pictures of each config in the preview config.")
    ] = 32,
    repository: Annotated[
        str,
        typer.Option(
            "--repository", metavar="USER/REPO", help="The repository on the Hub that the code of the card loads."
        ),
    ] = "USER/lung_nodule_ct",
    croissant: Annotated[
        bool | None,
        typer.Option(
            "--croissant/--no-croissant",
            help='Write croissant.json, which needs pip install "lung_nodule_ct[croissant]". By default it is written '
            "if this extra is installed.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the dataset card: README.md, croissant.json, pictures, and a preview config that the Hub's viewer shows."""
    from rich.console import Console
    from rich.progress import Progress

    from lung_nodule_ct.publish.card_folder import CardOptions, add_card
    from lung_nodule_ct.publish.croissant import CROISSANT
    from lung_nodule_ct.read.build_folder import open_build

    try:
        options = CardOptions(examples, croissant, repository)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--repository") from error
    folder = open_build(build)
    total = sum(min(examples, sum(splits.values())) for splits in folder.configs.values())
    with Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("pictures", total=total)
        written = add_card(folder, options, lambda: bars.advance(task))
    if as_json:
        print_json({"folder": str(build), "files": written})
        return
    table = new_table("file", bytes=True)
    for name, size in written.items():
        table.add_row(name, f"{size:,}")
    console = terminal()
    console.print(table)
    if CROISSANT not in written and croissant is None:
        console.print(
            f'{CROISSANT} was left out: pip install "lung_nodule_ct[croissant]", then run this command again',
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    console.print(f"written to {build}", markup=False, highlight=False, soft_wrap=True)
