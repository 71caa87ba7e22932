"""One row as a matplotlib figure, for notebooks: ``lung_nodule_ct.show(dataset[0])``."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from lung_nodule_ct.declaration.labels import PATHOLOGY, PATHOLOGY_NAMES
from lung_nodule_ct.errors import ExampleError
from lung_nodule_ct.geometry.display import PLANES, PRESETS, Orientation, Plane, Window, stretch_labels
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.preview.samples import nodules_of, records_with
from lung_nodule_ct.read.planes import key_position, largest_nodule
from lung_nodule_ct.read.voxel_columns import decode_cell
from lung_nodule_ct.system.imports import optional_imports

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

# orange, sky blue and bluish green of Okabe and Ito, which all kinds of colour vision can distinguish
_CIRCLE, _BOX, _LUNGS = "#e69f00", "#56b4e9", "#009e73"
_ZOOM = 3.0  # side of the view of a selected 2D box, relative to the box


def show(example: Any, *, window: str | Window = "lung", nodule: int | None = None) -> Figure:
    """Draw one row of any config, as ``load_dataset`` returns it.

    The first volume of the row is drawn in three planes through a nodule, the axial one at its key slice, in radiological
    orientation: the patient's left on the right, the back at the bottom, the head at the top. The title says what the key
    slice was chosen by. Spheres of nodules are drawn solid and voxel boxes
    dashed where a plane cuts them, and the lung mask as an outline. A slice counts as a slab: the circle of a sphere is
    its largest section within half a slice, so that a nodule between two thick slices is visible. A row without a
    volume is drawn as its first picture, with its boxes and its class.

    Args:
        example: The row.
        window: For volumes in Hounsfield units: ``lung``, ``mediastinal``, or a
            :class:`lung_nodule_ct.geometry.display.Window`. 8-bit pictures and volumes are drawn as they are.
        nodule: Index of the nodule through which the planes go, or of the box of a picture to zoom to. By default the
            largest nodule, and the complete picture.

    Returns:
        The figure. It is closed in pyplot, so that a notebook draws it only once; ``savefig`` works.

    Raises:
        ExampleError: The row has neither a picture nor a volume, or no such nodule.
        MissingExtraError: matplotlib is not installed; the extra ``show`` installs it.
        ValueError: ``window`` is not a window.

    Example:
        >>> import lung_nodule_ct
        >>> scans = lung_nodule_ct.load("det3d_1.25mm", source="dummy_data", split="train")
        >>> figure = lung_nodule_ct.show(scans[0], window="mediastinal")
        >>> len(figure.axes)
        3
    """
    chosen = _window(window)
    with optional_imports("show", "show"):
        from matplotlib import pyplot as plt  # noqa: PLC0415 -- an extra
    volumes, pictures = _contents(example)
    figure: Figure = plt.figure(layout="constrained")
    try:
        if volumes:
            _draw_volume(figure, example, volumes, chosen, nodule)
        else:
            _draw_picture(figure, example, pictures[0], nodule)
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


def _contents(example: Any) -> tuple[list[NDArray[Any]], list[Image.Image]]:
    """Return the volumes and the pictures of a row, whatever the names of its columns.

    Raises:
        ExampleError: There are neither volumes nor pictures.
    """
    if not isinstance(example, Mapping):
        raise ExampleError("there is nothing to show", expected="a row of a config", got=type(example).__name__)
    cells = {name: value for name, value in example.items() if isinstance(value, Mapping) and value.get("bytes")}
    volumes = [_voxels(cell) for cell in cells.values() if "shape" in cell]
    pictures = [value for value in example.values() if isinstance(value, Image.Image)]
    pictures += [Image.open(io.BytesIO(cell["bytes"])) for cell in cells.values() if "shape" not in cell]
    if not volumes and not pictures:
        columns = ", ".join(f"{name} ({type(value).__name__})" for name, value in example.items())
        raise ExampleError(
            "there is nothing to show",
            expected="a row with a picture (a PIL image, or {bytes, path}) or a volume ({bytes, shape})",
            got=columns or "no columns",
        )
    return volumes, pictures


def _voxels(cell: Mapping[str, Any]) -> NDArray[Any]:
    """Return the array of a cell ``{bytes, shape}``, axes (z, y, x)."""
    try:
        data, shape = memoryview(bytes(cell["bytes"])), tuple(int(count) for count in cell["shape"])
    except TypeError as error:
        raise ExampleError("the volume cannot be read", expected="{bytes, shape}", got=error) from error
    try:
        voxels: NDArray[Any] = decode_cell(data, shape)[...]
    except ValueError as error:
        raise ExampleError("the bytes of the volume do not fit its shape", got=error) from error
    if voxels.ndim != 3:
        raise ExampleError("the volume is not three-dimensional", expected="a shape z, y, x", got=shape)
    return voxels


def _checked(nodule: int | None, count: int, what: str) -> int | None:
    if nodule is not None and not 0 <= nodule < count:
        raise ExampleError(
            f"the example has no {what} {nodule}", expected=f"0 to {count - 1}" if count else f"no {what}"
        )
    return nodule


def _draw_picture(figure: Figure, example: Mapping[str, Any], image: Image.Image, nodule: int | None) -> None:
    from matplotlib.patches import Rectangle  # noqa: PLC0415 -- an extra

    pixels, top = stretch_labels(np.asarray(image.convert("L")))
    axes = figure.subplots()
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, extent=(0, image.width, image.height, 0))
    axes.set_axis_off()
    boxes = [entry["bbox"] for entry in records_with(example, "bbox")]
    chosen = _checked(nodule, len(boxes), "box")
    for x0, y0, x1, y1 in boxes:  # published pixel numbers; the last one is drawn as part of the box
        axes.add_patch(Rectangle((x0, y0), x1 - x0 + 1, y1 - y0 + 1, fill=False, color=_CIRCLE, lw=1.5))
    if chosen is not None:
        x0, y0, x1, y1 = boxes[chosen]
        reach = _ZOOM / 2 * max(x1 - x0 + 1, y1 - y0 + 1)
        middle_x, middle_y = (x0 + x1 + 1) / 2, (y0 + y1 + 1) / 2
        axes.set_xlim(middle_x - reach, middle_x + reach)
        axes.set_ylim(middle_y + reach, middle_y - reach)
    axes.set_title(" · ".join([*_description(example), *_stretched(top)]), fontsize=10)


def _draw_volume(
    figure: Figure, example: Mapping[str, Any], volumes: Sequence[NDArray[Any]], window: Window, nodule: int | None
) -> None:
    stored = volumes[0]
    mask = next((other for other in volumes[1:] if other.dtype == np.uint8 and other.shape == stored.shape), None)
    frame = Frame.from_row(example)
    in_hounsfield = stored.dtype.itemsize == 2
    orientation = Orientation() if frame is None else Orientation.from_frame(frame)
    volume, top = (orientation.volume(stored), None) if in_hounsfield else stretch_labels(orientation.volume(stored))
    steps = (1.0, 1.0, 1.0) if frame is None else orientation.extent(frame.spacing)
    records = nodules_of(example)
    nodules = [_DrawnNodule.from_record(entry, orientation, stored.shape) for entry in records]
    chosen = _checked(nodule, len(nodules), "nodule")
    chosen = largest_nodule(records) if chosen is None else chosen
    size = volume.shape[::-1]
    center = [(count - 1) / 2 for count in size] if chosen is None else nodules[chosen].key_position
    indices = [min(max(0, math.floor(value + 0.5)), count - 1) for value, count in zip(center, size, strict=True)]
    figure.set_size_inches(12, 4.6)
    for axes, plane in zip(figure.subplots(1, 3), PLANES, strict=True):
        index, upward = indices[plane.normal], plane.down == 2
        pixels = plane.cut(volume, index)
        extent = (
            (0, size[plane.across], 0, size[plane.down]) if upward else (0, size[plane.across], size[plane.down], 0)
        )
        origin = "lower" if upward else "upper"
        axes.imshow(
            window.to_grey(pixels) if in_hounsfield else pixels,
            cmap="gray",
            vmin=0,
            vmax=255,
            extent=extent,
            origin=origin,
            aspect=steps[plane.down] / steps[plane.across],
        )
        if mask is not None:
            lungs = plane.cut(orientation.volume(mask), index) > 0
            if lungs.any() and not lungs.all() and min(lungs.shape) > 1:
                axes.contour(lungs, [0.5], colors=_LUNGS, linewidths=0.8, extent=extent, origin=origin)
        for entry in nodules:
            _draw_nodule(axes, entry, plane, index, steps)
        axes.set_xlim(0, size[plane.across])
        axes.set_ylim(extent[2:])
        axes.set_axis_off()
        stored_index = size[plane.normal] - 1 - index if orientation.flipped[plane.normal] else index
        name = plane.name if frame is not None else "plane"
        axis = "xyz"[orientation.axes[plane.normal]]
        axes.set_title(f"{name}, {axis} = {stored_index} of {size[plane.normal]}", fontsize=9)
    parts = [*_description(example), *_stretched(top)]
    if chosen is not None:
        parts.append(f"nodule {chosen}: {nodules[chosen].text}")
    if in_hounsfield:
        parts.append(f"{window.name} window")
    else:
        parts.append("8-bit" if frame is not None else "8-bit, spacing unknown")
    figure.suptitle(" · ".join(parts), fontsize=10)


@dataclass(frozen=True)
class _DrawnNodule:
    """A nodule in display order: centre, the same on its key slice, box, diameter in mm, and its description."""

    center: tuple[float, float, float]
    key_position: tuple[float, float, float]
    box: tuple[int, ...] | None
    diameter: float | None
    text: str

    @classmethod
    def from_record(cls, nodule: Mapping[str, Any], orientation: Orientation, shape: Sequence[int]) -> _DrawnNodule:
        box, diameter, label = nodule.get("box_voxel"), nodule.get("diameter_mm"), nodule.get("pathology")
        if diameter is not None:
            text = f"{diameter:.1f} mm, {'class unknown' if label is None else PATHOLOGY_NAMES[label]}"
        elif nodule.get("diameter") is not None:
            text = f"diameter {nodule['diameter']:g} as published"
        else:
            text = "diameter unknown"
        if nodule.get("key_slice") is not None:
            text += f", key slice z = {nodule['key_slice']} by {nodule.get('key_slice_basis') or 'an unknown rule'}"
        center = orientation.point(nodule["center_voxel"], shape)
        key = orientation.point(key_position(nodule), shape)
        return cls(center, key, orientation.box(box, shape) if box else None, diameter, text)


def _draw_nodule(axes: Axes, nodule: _DrawnNodule, plane: Plane, index: int, steps: Sequence[float]) -> None:
    """Draw the box and the circle of a nodule. Coordinates are voxel edges: voxel i extends from i to i + 1."""
    from matplotlib.patches import Ellipse, Rectangle  # noqa: PLC0415 -- an extra

    if nodule.box is not None and nodule.box[plane.normal] <= index < nodule.box[plane.normal + 3]:
        corner = nodule.box[plane.across], nodule.box[plane.down]
        width, height = (nodule.box[axis + 3] - nodule.box[axis] for axis in (plane.across, plane.down))
        axes.add_patch(Rectangle(corner, width, height, fill=False, color=_BOX, lw=1.2, ls="--"))
    if nodule.diameter is None:
        return
    section = plane.section(nodule.center, nodule.diameter, index, steps)
    if section is not None:
        x, y, across, down = section
        axes.add_patch(Ellipse((x, y), across, down, fill=False, color=_CIRCLE, lw=1.5))


def _description(example: Mapping[str, Any]) -> list[str]:
    """Return the patient, the days since the first scan, the slice thickness and the class, if the row has them."""
    parts = []
    if "patient_id" in example:
        parts.append(f"patient {example['patient_id'] or 'unknown'}")
    if example.get("days_since_first") is not None:
        parts.append(f"day {example['days_since_first']:,}")
    if example.get("slice_thickness_mm") is not None:
        parts.append(f"{example['slice_thickness_mm']:g} mm slices")
    label = example.get("label")
    if label is not None:
        known = 0 <= label < len(PATHOLOGY) and example.get("malignant") == PATHOLOGY[label].malignant
        parts.append(PATHOLOGY_NAMES[label] if known else f"label {label}")
    return parts


def _stretched(top: int | None) -> list[str]:
    return [] if top is None else [f"labels 0 to {top}, stretched"]
