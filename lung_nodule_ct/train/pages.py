"""The page of an evaluation: losses, scores over time, confusion matrix or FROC, and the worst cases.

The worst cases are pictures of the examples with the worst predictions, with true (green) and predicted (orange) boxes or diameters.
"""

from __future__ import annotations

import base64
import csv
import html
from itertools import islice
from textwrap import fill
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from lung_nodule_ct.declaration.labels import PATHOLOGY_NAMES
from lung_nodule_ct.geometry.display import Window
from lung_nodule_ct.train import metrics
from lung_nodule_ct.train.data.candidates import Candidates
from lung_nodule_ct.train.data.images import Crops, Slices
from lung_nodule_ct.train.data.volumes import Patches, Sequences
from lung_nodule_ct.train.lung_regions import describe_lung_crop
from lung_nodule_ct.train.tasks.detection import sizes_of_hits
from lung_nodule_ct.train.training_log import METRICS, SCORES_OVER_TIME, read_scores_over_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from lung_nodule_ct.train.data import DataSource
    from lung_nodule_ct.train.recipes import InputOptions
    from lung_nodule_ct.train.runs import Run
    from lung_nodule_ct.train.tasks import Prediction


EVALUATION_PAGE: Final = "index.html"

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "body{color:#222;background:#fff}"
    "table{border-collapse:collapse}td,th{padding:.3rem .9rem .3rem 0;text-align:left;border-bottom:1px solid #ddd}"
    "img{max-width:100%;height:auto}td+td{font-variant-numeric:tabular-nums}"
)
_SELECTED: Final = {
    "last": "",
    "best": ", the best checkpoint on validation examples, so scores of the split validation are higher than those of unseen patients",
}
DETECTOR_ALONE: Final = "detector_alone"
"""The entry of ``scores.json`` with the scores of a detector whose boxes were rescored, without that."""
LEARNING_FREE: Final = "learning_free"
"""The entry of ``scores.json`` with the scores of the detector that learns nothing."""
COMPARED: Final = {
    DETECTOR_ALONE: ("The detector alone", "The same scans, without the stage that rescores its boxes."),
    LEARNING_FREE: (
        "A detector that learns nothing",
        "Smoothing, a threshold and connected components, on the same scans. What is trained must be better than that.",
    ),
}
"""Scores that are shown next to those of the run: title and text."""
_EXAMPLES: Final = 8
_PATIENTS: Final = 4
_HITS: Final = 3
"""Hits of a volume whose sizes are stated."""
_SHOWN_SCORE: Final = 0.3
"""Boxes with a lower score are not shown, unless they are the only one."""
_TRUE_COLOR: Final = "limegreen"
_PREDICTED_COLOR: Final = "tab:orange"


def write_evaluation_page(
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
    for name, (title, text) in COMPARED.items():
        if name in document:
            body += [f"<h2>{title}</h2>", f"<p>{text}</p>", _score_table(document[name])]
    for title, (name, figure) in plots.items():
        figure.savefig(folder / name, dpi=110, bbox_inches="tight")
        data = base64.b64encode((folder / name).read_bytes()).decode()
        body.append(f'<h2>{title}</h2><img alt="{title}" src="data:image/png;base64,{data}">')
    (folder / EVALUATION_PAGE).write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(run.name)}</title><style>{_STYLE}</style>{''.join(body)}</html>",
        encoding="utf-8",
    )


def _summary(document: dict[str, Any]) -> str:
    text = (
        f"Config {document['config']}, split {document['split']} ({document['split_by']}), "
        f"{document['rows']:,} examples of {document['patients']:,} known patients, "
        f"after {document['steps']:,} steps{_SELECTED[document['select']]}, seed {document['seed']}. "
        "Intervals: 95 %, by bootstrap over patients."
    )
    stages = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in describe_stages(document))
    statement = f"<p><strong>{html.escape(document['statement'])}</strong></p>" if "statement" in document else ""
    return f"<p>{html.escape(text)}</p>{stages}{statement}"


def describe_stages(document: dict[str, Any]) -> list[str]:
    """What was done to the predictions of a network before they were scored, from the content of ``scores.json``."""
    sentences = [describe_lung_crop(document["lungs"])] if "lungs" in document else []
    if (stage := document.get("rescored_by")) is not None:
        sentences.append(
            f"Scores are the geometric means of the detector's and of the probabilities of {stage['run']}."
        )
    if (calibration := document.get("calibration")) is not None:
        fits = calibration["scale"] is not None
        sentences.append(
            f"Scores are probabilities, calibrated on the split {calibration['split']}. Calibration errors are those of patients "
            "that the calibration has not seen."
            if fits
            else "Scores are not calibrated: the validation has no hits, no false positives, lower scores of hits, or scores that are too alike."
        )
    return sentences


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


def plot_worst_cases(source: DataSource, predictions: Sequence[Prediction], options: InputOptions) -> Figure:
    """Plot the worst examples, the worst first. Sequences have one row each, with the scans in the order of time."""
    worst = sorted(predictions, key=_quality)
    if isinstance(source, Sequences):
        return _plot_sequences(source, worst[:_PATIENTS], options)
    figure = Figure(figsize=(10, 5.8), layout="constrained")
    grid = figure.subplots(2, _EXAMPLES // 2, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, row in zip(grid, worst, strict=False):
        axes.set_title(_caption(row), fontsize=8)
        if isinstance(source, Crops):
            _show(axes, source.load(row["number"], np.random.default_rng(0))["image"], options)
        elif isinstance(source, Slices):
            _plot_slice(axes, source, row, options)
        elif isinstance(source, Candidates):
            image = source.candidate(row["number"])["image"]
            _show(axes, image[len(image) // 2], options)
        elif isinstance(source, Patches):
            _plot_volume(axes, source, row, options)
    return figure


def _show(axes: Axes, image: np.ndarray, options: InputOptions) -> None:
    window = Window("recipe", *options.window)
    grey = image if image.dtype == np.uint8 else window.to_grey(image)
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255)


def _plot_slice(axes: Axes, source: Slices, row: Prediction, options: InputOptions) -> None:
    _show(axes, source.picture(row["number"]), options)
    for box in row["truth_boxes"]:
        _outline(axes, box, _TRUE_COLOR)
    for box in _shown_boxes(row):
        _outline(axes, box, _PREDICTED_COLOR)
    _note(axes, missing_boxes(row))


def _plot_volume(axes: Axes, source: Patches, row: Prediction, options: InputOptions) -> None:
    """The slice through the first nodule, or the middle slice, with the boxes that it intersects."""
    volume, truth = source.volume(row["number"]), source.nodule_boxes(row["number"])
    index = int(truth[0, [0, 3]].mean()) if len(truth) else volume.shape[0] // 2
    index = min(max(index, 0), volume.shape[0] - 1)
    _show(axes, volume[index], options)
    for boxes, color in ((row["truth_boxes"], _TRUE_COLOR), (_shown_boxes(row), _PREDICTED_COLOR)):
        for x0, y0, z0, x1, y1, z1 in boxes:
            if z0 <= index < z1:
                _outline(axes, (x0, y0, x1, y1), color)
    _note(axes, missing_boxes(row, index))


def missing_boxes(row: Prediction, index: int | None = None) -> list[str]:
    """Why a panel has no true or no predicted box. Of a volume, it shows the slice ``index``."""
    reasons = []
    for boxes, missing, name in (
        (row["truth_boxes"], "no nodule", "nodule"),
        (_shown_boxes(row), "no box predicted", "best predicted box"),
    ):
        if not boxes:
            reasons.append(missing)
        elif index is not None and not any(box[2] <= index < box[5] for box in boxes):
            reasons.append(f"{name} at z {boxes[0][2]:.0f} to {boxes[0][5]:.0f}, slice {index} shown")
    return reasons


def _note(axes: Axes, lines: Sequence[str]) -> None:
    """Write lines on the lower end of a picture, which is about 30 characters wide."""
    frame = {"facecolor": "black", "alpha": 0.6, "pad": 1.5, "edgecolor": "none"}
    if lines:
        text = "\n".join(fill(line, 30) for line in lines)
        axes.text(
            0.5, 0.02, text, transform=axes.transAxes, color="white", fontsize=7, ha="center", va="bottom", bbox=frame
        )


def _outline(axes: Axes, box: Sequence[float], color: str) -> None:
    x0, y0, x1, y1 = box
    xs, ys = np.array([x0, x1, x1, x0, x0]) - 0.5, np.array([y0, y0, y1, y1, y0]) - 0.5
    axes.plot(xs, ys, color=color, linewidth=1.2)


def _shown_boxes(row: Prediction) -> list[list[float]]:
    """The predicted boxes with a sufficient score, or the one with the highest score."""
    shown = [box for box, score in zip(row["boxes"], row["scores"], strict=True) if score >= _SHOWN_SCORE]
    return shown or row["boxes"][:1]


def _plot_sequences(source: Sequences, rows: Sequence[Prediction], options: InputOptions) -> Figure:
    """The slice through the nodule of each scan with its true diameter, and the predicted diameter on the last scan."""
    sequences = [source.nodules(row["number"]) for row in rows]
    scans = max(map(len, sequences))
    figure = Figure(figsize=(2.5 * scans + 2, 2.6 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), scans + 1, squeeze=False, width_ratios=[0.8] + [1.0] * scans)
    for line, row, nodules in zip(grid, rows, sequences, strict=True):
        for axes in line:
            axes.axis("off")
        line[0].text(0, 0.5, _sequence_caption(row), fontsize=8, va="center", transform=line[0].transAxes)
        example = source.load(row["number"], np.random.default_rng(0))
        for axes, position, nodule in zip(line[1:], range(-len(nodules), 0), nodules, strict=False):
            diameter, (z, y, x) = nodule
            image, (_, height, width) = example["image"][position], example["spacing"][position]
            _show(axes, image[round(z)], options)
            axes.set_aspect(height / width)
            axes.set_title(f"{example['years'][position]:.1f} years, {diameter:.1f} mm", fontsize=8)
            outlines = [(diameter, _TRUE_COLOR)]
            if position == -1:
                outlines.append((nodules[0].diameter_mm + row["change_mm"], _PREDICTED_COLOR))
            for size, color in outlines:
                outline = Ellipse((x, y), size / width, size / height, fill=False, edgecolor=color, linewidth=1.2)
                axes.add_patch(outline)
    return figure


def _sequence_caption(row: Prediction) -> str:
    malignant, change = row["truth_malignant"], row["truth_change_mm"]
    pathology = "malignancy unknown" if malignant is None else "malignant" if malignant else "benign"
    changed = "one scan: no change known" if change is None else f"changed by {change:+.1f} mm"
    predicted = f"predicted: malignant {row['malignant']:.2f},\n  change {row['change_mm']:+.1f} mm"
    return f"{row['id']}\n\ntrue: {pathology},\n  {changed}\n{predicted}"


def _caption(row: Prediction) -> str:
    if "truth" in row:
        return f"{row['truth']}\npredicted: {row['predicted']}"
    if "is_nodule" in row:
        kind = "nodule" if row["is_nodule"] else "false positive"
        return f"{row['id']}\n{kind}, probability {row['probability']:.2f}"
    caption = f"{row['id']}\nhighest score {max(row['scores'], default=0.0):.2f}"
    if "truth_centers" not in row:
        return caption
    sizes = sizes_of_hits(row)
    hits = (
        f"IoU {overlap:.2f}, {ratio:.1f} x the side" for overlap, ratio in zip(sizes.overlap, sizes.ratio, strict=True)
    )
    return "\n".join([caption, *islice(hits, _HITS)])


def _quality(row: Prediction) -> float:
    """The quality of a prediction. Lower is worse."""
    if "truth" in row:
        return float(row["probabilities"][PATHOLOGY_NAMES.index(row["truth"])])
    if "is_nodule" in row:
        return -abs(row["is_nodule"] - row["probability"])
    if "malignant" in row:
        malignant, change = row["truth_malignant"], row["truth_change_mm"]
        error = 0.0 if malignant is None else abs(row["malignant"] - malignant)
        return -max(error, 0.0 if change is None else min(abs(row["change_mm"] - change) / 10, 1.0))
    return _detection_quality(row)


def _detection_quality(row: Prediction) -> float:
    """The lowest score of the nodules (1 without a nodule), minus the highest score of the false positives.

    The score of a nodule is the highest score of the candidates whose centre lies within its radius, or 0.
    """
    predicted, truth, radius = _centers(row)
    hits = np.linalg.norm(predicted[:, None] - truth[None], axis=-1) < radius
    scores = np.array(row["scores"])
    lowest = min((float(scores[column].max(initial=0.0)) for column in hits.T), default=1.0)
    return lowest - float(scores[~hits.any(1)].max(initial=0.0))


def _centers(row: Prediction) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The centres of the predicted boxes, and the centres and radii of the nodules."""
    if "truth_centers" in row:
        predicted, truth = (np.array(row[name]).reshape(-1, 3) for name in ("centers", "truth_centers"))
        return predicted, truth, np.array(row["truth_diameters"]) / 2
    predicted, truth = (np.array(row[name]).reshape(-1, 4) for name in ("boxes", "truth_boxes"))
    centers = [(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (predicted, truth)]
    return centers[0], centers[1], (truth[:, 2:] - truth[:, :2]).mean(1) / 2
