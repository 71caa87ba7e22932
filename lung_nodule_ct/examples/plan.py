"""The plan of a build: from a config and its archives to an ordered list of small units, with the findings made on the way.

Only directories and tables are read, no images and no voxels. :data:`FAMILIES` maps each kind of config to the family that plans and
makes its examples; a new kind is added with :func:`add_family`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.declaration.computed import Computed
from lung_nodule_ct.declaration.configs import Config, Kind
from lung_nodule_ct.declaration.findings import Code, Finding, FindingCollector
from lung_nodule_ct.declaration.labels import SPLIT_OF_FOLD, SPLIT_ORDER, SplitBy
from lung_nodule_ct.errors import Place, SourceError, UnknownConfigError
from lung_nodule_ct.examples.crops import CROPS
from lung_nodule_ct.examples.scans import SCANS
from lung_nodule_ct.examples.slices import SLICES
from lung_nodule_ct.examples.stacks import STACKS
from lung_nodule_ct.examples.uses import Uses

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lung_nodule_ct.examples.family import Family, Planned, Unit
    from lung_nodule_ct.sources.source import Source
    from lung_nodule_ct.sources.zip_directory import Archive

FAMILIES: dict[str, Family[Any]] = {
    Kind.CROP: CROPS,
    Kind.SLICE: SLICES,
    Kind.SCAN: SCANS,
    Kind.STACK: STACKS,
}
"""The family of each kind of config. Other tables of kinds only add to what an unknown kind gets (a sampler, a count)."""


def add_family(kind: str, family: Family[Any]) -> None:
    """Add the family of a new kind of config, so that configs of this kind can be built.

    Args:
        kind: The kind, as :attr:`Config.kind` names it.
        family: Plans and makes the examples. Its functions must be importable by worker processes.

    Raises:
        ValueError: The kind has another family.
    """
    if FAMILIES.setdefault(kind, family) is not family:
        raise ValueError(f"kind: {kind!r} has a family already")


def family_of(config: Config) -> Family[Any]:
    """Return the family of a config.

    Raises:
        UnknownConfigError: No family was added for the kind of the config.
    """
    try:
        return FAMILIES[config.kind]
    except KeyError:
        raise UnknownConfigError(
            f"{config.name} is of the kind {config.kind!r}, which has no family",
            expected=f"one of {', '.join(FAMILIES)}",
            remedy="add its family with `lung_nodule_ct.examples.plan.add_family`",
        ) from None


@dataclass(frozen=True)
class Plan:
    """What a build of one config will do.

    Attributes:
        config: The declaration.
        units: The units of work in the order in which they are written; each identity occurs once.
        findings: What was wrong with the archives, as far as directories and tables show it.
        archives: The archives that the config reads.
        uses: What was done with the members and rows that are not part of a unit.
        computed: What is computed from the voxels of scans; see :func:`.scans.computed.with_computed`.
    """

    config: Config
    units: tuple[Unit, ...]
    findings: tuple[Finding, ...]
    archives: tuple[Archive, ...] = ()
    uses: Uses = field(default_factory=Uses)
    computed: Computed = field(default_factory=Computed)

    @property
    def splits(self) -> dict[str, tuple[Unit, ...]]:
        """The units by split; a split without units is left out."""
        present = {unit.split for unit in self.units}
        return {
            split: tuple(unit for unit in self.units if unit.split == split)
            for split in SPLIT_ORDER
            if split in present
        }

    @property
    def num_examples(self) -> dict[str, int | None]:
        """Number of examples by split; ``None`` if only a build shows it."""
        return {split: _sum(unit.num_examples for unit in units) for split, units in self.splits.items()}

    def limited_to(self, num_examples: int) -> Plan:
        """Return the plan of the first units of each split that make so many examples. A unit of unknown number counts as one."""
        units: list[Unit] = []
        for split_units in self.splits.values():
            left = num_examples
            for unit in split_units:
                if left <= 0:
                    break
                units.append(unit)
                left -= 1 if unit.num_examples is None else unit.num_examples
        return replace(self, units=tuple(units))

    @property
    def shared_patients(self) -> dict[str, int]:
        """How many patients each pair of splits shares: ``{"train & validation": 3}``."""
        patients = {
            split: {unit.patient_id for unit in units if unit.patient_id is not None}
            for split, units in self.splits.items()
        }
        return {f"{one} & {other}": len(patients[one] & patients[other]) for one, other in combinations(patients, 2)}


def make_plan(
    config: Config, source: Source, split_by: SplitBy | str = SplitBy.PUBLISHED, *, limit: int | None = None
) -> Plan:
    """Plan the build of one config.

    Args:
        config: The declaration.
        source: The archives.
        split_by: Use the published splits, or split by patient.
        limit: Plan only the first units of each split that make so many examples. A finding reports the others.

    Raises:
        UnknownConfigError: The kind of the config has no family.
        ArchiveNotFoundError: An archive that the config reads is missing.
        ArchiveError: A file is not a zip archive, or exceeds a limit.
        SourceError: There is no example, because archives contain nothing of what they should contain.
        MemberError: A table is damaged or missing, or a member must not be read.
    """
    planned = family_of(config).plan(config, source)
    if not planned.units:
        _refuse_empty_archives(config, source, planned.findings)
    if SplitBy(split_by) is SplitBy.PATIENT:
        planned = _split_by_patient(planned)
    archives = tuple(archive for role in config.reads for archive in source.archives(role))
    report = FindingCollector()
    for archive in archives:
        report.extend(archive.findings)
    report.extend(_unrecognised(config, source))
    report.extend(planned.findings)
    plan = Plan(config, tuple(planned.units), report.findings, archives, planned.uses)
    return plan if limit is None else _limited(plan, limit)


def _limited(plan: Plan, limit: int) -> Plan:
    """The plan of the first units of each split, with a finding about the others, and their members accounted for."""
    limited = plan.limited_to(limit)
    kept = set(map(id, limited.units))
    left_out = [unit for unit in plan.units if id(unit) not in kept]
    if not left_out:
        return plan
    counts = ", ".join(
        f"{split} {len(limited.splits[split]):,} of {len(units):,}" for split, units in plan.splits.items()
    )
    place = Place(left_out[0].members[0].archive)
    finding = Finding(
        Code.LIMITED,
        "left out; build without --limit for all",
        place,
        f"of {plan.config.name}, kept: {counts}",
        len(left_out),
    )
    # whether the examples that are left out would have read a member that only examples decide on is not known
    members = (*(member for unit in left_out for member in unit.members), *plan.uses.undecided)
    uses = plan.uses.without(members, (row for unit in left_out for row in unit.rows))
    # what the plan says of a scan or a picture concerns no row, if none is made of it
    shown = {(member.archive, member.name) for unit in limited.units for member in unit.members}
    hidden = {(member.archive, member.name) for unit in left_out for member in unit.members} - shown
    findings = (each for each in plan.findings if (each.place.archive, each.place.member) not in hidden)
    return replace(limited, findings=(*findings, finding), uses=replace(uses, undecided=()))


def _refuse_empty_archives(config: Config, source: Source, findings: Sequence[Finding]) -> None:
    """Raise an error for a config without examples, if all archives of one of its roles are empty or belong to something else."""
    empty = {finding.place.archive: finding for finding in findings if finding.code is Code.ARCHIVE_EMPTY}
    for role in config.reads:
        archives = source.archives(role)
        if all(archive.name in empty for archive in archives):
            raise SourceError(
                f"{config.name} has no example, because its archives contain nothing of what they should contain",
                archive=", ".join(archive.name for archive in archives),
                got="; ".join(dict.fromkeys(str(empty[archive.name].detail) for archive in archives)),
                remedy="compare the files with the record; `lung-nodule-ct inspect` shows what the source contains",
            )


def _unrecognised(config: Config, source: Source) -> list[Finding]:
    """Findings for files of the source that may belong to the config, and are not read."""
    return [
        Finding(
            Code.FILE_UNRECOGNISED,
            "nothing is read from it",
            Place(file.kind),
            f"{file.problem}; {file.remedy}" if file.specs else "`lung-nodule-ct inspect` says what it may be",
            file.count,
        )
        for file in source.unrecognised
        if file.remedy and (not file.specs or any(spec.role in config.reads for spec in file.specs))
    ]


def _split_by_patient(planned: Planned[Unit]) -> Planned[Unit]:
    if left_out := [unit for unit in planned.units if unit.fold is None]:
        place = Place(left_out[0].members[0].archive)
        finding = Finding(Code.NO_FOLD, "left out", place, "split by patient", len(left_out))
        planned = planned.without(left_out, finding)
    placed = [replace(unit, split=SPLIT_OF_FOLD[unit.fold]) for unit in planned.units if unit.fold is not None]
    return replace(planned, units=placed)


def _sum(counts: Iterable[int | None]) -> int | None:
    numbers = list(counts)
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None
