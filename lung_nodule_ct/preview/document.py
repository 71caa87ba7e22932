"""What the page holds, gathered from a build: the samples of every config, their pictures, and the audit if there is one."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lung_nodule_ct.declaration.configs import CONFIGS, LONGITUDINAL
from lung_nodule_ct.declaration.labels import PATHOLOGY
from lung_nodule_ct.declaration.manifest import GENERATOR
from lung_nodule_ct.declaration.published import SIZE_GROUPS
from lung_nodule_ct.formats.pictures import decode_picture
from lung_nodule_ct.geometry.display import PRESETS
from lung_nodule_ct.preview.pixels import KNOTS, encode, encode_exactly, shrink
from lung_nodule_ct.preview.sampling import Example, Sample, draw_samples, size_name
from lung_nodule_ct.preview.scans import as_text, describe_scan
from lung_nodule_ct.read.audit_report import read_audit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lung_nodule_ct.read.build_folder import BuildFolder

Advance = Callable[[str, int, int], None]
"""Is told what is read, how many are done, and of how many."""

_PICTURE_SIDE = 512
_EXACT_SIDE = 128  # crops of few pixels are kept without loss
_RESERVED = 24_000  # bytes of thumbnail, close-up and description that each scan needs beside its slices
_WORTH_ANOTHER_READ = 0.2  # of the budget
_TEXT: Final = 4 / 3  # what base64 makes of bytes
_CLOSE_UP_MM, _CLOSE_UP_BY_DIAMETER = 48.0, 1.8
# columns that the page takes as they are
_SMALL: Final = ("fold", "timepoint", "num_timepoints", "days_since_first", "slice_thickness_mm", "augmented")


@dataclass(frozen=True)
class Document:
    """The content of a page.

    Attributes:
        page: Everything but the slices of the scans, ready for JSON.
        slices: The pictures of each scan's slices by its key, ready for JSON.
    """

    page: Mapping[str, Any]
    slices: Mapping[str, Mapping[str, Any]]


def collect_document(build: BuildFolder, max_bytes: int, seed: int, scale: float, advance: Advance) -> Document:
    """Read what the page shows; of each split only the rows that it shows.

    Args:
        build: The build.
        max_bytes: Bytes that the content may take as text.
        seed: Of the draw of examples.
        scale: How much to show; 1 is the default page.
        advance: Is told how far it is.

    Raises:
        BuildFolderError: A shard is damaged, or ``audit.json`` is none.
    """
    audit = read_audit(build.folder)
    samples = draw_samples(build, scale, seed)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        flat = {
            sample.config: _pictures(build, sample, advance) for sample in samples if _kind(sample.config) == "pictures"
        }
        left = max_bytes - sum(len(item["picture"]) + 1000 for items in flat.values() for item in items)
        scans = _Scans(left)
        # longitudinal first: what other configs hold of the same scans is then not read again
        for sample in sorted(samples, key=lambda sample: sample.config != LONGITUDINAL.name):
            if sample.config not in flat:
                scans.plan(sample)
        scans.read(build, pool, advance)
    configs = [
        {
            "name": sample.config,
            "summary": CONFIGS[sample.config].summary,
            "kind": _kind(sample.config),
            "totals": dict(sample.totals),
            "items": flat[sample.config]
            if sample.config in flat
            else [_item(example, scan=scans.key_of(example)) for example in sample.examples],
        }
        for sample in samples
    ]
    page = {
        "generator": GENERATOR,
        "title": build.folder.resolve().name,
        "seed": seed,
        "splitBy": build.manifest["split_by"],
        "knots": KNOTS,
        "windows": [
            {
                "name": window.name,
                "low": window.low,
                "high": window.high,
                "center": window.center,
                "width": window.width,
            }
            for window in PRESETS
        ],
        "classes": [{"name": entry.name, "letter": entry.letter, "malignant": entry.malignant} for entry in PATHOLOGY],
        "sizeGroups": [size_name(group) for group in SIZE_GROUPS],
        "configs": configs,
        "scans": scans.described,
        "audit": audit and {"generator": audit.generator, "checks": [check.to_dict() for check in audit.checks]},
    }
    return Document(page, scans.slices)


def _kind(config: str) -> str:
    """How the page shows a config: as ``pictures``, as ``scans``, or as ``patients`` over time."""
    if config == LONGITUDINAL.name:
        return "patients"
    return "scans" if CONFIGS[config].schema.has_voxels else "pictures"


class _Scans:
    """The scans of all configs, each carried once; the budget goes to each by the slices that it can be expected to have."""

    def __init__(self, max_bytes: int) -> None:
        self._left = float(max_bytes)
        self._keys: dict[object, str] = {}
        self._planned: dict[str, tuple[Example, float | None]] = {}
        self.described: dict[str, dict[str, Any]] = {}
        self.slices: dict[str, dict[str, Any]] = {}

    def plan(self, sample: Sample) -> None:
        """These scans shall be read, where they are not planned already."""
        reach: defaultdict[str, float] = defaultdict(lambda: _CLOSE_UP_MM)
        if sample.config == LONGITUDINAL.name:  # all close-ups of a patient have one scale
            for example in sample.examples:
                for nodule in example.nodules:
                    patient = example.light["patient_id"]
                    reach[patient] = max(reach[patient], _CLOSE_UP_BY_DIAMETER * nodule["diameter_mm"])
        for example in sample.examples:
            if self._identity(example) in self._keys:
                continue
            key = self._keys[self._identity(example)] = f"scan-{len(self._keys)}"
            close_up = reach[example.light["patient_id"]] if sample.config == LONGITUDINAL.name else None
            self._planned[key] = (example, close_up)

    def read(self, build: BuildFolder, pool: Executor, advance: Advance) -> None:
        """Read all that is planned; where much is left then, once more those that had to be cut down."""
        self._left -= _RESERVED * len(self._planned)
        worth_it = self._left * _WORTH_ANOTHER_READ
        self._read(list(self._planned), build, pool, advance)
        if self._left > worth_it:
            self._read([key for key in self._planned if not self._is_whole(key)], build, pool, advance)

    def _read(self, keys: Sequence[str], build: BuildFolder, pool: Executor, advance: Advance) -> None:
        examples = [self._planned[key][0] for key in keys]
        self._left += sum(map(self._carried, keys))
        weights = sum(map(_weight, examples))
        for config in dict.fromkeys(example.config for example in examples):
            own = [example for example in examples if example.config == config]
            columns = [name for name in CONFIGS[config].schema.names if name in ("volume", "lung_mask")]
            for done, (example, row) in enumerate(_rows(build, own, columns), 1):
                key = self.key_of(example)
                share = max(0.0, self._left * _weight(example) / weights)
                close_up = self._planned[key][1]
                self.described[key], slices = describe_scan(example, row, close_up, int(share / _TEXT), pool)
                if slices is not None:
                    self.slices[key] = slices
                self._left -= self._carried(key)
                weights -= _weight(example)
                advance(config, done, len(own))

    def _carried(self, key: str) -> int:
        """Bytes of a scan's slices on the page."""
        return sum(len(text) + 4 for texts in self.slices.get(key, {}).values() for text in texts)

    def _is_whole(self, key: str) -> bool:
        scan = self.described[key]
        return (
            scan["slices"] is not None
            and len(scan["slices"]) == scan["shape"][2]
            and scan["size"] == tuple(scan["shape"][:2])
        )

    def key_of(self, example: Example) -> str:
        """By which the page knows an example's scan."""
        return self._keys[self._identity(example)]

    def _identity(self, example: Example) -> object:
        return example.scan or (example.config, example.split, example.index)


def _weight(example: Example) -> float:
    """About how many slices a scan has beside one of 5 mm."""
    return 5 / float(example.light.get("slice_thickness_mm", 2.5))


def _item(example: Example, **more: Any) -> dict[str, Any]:
    light = example.light
    return {
        "id": light.get("image_id") or light.get("case_id") or light.get("scan_id"),
        "split": example.split,
        "row": example.index,
        "classes": example.classes,
        "sizes": example.sizes,
        **{name: light[name] for name in _SMALL if name in light},
        **({"patient": light["patient_id"]} if "patient_id" in light else {}),
        **more,
    }


def _pictures(build: BuildFolder, sample: Sample, advance: Advance) -> list[dict[str, Any]]:
    """The examples of a config of pictures."""
    items = []
    for done, (example, row) in enumerate(_rows(build, sample.examples, ["image"]), 1):
        grey = decode_picture(row["image"])
        if grey.ndim == 3:  # no CT, but shown as it is published
            grey = grey.mean(axis=-1).astype(grey.dtype)
        height, width = grey.shape
        data = encode_exactly(grey) if max(grey.shape) <= _EXACT_SIDE else encode(shrink(grey, _PICTURE_SIDE))
        boxes = [entry["bbox"] for entry in example.light.get("objects", ())]
        items.append(_item(example, picture=as_text(data), width=width, height=height, boxes=boxes))
        advance(sample.config, done, len(sample.examples))
    return items


def _rows(
    build: BuildFolder, examples: Iterable[Example], columns: Sequence[str]
) -> Iterable[tuple[Example, Mapping[str, Any]]]:
    """The examples of one config, in the order of the build, with their large columns."""
    by_split: defaultdict[tuple[str, str], list[Example]] = defaultdict(list)
    for example in examples:
        by_split[example.config, example.split].append(example)
    for (config, split), own in by_split.items():
        rows = build.rows(config, split, columns, [example.index for example in own])
        yield from zip(own, rows, strict=True)
