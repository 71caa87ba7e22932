"""A few pictures of a config: which rows to look at, and their slice or crop as 8-bit pixels with its boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.declaration.configs import CONFIGS
from lung_nodule_ct.declaration.schema import Picture
from lung_nodule_ct.formats.pictures import decode_picture
from lung_nodule_ct.geometry.display import LUNG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from lung_nodule_ct.read.build_folder import BuildFolder

Row = dict[str, Any]


@dataclass(frozen=True)
class Marked:
    """A nodule in a picture.

    Attributes:
        box: xmin, ymin, xmax, ymax in pixels, as ``det2d_1.25mm`` has it, or half-open of a volume's box.
        diameter: As published, ``None`` where unknown.
        pathology: Index of its class, ``None`` where unknown.
    """

    box: tuple[float, float, float, float]
    diameter: float | None = None
    pathology: int | None = None


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture of a config.

    Attributes:
        config: The config.
        split: Its split.
        place: Its row in the split, from 0.
        row: Its columns, but for volumes and masks.
        pixels: 8-bit, axes (y, x), or (y, x, colour) where a published picture has colours.
        marked: The nodules in it.
        slice_index: The axial slice, ``None`` of what is no volume.
        volume: The volume that it is a slice of, axes (z, y, x), only until the next sample is taken; else ``None``.
    """

    config: str
    split: str
    place: int
    row: Row
    pixels: NDArray[np.uint8]
    marked: tuple[Marked, ...]
    slice_index: int | None = None
    volume: NDArray[Any] | None = None


def has_pictures(config: str) -> bool:
    """Whether an example of a config is a picture, and not a volume."""
    return any(isinstance(column.type, Picture) for column in CONFIGS[config].schema.columns)


def largest(row: Row) -> Row | None:
    """The nodule of a volume whose box is the largest, ``None`` where none has a box."""
    boxed = [nodule for nodule in row["nodules"] if nodule["box_voxel"] is not None]
    return max(boxed, key=lambda nodule: _extent(nodule["box_voxel"]), default=None)


def spread(build: BuildFolder, config: str, limit: int) -> dict[str, list[int]]:
    """Rows by split, at most ``limit`` in all, evenly spaced through the splits; of volumes those with a boxed nodule.

    A config without any boxed nodule is sampled from all its rows.
    """
    candidates = {split: list(range(count)) for split, count in build.configs[config].items()}
    if not has_pictures(config):
        boxed = pick(build, config, lambda row: largest(row) is not None, ["nodules"])
        candidates = boxed if any(boxed.values()) else candidates
    everything = [(split, place) for split, places in candidates.items() for place in places]
    count = min(limit, len(everything))
    chosen = [everything[(2 * number + 1) * len(everything) // (2 * count)] for number in range(count)]
    return {split: [place for own, place in chosen if own == split] for split in candidates}


def pick(
    build: BuildFolder, config: str, wanted: Callable[[Row], bool], columns: Sequence[str]
) -> dict[str, list[int]]:
    """The rows by split of which ``wanted`` is true, asked with ``columns``."""
    return {
        split: [place for place, row in enumerate(build.rows(config, split, columns)) if wanted(row)]
        for split in build.configs[config]
    }


def samples(build: BuildFolder, config: str, chosen: Mapping[str, Sequence[int]]) -> Iterator[Sample]:
    """The pictures of some rows, by split; of a volume the slice through its largest nodule, or the middle one.

    Args:
        build: A finished build.
        config: One of its configs.
        chosen: Rows by split, ascending.

    Raises:
        BuildFolderError: A shard is missing or damaged.
    """
    pictured = has_pictures(config)
    columns = [column.name for column in build.columns(config) if column.name != "lung_mask"]
    for split, places in chosen.items():
        for place, row in zip(places, build.rows(config, split, columns, places), strict=True):
            if pictured:
                pixels = decode_picture(row.pop("image"))
                marked = tuple(Marked(tuple(entry["bbox"])) for entry in row.get("objects", ()))
                yield Sample(config, split, place, row, pixels, marked)
            else:
                yield _slice_of(config, split, place, row)


def _slice_of(config: str, split: str, place: int, row: Row) -> Sample:
    volume = row.pop("volume")
    nodule = largest(row)
    index = len(volume) // 2 if nodule is None else _middle(nodule["box_voxel"])
    return Sample(
        config, split, place, row, grey(volume[index]), tuple(_marked_at(row["nodules"], index)), index, volume
    )


def grey(voxels: NDArray[Any]) -> NDArray[np.uint8]:
    """A copy of voxels as 8-bit: of CT the lung window, else as they are."""
    return LUNG.to_grey(voxels) if voxels.dtype.itemsize == 2 else voxels.copy()


def _middle(box: Sequence[int]) -> int:
    return (box[2] + box[5] - 1) // 2


def _marked_at(nodules: Sequence[Row], index: int) -> Iterator[Marked]:
    for nodule in nodules:
        box = nodule["box_voxel"]
        if box is not None and box[2] <= index < box[5]:
            diameter = nodule.get("diameter_mm", nodule.get("diameter"))
            yield Marked((box[0], box[1], box[3], box[4]), diameter, nodule.get("pathology"))


def _extent(box: Sequence[int]) -> int:
    return (box[3] - box[0]) * (box[4] - box[1]) * (box[5] - box[2])
