"""``lung-nodule-ct card`` and ``lung-nodule-ct publish``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lung_nodule_ct.cli.options import Json
from lung_nodule_ct.cli.terminal import new_table, print_json, terminal

if TYPE_CHECKING:
    from lung_nodule_ct.publish.publication import Publication


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
            help='Write croissant.json, which needs pip install "lung_nodule_ct\\[croissant]". By default it is written '
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


def publish(
    build: Annotated[Path, typer.Argument(metavar="BUILD", help="The folder of a finished Parquet build.")],
    repository: Annotated[str, typer.Argument(metavar="USER/REPO", help="The dataset repository on the Hub.")],
    private: Annotated[bool, typer.Option("--private", help="Create a private repository.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the files and run every check, without contacting a server.")
    ] = False,
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", metavar="NAME", help="Publish although this check fails: dates, unknown-licence."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Upload a build to the Hugging Face Hub, if it passes the checks. The code of its card then loads USER/REPO."""
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public by its documentation

    from lung_nodule_ct.errors import PublishError
    from lung_nodule_ct.publish.card_folder import name_repository
    from lung_nodule_ct.publish.publication import OVERRIDABLE, plan_publication, upload
    from lung_nodule_ct.read.build_folder import open_build

    try:
        validate_repo_id(repository)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="USER/REPO") from error
    allowed = frozenset(allow or ())
    if unknown := allowed - set(OVERRIDABLE):
        raise typer.BadParameter(
            f"{min(unknown)} is not a check that can be overridden: {', '.join(OVERRIDABLE)}", param_hint="--allow"
        )
    if not dry_run:
        name_repository(open_build(build).folder, repository)
    publication = plan_publication(open_build(build), repository)
    refused = publication.refused(allowed)
    if not as_json:
        _print(publication, allowed)
    if refused and not as_json:
        first = refused[0]
        raise PublishError(
            f"not published: {first.name}: {first.problem}",
            remedy=f"to publish it all the same, use --allow {first.name}" if first.overridable else None,
        )
    address = None
    if not dry_run and not refused:
        address = upload(publication, repository, private=private)
    if as_json:
        print_json(
            {
                "repository": repository,
                "files": publication.files,
                "checks": {check.name: check.problem for check in publication.checks},
                "refused": [check.name for check in refused],
                "notes": list(publication.notes),
                "commit": address,
            }
        )
        if refused:
            raise typer.Exit(1)
        return
    result = (
        f"published: {address}" if address else f"nothing was sent; without --dry-run this is uploaded to {repository}"
    )
    terminal().print(result, markup=False, highlight=False, soft_wrap=True)


def _print(publication: Publication, allowed: frozenset[str]) -> None:
    console = terminal()
    files = new_table("file", bytes=True)
    for name, size in publication.files.items():
        files.add_row(name, f"{size:,}")
    files.add_row(f"{len(publication.files):,} files", f"{sum(publication.files.values()):,}")
    console.print(files)
    for check in publication.checks:
        state = "ok" if check.problem is None else "allowed" if check.name in allowed else "refused"
        text = check.title if check.problem is None else check.problem
        console.print(f"{state:8}{check.name}: {text}", markup=False, highlight=False, soft_wrap=True)
    for note in publication.notes:
        console.print(f"note    {note}", markup=False, highlight=False, soft_wrap=True)
