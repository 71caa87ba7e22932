"""A folder of TFDS datasets, ``<folder>/lung_nodule_ct/<config>/<version>/``, that appears whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorflow_datasets as tfds

from lung_nodule_ct.errors import SourceError
from lung_nodule_ct.listeners import BuildListener
from lung_nodule_ct.plan import make_plan
from lung_nodule_ct.report import (
    FINDINGS,
    FORMAT_VERSION,
    GENERATOR,
    MANIFEST,
    report_document,
    shared_patients,
    to_json,
)
from lung_nodule_ct.targets.build import foreign_file, refuse_errors
from lung_nodule_ct.targets.staging import staged_folder
from lung_nodule_ct.targets.tfds_builder import LungNoduleCT

if TYPE_CHECKING:
    from lung_nodule_ct.findings import Finding
    from lung_nodule_ct.source.source import Source
    from lung_nodule_ct.spec.configs import Config


@dataclass(frozen=True)
class TfdsBuild:
    """What was built.

    Attributes:
        rows: Examples by config and split; a config without any is not there.
        findings: By config, those without an example included.
        shared_patients: By config, patients that two splits share, by pair of splits.
    """

    rows: Mapping[str, Mapping[str, int]]
    findings: Mapping[str, tuple[Finding, ...]]
    shared_patients: Mapping[str, Mapping[str, int]]


def build_tfds(
    configs: Sequence[Config],
    source: Source,
    target: Path,
    file_format: str,
    *,
    strict: bool = False,
    beam_options: Sequence[str] | None = None,
    listener: BuildListener | None = None,
) -> TfdsBuild:
    """Build some configs into one folder; a build of ours there is replaced.

    Args:
        configs: What to build.
        source: The archives.
        target: The folder, a ``data_dir`` of TFDS.
        file_format: ``tfrecord`` or ``array_record``.
        strict: Refuse to finish where a finding is of error grade.
        beam_options: Build on Beam, with these options.
        listener: Is told how far it is.

    Raises:
        SourceError: There is no example in any of the configs.
        LungNoduleCTError: As of :func:`lung_nodule_ct.targets.build.build_folder`.
    """
    rows: dict[str, dict[str, int]] = {}
    findings: dict[str, tuple[Finding, ...]] = {}
    shared: dict[str, dict[str, int]] = {}
    with staged_folder(target, foreign_to=foreign_file) as stage:
        for config in configs:
            plan = make_plan(config, source)
            findings[config.name] = plan.findings
            if not plan.units:
                continue
            builder = LungNoduleCT(
                config=config.name,
                data_dir=stage,
                file_format=file_format,
                source=source,
                listener=listener if beam_options is None else None,
            )
            builder.download_and_prepare(download_config=_download_config(beam_options))
            rows[config.name] = {name: split.num_examples for name, split in builder.info.splits.items()}
            findings[config.name] = builder.found or ()
            shared[config.name] = shared_patients(plan)
        if not rows:
            raise SourceError(f"no config has an example in {source.name}: nothing to write")
        if strict:
            refuse_errors(findings)
        shutil.rmtree(stage / "downloads", ignore_errors=True)  # TFDS makes it for downloads that are not made
        report = report_document(findings, generator=GENERATOR, verbatim=False)
        (stage / FINDINGS).write_text(to_json(report), encoding="utf-8")
        (stage / MANIFEST).write_text(to_json(_manifest(stage, rows, file_format)), encoding="utf-8")
    return TfdsBuild(rows, findings, shared)


def _download_config(beam_options: Sequence[str] | None) -> Any:
    if beam_options is None:
        return tfds.download.DownloadConfig()
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions  # noqa: PLC0415 -- an extra

    options = PipelineOptions(list(beam_options))
    runner = options.view_as(StandardOptions).runner or "DirectRunner"
    return tfds.download.DownloadConfig(beam_options=options, beam_runner=runner)


def _manifest(stage: Path, rows: Mapping[str, Mapping[str, int]], file_format: str) -> dict[str, Any]:
    files: dict[str, list[dict[str, Any]]] = {config: [] for config in rows}
    for path in sorted(path for path in stage.rglob("*") if path.is_file() and path.parent != stage):
        place = path.relative_to(stage)
        # lung_nodule_ct/<config>/…; what TFDS notes of all configs together is counted to the first
        config = next((part for part in place.parts[1:2] if part in files), next(iter(files)))
        files[config].append({"path": place.as_posix(), "bytes": path.stat().st_size})
    configs = {config: {"rows": dict(counts), "files": files[config]} for config, counts in rows.items()}
    return {"format_version": FORMAT_VERSION, "generator": GENERATOR, "format": file_format, "configs": configs}
