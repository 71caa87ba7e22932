"""The result of a build, and the layout of its folder: shards, and the files that a format needs next to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from lung_nodule_ct.targets.shards import ShardLayout

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lung_nodule_ct.declaration.findings import Finding
    from lung_nodule_ct.declaration.labels import SplitBy
    from lung_nodule_ct.declaration.manifest import Format
    from lung_nodule_ct.examples.plan import Plan
    from lung_nodule_ct.sources.records import Record
    from lung_nodule_ct.targets.shards import WrittenShard


@dataclass(frozen=True)
class BuiltConfig:
    """The result of building one config.

    Attributes:
        plan: Its plan.
        files: The files that were written.
        findings: Findings of the plan and of the examples.
    """

    plan: Plan
    files: tuple[WrittenShard, ...]
    findings: tuple[Finding, ...]

    @property
    def rows(self) -> dict[str, int]:
        """Number of examples by split."""
        rows = dict.fromkeys(self.plan.splits, 0)
        for written in self.files:
            rows[written.shard.split] += written.rows
        return rows

    @property
    def shared_patients(self) -> dict[str, int]:
        """Number of patients that two splits share, by pair of splits."""
        return self.plan.shared_patients


@dataclass(frozen=True)
class Build:
    """A build, complete except for the files that the layout adds to the shards.

    Attributes:
        configs: What was built, by config name; a config without examples is left out.
        findings: By config, including configs without examples.
        report: The content of ``findings.json``.
        split_by: How examples were split.
        keep_source_names: Whether the column ``source_name`` was added.
        records: The records that the archives belong to, if they are known.
    """

    configs: Mapping[str, BuiltConfig]
    findings: Mapping[str, tuple[Finding, ...]]
    report: Mapping[str, Any]
    split_by: SplitBy
    keep_source_names: bool
    records: tuple[Record, ...] = ()


class Layout(ShardLayout, Protocol):
    """The files of a build."""

    @property
    def format(self) -> Format:
        """The file format."""

    @property
    def shard_bytes(self) -> int:
        """Size of the members of a shard, as compressed in the archives."""

    @property
    def manifest_extra(self) -> dict[str, str]:
        """Further entries of the manifest."""

    def finish(self, folder: Path, build: Build) -> None:
        """Write the files that the format needs next to the shards."""
