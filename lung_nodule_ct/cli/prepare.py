"""``lung-nodule-ct prepare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lung_nodule_ct.cli.options import Json, NumProc, SourceOption, chosen_configs
from lung_nodule_ct.cli.terminal import print_findings, print_json, terminal


def prepare(
    names: Annotated[list[str] | None, typer.Argument(metavar="CONFIG...", help="The configs to prepare.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Prepare all configs.")] = False,
    source: SourceOption = None,
    num_proc: NumProc = 1,
    cache_dir: Annotated[
        Path | None, typer.Option("--cache-dir", help="A folder to use instead of the cache of datasets.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Prepare the cache of Hugging Face datasets, so that load_dataset("lung_nodule_ct", CONFIG) works anywhere."""
    chosen = chosen_configs(names, every)
    from lung_nodule_ct.targets.loading import prepare_builder

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
