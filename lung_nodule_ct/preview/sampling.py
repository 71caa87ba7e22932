"""Which examples of a build the page shows: a few of every kind, the same for the same seed."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.declaration.configs import LONGITUDINAL, SOURCE_NAME
from lung_nodule_ct.declaration.labels import PATHOLOGY_NAMES
from lung_nodule_ct.declaration.published import SIZE_GROUPS

if TYPE_CHECKING:
    from lung_nodule_ct.declaration.published import SizeGroup
    from lung_nodule_ct.read.build_folder import BuildFolder

ScanKey = tuple[str, float]


@dataclass(frozen=True)
class Example:
    """One row of a build, without its voxels or picture.

    Attributes:
        config: Its config.
        split: Its split.
        index: Its place in the split.
        light: Its small columns.
    """

    config: str
    split: str
    index: int
    light: Mapping[str, Any]

    @property
    def nodules(self) -> Sequence[Mapping[str, Any]]:
        """The annotations of a volume."""
        found: Sequence[Mapping[str, Any]] = self.light.get("nodules") or ()
        return found

    @property
    def largest(self) -> int | None:
        """The place of the largest nodule that has a box, else of the first; ``None`` without any."""
        if not self.nodules:
            return None

        def rank(place: int) -> tuple[bool, float]:
            nodule = self.nodules[place]
            return nodule["box_voxel"] is not None, nodule.get("diameter_mm", nodule.get("diameter")) or 0.0

        return max(range(len(self.nodules)), key=rank)

    @property
    def classes(self) -> tuple[str, ...]:
        """The pathology classes in it, each once; empty where none is known."""
        labels = [self.light.get("label"), *(nodule.get("pathology") for nodule in self.nodules)]
        return tuple(dict.fromkeys(PATHOLOGY_NAMES[label] for label in labels if label is not None))

    @property
    def sizes(self) -> tuple[str, ...]:
        """The size groups of its nodules, each once; empty where no diameter in mm is known."""
        sizes = [nodule["diameter_mm"] for nodule in self.nodules if "diameter_mm" in nodule]
        return tuple(size_name(group) for group in SIZE_GROUPS if any(map(group.holds, sizes)))

    @property
    def scan(self) -> ScanKey | None:
        """What tells that two configs hold the same volume; ``None`` where nothing does."""
        key = self.light.get("scan_id")
        return (
            None if key is None or "slice_thickness_mm" not in self.light else (key, self.light["slice_thickness_mm"])
        )

    @property
    def stratum(self) -> Hashable:
        """Examples that are alike: split, class, size, and what else sets a config's examples apart."""
        objects = self.light.get("objects")
        return (
            self.split,
            self.classes,
            self.sizes,
            self.light.get("augmented"),
            None if objects is None else len(objects),
        )


def size_name(group: SizeGroup) -> str:
    """A size group without the word that says of what: ``0 to 10 mm``, ``over 30 mm``."""
    return group.name.removeprefix("nodules ").removeprefix("of ")


@dataclass(frozen=True)
class Sample:
    """What is shown of a config.

    Attributes:
        config: The config.
        examples: Those shown, in the order of the build.
        totals: How many rows each split has.
    """

    config: str
    examples: tuple[Example, ...]
    totals: Mapping[str, int]


#: At the default size of page. A larger page shows more in proportion.
_MOST = {
    "cls_1.25mm": 120,
    "det2d_1.25mm": 60,
    "det3d_1.25mm": 12,
    "det3d_5mm": 12,
    "longitudinal": 20,
    "det3d_bmp_1.25mm": 10,
}


def draw_samples(build: BuildFolder, scale: float, seed: int) -> list[Sample]:
    """What is shown of each config. Reads small columns only.

    Args:
        build: The build.
        scale: The size of the page by its default size.
        seed: Of the draw.
    """
    samples: dict[str, Sample] = {}
    shown: set[ScanKey] = set()
    # longitudinal first, so that the other configs can show the same scans and the page carries them once
    for config in sorted(build.configs, key=lambda name: name != LONGITUDINAL.name):
        columns = [name for name in build.metadata_columns(config) if name != SOURCE_NAME.name]  # it may spell a date
        every = [
            Example(config, split, index, light)
            for split in build.splits(config)
            for index, light in enumerate(build.rows(config, split, columns))
        ]
        most = max(1, round(_MOST[config] * scale))
        random_numbers = random.Random(f"{seed} {config}")  # noqa: S311 -- a draw to look at, not a secret
        if config == LONGITUDINAL.name:
            chosen = _whole_patients(every, most, random_numbers)
        else:
            chosen = _round_robin(every, most, random_numbers, favoured=shown)
        shown |= {example.scan for example in chosen if example.scan is not None}
        taken = {(example.split, example.index) for example in chosen}
        in_order = tuple(example for example in every if (example.split, example.index) in taken)
        samples[config] = Sample(config, in_order, build.configs[config])
    return [samples[config] for config in build.configs]


def _round_robin(
    every: Sequence[Example], most: int, random_numbers: random.Random, favoured: Collection[ScanKey]
) -> list[Example]:
    """One of each stratum, then a second of each, until there are enough; favoured scans first within a stratum."""
    strata: defaultdict[Hashable, list[Example]] = defaultdict(list)
    for example in every:
        strata[example.stratum].append(example)
    queues = []
    for own in strata.values():
        random_numbers.shuffle(own)
        queues.append(sorted(own, key=lambda example: example.scan in favoured))  # taken from the end
    random_numbers.shuffle(queues)
    chosen: list[Example] = []
    while len(chosen) < most and any(queues):
        chosen += [queue.pop() for queue in queues if queue][: most - len(chosen)]
    return chosen


def _whole_patients(every: Sequence[Example], most: int, random_numbers: random.Random) -> list[Example]:
    """All scans of some patients: those with more dates are drawn earlier, as they have more to show."""
    patients: defaultdict[str, list[Example]] = defaultdict(list)
    for example in every:
        patients[example.light["patient_id"]].append(example)
    queue = list(patients.values())
    random_numbers.shuffle(queue)
    queue.sort(key=lambda scans: -len({scan.light["timepoint"] for scan in scans}))
    chosen: list[Example] = []
    for scans in queue:
        if chosen and len(chosen) + len(scans) > most:
            continue
        chosen += scans
    return chosen
