"""The rows of each config that the preview page shows: a random sample with all classes and sizes, or what was chosen."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.declaration.configs import Config, Kind
from lung_nodule_ct.declaration.schema import Flag, Picture, Voxels
from lung_nodule_ct.errors import BuildFolderError, closest
from lung_nodule_ct.preview.samples import SampledRow, pathology_classes, records_with, scan_key, size_groups

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

    from lung_nodule_ct.read.build_folder import BuildFolder

_LIMITS: Final[Mapping[str, int]] = {Kind.CROP: 120, Kind.SLICE: 60, Kind.SCAN: 12, Kind.STACK: 10}
"""Number of rows on a page of the default size. A larger page shows proportionally more."""
_LONGITUDINAL_LIMIT: Final = 20
_OTHER_LIMIT: Final = 24
_MOST = 5  # times the limit, of volumes that are small enough
_LISTED = 12  # ids in an error


@dataclass(frozen=True)
class Choice:
    """What the page shows in place of a sample of the scans.

    Attributes:
        patients: Patients of which all rows are shown.
        scans: Scans and cases that are shown, by ``scan_id`` or ``case_id``.
        all_scans: Show all rows with volumes. Pictures are sampled.

    Raises:
        ValueError: All scans and some of them are chosen.
    """

    patients: tuple[str, ...] = ()
    scans: tuple[str, ...] = ()
    all_scans: bool = False

    def __post_init__(self) -> None:
        if self.all_scans and self.is_by_id:
            raise ValueError("all_scans: expected all scans, or patients and scans by id, got both")

    @property
    def is_by_id(self) -> bool:
        """Whether rows are chosen by their ids."""
        return bool(self.patients or self.scans)

    def includes(self, sampled: SampledRow) -> bool:
        """Return whether a row may be shown."""
        return not self.is_by_id or _patient(sampled) in self.patients or _scan(sampled) in self.scans

    def is_complete(self, config: Config) -> bool:
        """Return whether all rows of a config that may be shown are shown, without a limit."""
        return config.schema.has_voxels and (self.all_scans or self.is_by_id)

    @property
    def text(self) -> str | None:
        """What was chosen, in words; ``None`` for a sample."""
        if self.all_scans:
            return "all scans"
        named = {"patients": self.patients, "scans": self.scans}
        return " and ".join(f"{name} {', '.join(ids)}" for name, ids in named.items() if ids) or None


@dataclass(frozen=True)
class Selection:
    """The rows of a config that the page shows.

    Attributes:
        config: The config as it was built.
        rows: The rows, in the order of the build.
        totals: Number of rows of each split of the build.
        more: Further rows in the order in which they would be added, in groups that are shown together.
    """

    config: Config
    rows: tuple[SampledRow, ...]
    totals: Mapping[str, int]
    more: tuple[tuple[SampledRow, ...], ...] = ()

    def extended(self, fitting: int) -> Selection:
        """Return the selection with further rows, up to ``fitting`` in total and five times as many as now."""
        limit = min(fitting, _MOST * len(self.rows))
        rows = list(self.rows)
        for group in self.more:
            if len(rows) + len(group) <= limit:
                rows += group
        splits = list(self.totals)
        rows.sort(key=lambda sampled: (splits.index(sampled.split), sampled.index))
        return replace(self, rows=tuple(rows), more=())


def draw(build: BuildFolder, scale: float, seed: int, choice: Choice) -> list[Selection]:
    """Draw the rows of each config that the page shows. Reads no pictures and no voxels.

    Args:
        build: The build.
        scale: Size of the page, relative to the default size.
        seed: Seed of the draw.
        choice: What is shown in place of a sample. Configs without any such row are left out.

    Raises:
        BuildFolderError: The build has no such patient or scan.
    """
    selections: dict[str, Selection] = {}
    shown: set[Hashable] = set()
    every = {name: _metadata_rows(build, name) for name in build.configs}
    _require_known("patient", choice.patients, map(_patient, _joined(every.values())))
    _require_known("scan", choice.scans, map(_scan, _joined(every.values())))
    # longitudinal configs first: other configs then show the same scans, which the page needs to hold only once
    for name in sorted(build.configs, key=lambda name: not build.config(name).longitudinal):
        config = build.config(name)
        rows = [sampled for sampled in every[name] if choice.includes(sampled)]
        if choice.is_by_id and not rows:
            continue
        default = _LONGITUDINAL_LIMIT if config.longitudinal else _LIMITS.get(config.kind, _OTHER_LIMIT)
        limit = len(rows) if choice.is_complete(config) else max(1, round(default * scale))
        rng = random.Random(f"{seed} {name}")  # noqa: S311 -- not used for security
        if config.longitudinal:
            chosen, more = _draw_patients(rows, limit, rng)
        else:
            chosen, more = _draw_strata(config, rows, limit, rng, preferred=shown)
        shown |= {scan_key(config, entry.row) for entry in chosen} - {None}
        taken = set(chosen)
        ordered = tuple(row for row in rows if row in taken)
        selections[name] = Selection(config, ordered, build.configs[name], tuple(map(tuple, more)))
    return [selections[name] for name in build.configs if name in selections]


def _metadata_rows(build: BuildFolder, name: str) -> list[SampledRow]:
    columns = [
        column.name for column in build.config(name).schema.columns if not isinstance(column.type, Picture | Voxels)
    ]
    return [
        SampledRow(name, split, index, row)
        for split in build.splits(name)
        for index, row in enumerate(build.rows(name, split, columns))
    ]


def _joined(groups: Iterable[Sequence[SampledRow]]) -> Iterable[SampledRow]:
    return (sampled for group in groups for sampled in group)


def _patient(sampled: SampledRow) -> str | None:
    patient: str | None = sampled.row.get("patient_id")
    return patient


def _scan(sampled: SampledRow) -> str | None:
    scan: str | None = sampled.row.get("scan_id") or sampled.row.get("case_id")
    return scan


def _require_known(kind: str, wanted: Sequence[str], present: Iterable[str | None]) -> None:
    if not wanted:
        return
    known = sorted({entry for entry in present if entry is not None}, key=lambda entry: (len(entry), entry))
    for entry in wanted:
        if entry not in known:
            listed = ", ".join(known[:_LISTED]) + (
                f" and {len(known) - _LISTED:,} more" if len(known) > _LISTED else ""
            )
            raise BuildFolderError(
                f"the build has no {kind} {entry!r}",
                expected=f"one of {listed}" if known else f"a build with ids of {kind}s",
                remedy=closest(entry, known),
            )


def _stratum(config: Config, sampled: SampledRow) -> Hashable:
    """Rows with the same stratum are alike: split, classes, sizes, flags and number of boxes."""
    row = sampled.row
    flags = tuple(row[column.name] for column in config.schema.columns if isinstance(column.type, Flag))
    classes = pathology_classes(config.schema, row)
    return sampled.split, classes, size_groups(row), flags, len(records_with(row, "bbox"))


def _draw_strata(
    config: Config, rows: Sequence[SampledRow], limit: int, rng: random.Random, preferred: Collection[Hashable]
) -> tuple[list[SampledRow], list[list[SampledRow]]]:
    """One row of each stratum, then a second one of each, up to the limit. In a stratum, preferred scans come first.

    Returns:
        The rows up to the limit, and the others one by one.
    """
    strata: defaultdict[Hashable, list[SampledRow]] = defaultdict(list)
    for entry in rows:
        strata[_stratum(config, entry)].append(entry)
    queues = []
    for stratum in strata.values():
        rng.shuffle(stratum)
        queues.append(sorted(stratum, key=lambda entry: scan_key(config, entry.row) in preferred))  # taken from the end
    rng.shuffle(queues)
    ranked: list[SampledRow] = []
    while any(queues):
        ranked += [queue.pop() for queue in queues if queue]
    return ranked[:limit], [[entry] for entry in ranked[limit:]]


def _draw_patients(
    rows: Sequence[SampledRow], limit: int, rng: random.Random
) -> tuple[list[SampledRow], list[list[SampledRow]]]:
    """All scans of some patients; patients with more timepoints come first.

    Returns:
        The scans up to the limit, and those of the other patients.
    """
    patients: defaultdict[str | None, list[SampledRow]] = defaultdict(list)
    for entry in rows:
        patients[_patient(entry)].append(entry)
    queue = list(patients.values())
    rng.shuffle(queue)
    queue.sort(key=lambda scans: -len({scan.row.get("timepoint") for scan in scans}))
    chosen: list[SampledRow] = []
    others: list[list[SampledRow]] = []
    for scans in queue:
        if not chosen or len(chosen) + len(scans) <= limit:
            chosen += scans
        else:
            others.append(scans)
    return chosen, others
