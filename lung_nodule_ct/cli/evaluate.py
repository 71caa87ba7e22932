"""``lung-nodule-ct evaluate`` and ``lung-nodule-ct compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lung_nodule_ct.cli.options import Json
from lung_nodule_ct.cli.terminal import new_table, print_json, terminal
from lung_nodule_ct.spec.splits import VALIDATION

if TYPE_CHECKING:
    from collections.abc import Sequence


def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A folder that train wrote.")],
    data: Annotated[Path, typer.Option("--data", help="A build as Parquet or Arrow.")] = Path("build/lung_nodule_ct"),
    split: Annotated[str, typer.Option("--split", help="train, validation or test.")] = VALIDATION,
    draws: Annotated[int, typer.Option("--draws", min=1, help="Samples of patients for the intervals.")] = 1000,
    as_json: Json = False,
) -> None:
    """Judge a run on a split: scores with intervals, predictions.parquet, plots and a page."""
    from lung_nodule_ct.train.extra import require_extra

    require_extra()
    from lung_nodule_ct.built import open_build
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
    _print_scores([document | {"run": folder.name}], with_paper=False)
    page = folder / EVALUATION / split / "index.html"
    terminal().print(f"written to {page}", highlight=False, soft_wrap=True)


def compare(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Evaluated runs.")],
    as_json: Json = False,
) -> None:
    """Print runs side by side with their intervals, and the paper's Tables 1 and 2 beside them."""
    from lung_nodule_ct.train.extra import require_extra

    require_extra()
    from lung_nodule_ct.train.evaluation import read_scores

    documents = [document for folder in folders for document in read_scores(folder)]
    if as_json:
        print_json(documents)
        return
    _print_scores(documents, with_paper=True)


def _print_scores(documents: Sequence[dict[str, Any]], *, with_paper: bool) -> None:
    from lung_nodule_ct.spec.published import BASELINES
    from lung_nodule_ct.train.pages import interval, shown

    console = terminal()
    for config in dict.fromkeys(document["config"] for document in documents):
        own = [document for document in documents if document["config"] == config]
        published = [baseline for baseline in BASELINES if with_paper and baseline.config == config]
        console.print(f"[bold]{config}[/]", highlight=False)
        for name in dict.fromkeys(name for document in own for name in document["scores"]):
            table = new_table(name, value=True, interval=False)
            for document in own:
                entry = document["scores"].get(name, {"value": None, "low": None, "high": None})
                whose = f"{document['run']}: {document['split']} by {document['split_by']}, {document['rows']} rows"
                table.add_row(whose, shown(entry["value"]), interval(entry))
            for baseline in published:
                if name in dict(baseline.scores):
                    table.add_row(f"paper: {baseline.model}", shown(dict(baseline.scores)[name]), "not published")
            console.print(table, highlight=False)
        if published:
            console.print("The paper's splits share patients; its scores carry that leak.\n", highlight=False)
