"""``lung-nodule-ct train``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lung_nodule_ct.cli.evaluate import print_scores
from lung_nodule_ct.cli.options import Data
from lung_nodule_ct.cli.terminal import new_table, terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lung_nodule_ct.train.recipes import Recipe


def train(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="RECIPE", help="What to train; --list names them.")] = "",
    data: Data = Path("build/lung_nodule_ct"),
    out: Annotated[Path | None, typer.Option("--out", help="The run's folder; runs/RECIPE by default.")] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="See that it learns: a small variant on made-up patients, in minutes, in runs/check-RECIPE."
        ),
    ] = False,
    listing: Annotated[bool, typer.Option("--list", help="Name the recipes and what --check expects of them.")] = False,
) -> None:
    """Train a model on a build; the same command again resumes.

    Every number of the recipe can be changed: --steps 500 --seed 0 --batch-size 8 --split-by patient --optim.learning-rate 3e-4;
    "RECIPE -- --help" lists them. On more hosts set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID on each.
    """
    if listing or not name:
        _print_recipes()
        return
    if check:
        given = context.get_parameter_source("data")
        if given is not None and given.name != "DEFAULT":
            raise typer.BadParameter("the check makes its own data", param_hint="--data")
        _check(name, out or Path("runs") / f"check-{name}", context.args)
        return
    recipe = recipe_of(name, context.args)
    from lung_nodule_ct.read.build_folder import open_build
    from lung_nodule_ct.train.devices import begin
    from lung_nodule_ct.train.runs import Run, data_of

    build = open_build(data)
    begin()
    from lung_nodule_ct.train.loop import train as train_run

    run = Run(out or Path("runs") / name, name, recipe, data_of(build, recipe.config))
    train_run(run, build)
    terminal().print(f"trained: {run.folder}", highlight=False, soft_wrap=True)


def recipe_of(name: str, arguments: Sequence[str]) -> Recipe:
    """The recipe of that name with what the command line changes."""
    from lung_nodule_ct.train.recipes import get_recipe

    recipe = get_recipe(name)
    from lung_nodule_ct.train import require_extra

    require_extra()
    import tyro

    plain = (tyro.conf.EnumChoicesFromValues,)
    prog = f"lung-nodule-ct train {name}"
    changed: Recipe = tyro.cli(type(recipe), default=recipe, args=list(arguments), prog=prog, config=plain)
    return changed


def _check(name: str, folder: Path, arguments: Sequence[str]) -> None:
    from lung_nodule_ct.train.expected_scores import EXPECTED_SCORES
    from lung_nodule_ct.train.recipes import get_recipe

    get_recipe(name)
    aim = EXPECTED_SCORES[name]
    options = (*aim.options, *arguments)
    recipe = recipe_of(name, options)
    from lung_nodule_ct.train.devices import begin

    begin()
    from lung_nodule_ct.train.learning_check import DATA
    from lung_nodule_ct.train.learning_check import check as check_recipe

    as_command = shlex.join(
        ["lung-nodule-ct", "train", name, "--data", str(folder / DATA), "--out", str(folder), *options]
    )
    terminal().print(f"on made-up patients: {as_command}", highlight=False, soft_wrap=True)
    document = check_recipe(folder, name, recipe, aim)
    print_scores([document | {"run": folder.name}])
    terminal().print(f"{name}: {'it runs; ' if aim.least is None else 'learns, at least '}{aim}", highlight=False)


def _print_recipes() -> None:
    from lung_nodule_ct.train.expected_scores import EXPECTED_SCORES
    from lung_nodule_ct.train.recipes import RECIPES

    table = new_table("recipe", "reads", "model", "split by", "check expects")
    for name, recipe in RECIPES.items():
        table.add_row(name, recipe.config, recipe.model.head, str(recipe.split_by), str(EXPECTED_SCORES[name]))
    terminal().print(table)
    terminal().print(
        "\nTrain one:         lung-nodule-ct train RECIPE --data BUILD\nSee that it works: lung-nodule-ct train RECIPE --check",
        highlight=False,
    )
