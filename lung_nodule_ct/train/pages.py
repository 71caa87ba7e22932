"""The page of an evaluation: losses, scores over time, confusion matrix or FROC, and the worst cases."""

from __future__ import annotations

import base64
import csv
import html
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from matplotlib.figure import Figure

from lung_nodule_ct.declaration.labels import PATHOLOGY_NAMES
from lung_nodule_ct.train import metrics
from lung_nodule_ct.train.data.images import Crops
from lung_nodule_ct.train.data.volumes import Patches
from lung_nodule_ct.train.training_log import METRICS, SCORES_OVER_TIME, read_scores_over_time
from lung_nodule_ct.train.worst_cases import plot_worst_cases

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from lung_nodule_ct.train.data import DataSource
    from lung_nodule_ct.train.runs import Run
    from lung_nodule_ct.train.tasks import Prediction

PAGE: Final = "index.html"

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "body{color:#222;background:#fff}"
    "table{border-collapse:collapse}td,th{padding:.3rem .9rem .3rem 0;text-align:left;border-bottom:1px solid #ddd}"
    "img{max-width:100%;height:auto}td+td{font-variant-numeric:tabular-nums}"
)


def write_page(
    folder: Path, run: Run, source: DataSource, predictions: Sequence[Prediction], document: dict[str, Any]
) -> None:
    """Write the plots and ``index.html`` to a folder.

    Args:
        folder: The folder of the evaluation.
        run: The run. Its ``metrics.csv`` has the losses, and its ``scores.csv`` the scores over time.
        source: The examples, for the pictures of the worst cases.
        predictions: The predictions for these examples.
        document: The content of ``scores.json``.
    """
    plots = {"Loss": ("loss.png", _plot_losses(run.folder / METRICS))}
    if over_time := read_scores_over_time(run.folder / SCORES_OVER_TIME):
        plots["Scores over time (validation)"] = ("scores.png", _plot_scores_over_time(over_time))
    if isinstance(source, Crops):
        plots["Confusion matrix"] = ("confusion.png", _plot_confusion(predictions))
    if isinstance(source, Patches):
        plots["FROC"] = ("froc.png", _plot_froc(predictions))
    title = "Worst cases" if isinstance(source, Crops) else "Worst cases (green: true, orange: predicted)"
    plots[title] = ("worst.png", plot_worst_cases(source, predictions, run.recipe.input))
    body = [f"<h1>{html.escape(run.name)}</h1>", _summary(document), _score_table(document["scores"])]
    for title, (name, figure) in plots.items():
        figure.savefig(folder / name, dpi=110, bbox_inches="tight")
        data = base64.b64encode((folder / name).read_bytes()).decode()
        body.append(f'<h2>{title}</h2><img alt="{title}" src="data:image/png;base64,{data}">')
    (folder / PAGE).write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(run.name)}</title><style>{_STYLE}</style>{''.join(body)}</html>",
        encoding="utf-8",
    )


def _summary(document: dict[str, Any]) -> str:
    text = (
        f"Config {document['config']}, split {document['split']} ({document['split_by']}), "
        f"{document['rows']:,} examples of {document['patients']:,} known patients, "
        f"after {document['steps']:,} steps, seed {document['seed']}. "
        "Intervals: 95 %, by bootstrap over patients."
    )
    return f"<p>{html.escape(text)}</p>"


def _score_table(scores: dict[str, dict[str, float | None]]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{format_value(score['value'])}</td><td>{format_interval(score)}</td></tr>"
        for name, score in scores.items()
    )
    return f"<table><tr><th>score</th><th>value</th><th>interval</th></tr>{rows}</table>"


def format_value(value: float | None) -> str:
    """A score with three decimals, or ``unknown``."""
    return "unknown" if value is None else f"{value:.3f}"


def format_interval(score: dict[str, float | None]) -> str:
    """The interval of a score, or ``unknown``."""
    known = score["low"] is not None and score["high"] is not None
    return f"{format_value(score['low'])} to {format_value(score['high'])}" if known else "unknown"


def _plot_losses(path: Path) -> Figure:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(7, 3))
    axes = figure.add_subplot(xlabel="step", ylabel="loss")
    steps = [int(row["step"]) for row in rows]
    for name in (name for name in rows[0] if name.startswith("loss") and name != "loss_hex"):
        axes.plot(steps, [float(row[name]) for row in rows], label=name.replace("_", " "), linewidth=1)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _plot_scores_over_time(rows: Sequence[Mapping[str, float]]) -> Figure:
    """One panel for scores between 0 and 1, and one for errors in mm."""
    names = [name for name in rows[0] if name != "steps"]
    panels = {
        "score": [name for name in names if not name.endswith("_mm")],
        "mm": [name for name in names if name.endswith("_mm")],
    }
    panels = {unit: shown for unit, shown in panels.items() if shown}
    figure = Figure(figsize=(7, 3 * len(panels)), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False).ravel()
    for axes, (unit, shown) in zip(grid, panels.items(), strict=True):
        for name in shown:
            label = name.removesuffix("_mm").replace("_", " ")
            axes.plot([row["steps"] for row in rows], [row[name] for row in rows], ".-", label=label, linewidth=1)
        axes.set(xlabel="step", ylabel=unit, ylim=(0, 1.02 if unit == "score" else None))
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _plot_confusion(predictions: Sequence[Prediction]) -> Figure:
    names = PATHOLOGY_NAMES
    truth, predicted = ([names.index(row[column]) for row in predictions] for column in ("truth", "predicted"))
    table = metrics.confusion_matrix(truth, predicted, len(names))
    fractions = table / np.maximum(table.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(6, 5))
    axes = figure.add_subplot(xlabel="predicted", ylabel="truth")
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right")
    axes.set_yticks(range(len(names)), names)
    for (y, x), count in np.ndenumerate(table):
        axes.text(x, y, str(count), ha="center", va="center", color="white" if fractions[y, x] > 0.5 else "black")
    return figure


def _plot_froc(predictions: Sequence[Prediction]) -> Figure:
    scans = [
        metrics.match_centers(row["centers"], row["scores"], row["truth_centers"], row["truth_diameters"])
        for row in predictions
    ]
    curve, points = metrics.froc(scans), metrics.OPERATING_POINTS
    figure = Figure(figsize=(6, 4))
    axes = figure.add_subplot(xlabel="false positives per scan", ylabel="sensitivity", ylim=(0, 1.02), xlim=(0.1, 10))
    axes.set_xscale("log", base=2)
    axes.set_xticks(points, [f"{point:g}" for point in points])
    dense = np.linspace(0.1, 10, 500)
    axes.plot(dense, curve.sensitivity_at(dense.tolist()))
    axes.plot(points, curve.sensitivity_at(points), "o")
    axes.set_title(f"CPM {format_value(curve.cpm)}", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
