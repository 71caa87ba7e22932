"""What an audit writes into the folder of a build: ``audit.json``, a page, a table of annotations, and plots like Fig. 5 of the paper.

The plots use the colours of Okabe and Ito (Color Universal Design, 2008), which colour-blind readers can distinguish.
Groups also differ by hatching.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lung_nodule_ct.audit.page import audit_page
from lung_nodule_ct.declaration.labels import PATHOLOGY
from lung_nodule_ct.declaration.manifest import GENERATOR, to_json
from lung_nodule_ct.errors import OutputError
from lung_nodule_ct.read.audit_report import AUDIT, AUDIT_COMMAND, AUDIT_VERSION
from lung_nodule_ct.read.sidecars import add_sidecars

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from lung_nodule_ct.audit.evidence_checks import Annotation
    from lung_nodule_ct.audit.views import View
    from lung_nodule_ct.read.audit_report import Check, CheckGroup, Flag

PICTURES: Final = "pictures"
AUDIT_FOLDER: Final = "audit"
INSTALL: Final = 'pip install "lung_nodule_ct[show]"'

_KEY_COLUMNS = ("scan_id", "image_id", "case_id", "patient_id")
_ANNOTATIONS = pa.schema(
    [
        ("config", pa.string()),
        ("split", pa.string()),
        ("row", pa.int64()),
        *((name, pa.string()) for name in _KEY_COLUMNS),
        ("annotation", pa.int64()),
        ("verdict", pa.string()),
        ("grade", pa.string()),
        *(
            (name, pa.float64())
            for name in ("score", "p_value", "core_hu", "rays_that_reach_lung", "inside", "shift", "size_ratio")
        ),
        ("measured", pa.string()),
        ("hint", pa.string()),
    ]
)

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_GREY = "#999999"
_HATCHES = ("", "//", "..", "xx")
_SIZE, _DPI = (6.4, 3.6), 150
_GROUPS = ("≤ 10", "10-20", "20-30", "> 30")
_DAYS_PER_BIN = 90


@dataclass(frozen=True)
class Audit:
    """The result of an audit.

    Attributes:
        groups: The groups of checks, in the order of the report.
        annotations: Every annotation with its evidence; none without the extra ``imaging``.
    """

    groups: tuple[CheckGroup, ...]
    annotations: tuple[Annotation, ...] = ()

    @property
    def checks(self) -> tuple[Check, ...]:
        """All checks."""
        return tuple(check for group in self.groups for check in group.checks)

    @property
    def flags(self) -> tuple[Flag, ...]:
        """All flags, in the order of the checks."""
        return tuple(flag for group in self.groups for flag in group.flags)

    def document(self) -> dict[str, Any]:
        """The content of ``audit.json``."""
        return {
            "format_version": AUDIT_VERSION,
            "generator": GENERATOR,
            "checks": [check.to_dict() for check in self.checks],
            "flags": [flag.to_dict() for flag in self.flags],
            "numbers": {group.name: dict(group.numbers) for group in self.groups},
        }


def write_audit(folder: Path, audit: Audit) -> tuple[Path, ...] | None:
    """Write an audit into the folder of a build. An earlier audit and its plots are replaced, all files at once.

    Args:
        folder: The build.
        audit: The result of the audit.

    Returns:
        The plots; ``None`` if matplotlib is not installed. Then there are no plots, and those of an earlier audit are
        removed.

    Raises:
        OutputError: The folder cannot be written, or somebody else's file has the name of a new file.
    """
    document = audit.document()
    with add_sidecars(folder, by=AUDIT_COMMAND) as stage:
        try:
            (stage / AUDIT).write_text(to_json(document), encoding="utf-8")
            (stage / AUDIT_FOLDER).mkdir()
            views = _views(audit)
            page = audit_page(f"Audit of {folder.resolve().name}", audit.checks, audit.flags, views)
            (stage / AUDIT_FOLDER / "index.html").write_text(page, encoding="utf-8")
            if audit.annotations:
                table = annotations_table(audit.annotations)
                pq.write_table(table, stage / AUDIT_FOLDER / "annotations.parquet", use_dictionary=False)
            (stage / PICTURES).mkdir()
            drawn = draw_plots(document["numbers"], stage / PICTURES)
        except OSError as error:
            raise OutputError(f"the audit of {folder} cannot be written: {error}") from error
    return None if drawn is None else tuple(folder / PICTURES / path.name for path in drawn)


def annotations_table(annotations: Sequence[Annotation]) -> pa.Table:
    """One row per annotation with its evidence. Lengths are in mm for scans, and in pixels for stacks and slices."""
    rows = [
        {
            "config": annotation.row.config,
            "split": annotation.row.split,
            "row": annotation.row.row,
            **{name: annotation.row.key.get(name) for name in _KEY_COLUMNS},
            "annotation": annotation.number,
            **annotation.evidence.columns(),
        }
        for annotation in annotations
    ]
    return pa.Table.from_pylist(rows, schema=_ANNOTATIONS)


def _views(audit: Audit) -> dict[int, tuple[View, ...]]:
    """The pictures of each flagged annotation, by the number of the flag."""
    drawn = {
        (annotation.row.config, annotation.row.split, annotation.row.row, annotation.number): annotation.judged.views
        for annotation in audit.annotations
    }
    return {
        number: drawn.get((flag.row.config, flag.row.split, flag.row.row, flag.annotation), ())
        for number, flag in enumerate(audit.flags)
        if flag.annotation is not None
    }


def draw_plots(numbers: Mapping[str, Any], folder: Path) -> list[Path] | None:
    """Draw the plots for which there is data, as ``audit-<name>.png``.

    Args:
        numbers: The numbers of an audit.
        folder: The folder of the plots.

    Returns:
        The files; ``None`` if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 -- an extra
    except ImportError:
        return None
    paths = []
    for name, (title, has_data, draw) in _PLOTS.items():
        if not has_data(numbers):
            continue
        figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
        draw(figure, numbers)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        path = folder / f"audit-{name}.png"
        figure.savefig(path, metadata={"Software": None})
        paths.append(path)
    return paths


def _axes(figure: Any, position: tuple[int, int, int] = (1, 1, 1)) -> Any:
    axes = figure.add_subplot(*position)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    return axes


def _legend_above(figure: Any, axes: Any) -> None:
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside upper right", ncols=3)


def _classes(figure: Any, numbers: Mapping[str, Any]) -> None:
    axes = _axes(figure)
    by_split = numbers["classes"]["by_split"]
    positions = np.arange(len(PATHOLOGY))
    height = 0.8 / len(by_split)
    for number, (split, counts) in enumerate(by_split.items()):
        bars = axes.barh(
            positions + (number - (len(by_split) - 1) / 2) * height,
            counts,
            height,
            label=f"{split} ({sum(counts):,})",
            color=_COLOURS[number % len(_COLOURS)],
            hatch=_HATCHES[number % len(_HATCHES)],
            edgecolor="white",
        )
        axes.bar_label(bars, fontsize=8, padding=2)
    names = [f"{entry.letter}: {entry.name}" for entry in PATHOLOGY]
    axes.set_yticks(positions, names)
    axes.invert_yaxis()
    axes.set_xlabel("examples")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.margins(x=0.15)
    benign = next(entry.index for entry in PATHOLOGY if not entry.malignant) - 0.5
    axes.axhline(benign, color=_GREY, linewidth=0.8, linestyle=":")
    right = axes.get_xlim()[1]
    axes.text(right, benign - 0.04, "malignant", ha="right", va="bottom", fontsize=8, color="#555555")
    axes.text(right, benign + 0.04, "benign", ha="right", va="top", fontsize=8, color="#555555")
    _legend_above(figure, axes)


def _sizes(figure: Any, numbers: Mapping[str, Any]) -> None:
    axes = _axes(figure)
    built, published = np.array(numbers["sizes"]["counts"]), np.array(numbers["sizes"]["preprint"])
    positions = np.arange(len(_GROUPS))
    for offset, counts, label, colour, hatch in (
        (-0.2, built, f"this build ({built.sum():,})", _COLOURS[0], ""),
        (0.2, published, f"preprint ({published.sum():,})", _GREY, "//"),
    ):
        bars = axes.bar(
            positions + offset,
            100 * counts / counts.sum(),
            0.4,
            label=label,
            color=colour,
            hatch=hatch,
            edgecolor="white",
        )
        axes.bar_label(bars, [f"{count:,}" for count in counts], fontsize=8, padding=1)
    axes.set_xticks(positions, _GROUPS)
    axes.set_xlabel("diameter in mm")
    axes.set_ylabel("% of nodules")
    axes.margins(y=0.12)
    _legend_above(figure, axes)


def _classes_by_size(figure: Any, numbers: Mapping[str, Any]) -> None:
    axes = _axes(figure)
    by_size = numbers["classes"]["by_size"]
    positions, base = np.arange(len(_GROUPS)), np.zeros(len(_GROUPS))
    rows = [
        (
            f"{entry.letter}: {entry.name}",
            by_size["counts"][entry.name],
            _COLOURS[number],
            "" if entry.malignant else "//",
        )
        for number, entry in enumerate(PATHOLOGY)
    ]
    rows.append(("class unknown", by_size["class_unknown"], "#DDDDDD", ""))
    for label, counts, colour, hatch in rows:
        axes.bar(
            positions,
            counts,
            0.6,
            base,
            label=f"{label} ({sum(counts):,})",
            color=colour,
            hatch=hatch,
            edgecolor="white",
        )
        base += np.array(counts)
    for position, total in zip(positions, base, strict=True):
        axes.text(position, total, f"{total:,.0f}", ha="center", va="bottom", fontsize=8)
    axes.set_xticks(positions, _GROUPS)
    axes.set_xlabel("diameter in mm")
    axes.set_ylabel("nodules")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.margins(y=0.1)
    axes.legend(
        frameon=False,
        fontsize=8,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        title="hatched: benign",
        title_fontsize=8,
    )


def _intervals(figure: Any, numbers: Mapping[str, Any]) -> None:
    axes = _axes(figure)
    days = numbers["timepoints"]["intervals_days"]
    bins = np.arange(0, max(days) + _DAYS_PER_BIN + 1, _DAYS_PER_BIN)
    axes.hist(days, bins, color=_COLOURS[0], edgecolor="white")
    axes.axvline(float(np.median(days)), color=_COLOURS[5], linestyle="--")
    axes.set_xlabel(f"days, {_DAYS_PER_BIN} per bin; dashed: median, {np.median(days):,.0f} days")
    axes.set_ylabel(f"intervals ({len(days):,})")
    axes.yaxis.get_major_locator().set_params(integer=True)


def _spacing(figure: Any, numbers: Mapping[str, Any]) -> None:
    sets = numbers["spacing"]["by_nominal_mm"]
    for column, (key, label, width) in enumerate(
        (("slice_mm", "slice spacing", 0.25), ("in_plane_mm", "pixel spacing", 0.05)), 1
    ):
        axes = _axes(figure, (1, 2, column))
        values = [spacings[key] for spacings in sets.values()]
        low, high = min(map(min, values)), max(map(max, values))
        bins = np.arange(round(low / width) - 1.5, round(high / width) + 2.5) * width
        _, _, bars = axes.hist(
            values,
            bins,
            stacked=True,
            label=[f"{nominal} mm set ({len(spacings[key]):,} scans)" for nominal, spacings in sets.items()],
            color=_COLOURS[: len(sets)],
            edgecolor="white",
        )
        for hatch, container in zip(_HATCHES, bars if len(sets) > 1 else [bars], strict=False):
            for bar in container:
                bar.set_hatch(hatch)
        axes.set_xlabel(f"{label} in mm, {width:g} per bin")
        axes.yaxis.get_major_locator().set_params(integer=True)
    figure.axes[0].set_ylabel("scans")
    _legend_above(figure, axes)


_PLOTS: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], bool], Callable[[Any, Mapping[str, Any]], None]]] = {
    "classes": (
        "Examples by pathology class",
        lambda numbers: any(map(any, numbers["classes"]["by_split"].values())),
        _classes,
    ),
    "sizes": ("Nodules by diameter, 1.25 mm scans", lambda numbers: any(numbers["sizes"]["counts"]), _sizes),
    "classes-by-size": (
        "Nodules by class and diameter, 1.25 mm scans",
        lambda numbers: any(numbers["sizes"]["counts"]),
        _classes_by_size,
    ),
    "intervals": (
        "Time between the scans of a patient",
        lambda numbers: bool(numbers["timepoints"]["intervals_days"]),
        _intervals,
    ),
    "spacing": ("Voxel spacing", lambda numbers: bool(numbers["spacing"]["by_nominal_mm"]), _spacing),
}
