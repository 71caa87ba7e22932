"""The rows of a build that the preview page and the card show, and one picture of each.

The page draws a random sample with all classes and sizes (:mod:`lung_nodule_ct.preview.selection`), the card takes
evenly spaced rows (:func:`spread`). :func:`samples` reads chosen rows and returns a picture of each. Columns are found by their type, not
by the name of the config.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lung_nodule_ct.declaration.configs import Config, Kind
from lung_nodule_ct.declaration.labels import PATHOLOGY_NAMES
from lung_nodule_ct.declaration.published import SIZE_GROUPS
from lung_nodule_ct.declaration.schema import Category, Picture, Records, Schema, Voxels
from lung_nodule_ct.formats.pictures import decode_picture
from lung_nodule_ct.geometry.display import LUNG
from lung_nodule_ct.read.planes import largest_nodule, published_diameter

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from lung_nodule_ct.declaration.published import SizeGroup
    from lung_nodule_ct.declaration.schema import Column
    from lung_nodule_ct.read.build_folder import BuildFolder

Row = dict[str, Any]

_PATHOLOGY: Final = Category(PATHOLOGY_NAMES)


@dataclass(frozen=True)
class ShownColumns:
    """The columns of a config that are shown as a picture.

    Attributes:
        picture: The first picture column; ``None`` if there is none, or if the config has a volume.
        volume: The first voxel column, ``None`` if there is none.
        mask: The first other voxel column of 8 bits, ``None`` if there is none.
    """

    picture: str | None = None
    volume: str | None = None
    mask: str | None = None

    @classmethod
    def of(cls, schema: Schema) -> ShownColumns:
        """Return the columns of a schema."""
        voxels = [column for column in schema.columns if isinstance(column.type, Voxels)]
        if voxels:
            masks = [column.name for column in voxels[1:] if column.type == Voxels("uint8")]
            return cls(volume=voxels[0].name, mask=masks[0] if masks else None)
        pictures = [column.name for column in schema.columns if isinstance(column.type, Picture)]
        return cls(picture=pictures[0] if pictures else None)


@dataclass(frozen=True, eq=False)
class SampledRow:
    """One row of a build that is shown.

    Attributes:
        config: Its config.
        split: Its split.
        index: Its index in the split, from 0.
        row: Its columns without voxels and pictures.
    """

    config: str
    split: str
    index: int
    row: Row


@dataclass(frozen=True)
class MarkedNodule:
    """A nodule in a picture.

    Attributes:
        box: xmin, ymin, xmax, ymax in pixels: as published in a picture, half-open in a slice of a volume.
        diameter: As published, ``None`` if unknown.
        pathology: Index of its class, ``None`` if unknown.
    """

    box: tuple[float, float, float, float]
    diameter: float | None = None
    pathology: int | None = None


@dataclass(frozen=True, eq=False)
class Sample(SampledRow):
    """One picture of a row: the published picture, or an axial slice of its volume.

    Attributes:
        pixels: 8-bit, axes (y, x), or (y, x, channel) if a published picture has colours.
        marked: The nodules that the picture shows.
        slice_index: The axial slice, ``None`` if the row has no volume.
        key_basis: What the slice was chosen by if it is the key slice of the largest nodule, otherwise ``None``.
        volume: The volume of the slice, axes (z, y, x), valid until the next sample is read; ``None`` if the row has no
            volume.
    """

    pixels: NDArray[np.uint8]
    marked: tuple[MarkedNodule, ...]
    slice_index: int | None = None
    volume: NDArray[Any] | None = None
    key_basis: str | None = None


def records_with(row: Mapping[str, Any], field: str) -> Sequence[Mapping[str, Any]]:
    """Return the records of a row that have a field, whatever the name of their column; empty if there are none."""
    for value in row.values():
        if isinstance(value, list) and value and isinstance(value[0], Mapping) and field in value[0]:
            return value
    return ()


def nodules_of(row: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the nodules of a volume: records with ``center_voxel`` and, if it is known, ``box_voxel``."""
    return records_with(row, "center_voxel")


def largest(row: Row) -> Mapping[str, Any] | None:
    """Return the largest nodule of a volume that has a box, ``None`` if no nodule has one."""
    nodules = nodules_of(row)
    index = largest_nodule(nodules)
    return None if index is None or nodules[index].get("box_voxel") is None else nodules[index]


def pathology_classes(schema: Schema, row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the pathology classes of a row and of its nodules, each once; empty if none is known."""
    return tuple(dict.fromkeys(_classes(schema.columns, row)))


def _classes(columns: Iterable[Column], record: Mapping[str, Any]) -> Iterator[str]:
    for column in columns:
        value = record.get(column.name)
        if value is None:
            continue
        if column.type == _PATHOLOGY:
            yield PATHOLOGY_NAMES[value]
        elif isinstance(column.type, Records):
            for entry in value:
                yield from _classes(column.type.fields, entry)


def size_groups(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the size groups of the nodules of a row, each once; empty if no diameter in mm is known."""
    diameters = [d for nodule in records_with(row, "diameter_mm") if (d := nodule["diameter_mm"]) is not None]
    return tuple(size_name(group) for group in SIZE_GROUPS if any(map(group.holds, diameters)))


def size_name(group: SizeGroup) -> str:
    """Return the name of a size group without the noun: ``0 to 10 mm``, ``over 30 mm``."""
    return group.name.removeprefix("nodules ").removeprefix("of ")


def scan_key(config: Config, row: Mapping[str, Any]) -> Hashable:
    """Return a key that is equal for the same scan in two configs, ``None`` if the row is not a scan or has no id."""
    if config.kind != Kind.SCAN or row.get("scan_id") is None:
        return None
    return row["scan_id"], row.get("slice_thickness_mm"), ShownColumns.of(config.schema)


def spread(build: BuildFolder, config: str, limit: int) -> dict[str, list[int]]:
    """Return at most ``limit`` row indices by split, evenly spaced through all splits.

    Of a config with volumes only rows with a boxed nodule are taken, unless no row has one.
    """
    schema = build.config(config).schema
    candidates = {split: list(range(count)) for split, count in build.configs[config].items()}
    columns = [column.name for column in schema.columns if isinstance(column.type, Records)]
    if schema.has_voxels and columns:
        boxed = pick(build, config, lambda row: largest(row) is not None, columns)
        candidates = boxed if any(boxed.values()) else candidates
    rows = [(split, index) for split, indices in candidates.items() for index in indices]
    count = min(limit, len(rows))
    chosen = [rows[(2 * number + 1) * len(rows) // (2 * count)] for number in range(count)]
    return {split: [index for other, index in chosen if other == split] for split in candidates}


def pick(
    build: BuildFolder, config: str, wanted: Callable[[Row], bool], columns: Sequence[str]
) -> dict[str, list[int]]:
    """Return the indices, by split, of the rows for which ``wanted`` is true. Only ``columns`` are read."""
    return {
        split: [index for index, row in enumerate(build.rows(config, split, columns)) if wanted(row)]
        for split in build.configs[config]
    }


def samples(build: BuildFolder, config: str, chosen: Mapping[str, Sequence[int]]) -> Iterator[Sample]:
    """Read a picture of each chosen row: of a volume, the key slice of its largest nodule, or its middle slice.

    Without the column ``key_slice`` it is the middle slice of the box of the nodule.

    Rows whose volume is null are left out, and so are all rows of a config without pictures and volumes.

    Args:
        build: A finished build.
        config: One of its configs.
        chosen: Ascending row indices by split.

    Raises:
        BuildFolderError: A shard is missing or damaged.
    """
    shown = ShownColumns.of(build.config(config).schema)
    large = shown.picture or shown.volume
    if large is None:
        return
    columns = [*build.metadata_columns(config), large]
    for split, indices in chosen.items():
        for index, row in zip(indices, build.rows(config, split, columns, indices), strict=True):
            content = row.pop(large)
            if content is None:
                continue
            if shown.volume:
                yield _slice_sample(config, split, index, row, content)
            else:
                marked = tuple(MarkedNodule(tuple(entry["bbox"])) for entry in records_with(row, "bbox"))
                yield Sample(config, split, index, row, decode_picture(content).pixels, marked)


def _slice_sample(config: str, split: str, index: int, row: Row, volume: NDArray[Any]) -> Sample:
    nodule = largest(row)
    key = None if nodule is None else nodule.get("key_slice")
    z = len(volume) // 2 if nodule is None else (nodule["box_voxel"][2] + nodule["box_voxel"][5] - 1) // 2
    z = z if key is None else key
    marked = tuple(
        MarkedNodule((box[0], box[1], box[3], box[4]), published_diameter(entry), entry.get("pathology"))
        for entry in nodules_of(row)
        if (box := entry.get("box_voxel")) is not None and box[2] <= z < box[5]
    )
    basis = nodule.get("key_slice_basis") if nodule is not None and key is not None else None
    return Sample(config, split, index, row, grey(volume[z]), marked, z, volume, basis)


def grey(voxels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a copy of voxels as 8-bit greys: Hounsfield units in the lung window, 8-bit voxels unchanged."""
    return LUNG.to_grey(voxels) if voxels.dtype.itemsize == 2 else voxels.copy()
