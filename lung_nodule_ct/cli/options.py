"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lung_nodule_ct.declaration.configs import CONFIGS, Config, get_config
from lung_nodule_ct.errors import LungNoduleCTError

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
Data = Annotated[Path, typer.Option("--data", help="A build as Parquet or Arrow.")]
Draws = Annotated[int, typer.Option("--draws", min=1, help="Samples of patients for the intervals.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never contact a server; use the cache only.")]


def chosen_configs(names: list[str] | None, every: bool) -> list[Config]:
    """Return the configs of some names, or all configs.

    Raises:
        typer.BadParameter: Neither names nor all were requested, or both were, or there is no such config.
    """
    if every == bool(names):
        raise typer.BadParameter("name the configs, or use --all", param_hint="CONFIG...")
    try:
        return [get_config(name) for name in dict.fromkeys(names or CONFIGS)]
    except LungNoduleCTError as error:
        raise typer.BadParameter(str(error), param_hint="CONFIG...") from error
