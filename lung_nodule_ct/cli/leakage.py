"""``lung-nodule-ct leakage``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lung_nodule_ct.cli.options import Data, Draws, Json


def leakage(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="RECIPE", help="What to train; train --list names them.")],
    data: Data = Path("build/lung_nodule_ct"),
    out: Annotated[
        Path | None, typer.Option("--out", help="The folder of both runs; runs/leakage-RECIPE by default.")
    ] = None,
    draws: Draws = 1000,
    as_json: Json = False,
) -> None:
    """Train on the published split and on the one by patient, judge both, and print what shared patients add.

    Takes the options of train but --split-by; the same command again resumes. The runs are OUT/published and OUT/patient.
    """
    if any(argument.startswith(("--split-by", "--split_by")) for argument in context.args):
        raise typer.BadParameter("both splits are trained on", param_hint="--split-by")
    from lung_nodule_ct.cli.train import recipe_of

    recipe = recipe_of(name, context.args)
    from lung_nodule_ct.cli.scores import print_comparison
    from lung_nodule_ct.read.build_folder import open_build
    from lung_nodule_ct.train.devices import begin

    build = open_build(data)
    begin()
    from lung_nodule_ct.train.leakage import train_both

    folders = train_both(out or Path("runs") / f"leakage-{name}", name, recipe, build, draws=draws)
    print_comparison(folders, as_json=as_json, draws=draws)
