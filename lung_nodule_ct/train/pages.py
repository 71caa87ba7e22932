"""What an evaluation looks like: curves of loss and scores, confusion matrix, FROC, the worst cases, as PNG and on one HTML page."""

from __future__ import annotations

import base64
import csv
import html
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from lung_nodule_ct.declaration.labels import PATHOLOGY_NAMES
from lung_nodule_ct.train.data.images import Crops
from lung_nodule_ct.train.data.patches import Patches
from lung_nodule_ct.train.journal import METRICS
from lung_nodule_ct.train.metrics import classification, detection
from lung_nodule_ct.train.validation_curve import SCORES_OVER_TIME, read_scores_over_time
from lung_nodule_ct.train.worst_cases import worst_cases

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from lung_nodule_ct.train.data import DataSource
    from lung_nodule_ct.train.runs import Run
    from lung_nodule_ct.train.tasks import Row

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}"
    "table{border-collapse:collapse}td,th{padding:.3rem .9rem .3rem 0;text-align:left;border-bottom:1px solid #ddd}"
    "img{max-width:100%;height:auto}td+td{font-variant-numeric:tabular-nums}"
)


def write_pages(folder: Path, run: Run, source: DataSource, rows: Sequence[Row], document: dict[str, Any]) -> None:
    """Write the pictures and ``index.html`` into a folder.

    Args:
        folder: Where to.
        run: Its ``metrics.csv`` gives the loss, its ``scores.csv`` the scores over time.
        source: The examples, to be shown.
        rows: The answers.
        document: What ``scores.json`` holds.
    """
    pictures = {"Loss": ("loss.png", _losses(run.folder / METRICS))}
    if over_time := read_scores_over_time(run.folder / SCORES_OVER_TIME):
        pictures["Scores over time (validation)"] = ("scores.png", _scores_over_time(over_time))
    if isinstance(source, Crops):
        pictures["Confusion matrix"] = ("confusion.png", _confusion(rows))
    if isinstance(source, Patches):
        pictures["FROC"] = ("froc.png", _froc(rows))
    title = "Worst cases" if isinstance(source, Crops) else "Worst cases (green: true, orange: predicted)"
    pictures[title] = ("worst.png", worst_cases(source, rows, run.recipe.input))
    body = [f"<h1>{html.escape(run.name)}</h1>", _facts(document), _scores(document["scores"])]
    for title, (name, figure) in pictures.items():
        figure.savefig(folder / name, dpi=110, bbox_inches="tight")
        data = base64.b64encode((folder / name).read_bytes()).decode()
        body.append(f'<h2>{title}</h2><img alt="{title}" src="data:image/png;base64,{data}">')
    (folder / "index.html").write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(run.name)}</title><style>{_STYLE}</style>{''.join(body)}</html>",
        encoding="utf-8",
    )


def _facts(document: dict[str, Any]) -> str:
    text = (
        f"Config {document['config']}, split {document['split']} ({document['split_by']}), {document['rows']:,} examples of "
        f"{document['patients']:,} known patients, after {document['steps']:,} steps, seed {document['seed']}. "
        "Intervals: 95 %, by bootstrap over patients."
    )
    return f"<p>{html.escape(text)}</p>"


def _scores(scores: dict[str, dict[str, float | None]]) -> str:
    cells = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{shown(entry['value'])}</td><td>{interval(entry)}</td></tr>"
        for name, entry in scores.items()
    )
    return f"<table><tr><th>score</th><th>value</th><th>interval</th></tr>{cells}</table>"


def shown(value: float | None) -> str:
    """A score for people; what is unknown is said to be."""
    return "unknown" if value is None else f"{value:.3f}"


def interval(entry: dict[str, float | None]) -> str:
    """A score's interval for people."""
    known = entry["low"] is not None and entry["high"] is not None
    return f"{shown(entry['low'])} to {shown(entry['high'])}" if known else "unknown"


def _losses(path: Path) -> Figure:
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


def _scores_over_time(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Shares and millimetres, a panel each, by the steps that were done."""
    names = [name for name in rows[0] if name != "steps"]
    panels = {
        unit: own for unit in ("score", "mm") if (own := [n for n in names if n.endswith("_mm") == (unit == "mm")])
    }
    figure = Figure(figsize=(7, 3 * len(panels)), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False).ravel()
    for axes, (unit, own) in zip(grid, panels.items(), strict=True):
        for name in own:
            label = name.removesuffix("_mm").replace("_", " ")
            axes.plot([row["steps"] for row in rows], [row[name] for row in rows], ".-", label=label, linewidth=1)
        axes.set(xlabel="step", ylabel=unit, ylim=(0, 1.02 if unit == "score" else None))
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _confusion(rows: Sequence[Row]) -> Figure:
    names = PATHOLOGY_NAMES
    truth, told = ([names.index(row[side]) for row in rows] for side in ("truth", "predicted"))
    table = classification.confusion_matrix(truth, told, len(names))
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(6, 5))
    axes = figure.add_subplot(xlabel="predicted", ylabel="truth")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right")
    axes.set_yticks(range(len(names)), names)
    for (y, x), count in np.ndenumerate(table):
        axes.text(x, y, str(count), ha="center", va="center", color="white" if shares[y, x] > 0.5 else "black")
    return figure


def _froc(rows: Sequence[Row]) -> Figure:
    found = [detection.find(r["centers"], r["scores"], r["truth_centers"], r["truth_diameters"]) for r in rows]
    curve = detection.froc(found)
    figure = Figure(figsize=(6, 4))
    axes = figure.add_subplot(xlabel="false positives a scan", ylabel="sensitivity", ylim=(0, 1.02), xlim=(0.1, 10))
    axes.set_xscale("log", base=2)
    axes.set_xticks(detection.OPERATING_POINTS, [f"{point:g}" for point in detection.OPERATING_POINTS])
    axes.plot(np.linspace(0.1, 10, 500), curve.at(tuple(np.linspace(0.1, 10, 500))))
    axes.plot(detection.OPERATING_POINTS, curve.at(), "o")
    axes.set_title(f"CPM {shown(curve.cpm)}", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
