"""The pictures of the card: for every config some examples of the build side by side, with their boxes drawn.

The whole card of a finished build: README.md, croissant.json, pictures, and the ``preview`` config.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public by its documentation
from PIL import Image, ImageDraw, ImageFont

from lung_nodule_ct.declaration.configs import LONGITUDINAL
from lung_nodule_ct.declaration.labels import PATHOLOGY
from lung_nodule_ct.declaration.manifest import Format
from lung_nodule_ct.errors import BuildFolderError
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.preview.samples import grey, largest, pick, samples, spread
from lung_nodule_ct.publish.card import CARD, PLACEHOLDER, Shown, card_text
from lung_nodule_ct.publish.croissant import CROISSANT, croissant_text
from lung_nodule_ct.publish.preview_config import write_preview
from lung_nodule_ct.read.audit_report import read_audit
from lung_nodule_ct.read.sidecars import add_sidecars, own_sidecars
from lung_nodule_ct.system.imports import is_installed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from lung_nodule_ct.preview.samples import Row, Sample
    from lung_nodule_ct.read.build_folder import BuildFolder


_HEIGHT: Final = 300  # of a panel, in pixels
_WIDTH: Final = 460  # at most
_GAP: Final = 8
_PANELS: Final = 4
_CLASSES_A_ROW: Final = 3
_LINE: Final = 30  # for a caption of 18 pixels, still legible when a page shows the picture at two thirds
_GROUND: Final = (24, 24, 27)
_INK: Final = (228, 228, 231)
_MARK: Final = (230, 159, 0)  # the orange of Okabe and Ito, which everyone sees on grey


def config_picture(build: BuildFolder, config: str) -> tuple[Image.Image, str] | None:
    """Some examples of a config as one picture, and what it shows; ``None`` of a config without examples.

    Crops are shown one a class; slices and stacks as a few examples; a scan in three planes through its largest nodule, as
    stored; ``longitudinal`` as one patient's scans, each at its largest nodule.

    Args:
        build: A finished build.
        config: One of its configs.

    Raises:
        BuildFolderError: A shard is missing or damaged.
    """
    if not any(build.configs[config].values()):
        return None
    names = [column.name for column in build.columns(config)]
    if "label" in names:
        panels, shows = _classes(build, config), "crops, one of each class"
    elif config == LONGITUDINAL.name:
        panels, shows = _timeline(build), "the scans of one patient in the order of time, each at its largest nodule"
    elif "spacing" in names:
        panels, shows = _planes(build, config), "a scan as it is stored, in three planes through its largest nodule"
    else:
        chosen = spread(build, config, _PANELS)
        panels, shows = [_axial(sample, _where(sample)) for sample in samples(build, config, chosen)], "examples"
    marked = "" if "label" in names else ", nodules boxed in orange"
    width = _CLASSES_A_ROW if "label" in names else _PANELS
    return _grid(panels, width), f"{config}: {shows}{marked}"


def _classes(build: BuildFolder, config: str) -> list[Image.Image]:
    first: dict[int, tuple[str, int]] = {}
    for split in build.configs[config]:
        for place, row in enumerate(build.rows(config, split, ["label"])):
            first.setdefault(row["label"], (split, place))
    chosen = {split: sorted(place for own, place in first.values() if own == split) for split in build.configs[config]}
    found = sorted(samples(build, config, chosen), key=lambda sample: int(sample.row["label"]))
    return [_axial(sample, PATHOLOGY[sample.row["label"]].name) for sample in found]


def _timeline(build: BuildFolder) -> list[Image.Image]:
    config = LONGITUDINAL.name
    boxed = pick(build, config, lambda row: largest(row) is not None, ["nodules"])
    by_patient: dict[str, dict[str, list[int]]] = {}
    for split, places in boxed.items():
        for place, row in zip(places, build.rows(config, split, ["patient_id"], places), strict=True):
            by_patient.setdefault(row["patient_id"], {}).setdefault(split, []).append(place)
    if not by_patient:
        return [_axial(sample, _when(sample.row)) for sample in samples(build, config, spread(build, config, _PANELS))]
    most = max(by_patient.values(), key=lambda places: sum(map(len, places.values())))
    chosen = {split: places[:_PANELS] for split, places in most.items()}
    return [_axial(sample, _when(sample.row)) for sample in samples(build, config, chosen)][:_PANELS]


def _where(sample: Sample) -> str:
    return sample.split if sample.slice_index is None else f"{sample.split}, slice {sample.slice_index}"


def _when(row: Row) -> str:
    days = row["days_since_first"]
    return f"{'day unknown' if days is None else f'day {days:,}'}, {row['slice_thickness_mm']:g} mm"


def _planes(build: BuildFolder, config: str) -> list[Image.Image]:
    (sample,) = samples(build, config, spread(build, config, 1))
    volume, row = sample.volume, sample.row
    assert volume is not None  # noqa: S101 -- a config with a spacing has volumes
    frame = Frame.from_row(row)
    assert frame is not None  # noqa: S101 -- a config with a frame
    x_step, y_step, z_step = frame.spacing
    nodule = largest(row)
    box = nodule["box_voxel"] if nodule else [0, 0, 0, *volume.shape[::-1]]
    x, y = ((box[axis] + box[axis + 3] - 1) // 2 for axis in (0, 1))
    upward = 1 if frame.matrix[2, 2] < 0 else -1  # the head is up where slices count towards it, too
    low, high = (box[2], box[5]) if upward == 1 else (len(volume) - box[5], len(volume) - box[2])
    across = (
        (volume[::upward, y, :], (box[0], low, box[3], high), f"{_plane_across(frame, 1)}, y = {y}", x_step),
        (volume[::upward, :, x], (box[1], low, box[4], high), f"{_plane_across(frame, 0)}, x = {x}", y_step),
    )
    return [
        _axial(sample, f"{_plane_across(frame, 2)}, z = {sample.slice_index}", (x_step, y_step)),
        *(
            _panel(grey(plane), [own] if nodule else [], caption, (step, z_step))
            for plane, own, caption, step in across
        ),
    ]


def _plane_across(frame: Frame, axis: int) -> str:
    """What radiologists call the plane that a stored axis stands on, by the world axis that it is nearest to."""
    return ("sagittal", "coronal", "axial")[int(np.abs(frame.matrix[:, axis]).argmax())]


def _axial(sample: Sample, caption: str, steps: tuple[float, float] = (1, 1)) -> Image.Image:
    return _panel(sample.pixels, [entry.box for entry in sample.marked], caption, steps)


def _panel(
    pixels: NDArray[Any], boxes: Sequence[Sequence[float]], caption: str, steps: tuple[float, float] = (1, 1)
) -> Image.Image:
    """Pixels at the panel's height, in the right proportion of ``steps`` along x and y, with boxes and a line below."""
    height, width = pixels.shape[:2]
    scale_y = _HEIGHT / height
    scale_x = scale_y * steps[0] / steps[1]
    if (over := scale_x * width / _WIDTH) > 1:  # a slab of few slices
        scale_x, scale_y = scale_x / over, scale_y / over
    size = (max(1, round(width * scale_x)), max(1, round(height * scale_y)))
    panel = Image.new("RGB", (max(size[0], 120), _HEIGHT + _LINE), _GROUND)
    left, top = (panel.width - size[0]) // 2, (_HEIGHT - size[1]) // 2
    panel.paste(Image.fromarray(pixels).convert("RGB").resize(size, Image.Resampling.BICUBIC), (left, top))
    draw = ImageDraw.Draw(panel)
    for x0, y0, x1, y1 in boxes:
        corners = (left + x0 * scale_x, top + y0 * scale_y, left + x1 * scale_x, top + y1 * scale_y)
        draw.rectangle((corners[0] - 2, corners[1] - 2, corners[2] + 2, corners[3] + 2), outline=_MARK, width=2)
    draw.text((panel.width / 2, _HEIGHT + 5), _fitting(draw, caption, panel.width), _INK, _font(), anchor="ma")
    return panel


def _fitting(draw: ImageDraw.ImageDraw, caption: str, width: int) -> str:
    """The caption, cut where it does not fit."""
    while draw.textlength(caption, _font()) > width and len(caption) > 1:
        caption = caption[:-2] + "…"
    return caption


@cache
def _font() -> Any:
    return ImageFont.load_default(18)


def _grid(panels: Sequence[Image.Image], columns: int) -> Image.Image:
    """Panels in rows of so many."""
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    height = _HEIGHT + _LINE + _GAP
    width = max(sum(panel.width + _GAP for panel in row) for row in rows) + _GAP
    whole = Image.new("RGB", (width, height * len(rows)), _GROUND)
    for number, row in enumerate(rows):
        left = _GAP
        for panel in row:
            whole.paste(panel, (left, number * height + _GAP))
            left += panel.width + _GAP
    return whole


_PICTURES = "pictures"


@dataclass(frozen=True)
class CardOptions:
    """What a card holds.

    Attributes:
        examples: Pictures of each config in the ``preview`` config, at most.
        croissant: Whether to write ``croissant.json``; ``None`` for where mlcroissant is installed.
        repository: Where it shall stand on the Hub, ``USER/REPO``; the card's code names it.
    """

    examples: int = 32
    croissant: bool | None = None
    repository: str = PLACEHOLDER

    def __post_init__(self) -> None:
        if self.examples < 1:
            raise ValueError(f"examples: expected at least 1, got {self.examples}")
        validate_repo_id(self.repository)


def add_card(
    build: BuildFolder, options: CardOptions | None = None, on_sample: Callable[[], None] = lambda: None
) -> dict[str, int]:
    """Write the card into a build, in place of an earlier one of ours.

    Args:
        build: A finished build of Parquet.
        options: What it holds.
        on_sample: Called after each picture of the ``preview`` config.

    Returns:
        The files that were written, with their bytes.

    Raises:
        BuildFolderError: It is no build of Parquet, or a shard or ``audit.json`` is damaged.
        MissingExtraError: ``croissant.json`` was asked for and mlcroissant is not installed.
        OutputError: A file that is not ours stands where one shall be written.
    """
    options = options or CardOptions()
    if build.format is not Format.PARQUET:
        raise BuildFolderError(
            f"{build.folder} is a build of {build.format}",
            expected="one of Parquet, which the Hub shows",
            remedy="build with --format parquet",
        )
    audit = read_audit(build.folder)
    with add_sidecars(build.folder, by="card") as stage:
        preview = write_preview(stage, _all_samples(build, options.examples, on_sample))
        shown = list(_write_pictures(build, stage))
        if options.croissant or (options.croissant is None and is_installed("mlcroissant")):
            (stage / CROISSANT).write_text(croissant_text(build, preview), encoding="utf-8")
        text = card_text(build, preview, shown, audit, _audit_plots(build.folder), options.repository)
        (stage / CARD).write_text(text, encoding="utf-8")
        return {
            path.relative_to(stage).as_posix(): path.stat().st_size
            for path in sorted(stage.rglob("*"))
            if path.is_file()
        }


def _all_samples(build: BuildFolder, limit: int, on_sample: Callable[[], None]) -> Iterator[Sample]:
    for config in build.configs:
        for sample in samples(build, config, spread(build, config, limit)):
            yield sample
            on_sample()


def _write_pictures(build: BuildFolder, stage: Path) -> Iterator[Shown]:
    (stage / _PICTURES).mkdir()
    for config in build.configs:
        picture = config_picture(build, config)
        if picture is not None:
            name = f"{_PICTURES}/{config}.png"
            picture[0].save(stage / name, "PNG", optimize=True)
            yield Shown(name, picture[1])


def _audit_plots(folder: Path) -> Iterator[Shown]:
    for name, command in sorted(own_sidecars(folder).items()):
        if command == "audit" and name.startswith(f"{_PICTURES}/") and name.endswith(".png"):
            title = name.removeprefix(f"{_PICTURES}/").removeprefix("audit-").removesuffix(".png").replace("-", " ")
            yield Shown(name, f"Audit: {title}")
