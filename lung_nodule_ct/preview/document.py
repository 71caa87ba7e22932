"""The content of the page, read from a build: the chosen rows of every config, their pictures, and the audit if there is one."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lung_nodule_ct.declaration.labels import PATHOLOGY
from lung_nodule_ct.declaration.manifest import GENERATOR
from lung_nodule_ct.declaration.published import SIZE_GROUPS
from lung_nodule_ct.declaration.schema import Flag, Integer, Real, Records
from lung_nodule_ct.geometry.display import PRESETS
from lung_nodule_ct.preview.pixels import KNOTS, encode, encode_lossless, shrink, stretch_labels
from lung_nodule_ct.preview.samples import (
    ShownColumns,
    draw,
    nodules_of,
    pathology_classes,
    records_with,
    samples,
    scan_key,
    size_groups,
    size_name,
)
from lung_nodule_ct.preview.scans import as_text, describe_scan
from lung_nodule_ct.read.audit_report import read_audit

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from lung_nodule_ct.preview.samples import SampledRow, Selection
    from lung_nodule_ct.read.build_folder import BuildFolder

OnProgress = Callable[[str, int, int], None]
"""Called with the name of a config, the number of rows that are read, and the number of rows to read."""

_PICTURE_SIDE = 512
_LOSSLESS_SIDE = 128  # small pictures are stored without loss
_RESERVED = 24_000  # bytes for the thumbnail, the close-up and the description of each scan, in addition to its slices
_WORTH_SECOND_PASS = 0.2  # of the budget
_TEXT: Final = 4 / 3  # size of base64 relative to the bytes
_CLOSE_UP_MM, _CLOSE_UP_BY_DIAMETER = 48.0, 1.8
# columns that the page shows in their own way; any other number or flag is listed with the picture
_COPIED: Final = ("fold", "timepoint", "num_timepoints", "days_since_first", "slice_thickness_mm", "augmented")
_NOT_LISTED: Final = (*_COPIED, "width", "height", "malignant")
_NO_PICTURE: Final[Mapping[str, Any]] = {"picture": None}


@dataclass(frozen=True)
class Document:
    """The content of a page.

    Attributes:
        page: All content except the slices of the scans, as JSON values.
        slices: The pictures of the slices of each scan by its key, as JSON values.
    """

    page: Mapping[str, Any]
    slices: Mapping[str, Mapping[str, Any]]


def collect_document(build: BuildFolder, max_bytes: int, seed: int, scale: float, on_progress: OnProgress) -> Document:
    """Read the content of the page. Pictures and volumes are read only of the rows that it shows.

    Args:
        build: The build.
        max_bytes: Maximum size of the content as text.
        seed: Seed of the draw of examples.
        scale: Number of examples, relative to the page of the default size.
        on_progress: Called for each picture and scan that was read.

    Raises:
        BuildFolderError: A shard or ``audit.json`` is damaged.
    """
    audit = read_audit(build.folder)
    selections = draw(build, scale, seed)
    items: dict[str, list[dict[str, Any]]] = {}
    volumes = []
    for selection in selections:
        if selection.config.schema.has_voxels:
            volumes.append(selection)
        else:
            items[selection.config.name] = list(_picture_items(build, selection, on_progress))
    scans = _Scans(max_bytes - sum(len(item["picture"] or "") + 1000 for shown in items.values() for item in shown))
    # longitudinal configs first: the scans that other configs share with them are then not read again
    for selection in sorted(volumes, key=lambda selection: not selection.config.longitudinal):
        scans.plan(selection)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        scans.read(build, pool, on_progress)
    for selection in volumes:
        items[selection.config.name] = [scans.item(selection, sampled) for sampled in selection.rows]
    page = {
        "generator": GENERATOR,
        "title": build.folder.resolve().name,
        "seed": seed,
        "splitBy": build.manifest["split_by"],
        "knots": KNOTS,
        "windows": [
            {name: getattr(window, name) for name in ("name", "low", "high", "center", "width")} for window in PRESETS
        ],
        "classes": [{"name": entry.name, "letter": entry.letter, "malignant": entry.malignant} for entry in PATHOLOGY],
        "sizeGroups": [size_name(group) for group in SIZE_GROUPS],
        "configs": [
            {
                "name": selection.config.name,
                "summary": selection.config.summary,
                "longitudinal": selection.config.longitudinal,
                "totals": dict(selection.totals),
                "items": items[selection.config.name],
            }
            for selection in selections
        ],
        "scans": scans.described,
        "audit": audit and {"generator": audit.generator, "checks": [check.to_dict() for check in audit.checks]},
    }
    return Document(page, scans.slices)


def _item(selection: Selection, sampled: SampledRow, **more: Any) -> dict[str, Any]:
    """A row without its pictures, as JSON values."""
    row, schema = sampled.row, selection.config.schema
    listed = [column.name for column in schema.columns if isinstance(column.type, Flag | Integer | Real)]
    facts = {name: row[name] for name in listed if name not in _NOT_LISTED}
    return {
        "id": row.get("image_id") or row.get("case_id") or row.get("scan_id"),
        "split": sampled.split,
        "row": sampled.index,
        "classes": pathology_classes(schema, row),
        "sizes": size_groups(row),
        **{name: row[name] for name in _COPIED if name in row},
        **({"patient": row["patient_id"]} if "patient_id" in row else {}),
        **({"facts": facts} if facts else {}),
        **more,
    }


def _picture_items(build: BuildFolder, selection: Selection, on_progress: OnProgress) -> Iterator[dict[str, Any]]:
    """The rows of a config with pictures, or with neither pictures nor volumes."""
    config = selection.config
    if ShownColumns.of(config.schema).picture is None:
        yield from (_item(selection, sampled, **_NO_PICTURE) for sampled in selection.rows)
        return
    has_boxes = any(isinstance(column.type, Records) for column in config.schema.columns)
    chosen: defaultdict[str, list[int]] = defaultdict(list)
    for sampled in selection.rows:
        chosen[sampled.split].append(sampled.index)
    for done, sample in enumerate(samples(build, config.name, chosen), 1):
        pixels = sample.pixels
        if pixels.ndim == 3:  # a published picture with colours is shown in grey
            pixels = pixels.mean(axis=-1).astype(pixels.dtype)
        pixels, top = stretch_labels(pixels)
        height, width = pixels.shape
        lossless = max(pixels.shape) <= _LOSSLESS_SIDE or top is not None
        data = encode_lossless(pixels) if lossless else encode(shrink(pixels, _PICTURE_SIDE))
        more: dict[str, Any] = {} if top is None else {"stretchedFrom": top}
        if has_boxes:
            more["boxes"] = [entry["bbox"] for entry in records_with(sample.row, "bbox")]
        yield _item(selection, sample, picture=as_text(data), width=width, height=height, **more)
        on_progress(config.name, done, len(selection.rows))


class _Scans:
    """The volumes of all configs, each stored once. The budget is shared in proportion to the expected number of slices."""

    def __init__(self, max_bytes: int) -> None:
        self._left = float(max_bytes)
        self._keys: dict[Hashable, str] = {}
        self._identities: dict[SampledRow, Hashable] = {}
        self._planned: dict[str, tuple[Selection, SampledRow, float | None]] = {}
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
        for sampled in selection.rows:
            identity = scan_key(config, sampled.row)
            if identity is None:
                identity = (sampled.config, sampled.split, sampled.index)
            self._identities[sampled] = identity
            if identity in self._keys:
                continue
            key = self._keys[identity] = f"scan-{len(self._keys)}"
            close_up = close_up_mm[sampled.row.get("patient_id")] if config.longitudinal else None
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
                    close_up_mm = self._planned[key][2]
                    scan, slices = describe_scan(sampled.row, volume, mask, close_up_mm, int(share / _TEXT), pool)
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

    def item(self, selection: Selection, sampled: SampledRow) -> dict[str, Any]:
        """Return a row with the key of its scan on the page."""
        key = self._keys[self._identities[sampled]]
        return _item(selection, sampled, **({"scan": key} if key in self.described else _NO_PICTURE))


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
