"""The commands ``evaluate`` and ``compare``, and how scores are printed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lung_nodule_ct.cli.options import Data, Draws, Json, build_and_name
from lung_nodule_ct.cli.terminal import new_table, print_json, terminal
from lung_nodule_ct.declaration.labels import VALIDATION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lung_nodule_ct.declaration.published import Baseline
    from lung_nodule_ct.train.comparison import Difference, Gap


def evaluate(
    context: typer.Context,
    first: Annotated[
        str,
        typer.Argument(
            metavar="BUILD RUN", help="A build as Parquet or Arrow, and the folder of a run that train wrote."
        ),
    ],
    data: Data = None,
    split: Annotated[str, typer.Option("--split", help="train, validation or test.")] = VALIDATION,
    rescore: Annotated[
        Path | None,
        typer.Option(
            "--rescore", metavar="RUN", help="A run of det3d_1.25mm-candidates, which rescores the boxes of a detector."
        ),
    ] = None,
    draws: Draws = 1000,
    as_json: Json = False,
) -> None:
    """Evaluate a run on a split: scores with intervals, predictions.parquet, plots and a page."""
    data_folder, name = build_and_name([first, *context.args], data, "RUN")
    folder = Path(name)
    from lung_nodule_ct.train import require_extra

    require_extra()
    from lung_nodule_ct.read.build_folder import open_build
    from lung_nodule_ct.train.runs import open_run
    from lung_nodule_ct.train.step import initialize_jax

    run, build = open_run(folder), open_build(data_folder)
    stage = None if rescore is None else open_run(rescore)
    initialize_jax()
    from lung_nodule_ct.train.evaluation import EVALUATION
    from lung_nodule_ct.train.evaluation import evaluate as evaluate_run
    from lung_nodule_ct.train.pages import EVALUATION_PAGE

    document = evaluate_run(run, build, split, stage=stage, draws=draws)
    if as_json:
        print_json(document)
        return
    print_scores([document | {"run": folder.name}])
    terminal().print(f"written to {folder / EVALUATION / split / EVALUATION_PAGE}", highlight=False, soft_wrap=True)


def compare(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of evaluated runs.")],
    as_json: Json = False,
) -> None:
    """Compare the scores of runs with each other and with Tables 1 and 2 of the paper.

    Of runs that were evaluated on the same examples, the differences from the first one are printed with intervals; of two runs
    that differ only in --split-by, the leakage gap.
    """
    from lung_nodule_ct.train import require_extra

    require_extra()
    print_comparison(folders, as_json=as_json)


def print_comparison(folders: Sequence[Path], *, as_json: bool, draws: int = 1000) -> None:
    """Print the scores of evaluated runs, their differences and leakage gaps, and the paper's scores.

    Raises:
        TrainingError: A folder holds no evaluated run.
    """
    from lung_nodule_ct.declaration.published import BASELINES
    from lung_nodule_ct.train.comparison import build_of, differences_between, gaps_between
    from lung_nodule_ct.train.evaluation import read_scores
    from lung_nodule_ct.train.runs import open_run

    documents = [document for folder in folders for document in read_scores(folder)]
    gaps, differences = gaps_between(folders, draws=draws), differences_between(folders, draws=draws)
    if as_json:
        compared = {"gaps": [*map(asdict, gaps)], "differences": [*map(asdict, differences)]}
        print_json({"evaluations": documents} | compared)
        return
    print_scores(documents, gaps, differences, BASELINES)
    data: dict[str, list[dict[str, Any]]] = {}
    for run in map(open_run, folders):
        data.setdefault(run.recipe.config, []).append(build_of(run))
    for config, builds in data.items():
        if any(build != builds[0] for build in builds):
            terminal().print(f"The runs of {config} read different builds, so their scores are of different data.")


def print_scores(
    documents: Sequence[dict[str, Any]],
    gaps: Sequence[Gap] = (),
    differences: Sequence[Difference] = (),
    baselines: Sequence[Baseline] = (),
) -> None:
    """Print the content of ``scores.json`` files, one table per config and score, with differences and the paper's scores."""
    from lung_nodule_ct.train.pages import COMPARED, describe_stages, format_interval, format_value

    console = terminal()
    for config in dict.fromkeys(document["config"] for document in documents):
        of_config = [document for document in documents if document["config"] == config]
        published = [baseline for baseline in baselines if baseline.config == config]
        console.print(f"[bold]{config}[/]", highlight=False)
        for name in dict.fromkeys(name for document in of_config for name in document["scores"]):
            table = new_table(name, value=True, interval=False)
            for document in of_config:
                score = document["scores"].get(name, {"value": None, "low": None, "high": None})
                label = f"{document['run']}: {document['split']} by {document['split_by']}, {document['rows']} rows"
                table.add_row(label, format_value(score["value"]), format_interval(score))
                for key, (title, _) in COMPARED.items():
                    if score := document.get(key, {}).get(name):
                        label = f"{document['run']}: {title[0].lower()}{title[1:]}, the same rows"
                        table.add_row(label, format_value(score["value"]), format_interval(score))
            for gap in gaps:
                if gap.config == config and name in gap.scores:
                    label = f"gap: {gap.published} minus {gap.patient}, {gap.split}"
                    table.add_row(label, format_value(gap.scores[name]["value"]), format_interval(gap.scores[name]))
            for difference in differences:
                if difference.config == config and name in difference.scores:
                    score = difference.scores[name]
                    label = f"difference: {difference.second} minus {difference.first}, {difference.split}"
                    table.add_row(label, format_value(score["value"]), format_interval(score))
            for baseline in published:
                if name in dict(baseline.scores):
                    value = format_value(dict(baseline.scores)[name])
                    table.add_row(f"paper: {baseline.model}", value, "not published")
            console.print(table, highlight=False)
        for document in of_config:
            for sentence in describe_stages(document):
                console.print(f"{document['run']}: {sentence}", highlight=False, soft_wrap=True)
            if "statement" in document:
                console.print(f"{document['run']}: {document['statement']}", highlight=False, soft_wrap=True)
        if published:
            console.print("The paper's splits share patients, so its scores include this leakage.\n", highlight=False)
