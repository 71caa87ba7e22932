"""The pictures of a card: for every config, a few of its examples in one picture, with their boxes drawn."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lung_nodule_ct.declaration.schema import Category, Records
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.preview.samples import grey, largest, pick, samples, spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lung_nodule_ct.declaration.schema import Column
    from lung_nodule_ct.preview.samples import Row, Sample
    from lung_nodule_ct.read.build_folder import BuildFolder

_PANEL_HEIGHT: Final = 300  # in pixels, as all sizes here
_MAX_WIDTH: Final = 460
_CAPTION_HEIGHT: Final = 30  # for text of 18 pixels, which is legible when a page shows the picture at two thirds
_GAP: Final = 8
_PANELS: Final = 4
_PANELS_OF_CLASSES: Final = 3
_MAX_CLASSES: Final = 12
_MAX_LABEL: Final = 15
_BACKGROUND: Final = (24, 24, 27)
_TEXT: Final = (228, 228, 231)
_BOX: Final = (230, 159, 0)  # the orange of Okabe and Ito, which colour-blind readers can distinguish from grey


class ConfigPicture(NamedTuple):
    """The picture of a config, and one sentence about its content."""

    image: Image.Image
    caption: str


def config_picture(build: BuildFolder, config: str) -> ConfigPicture | None:
    """Draw some examples of a config as one picture.

    A config with classes shows one example of each class; a longitudinal config shows the scans of one patient, each at
    the key slice of its largest nodule; a config of scans shows one scan in three planes through its largest nodule, as it is
    stored. Captions say what the key slice was chosen by.
    Any other config shows a few pictures or slices.

    Args:
        build: A finished build.
        config: One of its configs.

    Returns:
        The picture; ``None`` if the config has no pictures and no volumes.

    Raises:
        BuildFolderError: A shard is missing or damaged.
    """
    declared = build.config(config)
    columns = declared.schema.columns
    category = next((column.name for column in columns if isinstance(column.type, Category)), None)
    has_keys = any(column.name == "key_slice" for column in _fields(columns))
    nodule = (
        "the key slice of its largest nodule (chosen by evidence or by the annotated centre)"
        if has_keys
        else "its largest nodule"
    )
    if category is not None:
        panels, content = _classes(build, config, category), "one example of each class"
    elif declared.longitudinal:
        panels = _timeline(build, config)
        content = f"the scans of one patient in chronological order, each at {nodule}"
    elif declared.schema.has_frame and declared.schema.has_voxels:
        panels, content = _planes(build, config), f"a scan as it is stored, in three planes through {nodule}"
    else:
        panels = [
            _axial(sample, _location(sample)) for sample in samples(build, config, spread(build, config, _PANELS))
        ]
        content = "examples"
    if not panels:
        return None
    marked = ", nodules boxed in orange" if any(isinstance(column.type, Records) for column in columns) else ""
    grid = _grid(panels, _PANELS if category is None else _PANELS_OF_CLASSES)
    return ConfigPicture(grid, f"{config}: {content}{marked}")


def _fields(columns: Sequence[Column]) -> list[Column]:
    """The columns of the records of a row."""
    return [field for column in columns if isinstance(column.type, Records) for field in column.type.fields]


def _classes(build: BuildFolder, config: str, column: str) -> list[Image.Image]:
    kind = build.config(config).schema.column(column).type
    assert isinstance(kind, Category)  # noqa: S101 -- for the type checker
    first: dict[int, tuple[str, int]] = {}
    for split in build.configs[config]:
        for index, row in enumerate(build.rows(config, split, [column])):
            if row[column] is not None:
                first.setdefault(row[column], (split, index))
    rows = [first[label] for label in sorted(first)[:_MAX_CLASSES]]
    chosen = {split: sorted(index for other, index in rows if other == split) for split in build.configs[config]}
    examples = sorted(samples(build, config, chosen), key=lambda sample: int(sample.row[column]))
    return [_axial(sample, kind.names[sample.row[column]]) for sample in examples]


def _timeline(build: BuildFolder, config: str) -> list[Image.Image]:
    records = [column.name for column in build.columns(config) if isinstance(column.type, Records)]
    boxed = pick(build, config, lambda row: largest(row) is not None, records) if records else {}
    by_patient: defaultdict[str, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for split, indices in boxed.items():
        for index, row in zip(indices, build.rows(config, split, ["patient_id"], indices), strict=True):
            by_patient[row["patient_id"]][split].append(index)
    chosen = spread(build, config, _PANELS)
    if by_patient:
        patient = max(by_patient.values(), key=lambda rows: sum(map(len, rows.values())))
        chosen = {split: indices[:_PANELS] for split, indices in patient.items()}
    return [_axial(sample, _time(sample.row) + _key(sample)) for sample in samples(build, config, chosen)][:_PANELS]


def _planes(build: BuildFolder, config: str) -> list[Image.Image]:
    for sample in samples(build, config, spread(build, config, 1)):
        frame = Frame.from_row(sample.row)
        if sample.volume is not None and frame is not None:
            return _planes_of(sample, sample.volume, frame)
    return []


def _planes_of(sample: Sample, volume: NDArray[Any], frame: Frame) -> list[Image.Image]:
    x_step, y_step, z_step = frame.spacing
    nodule = largest(sample.row)
    box = nodule["box_voxel"] if nodule else [0, 0, 0, *volume.shape[::-1]]
    x, y = ((box[axis] + box[axis + 3] - 1) // 2 for axis in (0, 1))
    upward = 1 if frame.matrix[2, 2] < 0 else -1  # the head is at the top, whichever way the slices are stored
    low, high = (box[2], box[5]) if upward == 1 else (len(volume) - box[5], len(volume) - box[2])
    planes = (
        (volume[::upward, y, :], (box[0], low, box[3], high), f"{_plane_name(frame, 1)}, y = {y}", x_step),
        (volume[::upward, :, x], (box[1], low, box[4], high), f"{_plane_name(frame, 0)}, x = {x}", y_step),
    )
    return [
        _axial(sample, f"{_plane_name(frame, 2)}, z = {sample.slice_index}{_key(sample)}", (x_step, y_step)),
        *(
            _panel(grey(plane), [plane_box] if nodule else [], caption, (step, z_step))
            for plane, plane_box, caption, step in planes
        ),
    ]


def _plane_name(frame: Frame, axis: int) -> str:
    """The radiological name of the plane across a stored axis, by the world axis that is nearest to it."""
    return ("sagittal", "coronal", "axial")[int(np.abs(frame.matrix[:, axis]).argmax())]


def _location(sample: Sample) -> str:
    return sample.split if sample.slice_index is None else f"{sample.split}, slice {sample.slice_index}"


def _key(sample: Sample) -> str:
    """What the key slice was chosen by, for a caption; empty if the slice is not a key slice."""
    return "" if sample.key_basis is None else f", by {sample.key_basis}"


def _time(row: Row) -> str:
    day, thickness = row.get("days_since_first"), row.get("slice_thickness_mm")
    return ("day unknown" if day is None else f"day {day:,}") + ("" if thickness is None else f", {thickness:g} mm")


def _axial(sample: Sample, caption: str, steps: tuple[float, float] = (1, 1)) -> Image.Image:
    return _panel(_visible(sample.pixels), [entry.box for entry in sample.marked], caption, steps)


def _visible(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The pixels; those of a label image, whose low values would look black, spread over all greys."""
    highest = int(pixels.max())
    return pixels * np.uint8(255 // highest) if 0 < highest <= _MAX_LABEL else pixels


def _panel(
    pixels: NDArray[Any], boxes: Sequence[Sequence[float]], caption: str, steps: tuple[float, float] = (1, 1)
) -> Image.Image:
    """Draw pixels of the sizes ``steps`` (x, y) at the height of a panel, with boxes, and a caption below."""
    height, width = pixels.shape[:2]
    scale_y = _PANEL_HEIGHT / height
    scale_x = scale_y * steps[0] / steps[1]
    if (excess := scale_x * width / _MAX_WIDTH) > 1:  # a volume of few slices
        scale_x, scale_y = scale_x / excess, scale_y / excess
    size = (max(1, round(width * scale_x)), max(1, round(height * scale_y)))
    panel = Image.new("RGB", (max(size[0], 120), _PANEL_HEIGHT + _CAPTION_HEIGHT), _BACKGROUND)
    left, top = (panel.width - size[0]) // 2, (_PANEL_HEIGHT - size[1]) // 2
    panel.paste(Image.fromarray(pixels).convert("RGB").resize(size, Image.Resampling.BICUBIC), (left, top))
    draw = ImageDraw.Draw(panel)
    for x0, y0, x1, y1 in boxes:
        corners = (left + x0 * scale_x, top + y0 * scale_y, left + x1 * scale_x, top + y1 * scale_y)
        draw.rectangle((corners[0] - 2, corners[1] - 2, corners[2] + 2, corners[3] + 2), outline=_BOX, width=2)
    draw.text((panel.width / 2, _PANEL_HEIGHT + 5), _shortened(draw, caption, panel.width), _TEXT, _font(), anchor="ma")
    return panel


def _shortened(draw: ImageDraw.ImageDraw, caption: str, width: int) -> str:
    """The caption, shortened to fit the width in pixels."""
    while draw.textlength(caption, _font()) > width and len(caption) > 1:
        caption = caption[:-2] + "…"
    return caption


@cache
def _font() -> Any:
    return ImageFont.load_default(18)


def _grid(panels: Sequence[Image.Image], columns: int) -> Image.Image:
    """Arrange panels in rows of ``columns`` panels."""
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    height = _PANEL_HEIGHT + _CAPTION_HEIGHT + _GAP
    width = max(sum(panel.width + _GAP for panel in row) for row in rows) + _GAP
    grid = Image.new("RGB", (width, height * len(rows)), _BACKGROUND)
    for number, row in enumerate(rows):
        left = _GAP
        for panel in row:
            grid.paste(panel, (left, number * height + _GAP))
            left += panel.width + _GAP
    return grid
