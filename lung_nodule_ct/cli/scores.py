"""How scores are printed: a table a score, runs below each other, then their gap, then the paper."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.cli.terminal import new_table, print_json, terminal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

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
