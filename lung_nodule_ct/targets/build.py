"""A build in any format: plan, divide into shards, write them in parallel, collect the findings, and publish the folder at once."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.declaration.findings import Finding, Grade
from lung_nodule_ct.declaration.manifest import (
    DATASET_VERSION,
    FINDINGS,
    FORMAT_VERSION,
    GENERATOR,
    MANIFEST,
    config_to_json,
    to_json,
)
from lung_nodule_ct.errors import SourceError, StrictError
from lung_nodule_ct.examples.family import number_scans
from lung_nodule_ct.examples.plan import make_plan
from lung_nodule_ct.examples.report import compare_figures, figure_finding, report_document, same_pixels
from lung_nodule_ct.read.sidecars import SIDECARS, own_sidecars
from lung_nodule_ct.system.files import staged_folder
from lung_nodule_ct.system.progress import BuildProgress
from lung_nodule_ct.targets.options import BuildOptions
from lung_nodule_ct.targets.shards import Build, BuiltConfig, plan_shards, publish_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from lung_nodule_ct.declaration.configs import Config
    from lung_nodule_ct.declaration.published import FigureCount
    from lung_nodule_ct.examples.plan import Plan
    from lung_nodule_ct.sources.source import Source
    from lung_nodule_ct.targets.engine import Engine
    from lung_nodule_ct.targets.shards import Layout, WrittenShard

#: Files next to shards that layouts write, that ``datasets`` caches next to Arrow files, and that desktops create.
_KNOWN_FILES = re.compile(
    r"dataset_dict\.json|dataset_info\.json|state\.json|cache-.+\.arrow|features\.json|metadata\.json|.+\.labels\.txt"
    r"|\.DS_Store|Thumbs\.db"
)


def build_folder(
    configs: Sequence[Config],
    source: Source,
    target: Path,
    options: BuildOptions | None = None,
    progress: BuildProgress | None = None,
    add_files: Callable[[Path], None] | None = None,
) -> Build:
    """Build configs into a folder. The folder appears when it is complete; an earlier build at its path is replaced.

    Args:
        configs: The configs.
        source: The archives.
        target: The folder.
        options: How to build.
        progress: Receives the progress.
        add_files: Adds files to the folder before it appears, as the card of a build for the Hub.

    Raises:
        ArchiveNotFoundError: An archive that a config reads is missing.
        ArchiveError: A file is not a zip archive, or exceeds a limit.
        MemberError: A member is damaged.
        StrictError: A strict build met a finding of error grade.
        SourceError: None of the configs has an example.
        OutputError: The folder cannot be written, or holds other files.
        MissingExtraError: The format or the engine needs an extra.
    """
    options, progress = options or BuildOptions(), progress or BuildProgress()
    layout = options.layout(len(configs))
    with staged_folder(target, find_foreign=foreign_file) as stage, options.open_engine() as engine:
        plans = [make_plan(config, source, options.split_by) for config in configs]
        results = {
            plan.config.name: build_config(
                plan, layout, stage, engine, progress, keep_source_names=options.keep_source_names
            )
            for plan in plans
        }
        built = {name: result for name, result in results.items() if result.files}
        if not built:
            raise SourceError(
                f"no config has an example in {source.name} with split_by={str(options.split_by)!r}: nothing to write",
                remedy="run `lung-nodule-ct inspect` to see what the source contains",
            )
        counts = compare_figures(plans)
        findings = _with_figures({name: result.findings for name, result in results.items()}, counts)
        if options.strict:
            refuse_errors(findings)
        extra = {
            "shared_patients": {name: result.shared_patients for name, result in built.items()},
            "figures": [count.to_dict() for count in counts],
        }
        report = report_document(findings, generator=GENERATOR, verbatim=options.keep_source_names, extra=extra)
        build = Build(built, findings, report, options.split_by, options.keep_source_names, source.records)
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
    in_examples = [finding for each in files for finding in each.findings]
    repeated = same_pixels(entry for each in files for entry in each.pixels)
    return BuiltConfig(plan, files, (*plan.findings, *in_examples, *repeated))


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


def foreign_file(folder: Path) -> str | None:
    """Return a file in a folder that no build wrote, if there is one. A build that holds only its own files may be replaced."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        known = {file["path"] for config in manifest["configs"].values() for file in config["files"]}
        if not manifest["generator"].startswith("lung_nodule_ct "):
            return MANIFEST
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        known = set()
    else:
        sidecars = own_sidecars(folder)
        known |= {MANIFEST, FINDINGS, *sidecars, *([SIDECARS] if sidecars else [])}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and not (name in known or (known and _KNOWN_FILES.fullmatch(path.name))):
            return name
    return None


def _with_figures(
    findings: Mapping[str, tuple[Finding, ...]], counts: Iterable[FigureCount]
) -> dict[str, tuple[Finding, ...]]:
    """The findings of every config, with those about published counts at the end."""
    extended = dict(findings)
    for count in counts:
        finding = figure_finding(count)
        if finding is not None and count.config is not None:
            extended[count.config] += (finding,)
    return extended


def _finish(stage: Path, build: Build, layout: Layout, source: Source) -> None:
    """Write report, manifest and the files of the layout, then rename the shards to their final names."""
    (stage / FINDINGS).write_text(to_json(build.report), encoding="utf-8")
    (stage / MANIFEST).write_text(to_json(_manifest(build, layout, source)), encoding="utf-8")
    layout.finish(stage, build)
    for config in build.configs.values():
        publish_names(stage, config.files)


def _manifest(build: Build, layout: Layout, source: Source) -> dict[str, Any]:
    numbering = number_scans(source)
    roles = {role for config in build.configs.values() for role in config.plan.config.roles}
    return {
        "format_version": FORMAT_VERSION,
        "generator": GENERATOR,
        "dataset_version": DATASET_VERSION,
        "format": str(layout.format),
        **layout.manifest_extra,
        "split_by": str(build.split_by),
        "keep_source_names": build.keep_source_names,
        "source": source.fingerprints(roles),
        "scan_numbers": {"archives": list(numbering.archives), "sha256": numbering.sha256},
        "records": [
            {"number": record.number, "doi": record.doi, "licence": record.licence} for record in build.records
        ],
        "configs": {
            name: {
                **config_to_json(config.plan.config),
                "rows": config.rows,
                "files": [_file_entry(written) for written in config.files],
            }
            for name, config in build.configs.items()
        },
    }


def _file_entry(written: WrittenShard) -> dict[str, Any]:
    return {
        "path": written.path,
        "split": written.shard.split,
        "rows": written.rows,
        "bytes": written.file_bytes,
        "arrow_bytes": written.arrow_bytes,
    } | ({"sha256": written.sha256} if written.sha256 else {})
