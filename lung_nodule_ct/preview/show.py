"""One example as a figure, for notebooks: ``lung_nodule_ct.show(dataset[0])``."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from lung_nodule_ct.declaration.labels import PATHOLOGY_NAMES
from lung_nodule_ct.errors import ExampleError
from lung_nodule_ct.geometry.display import PRESETS, Orientation, Window
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.read.voxel_columns import decode_cell
from lung_nodule_ct.system.imports import optional_imports

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

# Okabe and Ito's orange, sky blue and bluish green: told apart by every kind of colour vision
_CIRCLE, _BOX, _LUNGS = "#e69f00", "#56b4e9", "#009e73"
_ZOOM = 3.0  # a selected 2D box is shown with so many times its own size around


@dataclass(frozen=True)
class _Plane:
    """A plane through a volume: which of the shown axes x (0), y (1), z (2) run through, across and down it."""

    name: str
    through: int
    across: int
    down: int


_PLANES: Final = (_Plane("axial", 2, 0, 1), _Plane("coronal", 1, 0, 2), _Plane("sagittal", 0, 1, 2))


def show(example: Any, *, window: str | Window = "lung", nodule: int | None = None) -> Figure:
    """Draw one row of any config as ``load_dataset`` gives it.

    A volume is shown in three planes through a nodule, the patient's left on the right, the back below, the head up; with the
    nodules' spheres (solid) and voxel boxes (dashed) where the planes cut them, and the outline of the lung mask. A slice is
    taken for a slab: a sphere's circle is the widest within half a slice, so that a nodule between two thick slices is seen. A
    crop is shown with its class, a slice with its published boxes.

    Args:
        example: The row.
        window: For volumes in Hounsfield units ``lung``, ``mediastinal``, or a :class:`lung_nodule_ct.geometry.display.Window`. 8-bit
            pictures and stacks are shown as they are.
        nodule: Which nodule the planes go through, or which box a slice is zoomed to. By default the largest that is inside
            the volume, and the whole slice.

    Returns:
        The figure, closed for pyplot so that a notebook draws it once; ``savefig`` works on it.

    Raises:
        ExampleError: It is no row of a config, or has no such nodule.
        MissingExtraError: matplotlib is not installed; the extra ``show`` brings it.
        ValueError: ``window`` is no window.
    """
    if not isinstance(example, Mapping) or not {"volume", "image"} & set(example):
        got = ", ".join(map(str, example)) if isinstance(example, Mapping) else type(example).__name__
        raise ExampleError(
            "there is nothing to show", expected="a row with a volume or an image", got=got or "no columns"
        )
    chosen = _window(window)
    with optional_imports("show", "show"):
        from matplotlib import pyplot as plt  # noqa: PLC0415 -- an extra
    figure: Figure = plt.figure(layout="constrained")
    try:
        if "volume" in example:
            _draw_volume(figure, example, chosen, nodule)
        else:
            _draw_picture(figure, example, nodule)
    finally:
        plt.close(figure)
    return figure


def _window(window: str | Window) -> Window:
    if isinstance(window, Window):
        return window
    by_name = {preset.name: preset for preset in PRESETS}
    if window not in by_name:
        raise ValueError(f"window: expected {', '.join(by_name)} or a Window, got {window!r}")
    return by_name[window]


def _picked(nodule: int | None, count: int, what: str) -> int | None:
    if nodule is not None and not 0 <= nodule < count:
        raise ExampleError(
            f"the example has no {what} {nodule}", expected=f"0 to {count - 1}" if count else f"no {what}"
        )
    return nodule


def _draw_picture(figure: Figure, example: Mapping[str, Any], nodule: int | None) -> None:
    from matplotlib.patches import Rectangle  # noqa: PLC0415 -- an extra

    image = example["image"]
    if isinstance(image, Mapping) and image.get("bytes"):  # a column that is not decoded
        image = Image.open(io.BytesIO(image["bytes"]))
    if not isinstance(image, Image.Image):
        raise ExampleError(
            "the image cannot be drawn", expected="a PIL image, or its encoded bytes", got=type(image).__name__
        )
    axes = figure.subplots()
    axes.imshow(np.asarray(image.convert("L")), cmap="gray", vmin=0, vmax=255, extent=(0, image.width, image.height, 0))
    axes.set_axis_off()
    boxes = [entry["bbox"] for entry in example.get("objects") or ()]
    picked = _picked(nodule, len(boxes), "box")
    for x0, y0, x1, y1 in boxes:  # published pixel numbers, the last one within the box
        axes.add_patch(Rectangle((x0, y0), x1 - x0 + 1, y1 - y0 + 1, fill=False, color=_CIRCLE, lw=1.5))
    if picked is not None:
        x0, y0, x1, y1 = boxes[picked]
        reach = _ZOOM / 2 * max(x1 - x0 + 1, y1 - y0 + 1)
        middle_x, middle_y = (x0 + x1 + 1) / 2, (y0 + y1 + 1) / 2
        axes.set_xlim(middle_x - reach, middle_x + reach)
        axes.set_ylim(middle_y + reach, middle_y - reach)
    label = example.get("label")
    axes.set_title(" · ".join([*_patient(example), *([] if label is None else [PATHOLOGY_NAMES[label]])]), fontsize=10)


def _draw_volume(figure: Figure, example: Mapping[str, Any], window: Window, nodule: int | None) -> None:
    stored = _voxels(example["volume"])
    mask = _voxels(example["lung_mask"]) if _is_there(example.get("lung_mask")) else None
    frame = Frame.from_row(example)
    in_hounsfield = stored.dtype.itemsize == 2
    orientation = Orientation() if frame is None else Orientation.of(frame)
    volume = orientation.volume(stored)
    steps = (1.0, 1.0, 1.0) if frame is None else orientation.extent(frame.spacing)
    nodules = [_Shown.of(entry, orientation, stored.shape) for entry in example["nodules"]]
    picked = _picked(nodule, len(nodules), "nodule")
    if picked is None and nodules:
        picked = max(
            range(len(nodules)), key=lambda place: (nodules[place].box is not None, nodules[place].diameter or 0)
        )
    size = volume.shape[::-1]
    middle = [(count - 1) / 2 for count in size] if picked is None else nodules[picked].center
    at = [min(max(0, math.floor(value + 0.5)), count - 1) for value, count in zip(middle, size, strict=True)]
    figure.set_size_inches(12, 4.6)
    for axes, plane in zip(figure.subplots(1, 3), _PLANES, strict=True):
        hu = _cut(volume, plane, at[plane.through])
        grey = window.to_grey(hu) if in_hounsfield else hu
        extent = (
            0,
            size[plane.across],
            0 if plane.down == 2 else size[plane.down],
            size[plane.down] * (plane.down == 2),
        )
        origin = "lower" if plane.down == 2 else "upper"
        axes.imshow(
            grey,
            cmap="gray",
            vmin=0,
            vmax=255,
            extent=extent,
            origin=origin,
            aspect=steps[plane.down] / steps[plane.across],
        )
        if mask is not None:
            lungs = _cut(orientation.volume(mask), plane, at[plane.through]) > 0
            if lungs.any() and not lungs.all() and min(lungs.shape) > 1:
                axes.contour(lungs, [0.5], colors=_LUNGS, linewidths=0.8, extent=extent, origin=origin)
        for shown in nodules:
            _draw_nodule(axes, shown, plane, at[plane.through], steps)
        axes.set_xlim(0, size[plane.across])
        axes.set_ylim(extent[2:])
        axes.set_axis_off()
        stored_axis = orientation.axes[plane.through]
        index = size[plane.through] - 1 - at[plane.through] if orientation.flipped[plane.through] else at[plane.through]
        name = plane.name if frame is not None else "plane"
        axes.set_title(f"{name}, {'xyz'[stored_axis]} = {index} of {size[plane.through]}", fontsize=9)
    text = _patient(example)
    if picked is not None:
        text += [f"nodule {picked}: {nodules[picked].text}"]
    text += [f"{window.name} window" if in_hounsfield else "8-bit, spacing unknown"]
    figure.suptitle(" · ".join(text), fontsize=10)


def _is_there(cell: Any) -> bool:
    return cell is not None and cell["bytes"] is not None


def _voxels(cell: Any) -> NDArray[Any]:
    """The array of a cell {bytes, shape}, axes (z, y, x)."""
    try:
        data, shape = memoryview(bytes(cell["bytes"])), tuple(int(count) for count in cell["shape"])
    except (TypeError, KeyError) as error:
        raise ExampleError("the volume cannot be read", expected="{bytes, shape}", got=type(cell).__name__) from error
    try:
        voxels: NDArray[Any] = decode_cell(data, shape)[...]
    except ValueError as error:
        raise ExampleError("the bytes of the volume do not fit its shape", got=error) from error
    if voxels.ndim != 3:
        raise ExampleError("the volume is not three-dimensional", expected="a shape z, y, x", got=shape)
    return voxels


@dataclass(frozen=True)
class _Shown:
    """A nodule in shown order: centre, box, diameter in mm, and what to say of it."""

    center: tuple[float, float, float]
    box: tuple[int, ...] | None
    diameter: float | None
    text: str

    @classmethod
    def of(cls, nodule: Mapping[str, Any], orientation: Orientation, shape: Sequence[int]) -> _Shown:
        box, diameter, label = nodule["box_voxel"], nodule.get("diameter_mm"), nodule.get("pathology")
        size = "diameter unknown"
        if diameter is not None:
            size = f"{diameter:.1f} mm"
        elif nodule.get("diameter") is not None:
            size = f"diameter {nodule['diameter']:g} as published"
        name = "class unknown" if label is None else PATHOLOGY_NAMES[label]
        return cls(
            orientation.point(nodule["center_voxel"], shape),
            orientation.box(box, shape) if box else None,
            diameter,
            size if diameter is None else f"{size}, {name}",
        )


def _cut(volume: NDArray[Any], plane: _Plane, index: int) -> NDArray[Any]:
    """The pixels of a plane, rows along ``down``, columns along ``across``."""
    pixels: NDArray[Any] = np.take(volume, index, axis=2 - plane.through)
    return pixels


def _draw_nodule(axes: Axes, nodule: _Shown, plane: _Plane, index: int, steps: Sequence[float]) -> None:
    """Its marks, on the scale of voxel edges: voxel i spans i to i + 1."""
    from matplotlib.patches import Ellipse, Rectangle  # noqa: PLC0415 -- an extra

    if nodule.box is not None and nodule.box[plane.through] <= index < nodule.box[plane.through + 3]:
        corner = nodule.box[plane.across], nodule.box[plane.down]
        width, height = (nodule.box[axis + 3] - nodule.box[axis] for axis in (plane.across, plane.down))
        axes.add_patch(Rectangle(corner, width, height, fill=False, color=_BOX, lw=1.2, ls="--"))
    if nodule.diameter is None:
        return
    away = max(0.0, abs(index - nodule.center[plane.through]) - 0.5) * steps[plane.through]
    squared = (nodule.diameter / 2) ** 2 - away**2
    if nodule.diameter > 0 and squared > 0:
        center = nodule.center[plane.across] + 0.5, nodule.center[plane.down] + 0.5
        wide, high = (2 * math.sqrt(squared) / steps[axis] for axis in (plane.across, plane.down))
        axes.add_patch(Ellipse(center, wide, high, fill=False, color=_CIRCLE, lw=1.5))


def _patient(example: Mapping[str, Any]) -> list[str]:
    """Whose it is and when: never a date."""
    said = []
    if "patient_id" in example:
        said.append(f"patient {example['patient_id'] or 'unknown'}")
    if example.get("days_since_first") is not None:
        said.append(f"day {example['days_since_first']:,}")
    if example.get("slice_thickness_mm") is not None:
        said.append(f"{example['slice_thickness_mm']:g} mm slices")
    return said
