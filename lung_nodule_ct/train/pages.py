"""What an evaluation looks like: curves, confusion matrix, FROC, the worst cases, as PNG and on one HTML page."""

from __future__ import annotations

import base64
import csv
import html
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from lung_nodule_ct.spec.pathology import PATHOLOGY
from lung_nodule_ct.train.journal import METRICS
from lung_nodule_ct.train.metrics import agreement, froc
from lung_nodule_ct.train.sources.crops import Crops
from lung_nodule_ct.train.sources.patches import Patches, boxes_of
from lung_nodule_ct.train.sources.slices import Slices
from lung_nodule_ct.windows import Window

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lung_nodule_ct.train.runs import Run
    from lung_nodule_ct.train.sources import Source
    from lung_nodule_ct.train.tasks import Row

_WORST = 8
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}"
    "table{border-collapse:collapse}td,th{padding:.3rem .9rem .3rem 0;text-align:left;border-bottom:1px solid #ddd}"
    "img{max-width:100%;height:auto}td+td{font-variant-numeric:tabular-nums}"
)


def write_pages(folder: Path, run: Run, source: Source, rows: Sequence[Row], document: dict[str, Any]) -> None:
    """Write the pictures and ``index.html`` into a folder.

    Args:
        folder: Where to.
        run: Its ``metrics.csv`` gives the loss.
        source: The examples, to be shown.
        rows: The answers.
        document: What ``scores.json`` holds.
    """
    pictures = {"Loss": ("loss.png", _losses(run.folder / METRICS))}
    if isinstance(source, Crops):
        pictures["Confusion matrix"] = ("confusion.png", _confusion(rows))
    if isinstance(source, Patches):
        pictures["FROC"] = ("froc.png", _froc(rows))
    if isinstance(source, (Crops, Slices, Patches)):
        title = "Worst cases" if isinstance(source, Crops) else "Worst cases (green: true, orange: predicted)"
        pictures[title] = ("worst.png", _worst(source, rows, run))
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


def _confusion(rows: Sequence[Row]) -> Figure:
    names = [entry.name for entry in PATHOLOGY]
    truth, told = ([names.index(row[side]) for row in rows] for side in ("truth", "predicted"))
    table = agreement.confusion_matrix(truth, told, len(names))
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
    found = [froc.find(r["centers"], r["scores"], r["truth_centers"], r["truth_diameters"]) for r in rows]
    curve = froc.froc(found)
    figure = Figure(figsize=(6, 4))
    axes = figure.add_subplot(xlabel="false positives a scan", ylabel="sensitivity", ylim=(0, 1.02), xlim=(0.1, 10))
    axes.set_xscale("log", base=2)
    axes.set_xticks(froc.OPERATING_POINTS, [f"{point:g}" for point in froc.OPERATING_POINTS])
    axes.plot(np.linspace(0.1, 10, 500), curve.at(tuple(np.linspace(0.1, 10, 500))))
    axes.plot(froc.OPERATING_POINTS, curve.at(), "o")
    axes.set_title(f"CPM {shown(curve.cpm)}", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _worst(source: Crops | Slices | Patches, rows: Sequence[Row], run: Run) -> Figure:
    """The examples that were told worst, with predicted (orange) and true (green) boxes or classes."""
    chosen = sorted(rows, key=_quality)[:_WORST]
    figure = Figure(figsize=(10, 5.6))
    for place, row in enumerate(chosen):
        axes = figure.add_subplot(2, _WORST // 2, place + 1)
        axes.axis("off")
        axes.set_title(_caption(row), fontsize=8)
        number = row["number"]
        if isinstance(source, Crops):
            axes.imshow(source.load(number, np.random.default_rng(0))["image"], cmap="gray")
            continue
        boxes = [(box, "tab:orange") for box, score in zip(row["boxes"], row["scores"], strict=True) if score >= 0.3]
        if isinstance(source, Slices):
            axes.imshow(source.picture(number), cmap="gray")
            boxes += [(box, "tab:green") for box in row["truth_boxes"]]
        else:
            volume, truth = source.volume(number), boxes_of(source.rows.light[number])
            level = int(truth[0, [0, 3]].mean()) if len(truth) else volume.shape[0] // 2
            level = min(max(level, 0), volume.shape[0] - 1)
            picture = volume[level]
            window = Window("recipe", *run.recipe.input.window)
            axes.imshow(
                picture if picture.dtype == np.uint8 else window.to_grey(picture), cmap="gray", vmin=0, vmax=255
            )
            boxes += [(box[[2, 1, 0, 5, 4, 3]], "tab:green") for box in truth]
            boxes = [([b[0], b[1], b[3], b[4]], colour) for b, colour in boxes if b[2] <= level < b[5]]
        for (x0, y0, x1, y1), colour in boxes:
            xs, ys = np.array([x0, x1, x1, x0, x0]) - 0.5, np.array([y0, y0, y1, y1, y0]) - 0.5
            axes.plot(xs, ys, color=colour, linewidth=1.2)
    return figure


def _caption(row: Row) -> str:
    if "truth" in row:
        return f"{row['truth']}\ntold {row['predicted']}"
    best = max(row["scores"], default=0.0)
    return f"{row['id']}\nsurest {best:.2f}"


def _quality(row: Row) -> float:
    """The lower, the worse it was told."""
    if "truth" in row:
        names = [entry.name for entry in PATHOLOGY]
        return float(row["probabilities"][names.index(row["truth"])])
    return _sureness(row) - max((score for score in _false(row)), default=0.0)


def _centers(row: Row) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of candidates and nodules: the centres, and the nodules' radii."""
    if "truth_centers" in row:
        found, truth = (np.array(row[name]).reshape(-1, 3) for name in ("centers", "truth_centers"))
        return found, truth, np.array(row["truth_diameters"]) / 2
    found, truth = (np.array(row[name]).reshape(-1, 4) for name in ("boxes", "truth_boxes"))
    middle = [(box[:, :2] + box[:, 2:]) / 2 for box in (found, truth)]
    return middle[0], middle[1], (truth[:, 2:] - truth[:, :2]).mean(1) / 2


def _hits(row: Row) -> np.ndarray:
    found, truth, radius = _centers(row)
    near: np.ndarray = np.linalg.norm(found[:, None] - truth[None], axis=-1) < radius
    return near


def _sureness(row: Row) -> float:
    """The lowest of the scores by which its nodules were found; 1 without a nodule."""
    near, scores = _hits(row), np.array(row["scores"])
    return min((float(scores[column].max(initial=0.0)) for column in near.T), default=1.0)


def _false(row: Row) -> list[float]:
    near = _hits(row)
    return [score for score, own in zip(row["scores"], near, strict=True) if not own.any()]
