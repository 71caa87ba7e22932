"""A build in any format: plan, divide into shards, write them in parallel, collect the findings, and publish the folder at once.

A folder that holds a build of the same archives with the same options keeps its other configs; see :mod:`.existing`.
"""

from __future__ import annotations

import filecmp
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.declaration.configs import CONFIGS
from lung_nodule_ct.declaration.findings import Finding, FindingCollector, Grade
from lung_nodule_ct.declaration.manifest import FINDINGS, to_json, without_other_files
from lung_nodule_ct.errors import LungNoduleCTError, OutputError, SourceError, StrictError
from lung_nodule_ct.examples.account import make_account
from lung_nodule_ct.examples.plan import make_plan
from lung_nodule_ct.examples.report import same_pixels
from lung_nodule_ct.examples.scans.computed import with_computed
from lung_nodule_ct.read.sidecars import remove_sidecars
from lung_nodule_ct.system.progress import BuildProgress
from lung_nodule_ct.system.staging import changing, exclusive, jobs_folder, replace_folder, temporary_folder
from lung_nodule_ct.targets.documents import findings_report, manifest, manifest_header, scan_numbers, write_manifest
from lung_nodule_ct.targets.estimate import estimate, volume_rate
from lung_nodule_ct.targets.existing import ExistingBuild
from lung_nodule_ct.targets.options import BuildOptions
from lung_nodule_ct.targets.shards import Build, BuiltConfig, plan_shards, publish_names, without_empty_splits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from lung_nodule_ct.declaration.configs import Config
    from lung_nodule_ct.examples.plan import Plan
    from lung_nodule_ct.sources.source import Source
    from lung_nodule_ct.system.object_store import ObjectFolder
    from lung_nodule_ct.targets.engine import Engine
    from lung_nodule_ct.targets.shards import Layout


def build_folder(
    configs: Sequence[Config],
    source: Source,
    target: Path,
    options: BuildOptions | None = None,
    progress: BuildProgress | None = None,
    add_files: Callable[[Path], None] | None = None,
    *,
    overwrite: bool = False,
) -> Build:
    """Build configs into a folder, which changes in one step when the build is complete.

    If the folder holds a build of the same archives with the same options, the configs are added to it or renewed in it. The result equals
    a build of all its configs at once. Files that this package did not write are kept.

    Args:
        configs: The configs.
        source: The archives.
        target: The folder. If it is a link, the folder that it leads to is written.
        options: How to build.
        progress: Receives the progress.
        add_files: Adds files to the folder before it appears, as the card of a build for the Hub.
        overwrite: Replace a build in the folder, whatever its archives and options are, and its files that were changed.

    Raises:
        ArchiveNotFoundError: An archive that a config reads is missing.
        ArchiveError: A file is not a zip archive, or exceeds a limit.
        MemberError: A member is damaged.
        StrictError: A strict build met a finding of error grade.
        SourceError: None of the configs has an example.
        OutputError: The folder cannot be written, holds another build or no build, or a file of its build was changed.
        OptionError: None of the configs has what an option computes.
        MissingExtraError: The format, the engine, or what is computed needs an extra.
    """
    options, progress = options or BuildOptions(), progress or BuildProgress()
    options.check(configs)
    configs = in_order(configs)
    with one_sentence(target), exclusive(target) as folder:
        existing = ExistingBuild.read(folder)
        base = None if overwrite else existing
        kept = () if base is None else base.kept(configs)
        nested = len(kept) + len(configs) > 1 or (base is not None and base.is_nested)
        layout = options.layout(2 if nested else 1)
        header = manifest_header(layout, options)
        if base is not None:
            base.check(header, scan_numbers(source), source, configs)
        with temporary_folder(folder) as stage, options.open_engine(jobs_folder(folder)) as engine:
            plans = [make_plan(config, source, options.split_by, limit=options.limit) for config in configs]
            if existing is not None:
                planned = _planned_names(plans, layout, options)
                existing.kept_files(kept, planned, nested=nested, overwrite=overwrite).refuse_conflicts(target)
            parts = BuildParts(source, options, layout, header, base, kept)
            build, document = parts.write(plans, stage, engine, progress, add_files)
            with changing(folder):
                if existing is not None:
                    build = _keep_files(existing, stage, build, document, target, nested=nested, overwrite=overwrite)
                replace_folder(stage, folder)
        shutil.rmtree(jobs_folder(folder), ignore_errors=True)
    return build


def in_order(configs: Sequence[Config]) -> list[Config]:
    """The configs in the order of their declaration; those of other packages at the end."""
    order = {name: number for number, name in enumerate(CONFIGS)}
    return sorted(configs, key=lambda config: order.get(config.name, len(order)))


@dataclass(frozen=True)
class BuildParts:
    """What the content of a build follows from, besides the plans of its configs.

    Attributes:
        source: The archives.
        options: How to build.
        layout: The files.
        header: What the manifest states about the options.
        base: The build whose other configs are kept.
        kept: These configs.
    """

    source: Source
    options: BuildOptions
    layout: Layout
    header: Mapping[str, Any]
    base: ExistingBuild | None = None
    kept: tuple[str, ...] = ()

    def write(
        self,
        plans: Sequence[Plan],
        stage: Path,
        engine: Engine,
        progress: BuildProgress,
        add_files: Callable[[Path], None] | None,
    ) -> tuple[Build, dict[str, Any]]:
        """Write all files of a build into a stage, except for shards that the engine writes elsewhere.

        Args:
            plans: The plans of the configs.
            stage: A new folder.
            engine: Writes the shards.
            progress: Receives the progress.
            add_files: Adds files to the stage when it is complete.

        Returns:
            The build, and the content of its manifest.

        Raises:
            LungNoduleCTError: As :func:`build_folder`.
        """
        source, options, layout = self.source, self.options, self.layout
        _announce(plans, options, progress)
        plans = [with_computed(plan, options.computed, engine.map, progress) for plan in plans]
        results = {
            plan.config.name: build_config(
                plan, layout, stage, engine, progress, keep_source_names=options.keep_source_names
            )
            for plan in plans
        }
        built = {name: result for name, result in results.items() if result.files}
        renewed = () if self.base is None else self.base.renewed([plan.config for plan in plans])
        _require_examples(built, source, options, renewed)
        findings, report = findings_report(plans, results, source, options, self.base, self.kept)
        if options.strict:
            refuse_errors(findings)
        accounts = {name: result.account for name, result in results.items()}
        build = Build(
            built, findings, accounts, report, options.split_by, options.keep_source_names, source.records, self.kept
        )
        (stage / FINDINGS).write_text(to_json(report), encoding="utf-8")
        layout.finish(stage, build)
        for config in built.values():
            publish_names(stage, config.files)
        document = manifest(self.header, build, source, self.base)
        write_manifest(stage, document)
        if add_files is not None:
            add_files(stage)
        return build, document


def build_config(
    plan: Plan,
    layout: Layout,
    stage: Path,
    engine: Engine,
    progress: BuildProgress,
    *,
    keep_source_names: bool = False,
) -> BuiltConfig:
    """Write the shards of one config, under names that nothing loads until :func:`.publish_names` is called.

    Args:
        plan: The plan.
        layout: The files.
        stage: The folder.
        engine: Writes the shards.
        progress: Receives the progress.
        keep_source_names: Add the column ``source_name``.

    Raises:
        MemberError: A member is damaged.
        OutputError: The folder cannot be written.
    """
    name = plan.config.name
    shards = plan_shards(plan, keep_source_names=keep_source_names, shard_bytes=layout.shard_bytes)
    progress.begin(name, sum(unit.packed_bytes for unit in plan.units), len(plan.units))
    order = {shard: number for number, shard in enumerate((shard.split, shard.index) for shard in shards)}
    written = engine.write(layout, shards, stage, progress)
    files = tuple(sorted(written, key=lambda each: order[each.shard.split, each.shard.index]))
    progress.end(name)
    report = FindingCollector()
    report.extend(plan.findings)
    for each in files:
        report.extend(each.findings)
    report.extend(same_pixels(entry for each in files for entry in each.pixels))
    account = make_account(
        plan,
        (member for each in files for member in each.read),
        sum(each.rows for each in files),
        (member for each in files for member in each.left_out),
    )
    report.extend(account.findings)
    return BuiltConfig(plan, without_empty_splits(stage, files), report.findings, account)


def refuse_errors(findings: Mapping[str, tuple[Finding, ...]]) -> None:
    """Stop a strict build that met findings of error grade.

    Raises:
        StrictError: There is a finding of error grade.
    """
    errors = [finding for own in findings.values() for finding in own if finding.grade is Grade.ERROR]
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise StrictError(
            f"a strict build met a finding of error grade{more}: {errors[0]}",
            remedy="nothing was written; build without --strict to get the other examples and the report",
        )


def _announce(plans: Sequence[Plan], options: BuildOptions, progress: BuildProgress) -> None:
    """Announce a build that takes long."""
    rate = volume_rate(options.format, options.volume_codec)
    expected = estimate(plans, rate, options.num_proc, computes=options.computed.needs_imaging)
    if expected.is_long:
        progress.announce(str(expected))


def _planned_names(plans: Sequence[Plan], layout: Layout, options: BuildOptions) -> set[str]:
    """The names of all shards of a build, which follow from its plans."""
    return {
        layout.path_of(shard)
        for plan in plans
        for shard in plan_shards(plan, keep_source_names=options.keep_source_names, shard_bytes=layout.shard_bytes)
    }


def _require_examples(
    built: Mapping[str, BuiltConfig], source: Source, options: BuildOptions, renewed: Sequence[str]
) -> None:
    """Stop a build without any example, or that would renew a config with nothing.

    Raises:
        SourceError: There is no example.
    """
    remedy = "run `lung-nodule-ct inspect` to see what the source contains"
    by = f"split_by={str(options.split_by)!r}"
    if not built:
        raise SourceError(f"no config has an example in {source.name} with {by}: nothing to write", remedy=remedy)
    if empty := [name for name in renewed if name not in built]:
        raise SourceError(f"{empty[0]} has examples in the output, and none in {source.name} with {by}", remedy=remedy)


def _keep_files(
    existing: ExistingBuild,
    stage: Path,
    build: Build,
    document: Mapping[str, Any],
    target: Path,
    *,
    nested: bool,
    overwrite: bool,
) -> Build:
    """Add the files that are kept of an existing build to the new one, and record those of this package in its manifest.

    Raises:
        OutputError: The new build would replace a file that no build wrote, or that was changed.
    """
    same = without_other_files(existing.manifest) == without_other_files(document) and filecmp.cmp(
        existing.folder / FINDINGS, stage / FINDINGS, shallow=False
    )
    if same:
        remove_sidecars(stage)  # those of the existing build are at least as complete
    written = {path.relative_to(stage).as_posix() for path in stage.rglob("*") if not path.is_dir()}
    files = existing.kept_files(build.kept, written, stage, nested=nested, still_described=same, overwrite=overwrite)
    files.refuse_conflicts(target)
    files.link_into(existing.folder, stage)
    write_manifest(stage, document, by_user={files.names[name] for name in files.by_user})
    return replace(build, removed=files.removed, by_user=files.by_user)


@contextmanager
def one_sentence(target: Path | ObjectFolder) -> Iterator[None]:
    """Turn an error of the system, as of a full disk, into one of this package."""
    try:
        yield
    except LungNoduleCTError:
        raise
    except OSError as error:
        raise OutputError(f"the output {target} cannot be written: {error}") from error
