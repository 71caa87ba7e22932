"""``lung-nodule-ct evaluate`` and ``lung-nodule-ct compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lung_nodule_ct.cli.options import Data, Draws, Json
from lung_nodule_ct.cli.scores import print_scores
from lung_nodule_ct.cli.terminal import print_json, terminal
from lung_nodule_ct.declaration.labels import VALIDATION


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
    from lung_nodule_ct.cli.scores import print_comparison

    print_comparison(folders, as_json=as_json)
