"""What a build states about itself, in ``findings.json`` and ``build.json``, with the entries of the configs that are kept.

Both are equal to those of a build of all configs at once, in the order of the declaration. Published counts compare several configs, so kept
configs are planned again where the source allows it; otherwise their counts are kept as they were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lung_nodule_ct.declaration.archives import ARCHIVES, RELEASES
from lung_nodule_ct.declaration.configs import CONFIGS
from lung_nodule_ct.declaration.findings import Finding
from lung_nodule_ct.declaration.manifest import (
    DATASET_VERSION,
    FORMAT_VERSION,
    GENERATOR,
    MANIFEST,
    config_to_json,
    manifest_text,
    shard_files,
    with_files,
)
from lung_nodule_ct.declaration.published import FIGURES
from lung_nodule_ct.errors import LungNoduleCTError
from lung_nodule_ct.examples.family import number_scans
from lung_nodule_ct.examples.plan import make_plan
from lung_nodule_ct.examples.report import compare_figures, figure_finding, report_document
from lung_nodule_ct.read.sidecars import record_file
from lung_nodule_ct.read.verification import files_in

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from lung_nodule_ct.declaration.published import FigureCount
    from lung_nodule_ct.examples.plan import Plan
    from lung_nodule_ct.sources.source import Source
    from lung_nodule_ct.targets.existing import ExistingBuild
    from lung_nodule_ct.targets.options import BuildOptions
    from lung_nodule_ct.targets.shards import Build, BuiltConfig, Layout, WrittenShard


def manifest_header(layout: Layout, options: BuildOptions) -> dict[str, Any]:
    """What the manifest states about the options of a build. A config can only be added to a build for which it is the same."""
    return {
        "format_version": FORMAT_VERSION,
        "generator": GENERATOR,
        "dataset_version": DATASET_VERSION,
        "format": str(layout.format),
        **layout.manifest_extra,
        "split_by": str(options.split_by),
        "keep_source_names": options.keep_source_names,
        "limit": options.limit,
    }


def manifest(header: Mapping[str, Any], build: Build, source: Source, base: ExistingBuild | None) -> dict[str, Any]:
    """Return the content of ``build.json``.

    Args:
        header: The result of :func:`manifest_header`.
        build: What was built now.
        source: Its archives.
        base: The build whose other configs are kept.
    """
    archives = source.fingerprints({role for config in build.configs.values() for role in config.plan.config.roles})
    records = {
        record.number: {
            "number": record.number,
            "doi": record.doi,
            "licence": record.licence,
            "datePublished": record.published,  # the name in schema.org, which the search for dates of patients knows
        }
        for record in build.records
    }
    configs = {name: _config_entry(config) for name, config in build.configs.items()}
    if base is not None:
        archives = {**base.archives_of(build.kept), **archives}
        records = {**{record["number"]: record for record in base.manifest["records"]}, **records}
        configs = {**{name: base.kept_entry(name) for name in build.kept}, **configs}
    known_records = [number for release in RELEASES for number in (release.part_a, release.part_b)]
    return {
        **header,
        "source": _in_order(archives, [spec.name for spec in ARCHIVES]),
        "scan_numbers": scan_numbers(source),
        "records": list(_in_order(records, known_records).values()),
        "configs": _in_order(configs, CONFIGS),
    }


def scan_numbers(source: Source) -> dict[str, Any]:
    """What a manifest states about the numbers of scans: the archives that they come from, and their hash."""
    numbering = number_scans(source)
    return {"archives": list(numbering.archives), "sha256": numbering.sha256}


def write_manifest(folder: Path, document: Mapping[str, Any], by_user: Collection[str] = ()) -> None:
    """Write ``build.json`` into a folder that is complete otherwise, with size and SHA-256 of every file.

    Args:
        folder: The folder.
        document: The result of :func:`manifest`.
        by_user: Files that this package did not write, which are not recorded.

    Raises:
        OSError: A file cannot be read or written.
    """
    names = files_in(folder) - {MANIFEST, *shard_files(document), *by_user}
    recorded = with_files(document, {name: record_file(folder, name) for name in names})
    (folder / MANIFEST).write_bytes(manifest_text(recorded).encode())


def findings_report(
    plans: Sequence[Plan],
    results: Mapping[str, BuiltConfig],
    source: Source,
    options: BuildOptions,
    base: ExistingBuild | None,
    kept: Sequence[str],
) -> tuple[dict[str, tuple[Finding, ...]], dict[str, Any]]:
    """Return the findings of the configs that were built, and the content of ``findings.json``.

    Args:
        plans: The plans of the configs that were built.
        results: The results, by config.
        source: The archives.
        options: The options of the build.
        base: The build whose other configs are kept.
        kept: These configs.
    """
    planned = {plan.config.name: plan for plan in plans}
    for name in kept:
        plan = _plan_again(name, source, options)
        planned |= {} if plan is None else {name: plan}
    counts = compare_figures(_in_order(planned, CONFIGS).values())
    findings = {name: result.findings for name, result in results.items()}
    account = {name: result.account.to_dict() for name, result in results.items()}
    shared = {name: result.shared_patients for name, result in results.items() if result.files}
    figures = {count.figure.name: count.to_dict() for count in counts}
    if base is not None:
        findings |= {name: base.findings_of(name, without_figures=name in planned) for name in kept}
        account |= {name: value for name, value in base.report["account"].items() if name in kept}
        shared |= {name: value for name, value in base.report["shared_patients"].items() if name in kept}
        if len(planned) < len(plans) + len(kept):
            figures = {**{entry["figure"]: entry for entry in base.report["figures"]}, **figures}
    findings = _with_figures(_in_order(findings, CONFIGS), counts)
    extra = {
        "account": _in_order(account, CONFIGS),
        "shared_patients": _in_order(shared, CONFIGS),
        "figures": list(_in_order(figures, [figure.name for figure in FIGURES]).values()),
    }
    report = report_document(findings, generator=GENERATOR, verbatim=options.keep_source_names, extra=extra)
    return {name: findings[name] for name in results}, report


def _plan_again(name: str, source: Source, options: BuildOptions) -> Plan | None:
    """The plan of a kept config; ``None`` if the source lacks its archives."""
    try:
        return make_plan(CONFIGS[name], source, options.split_by, limit=options.limit) if name in CONFIGS else None
    except LungNoduleCTError:
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


def _config_entry(config: BuiltConfig) -> dict[str, Any]:
    return {
        **config_to_json(config.plan.config),
        "computed": config.plan.computed.to_json(),
        "rows": config.rows,
        "files": [_file_entry(written) for written in config.files],
    }


def _file_entry(written: WrittenShard) -> dict[str, Any]:
    return {
        "path": written.path,
        "split": written.shard.split,
        "rows": written.rows,
        "bytes": written.file_bytes,
        "arrow_bytes": written.arrow_bytes,
        "sha256": written.sha256,
    }


def _in_order(entries: Mapping[Any, Any], order: Iterable[Any]) -> dict[Any, Any]:
    """The entries in some order of their keys; those with other keys at the end."""
    first = {key: entries[key] for key in order if key in entries}
    return {**first, **entries}
