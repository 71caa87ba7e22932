"""The volumes on the page: geometry, nodules, a thumbnail, a close-up, and as many slices as the budget allows."""

from __future__ import annotations

import math
from base64 import b64encode
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lung_nodule_ct.declaration.labels import PATHOLOGY_NAMES
from lung_nodule_ct.geometry.display import Orientation, stretch_labels
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.preview.pixels import encode, encode_stack, estimate_bytes, shrink
from lung_nodule_ct.preview.samples import ShownColumns, grey, nodules_of, scan_key
from lung_nodule_ct.read.planes import key_position, largest_nodule

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor

    from numpy.typing import NDArray

    from lung_nodule_ct.preview.samples import SampledRow
    from lung_nodule_ct.preview.selection import Selection
    from lung_nodule_ct.read.build_folder import BuildFolder

OnProgress = Callable[[str, int, int], None]
"""Called with the name of a config, the number of rows that are read, and the number of rows to read."""

_ESTIMATED_FROM = 2  # scans of each config
_RESERVED = 24_000  # bytes for the thumbnail, the close-up and the description of each scan, in addition to its slices
_WORTH_SECOND_PASS = 0.2  # of the budget
_TEXT: Final = 4 / 3  # size of base64 relative to the bytes
_CLOSE_UP_MM, _CLOSE_UP_BY_DIAMETER = 48.0, 1.8
_THUMBNAIL_SIDE = 224
_CLOSE_UP_SIDE = 320
_MARGIN = 2  # slices on each side of a nodule that are always stored
_AXES = "xyz"


@dataclass(frozen=True, slots=True)
class CloseUp:
    """What the close-up of a scan shows.

    Attributes:
        side_mm: Side of its square.
        track: The track that it follows; without it, or in a scan without it, the close-up shows the largest nodule.

    Raises:
        ValueError: The side is not positive.
    """

    side_mm: float
    track: str | None = None

    def __post_init__(self) -> None:
        if not self.side_mm > 0:
            raise ValueError(f"side_mm: expected more than 0, got {self.side_mm}")


def fill(build: BuildFolder, selection: Selection, max_bytes: float, pool: Executor) -> Selection:
    """Add volumes to a sample as long as all of them, with all slices at full size, are likely to fit a budget.

    The size of a volume is estimated from the first ones of the sample. No other volume is read.
    """
    if not selection.more:
        return selection
    probes, shown = selection.rows[:_ESTIMATED_FROM], ShownColumns.of(selection.config.schema)
    volumes = (volume for _, volume, _ in _read_volumes(build, probes, shown) if volume is not None)
    sizes = [estimate_bytes(volume, pool) * _TEXT + _RESERVED for volume in volumes]
    return selection.extended(int(max_bytes * len(sizes) / sum(sizes))) if sizes else selection


class PageScans:
    """The volumes of all configs, each stored once. The budget is shared by the expected numbers of slices.

    Args:
        max_bytes: Maximum size of all volumes as text; ``None`` if a server has the slices.

    Attributes:
        described: The description of each volume by its key, as JSON values.
        slices: The pictures of the slices of each volume by its key, as JSON values; missing if they do not fit.
    """

    def __init__(self, max_bytes: int | None) -> None:
        self._left = float(max_bytes or 0)
        self._is_served = max_bytes is None
        self._keys: dict[Hashable, str] = {}
        self._identities: dict[SampledRow, Hashable] = {}
        self._planned: dict[str, tuple[Selection, SampledRow, CloseUp | None]] = {}
        self.described: dict[str, dict[str, Any]] = {}
        self.slices: dict[str, dict[str, Any]] = {}

    def plan(self, selection: Selection) -> None:
        """Add the volumes of a config, except scans that another config has added already."""
        config = selection.config
        close_up_mm: defaultdict[str | None, float] = defaultdict(lambda: _CLOSE_UP_MM)
        for sampled in selection.rows:  # all close-ups of a patient have the same scale
            patient = sampled.row.get("patient_id")
            diameters = [nodule.get("diameter_mm") or 0.0 for nodule in nodules_of(sampled.row)]
            close_up_mm[patient] = max([close_up_mm[patient], *(_CLOSE_UP_BY_DIAMETER * d for d in diameters)])
        followed = followed_tracks([sampled.row for sampled in selection.rows])
        for sampled in selection.rows:
            identity = scan_key(config, sampled.row)
            if identity is None:
                identity = (sampled.config, sampled.split, sampled.index)
            self._identities[sampled] = identity
            if identity in self._keys:
                continue
            key = self._keys[identity] = f"scan-{len(self._keys)}"
            patient = sampled.row.get("patient_id")
            close_up = CloseUp(close_up_mm[patient], followed.get(patient)) if config.longitudinal else None
            self._planned[key] = (selection, sampled, close_up)

    def read(self, build: BuildFolder, pool: Executor, on_progress: OnProgress) -> None:
        """Read all planned volumes. If much of the budget is left, read those again that were reduced to fit."""
        self._left -= _RESERVED * len(self._planned)
        worth_it = self._left * _WORTH_SECOND_PASS
        self._read(list(self._planned), build, pool, on_progress)
        if self._left > worth_it:
            self._read([key for key in self._planned if not self._is_complete(key)], build, pool, on_progress)

    def _read(self, keys: Sequence[str], build: BuildFolder, pool: Executor, on_progress: OnProgress) -> None:
        planned = [self._planned[key] for key in keys]
        self._left += sum(map(self._num_bytes, keys))
        weights = sum(_weight(sampled) for _, sampled, _ in planned)
        columns = {selection.config.name: ShownColumns.of(selection.config.schema) for selection, _, _ in planned}
        for config, shown in columns.items():
            rows = [sampled for _, sampled, _ in planned if sampled.config == config]
            for done, (sampled, volume, mask) in enumerate(_read_volumes(build, rows, shown), 1):
                key = self._keys[self._identities[sampled]]
                share = max(0.0, self._left * _weight(sampled) / weights)
                if volume is not None:
                    close_up = self._planned[key][2]
                    budget = None if self._is_served else int(share / _TEXT)
                    scan, slices = describe_scan(sampled.row, volume, mask, close_up, budget, pool)
                    self.described[key] = scan
                    if slices is not None:
                        self.slices[key] = slices
                self._left -= self._num_bytes(key)
                weights -= _weight(sampled)
                on_progress(config, done, len(rows))

    def _num_bytes(self, key: str) -> int:
        """Size of the slices of a scan on the page."""
        return sum(len(text) + 4 for texts in self.slices.get(key, {}).values() for text in texts)

    def _is_complete(self, key: str) -> bool:
        scan = self.described.get(key)
        if scan is None:  # the volume is null
            return True
        slices, (width, height, depth) = scan["slices"], scan["shape"]
        return slices is not None and len(slices) == depth and scan["size"] == (width, height)

    @property
    def rows(self) -> dict[str, SampledRow]:
        """The row of each volume by its key."""
        return {key: self._planned[key][1] for key in self.described}

    def key_of(self, sampled: SampledRow) -> str | None:
        """Return the key of the volume of a row, ``None`` if the volume is null."""
        key = self._keys[self._identities[sampled]]
        return key if key in self.described else None


def _read_volumes(
    build: BuildFolder, rows: Sequence[SampledRow], shown: ShownColumns
) -> Iterator[tuple[SampledRow, NDArray[Any] | None, NDArray[np.uint8] | None]]:
    """Read the volume and the mask of rows of one config, in the order of the build."""
    columns = [name for name in (shown.volume, shown.mask) if name is not None]
    for split in dict.fromkeys(sampled.split for sampled in rows):
        chosen = [sampled for sampled in rows if sampled.split == split]
        contents = build.rows(chosen[0].config, split, columns, [sampled.index for sampled in chosen])
        for sampled, content in zip(chosen, contents, strict=True):
            yield sampled, content[columns[0]], content[shown.mask] if shown.mask else None


def _weight(sampled: SampledRow) -> float:
    """Approximate number of slices, relative to a scan with slices of 5 mm."""
    return 5 / float(sampled.row.get("slice_thickness_mm") or 2.5)


def describe_scan(
    row: Mapping[str, Any],
    stored: NDArray[Any],
    mask: NDArray[np.uint8] | None,
    close_up: CloseUp | None,
    budget: int | None,
    pool: Executor,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return a volume as JSON values.

    Args:
        row: The columns of the volume without voxels.
        stored: The volume as it is stored, axes (z, y, x).
        mask: Its lung mask, the same shape.
        close_up: What the close-up shows; ``None`` for no close-up.
        budget: Maximum size of the pictures of the slices in bytes; ``None`` if a server has all slices in full.
        pool: Executor that encodes the pictures.

    Returns:
        The description, and the pictures of the slices, or ``None`` if they do not fit the budget.
    """
    frame = Frame.from_row(row)
    orientation, volume, top = displayed_volume(row, stored)
    records = nodules_of(row)
    nodules = [_nodule(nodule, orientation, stored.shape) for nodule in records]
    largest = largest_nodule(records)
    spacing = None if frame is None else orientation.extent(frame.spacing)
    z = len(volume) // 2 if largest is None else _nearest(nodules[largest]["keyPosition"][2], len(volume))
    described: dict[str, Any] = {
        "shape": list(reversed(volume.shape)),
        "spacing": spacing,
        "toWorld": None if frame is None else _to_world(frame, orientation, stored.shape),
        "lungs": None if mask is None else _extent(orientation.volume(mask)),
        "storedAxes": [_AXES[axis] for axis in orientation.axes],
        "flipped": orientation.flipped,
        "tilt": round(orientation.tilt_degrees, 1),
        "hounsfield": volume.dtype != np.uint8,
        "nodules": nodules,
        "largest": largest,
        "thumbnail": _still(volume, z, (0, 0, volume.shape[2], volume.shape[1]), _THUMBNAIL_SIDE),
        "closeUp": None,
        "followed": None,
        "slices": None,
    }
    if top is not None:
        described["stretchedFrom"] = top
    if close_up is not None and spacing is not None:
        followed = next(
            (n for n, nodule in enumerate(nodules) if close_up.track and nodule["track"] == close_up.track), None
        )
        shown = largest if followed is None else followed
        center = (volume.shape[2] / 2, volume.shape[1] / 2)
        if shown is not None:
            x, y, _ = nodules[shown]["center"]
            center = (x + 0.5, y + 0.5)
            z = _nearest(nodules[shown]["keyPosition"][2], len(volume))
        described["followed"] = followed
        described["closeUp"] = _still(
            volume, z, _square(center, close_up.side_mm, spacing, volume.shape), _CLOSE_UP_SIDE
        )
    mask = None if mask is None else orientation.volume(mask)
    if budget is None:
        size = volume.shape[2], volume.shape[1]
        full = {"slices": [*range(len(volume))], "size": size, "maskSize": None if mask is None else size}
        return {**described, **full, "served": True}, None
    stack = encode_stack(volume, mask, _slices_of_nodules(nodules, len(volume)), budget, pool)
    if stack is None:
        return described, None
    described["slices"] = stack.slices
    described["size"] = stack.size
    described["maskSize"] = stack.mask_size
    return described, {"pictures": [*map(as_text, stack.pictures)], "masks": [*map(as_text, stack.masks)]}


def displayed_volume(row: Mapping[str, Any], stored: NDArray[Any]) -> tuple[Orientation, NDArray[Any], int | None]:
    """Return the display order of a volume, its voxels in that order (z, y, x), and the highest label if it is a mask."""
    frame = Frame.from_row(row)
    orientation = Orientation() if frame is None else Orientation.from_frame(frame)
    volume = orientation.volume(stored)
    return (orientation, *stretch_labels(volume)) if volume.dtype == np.uint8 else (orientation, volume, None)


def as_text(data: bytes) -> str:
    """Return bytes as base64."""
    return b64encode(data).decode("ascii")


def _nodule(nodule: Mapping[str, Any], orientation: Orientation, shape: Sequence[int]) -> dict[str, Any]:
    box, label = nodule.get("box_voxel"), nodule.get("pathology")
    return {
        "center": orientation.point(nodule["center_voxel"], shape),
        "keyPosition": orientation.point(key_position(nodule), shape),
        "keySlice": nodule.get("key_slice"),
        "keySliceBasis": nodule.get("key_slice_basis"),
        "box": None if box is None else orientation.box(box, shape),
        "diameterMm": nodule.get("diameter_mm"),
        "diameterAsPublished": nodule.get("diameter"),
        "pathology": None if label is None else PATHOLOGY_NAMES[label],
        "storedCenter": nodule["center_voxel"],
        "storedBox": box,
        "world": nodule.get("center_world"),
        **_track(nodule),
    }


def _track(nodule: Mapping[str, Any]) -> dict[str, Any]:
    """The track of a nodule, as JSON values; nulls if the build has none."""
    label = nodule.get("track_pathology")
    return {
        "track": nodule.get("track_id"),
        "trackConfidence": nodule.get("track_confidence"),
        "trackEvent": nodule.get("track_event"),
        "trackEnded": nodule.get("track_ended"),
        "trackReason": nodule.get("track_reason"),
        "trackPathology": None if label is None else PATHOLOGY_NAMES[label],
    }


def followed_tracks(rows: Sequence[Mapping[str, Any]]) -> dict[str | None, str]:
    """Return the track of each patient that the close-ups show: that with the most dates, of these the largest nodule."""
    dates: defaultdict[tuple[str | None, str], set[int | None]] = defaultdict(set)
    sizes: defaultdict[tuple[str | None, str], float] = defaultdict(float)
    for row in rows:
        for nodule in nodules_of(row):
            track = nodule.get("track_id")
            if track is not None:
                key = (row.get("patient_id"), track)
                dates[key].add(row.get("timepoint"))
                sizes[key] = max(sizes[key], nodule.get("diameter_mm") or 0.0)
    best: dict[str | None, str] = {}
    for patient, track in sorted(dates, key=lambda key: (len(dates[key]), sizes[key])):
        best[patient] = track
    return best


def _to_world(frame: Frame, orientation: Orientation, shape: Sequence[int]) -> list[list[float]]:
    """Return the affine from voxels in display order to world millimetres, three rows of four."""
    corners = np.vstack([np.zeros(3), np.eye(3)])
    shown = np.array([[*orientation.point(corner, shape), 1.0] for corner in corners.tolist()])
    affine = np.linalg.solve(shown, frame.to_world(corners)).T
    return [[round(value, 6) for value in row] for row in affine.tolist()]


def _extent(mask: NDArray[np.uint8]) -> list[int] | None:
    """Return the half-open box ``x0 y0 z0 x1 y1 z1`` of a mask (z, y, x), ``None`` if it is empty."""
    found = [np.flatnonzero(mask.any(axis=axes)) for axes in ((0, 1), (0, 2), (1, 2))]
    if not all(map(len, found)):
        return None
    return [*(int(along[0]) for along in found), *(int(along[-1]) + 1 for along in found)]


def _nearest(position: float, count: int) -> int:
    """Return the index of the slice nearest to a position."""
    return min(max(0, math.floor(position + 0.5)), count - 1)


def _slices_of_nodules(nodules: Sequence[Mapping[str, Any]], count: int) -> set[int]:
    """Return the slices through nodules, and a margin on each side."""
    slices = set()
    for nodule in nodules:
        if nodule["box"]:
            low, high = nodule["box"][2], nodule["box"][5]
        else:
            low = high = _nearest(nodule["keyPosition"][2], count)
        slices |= set(range(max(0, low - _MARGIN), min(count, high + _MARGIN)))
    return slices


def _square(
    center: tuple[float, float], side_mm: float, spacing: Sequence[float], shape: Sequence[int]
) -> tuple[int, int, int, int]:
    """Return x0, y0, width, height in pixels of a square in mm, rounded to pixels and at most as large as the slice.

    It may extend beyond the slice.
    """
    width = min(shape[2], max(1, round(side_mm / spacing[0])))
    height = min(shape[1], max(1, round(side_mm / spacing[1])))
    return round(center[0] - width / 2), round(center[1] - height / 2), width, height


def _still(volume: NDArray[Any], z: int, view: tuple[int, int, int, int], side: int) -> dict[str, Any]:
    """Return a part of a slice as a picture, CT in the lung window; black outside the slice."""
    x0, y0, width, height = view
    inside = volume[z, max(0, y0) : max(0, y0 + height), max(0, x0) : max(0, x0 + width)]
    pixels = np.zeros((height, width), np.uint8)
    top, left = max(0, -y0), max(0, -x0)
    pixels[top : top + inside.shape[0], left : left + inside.shape[1]] = grey(inside)
    return {"picture": as_text(encode(shrink(pixels, side))), "z": z, "view": view}
