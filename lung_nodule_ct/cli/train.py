"""``lung-nodule-ct train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lung_nodule_ct.cli.terminal import terminal


def train(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="RECIPE", help="What to train; --list names them.")] = "",
    data: Annotated[Path, typer.Option("--data", help="A build as Parquet or Arrow.")] = Path("build/lung_nodule_ct"),
    out: Annotated[Path | None, typer.Option("--out", help="The run's folder; runs/RECIPE by default.")] = None,
    listing: Annotated[bool, typer.Option("--list", help="Name the recipes and stop.")] = False,
) -> None:
    """Train a model on a build; the same command again resumes.

    Every number of the recipe can be changed: --steps 500 --seed 0 --batch-size 8 --split-by patient --optim.learning-rate 3e-4;
    "RECIPE -- --help" lists them. On more hosts set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID on each.
    """
    from lung_nodule_ct.train.recipes import RECIPES, get_recipe

    if listing or not name:
        from rich.table import Table

        table = Table("recipe", "reads", "model", "split by", box=None, pad_edge=False)
        for entry, recipe in RECIPES.items():
            table.add_row(entry, recipe.config, recipe.model.head, str(recipe.split_by))
        terminal().print(table)
        return
    recipe = get_recipe(name)
    from lung_nodule_ct.train.extra import require_extra

    require_extra()
    import tyro

    plain = (tyro.conf.EnumChoicesFromValues,)
    prog = f"lung-nodule-ct train {name}"
    recipe = tyro.cli(type(recipe), default=recipe, args=context.args, prog=prog, config=plain)
    from lung_nodule_ct.built import open_build
    from lung_nodule_ct.train.devices import begin
    from lung_nodule_ct.train.runs import Run, data_of

    build = open_build(data)
    begin()
    from lung_nodule_ct.train.loop import train as train_run

    run = Run(out or Path("runs") / name, name, recipe, data_of(build, recipe.config))
    train_run(run, build)
    terminal().print(f"trained: {run.folder}", highlight=False, soft_wrap=True)
