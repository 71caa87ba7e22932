"""Options that more than one command has, and what is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lung_nodule_ct.declaration.configs import CONFIGS, Config, get_config
from lung_nodule_ct.errors import LungNoduleCTError

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for a program to read.")]
NumProc = Annotated[int, typer.Option("--num-proc", min=1, help="Processes that work side by side.")]
SourceOption = Annotated[
    str | None,
    typer.Option(
        "--source",
        help="Folder with the downloaded zip archives, at any depth, or its URL (s3://...). Else $LUNG_NODULE_CT_SOURCE; else Zenodo, through the "
        "cache of downloads.",
    ),
]
Data = Annotated[Path, typer.Option("--data", help="A build as Parquet or Arrow.")]
Draws = Annotated[int, typer.Option("--draws", min=1, help="Samples of patients for the intervals.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never ask a server: only what is in the cache.")]


def chosen_configs(names: list[str] | None, every: bool) -> list[Config]:
    """The configs by ``names``, or every one.

    Raises:
        typer.BadParameter: neither was asked for, both were, or there is no such config.
    """
    if every == bool(names):
        raise typer.BadParameter("name the configs, or give --all", param_hint="CONFIG...")
    try:
        return [get_config(name) for name in dict.fromkeys(names or CONFIGS)]
    except LungNoduleCTError as error:
        raise typer.BadParameter(str(error), param_hint="CONFIG...") from error
