"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lung_nodule_ct.declaration.configs import CONFIGS, Config, get_config
from lung_nodule_ct.declaration.manifest import MANIFEST
from lung_nodule_ct.errors import LungNoduleCTError

DEFAULT_BUILD = Path("build/lung_nodule_ct")
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
NumProc = Annotated[int, typer.Option("--num-proc", min=1, help="Number of workers.")]
SourceOption = Annotated[
    str | None,
    typer.Option(
        "--source",
        help="Folder of the downloaded zip archives, at any depth, or its URL (s3://...). Default: $LUNG_NODULE_CT_SOURCE, otherwise "
        "Zenodo, through the cache of downloads.",
    ),
]
Data = Annotated[Path | None, typer.Option("--data", hidden=True)]  # an earlier spelling of the argument BUILD
Draws = Annotated[int, typer.Option("--draws", min=1, help="Samples of patients for the intervals.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress, and no estimate of size and time.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never contact a server; use the cache only.")]


def build_and_name(words: list[str], data: Path | None, metavar: str) -> tuple[Path, str]:
    """Return a build, and what is named after it: ``BUILD RECIPE`` or ``BUILD RUN``.

    Args:
        words: The two words. In an earlier spelling the build follows ``--data``, or is the default of ``build --out``; then there is only
            the name.
        data: The value of ``--data``.
        metavar: What is named after the build, as in the help.

    Raises:
        typer.BadParameter: There is no name, or there are two builds, or more words.
    """
    if len(words) > 2:
        raise typer.BadParameter(
            f"got unexpected extra arguments: {' '.join(words[2:])}", param_hint=f"BUILD {metavar}"
        )
    *builds, name = words
    if builds and data is not None:
        raise typer.BadParameter("the build is named twice", param_hint="--data")
    if not builds and (Path(name) / MANIFEST).is_file():
        raise typer.BadParameter(f"{name} is a build; name the {metavar} after it", param_hint=metavar)
    return Path(builds[0]) if builds else data or DEFAULT_BUILD, name


def complete_config(incomplete: str) -> list[str]:
    """Return the configs that begin with some letters, for the completion of a shell."""
    return [name for name in CONFIGS if name.startswith(incomplete)]


def chosen_configs(names: list[str] | None, every: bool) -> list[Config]:
    """Return the configs of some names, or all configs.

    Raises:
        typer.BadParameter: Neither names nor all were requested, or both were, or there is no such config.
    """
    if every and names:
        raise typer.BadParameter(
            f"names all configs, and {names[0]} is named as well; use one of the two", param_hint="--all"
        )
    if not every and not names:
        raise typer.BadParameter("name the configs, or use --all", param_hint="CONFIG...")
    try:
        return [get_config(name) for name in dict.fromkeys(names or CONFIGS)]
    except LungNoduleCTError as error:
        raise typer.BadParameter(str(error), param_hint="CONFIG...") from error
