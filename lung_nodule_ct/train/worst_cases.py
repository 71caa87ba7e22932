"""The examples that were told worst, as pictures: true (green) and predicted (orange) boxes, sizes and classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from lung_nodule_ct.declaration.labels import PATHOLOGY_NAMES
from lung_nodule_ct.geometry.display import Window
from lung_nodule_ct.train.data.images import Crops, Slices
from lung_nodule_ct.train.data.patches import Patches, boxes_of
from lung_nodule_ct.train.data.sequences import Sequences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from lung_nodule_ct.train.data import DataSource
    from lung_nodule_ct.train.recipes import InputOptions
    from lung_nodule_ct.train.tasks import Row

_WORST: Final = 8
_PATIENTS: Final = 4
_SURE: Final = 0.3
_TRUE: Final = "limegreen"
_TOLD: Final = "tab:orange"


def worst_cases(source: DataSource, rows: Sequence[Row], options: InputOptions) -> Figure:
    """A figure of the worst examples, the very worst first; of sequences a patient a row, scans in the order of time."""
    chosen = sorted(rows, key=_quality)
    if isinstance(source, Sequences):
        return _patients(source, chosen[:_PATIENTS], options)
    figure = Figure(figsize=(10, 5.8), layout="constrained")
    grid = figure.subplots(2, _WORST // 2, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, row in zip(grid, chosen, strict=False):
        axes.set_title(_caption(row), fontsize=8)
        if isinstance(source, Crops):
            _show(axes, source.load(row["number"], np.random.default_rng(0))["image"], options)
        elif isinstance(source, Slices):
            _slice(axes, source, row, options)
        elif isinstance(source, Patches):
            _volume(axes, source, row, options)
    return figure


def _show(axes: Axes, picture: np.ndarray, options: InputOptions) -> None:
    window = Window("recipe", *options.window)
    grey = picture if picture.dtype == np.uint8 else window.to_grey(picture)
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255)


def _slice(axes: Axes, source: Slices, row: Row, options: InputOptions) -> None:
    _show(axes, source.picture(row["number"]), options)
    for box in row["truth_boxes"]:
        _outline(axes, box, _TRUE)
    for box in _sure(row):
        _outline(axes, box, _TOLD)


def _volume(axes: Axes, source: Patches, row: Row, options: InputOptions) -> None:
    """The slice through the first nodule, or the middle one, with the boxes that it cuts."""
    volume, truth = source.volume(row["number"]), boxes_of(source.rows.light[row["number"]])
    level = int(truth[0, [0, 3]].mean()) if len(truth) else volume.shape[0] // 2
    level = min(max(level, 0), volume.shape[0] - 1)
    _show(axes, volume[level], options)
    for boxes, colour in ((truth[:, [2, 1, 0, 5, 4, 3]].tolist(), _TRUE), (_sure(row), _TOLD)):
        for x0, y0, z0, x1, y1, z1 in boxes:
            if z0 <= level < z1:
                _outline(axes, (x0, y0, x1, y1), colour)


def _outline(axes: Axes, box: Sequence[float], colour: str) -> None:
    x0, y0, x1, y1 = box
    xs, ys = np.array([x0, x1, x1, x0, x0]) - 0.5, np.array([y0, y0, y1, y1, y0]) - 0.5
    axes.plot(xs, ys, color=colour, linewidth=1.2)


def _sure(row: Row) -> list[list[float]]:
    """The boxes that are sure enough, or else the surest."""
    sure = [box for box, score in zip(row["boxes"], row["scores"], strict=True) if score >= _SURE]
    return sure or row["boxes"][:1]


def _patients(source: Sequences, rows: Sequence[Row], options: InputOptions) -> Figure:
    """A patient a row: each scan's slice through the nodule with its diameter, on the last one the predicted diameter too."""
    followed = [source.nodules(row["number"]) for row in rows]
    scans = max(map(len, followed))
    figure = Figure(figsize=(2.5 * scans + 2, 2.6 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), scans + 1, squeeze=False, width_ratios=[0.8] + [1.0] * scans)
    for line, row, nodules in zip(grid, rows, followed, strict=True):
        for axes in line:
            axes.axis("off")
        line[0].text(0, 0.5, _sequence_caption(row), fontsize=8, va="center", transform=line[0].transAxes)
        example = source.load(row["number"], np.random.default_rng(0))
        for axes, slot, (diameter, (z, y, x)) in zip(line[1:], range(-len(nodules), 0), nodules, strict=False):
            image, (_, high, wide) = example["image"][slot], example["spacing"][slot]
            _show(axes, image[round(z)], options)
            axes.set_aspect(high / wide)
            axes.set_title(f"{example['years'][slot]:.1f} years, {diameter:.1f} mm", fontsize=8)
            sizes = [(diameter, _TRUE)]
            if slot == -1:
                sizes.append((nodules[0][0] + row["change_mm"], _TOLD))
            for size, colour in sizes:
                outline = Ellipse((x, y), size / wide, size / high, fill=False, edgecolor=colour, linewidth=1.2)
                axes.add_patch(outline)
    return figure


def _sequence_caption(row: Row) -> str:
    known, change = row["truth_malignant"], row["truth_change_mm"]
    truth = "malignancy unknown" if known is None else "malignant" if known else "benign"
    changed = "one scan: no change known" if change is None else f"changed by {change:+.1f} mm"
    told = f"told: malignant {row['malignant']:.2f},\n  change {row['change_mm']:+.1f} mm"
    return f"{row['id']}\n\ntrue: {truth},\n  {changed}\n{told}"


def _caption(row: Row) -> str:
    if "truth" in row:
        return f"{row['truth']}\ntold: {row['predicted']}"
    best = max(row["scores"], default=0.0)
    return f"{row['id']}\nsurest {best:.2f}"


def _quality(row: Row) -> float:
    """The lower, the worse it was told."""
    if "truth" in row:
        return float(row["probabilities"][PATHOLOGY_NAMES.index(row["truth"])])
    if "malignant" in row:
        known, change = row["truth_malignant"], row["truth_change_mm"]
        miss = 0.0 if known is None else abs(row["malignant"] - known)
        return -max(miss, 0.0 if change is None else min(abs(row["change_mm"] - change) / 10, 1.0))
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
