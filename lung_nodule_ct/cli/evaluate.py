"""How scores are printed: a table a score, runs below each other, then their gap, then the paper.

``lung-nodule-ct evaluate`` and ``lung-nodule-ct compare``.

``lung-nodule-ct leakage``.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lung_nodule_ct.cli.options import Data, Draws, Json
from lung_nodule_ct.cli.terminal import new_table, print_json, terminal
from lung_nodule_ct.declaration.labels import VALIDATION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lung_nodule_ct.declaration.published import Baseline
    from lung_nodule_ct.train.leakage import Gap


def print_comparison(folders: Sequence[Path], *, as_json: bool, draws: int = 1000) -> None:
    """Evaluated runs side by side, with the gaps between them, and the paper beside them.

    Raises:
        TrainingError: A folder holds no evaluated run.
    """
    from lung_nodule_ct.declaration.published import BASELINES
    from lung_nodule_ct.train.evaluation import read_scores
    from lung_nodule_ct.train.leakage import gaps_between
    from lung_nodule_ct.train.runs import open_run

    documents = [document for folder in folders for document in read_scores(folder)]
    gaps = gaps_between(folders, draws=draws)
    if as_json:
        print_json({"evaluations": documents, "gaps": [asdict(gap) for gap in gaps]})
        return
    print_scores(documents, gaps, BASELINES)
    data: dict[str, list[dict[str, Any]]] = {}
    for run in map(open_run, folders):
        data.setdefault(run.recipe.config, []).append(run.data)
    for config, builds in data.items():
        if any(build != builds[0] for build in builds):
            terminal().print(f"The runs of {config} read different builds: their scores are of different data.")


def print_scores(
    documents: Sequence[dict[str, Any]], gaps: Sequence[Gap] = (), baselines: Sequence[Baseline] = ()
) -> None:
    """What ``scores.json`` of some runs hold, by config and score."""
    from lung_nodule_ct.train.pages import interval, shown

    console = terminal()
    for config in dict.fromkeys(document["config"] for document in documents):
        own = [document for document in documents if document["config"] == config]
        apart = [gap for gap in gaps if gap.config == config]
        published = [baseline for baseline in baselines if baseline.config == config]
        console.print(f"[bold]{config}[/]", highlight=False)
        for name in dict.fromkeys(name for document in own for name in document["scores"]):
            table = new_table(name, value=True, interval=False)
            for document in own:
                entry = document["scores"].get(name, {"value": None, "low": None, "high": None})
                whose = f"{document['run']}: {document['split']} by {document['split_by']}, {document['rows']} rows"
                table.add_row(whose, shown(entry["value"]), interval(entry))
            for gap in apart:
                if name in gap.scores:
                    whose = f"gap: {gap.published} less {gap.patient}, {gap.split}"
                    table.add_row(whose, shown(gap.scores[name]["value"]), interval(gap.scores[name]))
            for baseline in published:
                if name in dict(baseline.scores):
                    table.add_row(f"paper: {baseline.model}", shown(dict(baseline.scores)[name]), "not published")
            console.print(table, highlight=False)
        if published:
            console.print("The paper's splits share patients; its scores carry that leak.\n", highlight=False)


def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A folder that train wrote.")],
    data: Data = Path("build/lung_nodule_ct"),
    split: Annotated[str, typer.Option("--split", help="train, validation or test.")] = VALIDATION,
    draws: Draws = 1000,
    as_json: Json = False,
) -> None:
    """Judge a run on a split: scores with intervals, predictions.parquet, plots and a page."""
    from lung_nodule_ct.train import require_extra

    require_extra()
    from lung_nodule_ct.read.build_folder import open_build
    from lung_nodule_ct.train.devices import begin
    from lung_nodule_ct.train.runs import open_run

    run, build = open_run(folder), open_build(data)
    begin()
    from lung_nodule_ct.train.evaluation import EVALUATION
    from lung_nodule_ct.train.evaluation import evaluate as judge

    document = judge(run, build, split, draws=draws)
    if as_json:
        print_json(document)
        return
    print_scores([document | {"run": folder.name}])
    page = folder / EVALUATION / split / "index.html"
    terminal().print(f"written to {page}", highlight=False, soft_wrap=True)


def compare(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Evaluated runs.")],
    as_json: Json = False,
) -> None:
    """Print runs side by side with their intervals, the paper's Tables 1 and 2 beside them, and the leakage gap.

    The gap is that of two runs that differ only in --split-by.
    """
    from lung_nodule_ct.train import require_extra

    require_extra()
    from lung_nodule_ct.cli.evaluate import print_comparison

    print_comparison(folders, as_json=as_json)


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
    from lung_nodule_ct.cli.evaluate import print_comparison
    from lung_nodule_ct.read.build_folder import open_build
    from lung_nodule_ct.train.devices import begin

    build = open_build(data)
    begin()
    from lung_nodule_ct.train.leakage import train_both

    folders = train_both(out or Path("runs") / f"leakage-{name}", name, recipe, build, draws=draws)
    print_comparison(folders, as_json=as_json, draws=draws)
