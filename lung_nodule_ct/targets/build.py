"""A build, whatever it writes: plan, deal into shards, write them side by side, gather the findings, appear whole.

What is written, and what stands beside it, is the affair of a :class:`Layout`: the Hub folder of Parquet, or Arrow.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lung_nodule_ct.declaration.findings import Finding, Grade
from lung_nodule_ct.declaration.labels import SplitBy
from lung_nodule_ct.declaration.manifest import FINDINGS, FORMAT_VERSION, GENERATOR, MANIFEST, to_json
from lung_nodule_ct.errors import SourceError, StrictError
from lung_nodule_ct.examples.plan import Plan, make_plan
from lung_nodule_ct.examples.report import compare_figures, report_document, same_pixels, shared_patients
from lung_nodule_ct.read.sidecars import SIDECARS, own_sidecars
from lung_nodule_ct.system.progress import BuildProgress
from lung_nodule_ct.system.staging import staged_folder
from lung_nodule_ct.targets.engine import Engine, LocalEngine, ShardLayout, Written, plan_shards, publish_names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lung_nodule_ct.declaration.configs import Config
    from lung_nodule_ct.sources.records import Record
    from lung_nodule_ct.sources.source import Source

# what layouts write beside shards, what datasets caches beside Arrow files, what desktops leave
_BESIDE = re.compile(
    r"dataset_dict\.json|dataset_info\.json|state\.json|cache-.+\.arrow|features\.json|metadata\.json|.+\.labels\.txt"
    r"|\.DS_Store|Thumbs\.db"
)


@dataclass(frozen=True)
class BuildOptions:
    """How to build.

    Attributes:
        split_by: The published splits, or leak-free ones by patient.
        keep_source_names: Add the column ``source_name``, and keep what pictures say beside their pixels; both may spell dates.
        strict: Refuse to finish where a finding is of error grade.
        num_proc: How many work side by side: processes where there are shards enough, else threads.
    """

    split_by: SplitBy = SplitBy.PUBLISHED
    keep_source_names: bool = False
    strict: bool = False
    num_proc: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "split_by", SplitBy(self.split_by))
        if self.num_proc < 1:
            raise ValueError(f"num_proc: expected at least 1, got {self.num_proc}")


@dataclass(frozen=True)
class BuiltConfig:
    """What was built of one config.

    Attributes:
        plan: What was to be done.
        files: What was written.
        findings: Of the plan and of the examples.
        shared_patients: Patients that two splits share, by pair of splits.
    """

    plan: Plan
    files: tuple[Written, ...]
    findings: tuple[Finding, ...]
    shared_patients: dict[str, int]

    @property
    def rows(self) -> dict[str, int]:
        """Examples by split."""
        rows = dict.fromkeys(self.plan.splits, 0)
        for written in self.files:
            rows[written.shard.split] += written.rows
        return rows


@dataclass(frozen=True)
class Build:
    """A build, finished but for what the layout writes beside the shards.

    Attributes:
        configs: What was built, by config name; a config without any example is not there.
        findings: By config, those without an example included.
        report: The content of ``findings.json``.
        options: How it was built.
        records: The records that the archives are of, where that is known.
    """

    configs: Mapping[str, BuiltConfig]
    findings: Mapping[str, tuple[Finding, ...]]
    report: Mapping[str, Any]
    options: BuildOptions
    records: tuple[Record, ...] = ()


class Layout(ShardLayout, Protocol):
    """What a build writes."""

    @property
    def name(self) -> str:
        """As the command line has it."""

    @property
    def shard_bytes(self) -> int:
        """How much, as packed in the archives, goes into a shard."""

    @property
    def manifest_extra(self) -> dict[str, str]:
        """What else the manifest says of it."""

    def finish(self, folder: Path, build: Build) -> None:
        """Write what stands beside the shards."""


def build_folder(
    configs: Sequence[Config],
    source: Source,
    target: Path,
    layout: Layout,
    options: BuildOptions | None = None,
    progress: BuildProgress | None = None,
    engine: Engine | None = None,
    add_files: Callable[[Path], None] | None = None,
) -> Build:
    """Build some configs into one folder. It appears when everything is written; a build of ours there is replaced.

    Args:
        configs: What to build.
        source: The archives.
        target: The folder.
        layout: What to write.
        options: How to build.
        progress: Is told how far it is.
        engine: Who writes the shards; without it this machine does.
        add_files: Writes more files into the folder before it appears, as the card of a build for the Hub.

    Raises:
        ArchiveNotFoundError: An archive that a config reads is missing.
        ArchiveError: An archive is no zip archive, or breaks a limit.
        MemberError: A member is damaged.
        StrictError: A strict build met a finding of error grade.
        SourceError: There is no example in any of the configs.
        OutputError: The folder cannot be written.
    """
    options, progress = options or BuildOptions(), progress or BuildProgress()
    with staged_folder(target, foreign_to=foreign_file) as stage, engine or LocalEngine(options.num_proc) as writers:
        plans = {config.name: make_plan(config, source, options.split_by) for config in configs}
        built: dict[str, BuiltConfig] = {}
        findings: dict[str, tuple[Finding, ...]] = {}
        for name, plan in plans.items():
            config = build_config(plan, layout, stage, writers, progress, keep_source_names=options.keep_source_names)
            findings[name] = config.findings
            if config.files:
                built[name] = config
        if not built:
            raise SourceError(
                f"no config has an example in {source.name} with split_by={str(options.split_by)!r}: nothing to write",
                remedy="see what is there with `lung-nodule-ct inspect`",
            )
        figures = compare_figures(plans)
        for comparison in figures:
            if comparison.finding is not None:
                findings[comparison.config] += (comparison.finding,)
        if options.strict:
            refuse_errors(findings)
        extra = {
            "shared_patients": {name: config.shared_patients for name, config in built.items()},
            "figures": [comparison.to_dict() for comparison in figures],
        }
        report = report_document(findings, generator=GENERATOR, verbatim=options.keep_source_names, extra=extra)
        build = Build(built, findings, report, options, source.records)
        _finish(stage, build, layout, source)
        if add_files is not None:
            add_files(stage)
    return build


def build_config(
    plan: Plan,
    layout: Layout,
    stage: Path,
    engine: Engine,
    progress: BuildProgress,
    *,
    keep_source_names: bool = False,
) -> BuiltConfig:
    """Write the shards of one config, under names that nothing loads until :func:`publish_names` is called.

    Args:
        plan: What to build.
        layout: What to write.
        stage: The folder.
        engine: Who writes.
        progress: Is told how far it is.
        keep_source_names: Add the column ``source_name``.

    Raises:
        MemberError: A member is damaged.
        OutputError: It cannot be written.
    """
    name = plan.config.name
    shards = plan_shards(plan, keep_source_names=keep_source_names, shard_bytes=layout.shard_bytes)
    progress.begin(name, sum(unit.packed_bytes for unit in plan.units), len(plan.units))
    files = tuple(sorted(engine.write(layout, shards, stage, progress), key=_order_in(plan)))
    progress.end(name)
    return BuiltConfig(plan, files, _all_findings(plan, files), shared_patients(plan))


def _order_in(plan: Plan) -> Callable[[Written], tuple[int, int]]:
    splits = list(plan.splits)
    return lambda written: (splits.index(written.shard.split), written.shard.index)


def _all_findings(plan: Plan, files: Sequence[Written]) -> tuple[Finding, ...]:
    own = [finding for written in files for finding in written.findings]
    return (*plan.findings, *own, *same_pixels(entry for written in files for entry in written.pixels))


def refuse_errors(findings: Mapping[str, tuple[Finding, ...]]) -> None:
    """What a strict build does at its end.

    Raises:
        StrictError: There is a finding of error grade.
    """
    errors = [finding for own in findings.values() for finding in own if finding.grade is Grade.ERROR]
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise StrictError(
            f"a strict build met a finding of error grade{more}: {errors[0]}",
            remedy="nothing was written; build without --strict to have the rest and the report",
        )


def _finish(stage: Path, build: Build, layout: Layout, source: Source) -> None:
    """Write what stands beside the shards, then give them their names."""
    (stage / FINDINGS).write_text(to_json(build.report), encoding="utf-8")
    (stage / MANIFEST).write_text(to_json(_manifest(build, layout, source)), encoding="utf-8")
    layout.finish(stage, build)
    for config in build.configs.values():
        publish_names(stage, config.files)


def foreign_file(folder: Path) -> str | None:
    """A file in a folder that no build of ours wrote, if there is one; a build with its own files only may be replaced."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        ours = {file["path"] for config in manifest["configs"].values() for file in config["files"]}
        if not manifest["generator"].startswith("lung_nodule_ct "):
            return MANIFEST
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        ours = set()
    else:
        beside = own_sidecars(folder)
        ours |= {MANIFEST, FINDINGS, *beside, *([SIDECARS] if beside else [])}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and not (name in ours or (ours and _BESIDE.fullmatch(path.name))):
            return name
    return None


def _manifest(build: Build, layout: Layout, source: Source) -> dict[str, Any]:
    roles = {role for config in build.configs.values() for role in config.plan.config.roles}
    return {
        "format_version": FORMAT_VERSION,
        "generator": GENERATOR,
        "format": layout.name,
        **layout.manifest_extra,
        "split_by": str(build.options.split_by),
        "keep_source_names": build.options.keep_source_names,
        "source": source.fingerprints(roles),
        "records": [
            {"number": record.number, "doi": record.doi, "licence": record.licence} for record in build.records
        ],
        "configs": {
            name: {
                "rows": config.rows,
                "files": [
                    {
                        "path": each.path,
                        "split": each.shard.split,
                        "rows": each.rows,
                        "bytes": each.file_bytes,
                        "arrow_bytes": each.arrow_bytes,
                    }
                    | ({"sha256": each.sha256} if each.sha256 else {})
                    for each in config.files
                ],
            }
            for name, config in build.configs.items()
        },
    }
